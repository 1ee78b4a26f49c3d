//! Random sequences of all operations against a plain model, on the lazy TLB.
//!
//! After each operation the leaves that a walker finds in the real table memory are exactly the model's,
//! bit by bit: nothing else may have changed. The TLB checks at every step that nothing is reported while
//! it could still be used. Each configuration has its own geometry and features.
#![cfg(not(loom))]

mod support;

use std::collections::BTreeMap;
use support::Machine;
use support::model::*;
use verdigris_abi::flags::{MAP_OLD, PROT_EXEC, PROT_WRITE};
use verdigris_stage2::{
    AgeFlush, Attributes, Config, Error, Ipa, Level, Map, NoDirty, Outcome, Pa, Range, Set, Stage2,
};

/// Where things happen: few places, so that operations meet.
const WINDOW_PAGES: u64 = 3 * 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Leaf {
    level: u32,
    pa: u64,
    write: bool,
    /// Dirty when it was protected.
    written: bool,
    exec: bool,
    young: bool,
}

fn level_pages(level: u32) -> u64 {
    1 << (9 * (3 - level))
}

/// The address space: leaves by their first page.
#[derive(Clone, Default)]
struct Model(BTreeMap<u64, Leaf>);

impl Model {
    fn at(&self, page: u64) -> Option<(u64, Leaf)> {
        let (&start, &leaf) = self.0.range(..=page).next_back()?;
        (page < start + level_pages(leaf.level)).then_some((start, leaf))
    }

    /// Takes a range away, splitting blocks that reach past it.
    fn unmap(&mut self, start: u64, end: u64) {
        let inside: Vec<u64> = self.0.keys().copied().filter(|&at| at < end).collect();
        for at in inside {
            let leaf = self.0[&at];
            let leaf_end = at + level_pages(leaf.level);
            if leaf_end <= start {
                continue;
            }
            self.0.remove(&at);
            if start <= at && leaf_end <= end {
                continue;
            }
            let step = level_pages(leaf.level + 1);
            for part in (at..leaf_end).step_by(step as usize) {
                let pa = leaf.pa + (part - at) * PAGE;
                self.0.insert(part, Leaf { level: leaf.level + 1, pa, ..leaf });
            }
            return self.unmap(start, end);
        }
    }

    fn bits(&self, start: u64, count: u64) -> Vec<u64> {
        let mut words = vec![0; count.div_ceil(64) as usize];
        for page in (0..count).filter(|page| self.at(start + page).is_some_and(|at| at.1.young)) {
            words[(page / 64) as usize] |= 1 << (page % 64);
        }
        words
    }

    /// Applies a change to every leaf that has a page in the range.
    fn change(&mut self, start: u64, end: u64, change: impl Fn(&mut Leaf)) {
        for (&at, leaf) in &mut self.0 {
            if at < end && start < at + level_pages(leaf.level) {
                change(leaf);
            }
        }
    }
}

/// A small generator (xorshift64*): the seed is printed with a failure.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }
}

struct Run {
    machine: Machine,
    vm: Stage2,
    model: Model,
    random: Random,
    /// The first page of the window.
    base: u64,
    config: Config,
}

impl Run {
    fn new(seed: u64, ipa_bits: u32, config: Config) -> Self {
        // At the top of the address space, so that the root's last page is in use.
        let base = (1u64 << (ipa_bits - 12)) - 4 * 512;
        let hot: Vec<u64> = (0..6).map(|index| (base + index * 307) * PAGE).collect();
        let (machine, vm) = Machine::with_vm(60, ipa_bits, config, &hot);
        Self { machine, vm, model: Model::default(), random: Random(seed), base, config }
    }

    fn range(&mut self) -> (u64, u64) {
        let longest = [1, 8, 80, 600][self.random.below(4) as usize];
        let start = self.random.below(WINDOW_PAGES);
        let count = 1 + self.random.below(longest);
        (self.base + start, count.min(WINDOW_PAGES - start))
    }

    fn flags(&mut self) -> u64 {
        let mut flags = 1;
        for flag in [PROT_WRITE, PROT_EXEC, MAP_OLD] {
            flags |= if self.random.chance(2) { flag } else { 0 };
        }
        flags
    }

    /// Maps pages or a block; the model says what has to come out.
    fn map(&mut self) {
        let (mut start, mut count) = self.range();
        let level = if self.random.chance(3) { 2 } else { 3 };
        if level == 2 {
            start &= !511;
            count = 512;
        }
        let flags = self.flags();
        let pa = 0x1_0000_0000
            + (start - self.base) * PAGE
            + if self.random.chance(8) { 2 * MIB } else { 0 };
        let request = Map {
            ipa: Ipa(start * PAGE),
            pa: Pa(pa),
            page_count: count,
            level: if level == 2 { Level::L2 } else { Level::L3 },
            attributes: Attributes::guest(flags),
            sequence: self.vm.sequence(),
        };
        let outcome = self.vm.map(&self.machine, &request);
        let mut done = 0;
        while done < count && self.expect_mapped(start + done, level, pa + done * PAGE, flags) {
            done += level_pages(level);
        }
        // A block over a table is in the way even if the table is empty.
        let error = (done < count).then_some(Error::Exists);
        if level == 2 && outcome == Outcome::stopped(0, Error::Exists) && error.is_none() {
            self.model.0.remove(&start);
            return;
        }
        assert_eq!(outcome, Outcome { pages: done, error });
    }

