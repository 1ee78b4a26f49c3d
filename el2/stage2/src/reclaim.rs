//! Reclaim: empty tables go back to the VM's pool.
//!
//! Unmapping single pages leaves their table linked, since a map may be about to install into it. So the
//! way to unlink one is the way of an unmap, without anything to unmap: raise a mark over its span, wait
//! for the gates, and see whether it still is empty. Then it stays so: under the mark nothing is linked or
//! mapped there. The mark is a quiet one: no mapping is gone, so it is lowered without a number.
//!
//! Who finds the pool empty tries the same for a bounded part of the tree, each time from where the last
//! one ended. What is found can't be used at once: a table is free only when every CPU that is inside EL2
//! has left, this one too. So the caller is told to try again ([`Error::Retry`]), as long as anything is
//! on its way to the pool, and only then that there is no memory.

use crate::descriptor::{Descriptor, Kind, Level};
use crate::hardware::Env;
use crate::memory::{Table, TablePage};
use crate::range::{Outcome, Range};
use crate::stage2::{Stage2, count_retry};
use crate::sync::{Ordering, Weakness, weakened};
use crate::walk::{self, Position};
use verdigris_abi::{Error, Ipa, PAGE_SIZE, Stat};

/// Most steps through the tree that one call takes in search of an empty table: some GiB of tables.
const SEARCH_STEPS: usize = 4096;

/// What stopped a step: an error, or an interrupt that came while it waited.
type Stop = Option<Error>;

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
                Ok(next) => page = next.min(range.end),
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
        let end = self.root.geometry().ipa_bytes() / PAGE_SIZE;
        let mut page = self.next_reclaim.load(Ordering::Relaxed) % end;
        let mut is_stopped = false;
        for _ in 0..SEARCH_STEPS {
            match self.reclaim_step(env, page, end) {
                Ok(next) => page = next % end,
                Err(_) => is_stopped = true,
            }
            is_stopped |= env.interrupt_pending();
            if is_stopped {
                break;
            }
        }
        // Two CPUs may search the same part: what either finds is found once.
        self.next_reclaim.store(page, Ordering::Relaxed);
        let nothing_left = self.limbo.reap(env) && !is_stopped;
        // What was on its way before may have arrived by now.
        match env.alloc() {
            Some(page) => env.free(page),
            None if nothing_left => return Error::NoMemory,
            None => {}
        }
        Error::Retry
    }

    /// Reclaims the last-level table that has the page, and then the tables above whose span ends with it
    /// or with the range; returns the page after it.
    fn reclaim_step<E: Env>(&self, env: &E, page: u64, end: u64) -> Result<u64, Stop> {
        let next = self.reclaim_at(env, page, Level::L2)?;
        let start = self.root.geometry().start_level();
        for level in [Level::L1, Level::L0].into_iter().filter(|&level| level >= start) {
            if next >= end || next.is_multiple_of(level.pages()) {
                self.reclaim_at(env, page, level)?;
            }
        }
        Ok(next)
    }

    /// Reclaims the table that an entry of a level leads to, if it is empty; returns the page after the
    /// span of the entry where the walk ended.
    fn reclaim_at<E: Env>(&self, env: &E, page: u64, level: Level) -> Result<u64, Stop> {
        let at = walk::find_down_to(env, self.root, Ipa::from_page(page), level);
        let span = Range::span(page, at.level);
        if let Kind::Table(child) = at.old.kind(at.level)
            && is_empty(env.table(child))
        {
            self.reclaim_table(env, &at, child, span)?;
        }
        Ok(span.end)
    }

    /// Unlinks a table under a mark, if it is empty then.
    fn reclaim_table<E: Env>(
        &self,
        env: &E,
        at: &Position<'_>,
        child: TablePage,
        span: Range,
    ) -> Result<(), Stop> {
        let hold = self.contract.raise_quiet(span).ok_or(Some(Error::Retry))?;
        let waited = weakened(Weakness::ReclaimWithoutWait) || self.contract.wait(env);
        let gone = waited && is_empty(env.table(child)) && self.unlink(env, at, span);
        self.contract.withdraw(hold);
        if gone {
            self.limbo.retire(env, child);
            env.count(Stat::TablesReclaimed, 1);
        }
        if waited { Ok(()) } else { Err(None) }
    }
}

/// Tells whether nothing stands in a table, not even what is about to be made.
fn is_empty(table: &Table) -> bool {
    table.iter().all(|entry| entry.read() == Descriptor::INVALID)
}
