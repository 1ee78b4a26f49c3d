//! Random sequences of taking, reading, writing and giving back pages of the host, beside a plain model and a
//! TLB that caches walks and leaves for as long as it may.
#![cfg(not(loom))]

mod support;

use std::collections::BTreeSet;

use support::Machine;
use support::tlb::LazyTlb;
use verdigris_stage2::flush::Config;
use verdigris_stage2::{Attributes, Error, Geometry, HostFault, Identity, Ipa, Pa};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
const ZERO: u64 = 0x77_7777_7000;
/// RAM: a page and blocks of 2 MiB that no larger block stands for, and two GiB.
const RAM: [u64; 2] = [GIB - 4 * MIB - 4096, 3 * GIB];
/// What the firmware keeps, below it.
const KEPT: u64 = 512 * MIB;

/// What the host should find.
#[derive(Default)]
struct Model {
    /// Pages that are away.
    away: BTreeSet<u64>,
    /// Those of them that the host has read.
    read: BTreeSet<u64>,
}

impl Model {
    /// Returns where a read arrives, if it does without a fault, and whether a write does.
    fn translation(&self, page: u64) -> Option<(u64, bool)> {
        match (page < RAM[0] || self.read.contains(&page), self.away.contains(&page)) {
            (true, _) => Some((ZERO, false)),
            (false, true) => None,
            (false, false) => Some((page, true)),
        }
    }

    /// Returns how many tables the pages that are away cost: one for each of their blocks.
    fn tables(&self) -> usize {
        let blocks = |bytes: u64, from: u64| {
            let whole = self.away.iter().filter(|&&page| page >= from);
            whole.map(|page| page / bytes).collect::<BTreeSet<_>>().len()
        };
        blocks(2 * MIB, GIB - 4 * MIB) + blocks(GIB, GIB)
    }
}

struct Random(u64);

impl Random {
    /// Returns a number below `bound` (xorshift64).
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Pages that operations choose from: few, so that they meet, in blocks of every size.
fn candidates() -> Vec<u64> {
    let bases =
        [RAM[0], GIB - 4 * MIB, GIB - 2 * MIB, GIB, GIB + 2 * MIB, 2 * GIB, 3 * GIB - 2 * MIB];
    let pages = bases.iter().flat_map(|&base| [base, base + 0x3000, base + 2 * MIB - 4096]);
    let mut pages: Vec<u64> = pages.filter(|page| (RAM[0]..RAM[1]).contains(page)).collect();
    pages.sort_unstable();
    pages.dedup();
    pages
}

fn check(machine: &Machine, geometry: Geometry, model: &Model, hot: &[u64], tables: usize) {
    for &page in hot {
        let found = machine.walk(geometry, page).map(|(raw, level)| {
            let within = (1u64 << (39 - 9 * level)) - 1;
            let output = raw & 0xffff_ffff_f000 & !within;
            (output | page & within & !0xfff, raw & 1 << 7 != 0)
        });
        assert_eq!(found, model.translation(page), "{page:#x}");
    }
    assert_eq!(machine.allocated.get(), tables + model.tables());
    machine.tlb.borrow().as_ref().unwrap().assert_current(machine);
}

fn run(seed: u64, config: Config, bits: u32) {
    let steps = std::env::var("VERDIGRIS_STEPS").ok().and_then(|text| text.parse().ok());
    let steps = steps.unwrap_or(if cfg!(miri) { 20 } else { 500 });
    let machine = Machine::new(48);
    let geometry = Geometry::new(bits, 48).unwrap();
    let host = Identity::new(machine.root(geometry), config, Pa(ZERO));
    host.map_zeroes(&machine, Ipa(KEPT), Ipa(RAM[0])).unwrap();
    host.map(&machine, Ipa(RAM[0]), Ipa(RAM[1]), Attributes::HOST_RAM).unwrap();
    let tables = machine.allocated.get();
    let pages = candidates();
    let neighbours = pages.iter().map(|page| page ^ 0x1000).filter(|&page| page < RAM[1]);
    let hot: Vec<u64> = pages.iter().copied().chain(neighbours).chain([KEPT]).collect();
    *machine.tlb.borrow_mut() = Some(LazyTlb::new(geometry, &hot));
    machine.watch(|machine, _| machine.tlb.borrow().as_ref().unwrap().assert_no_conflict());
    let (mut model, mut random) = (Model::default(), Random(seed));
    for step in 0..steps {
        let page = pages[random.below(pages.len() as u64) as usize];
        let is_away = model.away.contains(&page);
        // Now more pages are away, now fewer, so that whole blocks come back.
        let take = random.below(8) < if step / 64 % 2 == 0 { 5 } else { 1 };
        match (take, random.below(4)) {
            (true, _) => {
                let result = host.take_page(&machine, Ipa(page));
                assert_eq!(result, if is_away { Err(Error::NoEntry) } else { Ok(()) });
                model.away.insert(page);
            }
            (false, 0) => {
                assert_eq!(host.fault(&machine, Ipa(page + 8), true), HostFault::Retry);
                model.read.extend(is_away.then_some(page));
            }
            (false, 1) => {
                let expected = if is_away { HostFault::Denied } else { HostFault::Retry };
                assert_eq!(host.fault(&machine, Ipa(page), false), expected);
            }
            (false, _) => {
                let result = host.give_page(&machine, Ipa(page), Attributes::HOST_RAM);
                assert_eq!(result, if is_away { Ok(()) } else { Err(Error::Exists) });
                model.away.remove(&page);
                model.read.remove(&page);
            }
        }
        check(&machine, geometry, &model, &hot, tables);
        machine.take_steps();
    }
}

#[test]
fn the_host_finds_what_the_model_says() {
    let seed = std::env::var("VERDIGRIS_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or(0x5eed);
    for (index, bits) in [36, 40, 44].into_iter().enumerate() {
        for tlb_range in [false, true] {
            for ttl in [false, true] {
                let config = Config { tlb_range, ttl, ..Config::default() };
                println!("seed {seed}, {bits} bits, {config:?}");
                run(seed + index as u64, config, bits);
            }
        }
    }
}