    /// Puts a leaf into the model; `false` if another is in the way.
    fn expect_mapped(&mut self, page: u64, level: u32, pa: u64, flags: u64) -> bool {
        let write = flags & PROT_WRITE != 0;
        let (exec, young) = (flags & PROT_EXEC != 0, flags & MAP_OLD == 0);
        let new = Leaf { level, pa, write, written: false, exec, young };
        let span = page..page + level_pages(level);
        match self.model.at(page) {
            Some((start, old)) if (start, old.level, old.pa) == (page, level, pa) => {
                let leaf = self.model.0.get_mut(&page).unwrap();
                *leaf = Leaf { write: old.write | write, exec: old.exec | exec, ..old };
                true
            }
            Some(_) => false,
            None if self.model.0.range(span).next().is_some() => false,
            None => self.model.0.insert(page, new).is_none(),
        }
    }

    fn unmap(&mut self) {
        let (start, count) = self.range();
        let range = self.vm.range(Ipa(start * PAGE), count).unwrap();
        let before: u64 = self.model.0.len() as u64;
        if self.random.chance(2) {
            self.invalidate(range);
        } else {
            self.unmap_all_of(range);
        }
        self.model.unmap(start, start + count);
        let removed = self.machine.take_removed().len();
        assert!(removed as u64 <= before);
    }

    /// Lets an interrupt come at some moment, or none; it is taken between two calls.
    fn interrupt(&mut self) {
        let after = self.random.below(12);
        self.machine.interrupt_after.set((after < 6).then_some(after));
    }

    /// Begin, resumed or not, and end, until it is done.
    fn invalidate(&mut self, range: Range) {
        self.interrupt();
        let mut done = self.vm.invalidate_begin(&self.machine, range, false, 0, &mut NoDirty).pages;
        while done < range.page_count() && self.random.chance(2) {
            self.interrupt();
            done = self.vm.invalidate_begin(&self.machine, range, true, done, &mut NoDirty).pages;
        }
        loop {
            self.interrupt();
            done = self.vm.invalidate_end(&self.machine, range, done, &mut NoDirty).pages;
            if done == range.page_count() {
                return self.machine.interrupt_after.set(None);
            }
        }
    }

    fn unmap_all_of(&mut self, range: Range) {
        let mut rest = range;
        while rest.start < rest.end {
            self.interrupt();
            let outcome = self.vm.unmap(&self.machine, rest, &mut NoDirty);
            assert_eq!(outcome.error, None);
            rest.start += outcome.pages;
        }
        self.machine.interrupt_after.set(None);
    }

    fn set(&mut self) {
        let (page, _) = self.range();
        let flags = self.flags() & !MAP_OLD;
        let pa = 0x2_0000_0000 + self.random.below(64) * PAGE;
        let request = Set {
            ipa: Ipa(page * PAGE),
            pa: Pa(pa),
            level: Level::L3,
            attributes: Attributes::guest(flags),
            sequence: self.vm.sequence(),
        };
        let (write, exec) = (flags & PROT_WRITE != 0, flags & PROT_EXEC != 0);
        let expected = match self.model.at(page) {
            Some((_, old)) if old.level != 3 => Err(Error::Exists),
            old => {
                let young = old.is_none_or(|(_, old)| old.young);
                let write = write && old.is_none_or(|(_, old)| old.write);
                // A page that stays, and stays dirty, is not reported yet.
                let lost = old
                    .is_some_and(|(_, old)| (old.write || old.written) && !(old.pa == pa && write));
                self.model
                    .0
                    .insert(page, Leaf { level: 3, pa, write, written: false, exec, young });
                Ok(lost)
            }
        };
        assert_eq!(self.vm.set(&self.machine, &request), expected);
        self.machine.take_removed();
    }

    fn age(&mut self) {
        let (start, count) = self.range();
        let range = self.vm.range(Ipa(start * PAGE), count).unwrap();
        let expected = self.model.bits(start, count);
        let mut words = Vec::new();
        if self.random.chance(2) {
            let outcome = self.vm.test_age(&self.machine, range, |_, word| words.push(word));
            assert_eq!(outcome, Outcome::done(count));
        } else {
            let flush = [AgeFlush::None, AgeFlush::Young, AgeFlush::All];
            let flush = flush[self.random.below(3) as usize];
            let outcome = self.vm.age(&self.machine, range, flush, |_, word| words.push(word));
            assert_eq!(outcome, Outcome::done(count));
            self.model.change(start, start + count, |leaf| leaf.young = false);
        }
        assert_eq!(words, expected);
    }

