//! Gather: the leaves that a call changed in place, invalidated together at its end.
//!
//! Ageing, harvest and write-protection change leaves and leave them where they are. Nothing waits for
//! their invalidation but the caller, so one at the end of the call serves all: what was changed is
//! remembered as runs of neighbours, as long as naming them costs less than invalidating the whole VM.
//! The answer is the caller's only after that.

use crate::batches::Counted;
use crate::descriptor::Level;
use crate::flush::{MAX_TARGETED, Span};
use crate::hardware::Env;
use crate::stage2::Stage2;
use crate::sweep::Swept;
use crate::sync::{Weakness, weakened};
use verdigris_abi::{Ipa, Stat};

/// Most runs that are remembered: with more, naming them costs more than the whole VMID.
const RUNS: usize = MAX_TARGETED as usize;

/// Leaves of one level without a gap between them, young or old, in one word: the list is filled with
/// zeroes for each call that changes something.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Run(u64);

impl Run {
    /// The number of the first page is in bits 35:0, and 48 bits of IPA hold no more.
    const COUNT: u32 = 36;
    /// How many leaves is in bits 59:36.
    const MAX_COUNT: u64 = (1 << 24) - 1;
    const LEVEL: u32 = 60;
    const YOUNG: u64 = 1 << 62;

    /// Makes a run without leaves: where it begins, and of what kind it is.
    #[inline(always)]
    const fn at(page: u64, level: Level, is_young: bool) -> Self {
        let young = if is_young { Self::YOUNG } else { 0 };
        Self(page | (level as u64) << Self::LEVEL | young)
    }

    #[inline(always)]
    const fn with_more(self, count: u64) -> Self {
        Self(self.0 + (count << Self::COUNT))
    }

    const fn page(self) -> u64 {
        self.0 & ((1 << Self::COUNT) - 1)
    }

    #[inline(always)]
    const fn count(self) -> u64 {
        self.0 >> Self::COUNT & Self::MAX_COUNT
    }

    fn level(self) -> Level {
        [Level::L0, Level::L1, Level::L2, Level::L3][(self.0 >> Self::LEVEL & 3) as usize]
    }

    const fn is_young(self) -> bool {
        self.0 & Self::YOUNG != 0
    }

    fn page_count(self) -> u64 {
        self.count() * self.level().pages()
    }

    fn span(self) -> Span {
        let start = Ipa::from_page(self.page());
        Span { start, page_count: self.page_count(), level: Some(self.level()) }
    }
}

/// What a call changed.
pub(crate) struct Gathered {
    /// The last run, which may go on; without leaves as long as there is none.
    last: Run,
    /// How one begins that goes on where the last ends.
    next: Run,
    /// Those before. Made when there are some: one run is what most calls come to.
    before: Option<[Run; RUNS - 1]>,
    /// How many those are, remembered or not.
    count: usize,
    is_counting: bool,
    leaves: u64,
    /// How many of these lost bits of the software's alone.
    quiet: u64,
    /// How many of the others were old.
    old: u64,
}

impl Gathered {
    /// Remembers what is added.
    pub(crate) const fn new() -> Self {
        let (last, next, before, count) = (Run(0), Run(u64::MAX), None, 0);
        Self { last, next, before, count, is_counting: false, leaves: 0, quiet: 0, old: 0 }
    }

    /// Counts what is added, for a call that invalidates nothing, or everything.
    pub(crate) const fn counting() -> Self {
        Self { is_counting: true, ..Self::new() }
    }

    /// Returns how many leaves were changed.
    pub(crate) const fn leaves(&self) -> u64 {
        self.leaves
    }

    /// Counts the leaves of a stretch that a sweep hit, and remembers those that a TLB may hold as they
    /// were; returns the former.
    #[inline(always)]
    pub(crate) fn add(&mut self, start: Ipa, level: Level, swept: Swept) -> u64 {
        let Swept { hit, young, .. } = swept;
        if hit == u64::MAX && young == hit && swept.quiet == 0 {
            self.leaves += 64;
            if !self.is_counting {
                self.push(Run::at(start.page(), level, true), 64, level);
            }
        } else if hit != 0 {
            self.add_some(start, level, swept);
        }
        hit
    }

