//! A long random run of all operations against a plain model: one record a page, and every question
//! answered by looking at all of them.

use super::*;
use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

const GIB: u64 = 1 << 30;
/// RAM from 1 GiB on, with a hole: 4 MiB of RAM, 2 MiB of nothing, RAM to the end of the GiB; and a
/// whole GiB apart.
const HOLE: core::ops::Range<u64> = GIB + (4 << 20)..GIB + (6 << 20);
const FAR: u64 = 5 * GIB;

struct Model {
    owners: BTreeMap<u64, VmHandle>,
    shares: BTreeMap<(u64, u64), u32>,
}

impl Model {
    fn is_ram(address: u64) -> bool {
        (GIB..2 * GIB).contains(&address) && !HOLE.contains(&address)
            || (FAR..FAR + GIB).contains(&address)
    }

    fn all_host(&self, start: u64, bytes: u64) -> bool {
        let ram = Self::is_ram(start)
            && Self::is_ram(start + bytes - 1)
            && (bytes < GIB || !(start..start + bytes).contains(&HOLE.start));
        ram && self.owners.range(start..start + bytes).next().is_none()
    }

    fn share(&mut self, start: u64, bytes: u64) -> Status {
        if !self.all_host(start, bytes) {
            return Err(Error::NotOwner);
        }
        *self.shares.entry((bytes, start)).or_default() += 1;
        Ok(())
    }

    fn unshare(&mut self, start: u64, bytes: u64) -> bool {
        let count = self.shares.get(&(bytes, start)).copied().unwrap_or(0);
        match count {
            0 => return false,
            1 => drop(self.shares.remove(&(bytes, start))),
            _ => drop(self.shares.insert((bytes, start), count - 1)),
        }
        true
    }

    fn shares_over(&self, page: u64) -> u64 {
        let of = |bytes| self.shares.get(&(bytes, page & !(bytes - 1))).copied().unwrap_or(0);
        [4096, 2 << 20, 1 << 30].map(|bytes| u64::from(of(bytes))).iter().sum()
    }

    fn donate(&mut self, page: u64, vm: VmHandle) -> Status {
        if !self.all_host(page, 4096) {
            return Err(Error::NotOwner);
        }
        if self.shares_over(page) > 0 {
            return Err(Error::Busy);
        }
        self.owners.insert(page, vm);
        Ok(())
    }

    fn give_back(&mut self, page: u64, vm: VmHandle) -> Status {
        if self.owners.get(&page) != Some(&vm) {
            return Err(Error::NotOwner);
        }
        self.owners.remove(&page);
        Ok(())
    }

    fn state(&self, page: u64) -> PageState {
        let owner = match self.owners.get(&page) {
            Some(vm) => Owner::Vm(*vm),
            None if Self::is_ram(page) => Owner::Host,
            None => Owner::None,
        };
        PageState { owner, shares: self.shares_over(page) }
    }
}

/// Numbers from a linear congruential generator (Knuth's MMIX): the run repeats.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    /// A few pages of a few blocks, so that operations meet: also of the hole and of no RAM.
    fn page(&mut self) -> u64 {
        let giga = [GIB, FAR, 3 * GIB, GIB, FAR][self.below(5) as usize];
        giga + self.below(4) * (2 << 20) + self.below(4) * 4096
    }
}

fn table(words: &[AtomicU32]) -> Ownership<'_> {
    Ownership::new(&ram(), &[PaRange::new(HOLE.start, 512).unwrap()], words).unwrap()
}

fn ram() -> Vec<PaRange> {
    vec![PaRange::new(GIB, 1 << 18).unwrap(), PaRange::new(FAR, 1 << 18).unwrap()]
}

fn step(random: &mut Random, model: &mut Model, table: &Ownership<'_>) {
    let (size, bytes) = [
        (LeafSize::Page, 4096),
        (LeafSize::Page, 4096),
        (LeafSize::Block2M, 2 << 20),
        (LeafSize::Block1G, 1 << 30),
    ][random.below(4) as usize];
    let page = random.page();
    let (start, vm) = (page & !(bytes - 1), VmHandle(1 + random.below(2) as u16));
    match random.below(8) {
        0 | 1 => assert_eq!(table.share(Pa(start), size), model.share(start, bytes)),
        2..=4 => {
            if model.unshare(start, bytes) {
                table.unshare(Pa(start), size);
            }
        }
        5 => assert_eq!(table.donate(Pa(page), vm), model.donate(page, vm)),
        6 => assert_eq!(table.give_back(Pa(page), vm), model.give_back(page, vm)),
        _ => assert_eq!(table.query(Pa(page)), model.state(page)),
    }
}

#[test]
fn a_long_random_run_equals_the_model() {
    let bytes = Ownership::memory_needed(&ram()).unwrap();
    let words: Vec<_> = (0..bytes / 4).map(|_| AtomicU32::new(0)).collect();
    let fresh = || words.iter().map(|word| word.load(Ordering::Relaxed)).collect::<Vec<_>>();
    let table = table(&words);
    let before = fresh();
    let mut model = Model { owners: BTreeMap::new(), shares: BTreeMap::new() };
    let mut random = Random(20_260_101);
    (0..300_000).for_each(|_| step(&mut random, &mut model, &table));
    // Undone, every word is what it was: no operation has left a trace elsewhere.
    for (&page, &vm) in &model.owners {
        table.give_back(Pa(page), vm).unwrap();
    }
    for (&(bytes, start), &count) in &model.shares {
        let size = match bytes {
            4096 => LeafSize::Page,
            0x20_0000 => LeafSize::Block2M,
            _ => LeafSize::Block1G,
        };
        (0..count).for_each(|_| table.unshare(Pa(start), size));
    }
    assert_eq!(fresh(), before);
}
