//! A TLB that is as lazy as it may be, and the walker that fills it.

use super::{Machine, Step, TABLES};
use std::collections::HashSet;
use verdigris_stage2::{Entry, Geometry};

/// Where a walk goes on: level and table.
pub type Start = (u32, u64);

fn shift(level: u32) -> u32 {
    39 - 9 * level
}

/// Returns where the walk of an address begins (VTCR_EL2.SL0, concatenated tables).
pub fn root(geometry: Geometry, ipa: u64) -> Start {
    let level = match geometry.sl0() {
        2 => 0,
        1 => 1,
        _ => 2,
    };
    (level, TABLES + (ipa >> (shift(level) + 9)) * 4096)
}

/// Walks from a table; `through` sees each table that a descriptor leads to.
pub fn walk(
    machine: &Machine,
    start: Start,
    ipa: u64,
    mut through: impl FnMut(u32, u64),
) -> Option<(u64, u32)> {
    let (mut level, mut table) = start;
    loop {
        let raw = machine.raw(table, (ipa >> shift(level)) as usize % 512);
        match (raw & 3, level) {
            (3, 0..=2) => (table, level) = (raw & 0xffff_ffff_f000, level + 1),
            (3, 3) | (1, 1 | 2) => return Some((raw, level)),
            _ => return None,
        }
        through(level, table);
    }
}

/// Returns the entry at a level that translates an address.
pub fn entry(machine: &Machine, geometry: Geometry, ipa: u64, level: u32) -> &Entry {
    let (mut at, mut table) = root(geometry, ipa);
    while at < level {
        table = machine.raw(table, (ipa >> shift(at)) as usize % 512) & 0xffff_ffff_f000;
        at += 1;
    }
    machine.entry(table, (ipa >> shift(level)) as usize % 512)
}

/// A leaf as cached: the hot address, the descriptor, its level.
type Leaf = (u64, u64, u32);

pub struct LazyTlb {
    geometry: Geometry,
    hot: Vec<u64>,
    /// Stage-2 entries, which an invalidation by IPA reaches.
    stage2: HashSet<Leaf>,
    /// Combined entries, tagged by VA: only an invalidation of all of stage 1 reaches them.
    combined: HashSet<Leaf>,
    /// Walk caches: hot address, level and table.
    walks: HashSet<(u64, u32, u64)>,
    /// Invalidations issued since the last DSB.
    issued: Vec<Step>,
    inside: bool,
}

impl LazyTlb {
    pub fn new(geometry: Geometry, hot: &[u64]) -> Self {
        Self {
            geometry,
            hot: hot.to_vec(),
            stage2: HashSet::new(),
            combined: HashSet::new(),
            walks: HashSet::new(),
            issued: Vec::new(),
            inside: false,
        }
    }

    /// Caches all that walks of the hot addresses yield, from the root and from cached tables.
    pub fn fill(&mut self, machine: &Machine) {
        for &ipa in &self.hot {
            let cached = self.walks.iter().filter(|&&(hot, ..)| hot == ipa);
            let mut starts: Vec<Start> = cached.map(|&(_, level, table)| (level, table)).collect();
            starts.push(root(self.geometry, ipa));
            for start in starts {
                let walks = &mut self.walks;
                let leaf = walk(machine, start, ipa, |level, table| {
                    walks.insert((ipa, level, table));
                });
                // An entry with AF=0 is never cached.
                if let Some((raw, level)) = leaf.filter(|(raw, _)| raw & 1 << 10 != 0) {
                    self.stage2.insert((ipa, raw, level));
                }
            }
        }
        self.combined.extend(self.stage2.iter().copied());
    }

    pub fn step(&mut self, machine: &Machine, step: Step) {
        match step {
            Step::Enter => assert!(!std::mem::replace(&mut self.inside, true)),
            Step::Leave => assert!(std::mem::replace(&mut self.inside, false)),
            Step::Ipa(..) | Step::Range(..) | Step::Stage1 | Step::Vmid => {
                assert!(self.inside, "{step:?} outside of the VM's context");
                self.issued.push(step);
            }
            Step::DsbIsh => self.complete(),
            Step::Local(_) => assert!(self.inside, "{step:?} outside of the VM's context"),
            // Local invalidation is no more than a hint to a TLB that is shared by all.
            _ => {}
        }
        // Miri is slow, and what follows an invalidation is what matters.
        let quick = matches!(step, Step::Removed(_) | Step::Clean(..) | Step::CleanInvalidate(..));
        if !(cfg!(miri) && quick) {
            self.fill(machine);
        }
    }