    fn protect(&mut self) {
        let (start, count) = self.range();
        let range = self.vm.range(Ipa(start * PAGE), count).unwrap();
        assert_eq!(self.vm.write_protect(&self.machine, range), Outcome::done(count));
        self.model.change(start, start + count, |leaf| {
            leaf.written |= leaf.write;
            leaf.write = false;
        });
        let tlb = self.machine.tlb.borrow();
        tlb.as_ref().unwrap().assert_no_writes(start * PAGE, (start + count) * PAGE);
    }

    fn touch(&mut self) {
        let (page, _) = self.range();
        let mapped = self.machine.touch(self.vm.root().geometry(), page * PAGE);
        let leaf = self.model.at(page);
        assert_eq!(mapped, leaf.is_some());
        if let Some((start, _)) = leaf {
            self.model.0.get_mut(&start).unwrap().young = true;
        }
    }

    /// Compares the whole tree with the model, and the shares with both.
    fn compare(&self) {
        let geometry = self.vm.root().geometry();
        let found = all_leaves(&self.machine, geometry.ipa_bits(), geometry.sl0());
        let memory_type = if self.config.fwb { 0b0110 } else { 0b1111 };
        let expected = self.model.0.iter().map(|(&page, leaf)| {
            let raw = leaf.pa
                | memory_type << 2
                | 1 << 6
                | 0b11 << 8
                | if leaf.write { WRITE } else { 0 }
                | if leaf.written { 1 << 56 } else { 0 }
                | if leaf.exec { 0 } else { NO_EXEC }
                | if leaf.young { YOUNG } else { 0 }
                | if leaf.level == 3 { 0b11 } else { 0b01 };
            (page * PAGE, raw, leaf.level)
        });
        assert!(found.iter().copied().eq(expected), "{found:x?} {:x?}", self.model.0);
        let shares: u64 = self.machine.shares.borrow().values().sum();
        assert_eq!(shares, self.model.0.len() as u64, "one share a leaf");
    }

    fn step(&mut self) {
        match self.random.below(16) {
            0..=4 => self.map(),
            5..=7 => self.unmap(),
            8 => self.set(),
            9..=11 => self.age(),
            12 => self.protect(),
            _ => self.touch(),
        }
        self.machine.reenter();
        self.machine.take_steps();
        self.compare();
    }
}

const fn config(bits: u32) -> Config {
    Config {
        fwb: bits & 1 != 0,
        tlb_range: bits & 2 != 0,
        ttl: bits & 4 != 0,
        repeat: bits & 8 != 0,
        dic: bits & 1 != 0,
        hd: false,
        bbm2: false,
        skip: false,
    }
}

fn run(seed: u64, steps: u32, ipa_bits: u32, config: Config) {
    let mut run = Run::new(seed, ipa_bits, config);
    for step in 0..steps {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.step()));
        assert!(result.is_ok(), "seed {seed:#x}, step {step}, {ipa_bits} bits, {config:?}");
    }
    let all = run.vm.range(Ipa(0), run.vm.root().geometry().ipa_bytes() / PAGE).unwrap();
    assert_eq!(run.vm.unmap(&run.machine, all, &mut NoDirty), Outcome::done(all.page_count()));
    run.machine.reenter();
    run.vm.reap(&run.machine);
    run.machine.reenter();
    while !run.vm.reap(&run.machine) {
        run.machine.reenter();
    }
    assert_eq!(run.machine.allocated.get(), 0, "all tables are back");
    assert!(run.machine.shares.borrow().is_empty());
}

/// Steps for each configuration; `VERDIGRIS_STEPS` asks for more.
fn steps() -> u32 {
    let asked = std::env::var("VERDIGRIS_STEPS").ok().and_then(|steps| steps.parse().ok());
    asked.unwrap_or(if cfg!(miri) { 6 } else { 400 })
}

fn seed() -> u64 {
    let asked = std::env::var("VERDIGRIS_SEED").ok().and_then(|seed| seed.parse().ok());
    asked.unwrap_or(0x5eed_0001)
}

#[test]
fn random_operations_do_what_the_model_does() {
    let geometries: &[u32] = if cfg!(miri) { &[40] } else { &[32, 34, 36, 39, 40, 42, 48] };
    let configs = if cfg!(miri) { 1..2 } else { 0..16 };
    for (round, bits) in configs.enumerate() {
        let ipa_bits = geometries[round % geometries.len()];
        run(seed() + u64::from(bits), steps(), ipa_bits, config(bits));
    }
}
