//! Who owns each page of memory, and how many VMs look at it.
//!
//! The invariants:
//! 1. A page that is donated, to a VM or to EL2, is shared by nobody: not by itself, and not as part of
//!    a block.
//! 2. A share says that its pages are the host's until it is returned.
//!
//! Guest memory stays the host's and is only shared, so a share is counted where the mapping is: a
//! block of 2 MiB or 1 GiB costs one count, not 512. For that to exclude donations, a donation is
//! counted in every block around its page *before* it takes the page, and refused where a block is
//! shared. Each word changes by one compare-and-swap, whose transition `words` alone defines; a
//! donation that fails halfway takes its counts back.
//!
//! The objection: between counting and taking back, a block looks partly given away, and a share of it
//! at that moment is refused although the donation comes to nothing. That hurts only a host that
//! donates a page and maps it at once; it is refused in vain, never granted wrongly.
//!
//! Only memory that was named as RAM can be owned. All else reads as [`Owner::None`] for ever; but for the
//! *room*, which has words from the start and owners only while memory is there ([`Ownership::add`]).

mod map;
mod words;

#[cfg(all(loom, test))]
mod concurrency;
#[cfg(all(not(loom), test))]
mod model;
#[cfg(all(not(loom), test))]
mod tests;

pub use map::MAX_SPANS;
pub use words::Owner;

use crate::call::{LeafSize, PaRange, VmHandle};
use crate::sync::{AtomicU32, Ordering};
use map::{Dense, Map};
use verdigris_abi::{Error, PAGE_SIZE, Pa, Status};

/// What [`Ownership::query`] finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageState {
    /// Whose it is.
    pub owner: Owner,
    /// How many shares include it, those of blocks among them.
    pub shares: u64,
}

/// The table of all pages.
///
/// It lives in memory that the caller gives, one word for a page and for each block that a mapping can
/// have.
#[derive(Debug)]
pub struct Ownership<'m> {
    map: Map,
    gigas: &'m [AtomicU32],
    blocks: &'m [AtomicU32],
    pages: &'m [AtomicU32],
}

impl<'m> Ownership<'m> {
    /// Returns how many bytes of memory a table for this RAM takes: about a thousandth of it. What room there
    /// is to be counts as RAM.
    pub fn memory_needed(ram: &[PaRange]) -> Status<u64> {
        Ok(Map::new(ram)?.word_count() * size_of::<u32>() as u64)
    }

    /// Makes the table: all of `ram` is the host's, but nobody's where it is `reserved`.
    ///
    /// The words may hold anything before. LIMIT: the memory is too scattered, or not enough words.
    pub fn new(ram: &[PaRange], reserved: &[PaRange], words: &'m [AtomicU32]) -> Status<Self> {
        Self::with_room(ram, ram, reserved, words)
    }

    /// Makes the table for all of `known`: RAM, and room where memory may come later, which is nobody's now.
    pub fn with_room(
        known: &[PaRange],
        ram: &[PaRange],
        reserved: &[PaRange],
        words: &'m [AtomicU32],
    ) -> Status<Self> {
        let map = Map::new(known)?;
        let [gigas, blocks, pages] = map.split(words).ok_or(Error::Limit)?;
        let table = Self { map, gigas, blocks, pages };
        table.clear();
        ram.iter().for_each(|range| table.enter(range));
        reserved.iter().for_each(|range| table.leave(range));
        Ok(table)
    }

    /// Counts one more mapping of a page or block of the host's.
    ///
    /// INVALID: the address is not aligned to the size. NOT_OWNER: not all of it is the host's. LIMIT:
    /// the count is full.
    pub fn share(&self, address: Pa, size: LeafSize) -> Status {
        let page = self.find(address, size)?;
        match size {
            LeafSize::Page => change(self.page(page), words::share_page),
            LeafSize::Block2M => change(self.block(page), words::BLOCK.share()),
            LeafSize::Block1G => change(self.giga(page), words::GIGA.share()),
        }
    }

    /// Takes a share back. That there is one is the caller's own bookkeeping, so its lack is a bug of
    /// EL2, and a panic.
    pub fn unshare(&self, address: Pa, size: LeafSize) {
        let page = self.find(address, size).expect("what was shared can be found");
        let result = match size {
            LeafSize::Page => change(self.page(page), words::unshare_page),
            LeafSize::Block2M => change(self.block(page), words::BLOCK.unshare()),
            LeafSize::Block1G => change(self.giga(page), words::GIGA.unshare()),
        };
        result.expect("a share is returned once");
    }