    /// Completes what was issued, in the order that helps least: combined entries first, which may
    /// then be made again from stage-2 entries that are still there.
    fn complete(&mut self) {
        let issued = std::mem::take(&mut self.issued);
        if issued.contains(&Step::Stage1) {
            self.combined = self.stage2.clone();
        }
        for step in issued {
            match step {
                Step::Ipa(ipa, hint) => self.invalidate(ipa, 1, hint),
                Step::Range(ipa, page_count, hint) => self.invalidate(ipa, page_count, hint),
                Step::Vmid => {
                    self.stage2.clear();
                    self.combined.clear();
                    self.walks.clear();
                }
                _ => {}
            }
        }
    }

    fn invalidate(&mut self, start: u64, page_count: u64, hint: Option<u8>) {
        let end = start + page_count * 4096;
        let hit = |ipa: u64, level: u32| {
            let span = 1u64 << shift(level);
            let base = ipa & !(span - 1);
            base < end && start < base + span
        };
        self.stage2.retain(|&(ipa, _, level)| {
            !hit(ipa, level) || hint.is_some_and(|hint| u32::from(hint) != level)
        });
        // Walk caches are reached by the forms without a level only: the engine relies on no more.
        self.walks.retain(|&(ipa, level, _)| hint.is_some() || !hit(ipa, level - 1));
    }

    fn cached(&self) -> impl Iterator<Item = &Leaf> {
        self.stage2.iter().chain(&self.combined)
    }

    /// Checks that nothing translates an address of `[ipa, ipa + bytes)` to its place in `pa`, unless
    /// the table itself still does (the parts of a block that was split).
    pub fn assert_unreachable(&self, machine: &Machine, ipa: u64, bytes: u64, pa: u64) {
        for &(hot, raw, level) in self.cached().filter(|leaf| (ipa..ipa + bytes).contains(&leaf.0))
        {
            if machine.walk(self.geometry, hot) == Some((raw, level)) {
                continue;
            }
            let output = (raw & 0xffff_ffff_f000) & !((1 << shift(level)) - 1);
            let target = output + (hot & ((1 << shift(level)) - 1));
            assert_ne!(target, pa + (hot - ipa), "{hot:#x} is still in a TLB when it is reported");
        }
    }

    /// Checks that no address has two leaves cached, which a TLB may answer by a conflict abort.
    pub fn assert_no_conflict(&self) {
        for &(hot, raw, level) in &self.stage2 {
            let other = self.stage2.iter().find(|leaf| leaf.0 == hot && leaf.1 != raw);
            assert_eq!(other, None, "{hot:#x} is also cached as {raw:#x}, level {level}");
        }
    }

    /// Checks that all that is cached is what the tables say now.
    pub fn assert_current(&self, machine: &Machine) {
        for &(hot, raw, level) in self.cached() {
            let now = machine.walk(self.geometry, hot);
            assert_eq!(now, Some((raw, level)), "{hot:#x} is cached as it was");
        }
    }

    /// Checks that nothing cached lets a write through to an address.
    pub fn assert_no_writes(&self, start: u64, end: u64) {
        for &(hot, raw, _) in self.cached().filter(|leaf| (start..end).contains(&leaf.0)) {
            assert_eq!(raw & 1 << 7, 0, "{hot:#x} is still writable in a TLB");
        }
    }

    pub fn assert_no_walk_through(&self, table: u64) {
        let through = self.walks.iter().find(|walk| walk.2 == table);
        assert_eq!(through, None, "a walk cache holds a table that is freed");
    }

    pub fn is_empty(&self) -> bool {
        self.stage2.is_empty() && self.combined.is_empty()
    }
}
