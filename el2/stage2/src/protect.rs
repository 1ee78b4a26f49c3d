//! Write-protect: takes the permission to write from a range, and the host's grant of it.
//!
//! By an exchange from a valid leaf: a flag that the walker sets at the same moment survives, and a
//! dirty state that it sets is either in the value that was read or makes the exchange fail. No write
//! through an older translation is possible once the call returns.

use crate::descriptor::{Descriptor, Kind, Level};
use crate::hardware::Env;
use crate::leaves::Mask;
use crate::range::{Outcome, Range};
use crate::stage2::{BATCH, Stage2};
use crate::sync::pause;
use crate::walk::{self, Position};
use verdigris_abi::{Ipa, Stat};

impl Stage2 {
    /// Takes the permission to write from every leaf of a range; a block that reaches past the range
    /// loses it as a whole. Access flags stay.
    pub fn write_protect<E: Env>(&self, env: &E, range: Range) -> Outcome {
        let mut page = range.start;
        let mut found_protected = false;
        while page < range.end {
            let at = walk::find(env, self.root, Ipa::from_page(page));
            let span = Range::span(page, at.level);
            match at.old.kind(at.level) {
                // Another CPU is about to make something valid here, maybe writable. It waits for
                // nobody, so this wait is short: look again.
                Kind::Busy => {
                    pause();
                    continue;
                }
                kind if at.level == Level::L3 || kind != Kind::Invalid => {
                    let (leaves, all_changed) = self.protect_leaves(env, &at, span, range);
                    found_protected |= !all_changed;
                    page = page.max(span.start + leaves * at.level.pages());
                }
                _ => {
                    found_protected = true;
                    page = span.end;
                }
            }
            if env.interrupt_pending() {
                break;
            }
        }
        let reached = page.min(range.end);
        if found_protected {
            self.finish_others(env, Range { start: range.start, end: reached });
        }
        Outcome::done(reached - range.start)
    }

    /// Protects up to 64 leaves of one table; returns how many entries it passed, and whether each
    /// was a leaf that lost the permission here.
    fn protect_leaves<E: Env>(
        &self,
        env: &E,
        at: &Position<'_>,
        span: Range,
        range: Range,
    ) -> (u64, bool) {
        let limit = (range.end - span.start).div_ceil(at.level.pages()).min(BATCH);
        let mut changed = Mask::new(span.ipa(), at.level);
        let mut passed = 0;
        self.batches.begin();
        for (index, entry) in at.entries(limit).iter().enumerate() {
            match entry.update_leaf(at.level, |old| changes(old).then(|| old.write_protected())) {
                Ok(_) => changed.set(index),
                Err(now) if matches!(now.kind(at.level), Kind::Busy | Kind::Table(_)) => break,
                Err(_) => {}
            }
            passed += 1;
        }
        if changed.bits != 0 {
            self.flush(env, changed.spans());
            env.count(Stat::LeavesProtected, changed.count());
        }
        self.batches.finish();
        (passed, changed.count() == passed)
    }
}

/// Tells whether protecting a leaf changes it.
fn changes(old: Descriptor) -> bool {
    old.is_writable() || old.is_granted()
}
