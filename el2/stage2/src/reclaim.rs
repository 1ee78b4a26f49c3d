//! Reclaim: empty tables go back to the VM's pool.
//!
//! Unmapping single pages leaves their table linked, since a map may be about to install into it. So the
//! way to unlink one is the way of an unmap, without anything to unmap: raise a mark over its span, wait
//! for the gates, and see whether it still is empty. Then it stays so: under the mark nothing is linked or
//! mapped there. The mark is a quiet one: no mapping is gone, so it is lowered without a number.
//!
//! Who finds the pool empty tries the same for a bounded part of the tree, each time from where the last
//! one ended, and gives up only when it has been around the whole tree. What is found can't be used at
//! once: a table is free only when every CPU that is inside EL2 has left, this one too. So the caller is
//! told to try again ([`Error::Retry`]), as long as anything is on its way to the pool or a part of the
//! tree is left to search, and only then that there is no memory.

use crate::descriptor::{Descriptor, Kind, Level};
use crate::hardware::Env;
use crate::memory::{Table, TablePage};
use crate::range::{Outcome, Range};
use crate::stage2::{Stage2, count_retry};
use crate::sync::{Weakness, weakened};
use crate::walk::{self, Position};
// Those of the language under loom too: nothing is reached through them, so no order has to be explored.
use core::sync::atomic::{AtomicU64, Ordering};
use verdigris_abi::{Error, Ipa, PAGE_SIZE, Stat};

/// Most steps through the tree that one call takes in search of an empty table: some GiB of tables.
const SEARCH_STEPS: usize = 4096;

/// What stopped a step: an error, or an interrupt that came while it waited.
type Stop = Option<Error>;

/// How far the search for empty tables has come, from one call that finds the pool empty to the next.
pub struct Search {
    /// The page from which it goes on.
    next: AtomicU64,
    /// Pages that it passed since it found a table last, or since one may have become empty behind it.
    barren: AtomicU64,
}

impl Search {
    /// Makes a search that has not begun.
    pub fn new() -> Self {
        Self { next: AtomicU64::new(0), barren: AtomicU64::new(0) }
    }

    /// Makes it go around the whole tree once more: what it has passed may have become empty since.
    pub(crate) fn restart(&self) {
        self.barren.store(0, Ordering::Relaxed);
    }
}

/// A step of a search.
struct Step {
    /// The page after what it looked at.
    next: u64,
    /// Whether a table was empty, and is unlinked.
    found: bool,
}

impl Stage2 {
    /// Unlinks every empty table whose span has a page of the range, and gives it back once no CPU can
    /// hold it any more.
    ///
    /// Leaves stay as they are. [`Error::Retry`] while no slot is free for its mark.
    pub fn reclaim_tables<E: Env>(&self, env: &E, range: Range) -> Outcome {
        self.limbo.reap(env);
        let mut page = range.start;
        while page < range.end {
            match self.reclaim_step(env, page, range.end) {
                Ok(step) => page = step.next.min(range.end),
                Err(error) => {
                    count_retry(env, error);
                    return Outcome { pages: page - range.start, error };
                }
            }
            if env.interrupt_pending() {
                break;
            }
        }
        Outcome::done(page - range.start)
    }

    /// Looks for tables to reclaim, and says what a call that found the pool empty is to answer.
    pub(crate) fn out_of_tables<E: Env>(&self, env: &E) -> Error {
        let is_searched = self.search(env);
        let nothing_waits = self.limbo.reap(env);
        // What was on its way before may have arrived by now.
        match env.alloc() {
            Some(page) => env.free(page),
            None if is_searched && nothing_waits => return Error::NoMemory,
            None => {}
        }
        Error::Retry
    }

    /// Goes on with the search for empty tables; tells whether it has been around the whole tree since one
    /// was found last, a table linked or a leaf taken away.
    ///
    /// An interrupt stops it, and the next call goes on from there: so however many come, the answer does.
    /// Two CPUs may search the same part and lose count of each other's steps, which costs a try.
    fn search<E: Env>(&self, env: &E) -> bool {
        let end = self.root.geometry().ipa_bytes() / PAGE_SIZE;
        let Search { next, barren } = &self.search;
        for _ in 0..SEARCH_STEPS {
            let page = next.load(Ordering::Relaxed) % end;
            let found = match self.reclaim_step(env, page, end) {
                Ok(step) => {
                    next.store(step.next, Ordering::Relaxed);
                    barren.fetch_add(step.next - page, Ordering::Relaxed);
                    step.found
                }
                Err(_) => return false,
            };
            if found {
                self.search.restart();
            } else if barren.load(Ordering::Relaxed) >= end {
                self.search.restart();
                return true;
            }
            if env.interrupt_pending() {
                return false;
            }
        }
        false
    }

    /// Reclaims the last-level table that has the page, and then the tables above whose span ends with it
    /// or with the range.
    fn reclaim_step<E: Env>(&self, env: &E, page: u64, end: u64) -> Result<Step, Stop> {
        let Step { next, mut found } = self.reclaim_at(env, page, Level::L2)?;
        let start = self.root.geometry().start_level();
        for level in [Level::L1, Level::L0].into_iter().filter(|&level| level >= start) {
            if next >= end || next.is_multiple_of(level.pages()) {
                found |= self.reclaim_at(env, page, level)?.found;
            }
        }
        Ok(Step { next, found })
    }

    /// Reclaims the table that an entry of a level leads to, if it is empty. The next page is the one after
    /// the span of the entry where the walk ended.
    fn reclaim_at<E: Env>(&self, env: &E, page: u64, level: Level) -> Result<Step, Stop> {
        let at = walk::find_down_to(env, self.root, Ipa::from_page(page), level);
        let span = Range::span(page, at.level);
        let found = match at.old.kind(at.level) {
            Kind::Table(child) if is_empty(env.table(child)) => {
                self.reclaim_table(env, &at, child, span)?
            }
            _ => false,
        };
        Ok(Step { next: span.end, found })
    }

    /// Unlinks a table under a mark, if it is empty then; tells whether it was.
    fn reclaim_table<E: Env>(
        &self,
        env: &E,
        at: &Position<'_>,
        child: TablePage,
        span: Range,
    ) -> Result<bool, Stop> {
        let hold = self.contract.raise_quiet(span).ok_or(Some(Error::Retry))?;
        let waited = weakened(Weakness::ReclaimWithoutWait) || self.contract.wait(env);
        let gone = waited && is_empty(env.table(child)) && self.unlink(env, at, span);
        self.contract.withdraw(hold);
        if gone {
            self.limbo.retire(env, child);
            env.count(Stat::TablesReclaimed, 1);
        }
        if waited { Ok(gone) } else { Err(None) }
    }
}

/// Tells whether nothing stands in a table, not even what is about to be made.
fn is_empty(table: &Table) -> bool {
    table.iter().all(|entry| entry.read() == Descriptor::INVALID)
}