    /// Returns the words around an address.
    #[cold]
    #[inline(never)]
    fn near(&self, address: Pa, size: LeafSize) -> Near<'m> {
        let all = match size {
            LeafSize::Page => self.pages,
            LeafSize::Block2M => self.blocks,
            LeafSize::Block1G => self.gigas,
        };
        let (first, dense) = self.map.stretch(address, size).expect("what was shared can be found");
        Near { size, first, words: &all[dense] }
    }

    /// Replaces a share of a block by one of each block or page of the next smaller size, for a mapping
    /// that is split. LIMIT: one of those counts is full; then nothing has changed.
    pub fn split(&self, address: Pa, size: LeafSize) -> Status {
        let smaller = match size {
            LeafSize::Page => return Err(Error::Invalid),
            LeafSize::Block2M => LeafSize::Page,
            LeafSize::Block1G => LeafSize::Block2M,
        };
        let part = |index: u64| Pa(address.0 + index * map::bytes(smaller));
        for index in 0..map::FANOUT {
            if let Err(error) = self.share(part(index), smaller) {
                (0..index).for_each(|done| self.unshare(part(done), smaller));
                return Err(error);
            }
        }
        self.unshare(address, size);
        Ok(())
    }

    /// Gives a page of the host's to a VM.
    ///
    /// When it returns, nobody shares the page and nobody can; the caller now takes it out of the
    /// host's stage 2, waits for that invalidation, and only then zeroes and uses it. INVALID: not
    /// aligned. NOT_OWNER: not the host's. BUSY: the page, or a block around it, is shared.
    pub fn donate(&self, address: Pa, vm: VmHandle) -> Status {
        let page = self.find(address, LeafSize::Page)?;
        self.take(page, Owner::Vm(vm))
    }

    /// Takes a page from a VM back for the host, which the caller has zeroed, cleaned and is about to
    /// map, or has mapped, in the host's stage 2. NOT_OWNER: the VM does not own it.
    pub fn give_back(&self, address: Pa, vm: VmHandle) -> Status {
        let page = self.find(address, LeafSize::Page)?;
        // The page first: were the counts first, a block could be shared while it is still the VM's.
        change(self.page(page), words::hand_over(Owner::Vm(vm), Owner::Host))?;
        self.uncount(page);
        Ok(())
    }

    /// Keeps a range for EL2, at boot. NOT_OWNER: part of it is not the host's; BUSY: part of it is
    /// shared. What comes before the page that is refused is EL2's then.
    pub fn keep_for_el2(&self, range: &PaRange) -> Status {
        (0..range.page_count()).try_for_each(|index| {
            let address = Pa(range.start().0 + index * PAGE_SIZE);
            self.take(self.find(address, LeafSize::Page)?, Owner::El2)
        })
    }

    /// Makes a block of 2 MiB of the room the host's: memory has come there. Nothing happens if it is.
    ///
    /// The caller has made it reachable. INVALID: not aligned. NOT_OWNER: no room was made there.
    pub fn add(&self, block: Pa) -> Status {
        self.find(block, LeafSize::Block2M)?;
        self.enter_part(block_pages(block));
        Ok(())
    }

    /// Makes a block of 2 MiB of the room nobody's: its memory goes. Nothing happens if it is.
    ///
    /// BUSY: a page of it is shared or donated; then nothing has changed. INVALID and NOT_OWNER as above.
    pub fn remove(&self, block: Pa) -> Status {
        self.find(block, LeafSize::Block2M)?;
        for number in block_pages(block) {
            let page = self.map.find(Pa::from_page(number)).expect("of a block that was found");
            if words::owner(self.page(page).load(Ordering::Acquire)) == Owner::None {
                continue;
            }
            if self.take(page, Owner::None).is_err() {
                // What was there before is the host's again.
                self.enter_part(block_pages(block).start..number);
                return Err(Error::Busy);
            }
        }
        Ok(())
    }

    /// Returns owner and shares of the page that holds an address.
    pub fn query(&self, address: Pa) -> PageState {
        let Some(page) = self.map.find(address) else {
            return PageState { owner: Owner::None, shares: 0 };
        };
        let word = self.page(page).load(Ordering::Acquire);
        let block = words::BLOCK.shares_in(self.block(page).load(Ordering::Acquire));
        let giga = words::GIGA.shares_in(self.giga(page).load(Ordering::Acquire));
        let shares = words::page_shares(word) + block + giga;
        PageState { owner: words::owner(word), shares: u64::from(shares) }
    }

    /// Tells whether the page that holds an address is the host's.
    pub fn is_host(&self, address: Pa) -> bool {
        self.query(address).owner == Owner::Host
    }

    fn take(&self, page: Dense, owner: Owner) -> Status {
        if words::owner(self.page(page).load(Ordering::Acquire)) != Owner::Host {
            return Err(Error::NotOwner);
        }
        change(self.giga(page), words::GIGA.take())?;
        if let Err(error) = change(self.block(page), words::BLOCK.take()) {
            self.uncount_giga(page);
            return Err(error);
        }
        let taken = change(self.page(page), words::hand_over(Owner::Host, owner));
        taken.inspect_err(|_| self.uncount(page))
    }

    fn uncount(&self, page: Dense) {
        change(self.block(page), words::BLOCK.untake(1)).expect("the page was counted");
        self.uncount_giga(page);
    }

    fn uncount_giga(&self, page: Dense) {
        change(self.giga(page), words::GIGA.untake(1)).expect("the page was counted");
    }

    fn find(&self, address: Pa, size: LeafSize) -> Status<Dense> {
        if !address.is_aligned(map::bytes(size)) {
            return Err(Error::Invalid);
        }
        self.map.find(address).ok_or(Error::NotOwner)
    }

    fn page(&self, page: Dense) -> &AtomicU32 {
        &self.pages[page.index(LeafSize::Page)]
    }

    fn block(&self, page: Dense) -> &AtomicU32 {
        &self.blocks[page.index(LeafSize::Block2M)]
    }

    fn giga(&self, page: Dense) -> &AtomicU32 {
        &self.gigas[page.index(LeafSize::Block1G)]
    }

    /// Writes the words of memory that is nobody's. Nobody else has the table yet.
    fn clear(&self) {
        let set = |words: &[AtomicU32], value| {
            words.iter().for_each(|word| word.store(value, Ordering::Relaxed));
        };
        set(self.gigas, words::GIGA.all_taken());
        set(self.blocks, words::BLOCK.all_taken());
        set(self.pages, words::NOBODY);
    }

    /// Makes a range of nobody's the host's, block by block. Ranges of RAM may overlap.
    fn enter(&self, range: &PaRange) {
        let (mut first, end) = (range.start().page(), range.end().page());
        while first < end {
            let next = end.min((first | (map::FANOUT - 1)) + 1);
            self.enter_part(first..next);
            first = next;
        }
    }

    fn enter_part(&self, pages: core::ops::Range<u64>) {
        let block = self.map.find(Pa::from_page(pages.start)).expect("the map covers all RAM");
        let to_host = words::hand_over(Owner::None, Owner::Host);
        let entered = pages.filter_map(|page| self.map.find(Pa::from_page(page)));
        let entered = entered.filter(|page| change(self.page(*page), &to_host).is_ok()).count();
        change(self.block(block), words::BLOCK.untake(entered as u32)).expect("they were taken");
        change(self.giga(block), words::GIGA.untake(entered as u32)).expect("they were taken");
    }

    /// Makes a range of the host's nobody's. Reserved ranges may overlap, and lie outside of RAM.
    fn leave(&self, range: &PaRange) {
        for page in range.start().page()..range.end().page() {
            if let Some(page) = self.map.find(Pa::from_page(page)) {
                // A page that is nobody's already is what is wanted.
                let _ = self.take(page, Owner::None);
            }
        }
    }
}

