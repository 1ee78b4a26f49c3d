//! What host CPUs do to the memory meanwhile, as a table: each operation on a range chosen at random.

use std::ops::Range;

use verdigris_abi::{Error, flags};

use super::{BLOCK_PAGES, Memory, Random};
use crate::bits::Bits;
use crate::guest::Guest;
use crate::pages::Pages;
use crate::working_set::WorkingSet;

/// What an operation has to work with.
pub struct Worker<'memory> {
    /// The memory.
    pub memory: &'memory Memory,
    /// Random numbers of its own.
    pub random: Random,
    /// A page for answers.
    pub buffer: Pages,
}

/// One operation.
pub struct Operation {
    /// What it is called in the report.
    pub name: &'static str,
    /// Does it once, and tells whether it found what it works on.
    pub run: fn(&mut Worker) -> bool,
}

/// Every operation there is.
pub const ALL: &[Operation] = &[
    operation("age", age),
    operation("test age", test_age),
    operation("flush", flush),
    operation("harvest and copy", harvest),
    operation("write-protect", write_protect),
    operation("unmap", unmap),
    operation("unmap without bits", unmap_blindly),
    operation("begin and end", begin_and_end),
    operation("begin left to end", begin_left_to_end),
    operation("move a page", move_page),
    operation("replace a page", replace_page),
    operation("move a block", move_block),
    operation("split", split),
    operation("collapse", collapse),
    operation("reclaim tables", reclaim_tables),
    operation("working set", working_set),
    operation("reclaim cold pages", reclaim_cold),
    operation("create and end a VM", create_and_end),
];

const fn operation(name: &'static str, run: fn(&mut Worker) -> bool) -> Operation {
    Operation { name, run }
}

/// Finds operations by their names.
pub fn named(names: &[&str]) -> Vec<&'static Operation> {
    let find = |name: &&str| ALL.iter().find(|operation| operation.name == *name);
    names.iter().map(|name| find(name).expect("the name of an operation")).collect()
}

impl Worker<'_> {
    fn guest(&self) -> &Guest {
        self.memory.guest()
    }

    /// Chooses a range: often a few pages, sometimes most of the memory.
    fn range(&mut self) -> Range<usize> {
        let total = self.memory.page_count();
        let longest = [1, 8, 64, BLOCK_PAGES, total][self.random.below(5)];
        let count = 1 + self.random.below(longest.min(total));
        let first = self.random.below(total - count + 1);
        first..first + count
    }

    /// Chooses whole blocks of the part that has them.
    fn blocks(&mut self) -> Range<usize> {
        let first = self.memory.leader(self.memory.any_of_a_block(&mut self.random));
        first..first + BLOCK_PAGES
    }

    /// Chooses where bits go.
    fn to(&mut self) -> Bits<'_> {
        if self.random.below(2) == 0 { Bits::Registers } else { Bits::Buffer(&self.buffer) }
    }
}

fn place(range: &Range<usize>) -> (u64, u64) {
    (Memory::ipa(range.start), range.len() as u64)
}

fn any(bits: &[bool]) -> bool {
    bits.contains(&true)
}

fn age(worker: &mut Worker) -> bool {
    let (ipa, count) = place(&worker.range());
    let modes = [flags::AGE_NO_FLUSH, flags::AGE_FLUSH_YOUNG, flags::AGE_FLUSH_ALL];
    let mode = modes[worker.random.below(3)];
    any(&match worker.random.below(2) {
        0 => worker.guest().age(ipa, count, mode),
        _ => worker.guest().age_by_buffer(ipa, count, mode, &worker.buffer),
    })
}

fn test_age(worker: &mut Worker) -> bool {
    let (ipa, count) = place(&worker.range());
    any(&worker.guest().test_age(ipa, count))
}

fn flush(worker: &mut Worker) -> bool {
    worker.guest().flush().expect("the VM exists");
    true
}

fn harvest(worker: &mut Worker) -> bool {
    let range = worker.range();
    let memory = worker.memory;
    memory.harvest_and_copy(range, worker.to())
}

fn write_protect(worker: &mut Worker) -> bool {
    let (ipa, count) = place(&worker.range());
    worker.guest().write_protect(ipa, count).expect("a good range");
    true
}

fn unmap(worker: &mut Worker) -> bool {
    let range = worker.range();
    let (ipa, count) = place(&range);
    let memory = worker.memory;
    let dirty = memory.guest.unmap_dirty(ipa, count, worker.to());
    memory.note_dirty(range.start, &dirty);
    any(&dirty)
}

/// Without the final bits the host has to take every page as written.
fn unmap_blindly(worker: &mut Worker) -> bool {
    let range = worker.range();
    let (ipa, count) = place(&range);
    worker.guest().unmap(ipa, count).expect("a good range");
    worker.memory.note_dirty(range.start, &vec![true; range.len()]);
    true
}