    #[inline(always)]
    fn add_some(&mut self, start: Ipa, level: Level, swept: Swept) {
        let (changed, young) = (swept.changed(), swept.young & !swept.quiet);
        self.leaves += count_ones(swept.hit);
        self.quiet += count_ones(swept.quiet);
        self.old += count_ones(changed & !young);
        if !self.is_counting {
            self.remember(start, level, changed, young);
        }
    }

    #[inline(never)]
    fn remember(&mut self, start: Ipa, level: Level, changed: u64, young: u64) {
        for (mut rest, is_young) in [(young, true), (changed & !young, false)] {
            while rest != 0 && self.count < RUNS {
                let first = rest.trailing_zeros();
                let count = (rest >> first).trailing_ones();
                rest &= u64::MAX.checked_shl(first + count).unwrap_or(0);
                let page = start.page() + u64::from(first) * level.pages();
                self.push(Run::at(page, level, is_young), count.into(), level);
            }
        }
    }

    /// Adds so many leaves, from where a run without leaves begins.
    #[inline(always)]
    fn push(&mut self, at: Run, count: u64, level: Level) {
        if at != self.next || self.last.count() + count > Run::MAX_COUNT {
            self.keep_last();
            self.last = at;
        }
        self.last = self.last.with_more(count);
        self.next = Run(at.0 + count * level.pages());
    }

    #[inline(never)]
    fn keep_last(&mut self) {
        if self.last.count() == 0 {
            return;
        }
        let before = self.before.get_or_insert([Run(0); RUNS - 1]);
        if let Some(slot) = before.get_mut(self.count) {
            *slot = self.last;
        }
        self.count += 1;
    }

    /// Invalidates what was changed, young or not.
    pub(crate) fn flush<E: Env>(&self, env: &E, stage2: &Stage2) {
        if self.leaves != 0 {
            self.flush_some(env, stage2, None, |_| true);
        }
    }

    /// Invalidates what was changed and may be in a TLB; complete when it returns.
    ///
    /// A leaf that the exchange returned old is left out where the epoch proves it absent. Without a
    /// proof an invalidation of the whole VM makes one, unless a pass is under way.
    pub(crate) fn flush_changed<E: Env>(&self, env: &E, stage2: &Stage2, own: &Counted<'_>) {
        let changed = self.leaves - self.quiet;
        if changed == 0 || weakened(Weakness::AnswerEarly) {
            return;
        }
        let (skip, old) = (stage2.config.skip, self.old);
        let left_out = if skip && old != 0 && stage2.epoch.proves_absence() { old } else { 0 };
        let named = changed - left_out;
        if named == 0 {
            // What was taken is taken for every walk that begins after this.
            env.dsb_ish();
        } else if skip && old != left_out && stage2.epoch.can_be_proved() {
            stage2.flush_all(env);
        } else {
            self.flush_some(env, stage2, Some(own), |run| run.is_young() || left_out == 0);
        }
        env.count(Stat::FlushesSkipped, left_out);
        env.count(Stat::FlushesDone, named);
    }

    /// Invalidates the runs that `is_named` chooses, or the whole VM where that costs less.
    fn flush_some<E: Env>(
        &self,
        env: &E,
        stage2: &Stage2,
        own: Option<&Counted<'_>>,
        is_named: impl Fn(Run) -> bool + Copy,
    ) {
        if self.is_counting || self.count >= RUNS {
            return stage2.flush_all(env);
        }
        let before = self.before.as_ref().map_or(&[][..], |before| &before[..self.count]);
        let named = before.iter().chain([&self.last]).filter(move |&&run| is_named(run));
        let spans = named.map(|run| run.span());
        match own {
            Some(own) => stage2.flush(env, own, spans),
            None => stage2.flush_again(env, spans),
        }
    }
}

/// Counts bits. Without FP registers that takes a dozen instructions, so the usual words come first.
const fn count_ones(bits: u64) -> u64 {
    match bits {
        u64::MAX => 64,
        _ if bits & bits.wrapping_sub(1) == 0 => (bits != 0) as u64,
        _ => bits.count_ones() as u64,
    }
}