/// Returns the numbers of the pages of a block of 2 MiB.
fn block_pages(block: Pa) -> core::ops::Range<u64> {
    block.page()..block.page() + map::FANOUT
}

/// Shares that are returned, one page or block of a size after the other.
///
/// What an unmap costs a page is mostly this. So the words of a stretch of memory are found once, and a
/// count is taken down by one addition: that there is a share is known, or EL2 has a bug, and then nothing
/// goes on from here.
pub struct Near<'m> {
    size: LeafSize,
    /// The number of the first page or block of the stretch.
    first: u64,
    words: &'m [AtomicU32],
}

impl<'m> Near<'m> {
    /// Begins nowhere.
    #[inline(always)]
    pub const fn new(size: LeafSize) -> Self {
        Self { size, first: 0, words: &[] }
    }

    /// Takes a share back, as [`Ownership::unshare`] does.
    #[inline(always)]
    pub fn unshare<'t>(&mut self, address: Pa, table: impl FnOnce() -> &'t Ownership<'m>)
    where
        'm: 't,
    {
        let word = match self.word(address) {
            Some(word) => word,
            None => {
                // Of the same size: that stays what the compiler knows, if it does.
                *self = Self { size: self.size, ..table().near(address, self.size) };
                self.word(address).expect("what was shared can be found")
            }
        };
        let old = word.fetch_sub(words::one_share(self.size), Ordering::AcqRel);
        assert!(words::is_shared(old, self.size), "a share is returned once");
    }

    #[inline(always)]
    fn word(&self, address: Pa) -> Option<&'m AtomicU32> {
        let number = address.0 >> map::bytes(self.size).trailing_zeros();
        self.words.get(number.wrapping_sub(self.first) as usize)
    }
}

/// Changes a word by one transition, or returns the transition's error and changes nothing.
fn change(word: &AtomicU32, transition: impl Fn(u32) -> Status<u32>) -> Status {
    let mut old = word.load(Ordering::Acquire);
    loop {
        let new = transition(old)?;
        match word.compare_exchange_weak(old, new, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Ok(()),
            Err(seen) => old = seen,
        }
    }
}
