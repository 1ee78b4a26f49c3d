//! Write-protect: takes the permission to write from a range, and the host's grant of it.
//!
//! By an exchange from a valid leaf: a flag that the walker sets at the same moment survives, and a
//! dirty state that it sets is either in the value that was read or makes the exchange fail. A leaf that
//! was dirty says so from now on by a bit of its own, until that is harvested or the page goes. No write
//! through an older translation is possible once the call returns.

use crate::descriptor::{GRANTED, Level};
use crate::entry::Entry;
use crate::gather::Gathered;
use crate::hardware::Env;
use crate::range::{Outcome, Range};
use crate::scan::{Look, NoBits, ones};
use crate::stage2::Stage2;
use crate::sweep::{Protect, WORD, sweep_all, sweep_word};
use verdigris_abi::{Ipa, Stat};

impl Stage2 {
    /// Takes the permission to write from every leaf of a range; a block that reaches past the range
    /// loses it as a whole. Access flags and dirty state stay.
    pub fn write_protect<E: Env>(&self, env: &E, range: Range) -> Outcome {
        let (found_protected, is_dense) = (false, true);
        let mut protecting = Protecting { found_protected, changed: Gathered::new(), is_dense };
        let batch = self.batches.begin();
        let pages = self.scan(env, range, &mut protecting, NoBits);
        protecting.changed.flush_changed(env, self, &batch);
        drop(batch);
        if protecting.found_protected {
            self.finish_others(env, Range { start: range.start, end: range.start + pages });
        }
        env.count(Stat::LeavesProtected, protecting.changed.leaves());
        Outcome::done(pages)
    }
}

struct Protecting {
    /// Something came by that didn't lose the permission here, or had only the host's grant of it left.
    found_protected: bool,
    changed: Gathered,
    /// The last 64 entries were all writable.
    is_dense: bool,
}

impl Look for Protecting {
    const IS_EXACT: bool = true;
    const WANTED: u64 = GRANTED;

    #[inline(always)]
    fn word<E: Env>(&mut self, env: &E, word: &[Entry; WORD], first: Ipa, level: Level) -> u64 {
        let swept = sweep_word::<Protect, E>(env, word, self.is_dense);
        self.is_dense = swept.changed() == u64::MAX;
        self.found_protected |= !self.is_dense;
        self.changed.add(first, level, swept)
    }

    fn part<E: Env>(&mut self, _: &E, entries: &[Entry], first: Ipa, level: Level) -> u64 {
        let swept = sweep_all::<Protect>(entries);
        self.found_protected |= swept.changed() != ones(entries.len() as u64);
        self.changed.add(first, level, swept)
    }

    fn pass_blocks(&mut self, _: u64) {
        self.found_protected = true;
    }

    fn pass_hole(&mut self) {
        self.found_protected = true;
    }
}