fn begin_and_end(worker: &mut Worker) -> bool {
    let range = worker.range();
    let (ipa, count) = place(&range);
    let memory = worker.memory;
    let dirty = memory.guest.begin_dirty(ipa, count, worker.to());
    memory.note_dirty(range.start, &dirty);
    memory.guest.invalidate_end(ipa, count, count).expect("a mark of ours");
    any(&dirty)
}

/// Begins by one call only: what it leaves is for the end to do.
fn begin_left_to_end(worker: &mut Worker) -> bool {
    let range = worker.range();
    let (ipa, count) = place(&range);
    let memory = worker.memory;
    let to = worker.to();
    let step = memory.guest.begin_dirty_step(ipa, count, None, to).expect("begin never fails");
    memory.note_dirty(range.start, &step.dirty);
    let rest = memory.guest.end_dirty(ipa, count, step.done, to).expect("a mark of ours");
    memory.note_dirty(range.start + step.done as usize, &rest);
    any(&step.dirty) || any(&rest)
}

fn move_page(worker: &mut Worker) -> bool {
    let page = worker.memory.any_loose(&mut worker.random);
    worker.memory.move_page(page)
}

fn replace_page(worker: &mut Worker) -> bool {
    let page = worker.memory.any_loose(&mut worker.random);
    worker.memory.replace_page(page)
}

fn move_block(worker: &mut Worker) -> bool {
    let page = worker.memory.any_of_a_block(&mut worker.random);
    worker.memory.move_block(page, &worker.buffer)
}

fn split(worker: &mut Worker) -> bool {
    let (ipa, count) = place(&worker.range());
    match worker.guest().split(ipa, count, 0) {
        Ok(()) => true,
        // No table page, or an invalidation of the place is under way.
        Err(Error::NoMemory | Error::Retry) => false,
        Err(error) => panic!("split: {error}"),
    }
}

/// Makes a block of pages as Linux does: first those that aren't there are mapped.
fn collapse(worker: &mut Worker) -> bool {
    let range = worker.blocks();
    let (ipa, count) = place(&range);
    worker.memory.fill_block(range.start);
    match worker.guest().collapse(ipa, count, flags::MAP_BLOCK_2M) {
        Ok(()) => true,
        // Holes, pages of which some may be written and some not, or somebody else at work.
        Err(Error::Exists | Error::Retry | Error::NoEntry) => false,
        Err(error) => panic!("collapse: {error}"),
    }
}

/// Empties a table by halves, which leaves it linked, and asks for it.
fn reclaim_tables(worker: &mut Worker) -> bool {
    let memory = worker.memory;
    let first = worker.random.below(memory.page_count()) & !(BLOCK_PAGES - 1);
    for half in [first, first + BLOCK_PAGES / 2] {
        let count = BLOCK_PAGES as u64 / 2;
        let dirty = memory.guest.unmap_dirty(Memory::ipa(half), count, worker.to());
        memory.note_dirty(half, &dirty);
    }
    let result = memory.guest.reclaim_tables(Memory::ipa(first), BLOCK_PAGES as u64);
    result.expect("a good range");
    true
}

/// Keeps ages for a moment: the region comes back as it was lent.
fn working_set(worker: &mut Worker) -> bool {
    let range = worker.range();
    let (ipa, count) = place(&range);
    let set = match WorkingSet::create(worker.guest(), ipa, count) {
        Ok(set) => set,
        // Another worker's overlaps.
        Err(Error::Exists | Error::Limit) => return false,
        Err(error) => panic!("a working set of {count} pages: {error}"),
    };
    worker.guest().age_by_buffer(ipa, count, flags::AGE_FLUSH_ALL, &worker.buffer);
    let sum: u64 = set.histogram().iter().sum();
    assert_eq!(sum, count, "a histogram that doesn't add up");
    assert_eq!(set.ages(&worker.buffer).len(), range.len());
    let returned = set.destroy().expect("it was created");
    assert_eq!(returned, (set.region().address(0), 1), "another region than was lent");
    true
}

/// Takes away what an age with an invalidation found old: the epoch may prove that nothing caches it.
fn reclaim_cold(worker: &mut Worker) -> bool {
    let range = worker.range();
    let (ipa, count) = place(&range);
    let memory = worker.memory;
    let young = memory.guest.age_by_buffer(ipa, count, flags::AGE_FLUSH_ALL, &worker.buffer);
    for (index, _) in young.iter().enumerate().filter(|(_, young)| !**young) {
        let page = range.start + index;
        let dirty = memory.guest.unmap_dirty(Memory::ipa(page), 1, Bits::Registers);
        memory.note_dirty(page, &dirty);
    }
    young.contains(&false)
}

fn create_and_end(worker: &mut Worker) -> bool {
    let guest = Guest::new(1);
    let value = worker.random.next();
    let echoed = guest.cpu(0).call(verdigris_guest::program::ECHO, &[value]);
    assert_eq!(echoed[0], value, "a VM of its own");
    true
}
