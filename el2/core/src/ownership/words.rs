//! The words of the table, and every lawful transition of one.
//!
//! A page: bits 1:0 say whose it is, the next 29 how often it is shared (the host's) or which VM has
//! it. A block: the low bits say how many of its pages are not the host's, the others how often the
//! block is shared. Zero is a page of nobody's.

use super::map::FANOUT;
use crate::call::{LeafSize, VmHandle};
use verdigris_abi::{Error, Status};

/// Whose a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Nobody's: it is no RAM, or reserved.
    None,
    /// The host's.
    Host,
    /// The firmware's.
    El2,
    /// A VM's tables and records.
    Vm(VmHandle),
}

const TAG: u32 = 0b11;
const TAG_BITS: u32 = 2;
const TAG_NONE: u32 = 0;
const TAG_HOST: u32 = 1;
const TAG_EL2: u32 = 2;
const TAG_VM: u32 = 3;

/// Clear in every word of a page: shares count up to 2^29 - 1.
const NEVER: u32 = 1 << 31;

/// The word of a page that is nobody's.
pub(super) const NOBODY: u32 = TAG_NONE;

/// Returns the word of a page with that owner and no shares.
const fn owned_by(owner: Owner) -> u32 {
    match owner {
        Owner::None => NOBODY,
        Owner::Host => TAG_HOST,
        Owner::El2 => TAG_EL2,
        Owner::Vm(VmHandle(handle)) => (handle as u32) << TAG_BITS | TAG_VM,
    }
}

/// Returns whose a page is.
pub(super) const fn owner(word: u32) -> Owner {
    match word & TAG {
        TAG_HOST => Owner::Host,
        TAG_EL2 => Owner::El2,
        TAG_VM => Owner::Vm(VmHandle((word >> TAG_BITS) as u16)),
        _ => Owner::None,
    }
}

/// Returns how often a page is shared by itself.
pub(super) const fn page_shares(word: u32) -> u32 {
    if word & TAG == TAG_HOST { word >> TAG_BITS } else { 0 }
}

/// Returns one share in the word of a page or block.
#[inline(always)]
pub(super) const fn one_share(size: LeafSize) -> u32 {
    match size {
        LeafSize::Page => 1 << TAG_BITS,
        LeafSize::Block2M => BLOCK.one_share(),
        LeafSize::Block1G => GIGA.one_share(),
    }
}

/// Tells whether a page or block is shared by itself.
#[inline(always)]
pub(super) const fn is_shared(word: u32, size: LeafSize) -> bool {
    match size {
        // The least such word is the host's tag and one share. Below it and at other tags one of these bits
        // is left.
        LeafSize::Page => word.wrapping_sub(TAG_HOST + one_share(size)) & (NEVER | TAG) == 0,
        LeafSize::Block2M | LeafSize::Block1G => word >= one_share(size),
    }
}

/// Adds a share to a page of the host's.
pub(super) fn share_page(word: u32) -> Status<u32> {
    match owner(word) {
        Owner::Host if word.wrapping_add(1 << TAG_BITS) & NEVER != 0 => Err(Error::Limit),
        Owner::Host => Ok(word + (1 << TAG_BITS)),
        _ => Err(Error::NotOwner),
    }
}

/// Takes a share from a page.
pub(super) fn unshare_page(word: u32) -> Status<u32> {
    if page_shares(word) > 0 { Ok(word - (1 << TAG_BITS)) } else { Err(Error::NoEntry) }
}

/// Hands an unshared page from one owner to another.
pub(super) fn hand_over(from: Owner, to: Owner) -> impl Fn(u32) -> Status<u32> {
    move |word| {
        if owner(word) != from {
            Err(Error::NotOwner)
        } else if page_shares(word) > 0 {
            Err(Error::Busy)
        } else {
            Ok(owned_by(to))
        }
    }
}

/// How the word of a block is divided.
#[derive(Clone, Copy)]
pub(super) struct BlockWord {
    /// How many low bits count the pages that are not the host's. One bit more than the pages need,
    /// so that donations of one page by many CPUs at once, of which all but one will be taken back,
    /// don't overflow.
    taken_bits: u32,
    page_count: u32,
}

/// A block of 2 MiB: 22 bits of shares.
pub(super) const BLOCK: BlockWord = BlockWord { taken_bits: 10, page_count: FANOUT as u32 };
/// A block of 1 GiB: 13 bits of shares.
pub(super) const GIGA: BlockWord =
    BlockWord { taken_bits: 19, page_count: (FANOUT * FANOUT) as u32 };

impl BlockWord {
    /// Returns the word of a block of which the host owns nothing.
    pub(super) const fn all_taken(self) -> u32 {
        self.page_count
    }

    /// Returns how often the block is shared.
    pub(super) const fn shares_in(self, word: u32) -> u32 {
        word >> self.taken_bits
    }

    const fn taken_in(self, word: u32) -> u32 {
        word & (self.one_share() - 1)
    }

    const fn one_share(self) -> u32 {
        1 << self.taken_bits
    }

    /// Adds a share, if all of the block is the host's.
    pub(super) fn share(self) -> impl Fn(u32) -> Status<u32> {
        move |word| {
            if self.taken_in(word) > 0 {
                return Err(Error::NotOwner);
            }
            word.checked_add(self.one_share()).ok_or(Error::Limit)
        }
    }

    /// Takes a share.
    pub(super) fn unshare(self) -> impl Fn(u32) -> Status<u32> {
        move |word| {
            if self.shares_in(word) > 0 { Ok(word - self.one_share()) } else { Err(Error::NoEntry) }
        }
    }

    /// Counts a page that is about to leave the host, if the block is not shared.
    pub(super) fn take(self) -> impl Fn(u32) -> Status<u32> {
        move |word| {
            if self.shares_in(word) > 0 {
                Err(Error::Busy)
            } else if self.taken_in(word) == self.one_share() - 1 {
                Err(Error::Limit)
            } else {
                Ok(word + 1)
            }
        }
    }

    /// Counts pages that are the host's again.
    pub(super) fn untake(self, count: u32) -> impl Fn(u32) -> Status<u32> {
        move |word| {
            if self.taken_in(word) >= count { Ok(word - count) } else { Err(Error::NoEntry) }
        }
    }
}

#[cfg(all(not(loom), test))]
mod tests {
    use super::*;

    const HOST: u32 = 0b01;

    #[test]
    fn owners_are_two_bits_and_a_handle() {
        let vm = Owner::Vm(VmHandle(0x100));
        for (owned, word) in [(Owner::None, 0), (Owner::Host, 1), (Owner::El2, 2), (vm, 0x403)] {
            assert_eq!(owned_by(owned), word);
            assert_eq!(owner(word), owned);
        }
    }

    #[test]
    fn shares_of_a_page_saturate_into_an_error() {
        assert_eq!(share_page(HOST), Ok(0b101));
        assert_eq!(unshare_page(0b101), Ok(HOST));
        assert_eq!(share_page(0x7fff_fffd), Err(Error::Limit));
        assert_eq!(unshare_page(0x7fff_fffd), Ok(0x7fff_fff9));
        assert_eq!(unshare_page(HOST), Err(Error::NoEntry));
        assert_eq!(unshare_page(0x403), Err(Error::NoEntry));
        for other in [0, 2, 0x403] {
            assert_eq!(share_page(other), Err(Error::NotOwner));
        }
    }

    #[test]
    fn shares_of_a_block_saturate_into_an_error() {
        for (block, bits) in [(BLOCK, 10), (GIGA, 19)] {
            let full = u32::MAX << bits;
            assert_eq!(block.share()(full), Err(Error::Limit));
            assert_eq!(block.share()(0), Ok(1 << bits));
            assert_eq!(block.share()(1), Err(Error::NotOwner));
            assert_eq!(block.unshare()(0), Err(Error::NoEntry));
            assert_eq!(block.unshare()(full), Ok(full - (1 << bits)));
            assert_eq!(block.take()(full), Err(Error::Busy));
            assert_eq!(block.take()((1 << bits) - 1), Err(Error::Limit));
            assert_eq!(block.take()(0), Ok(1));
            assert_eq!(block.untake(1)(1), Ok(0));
            assert_eq!(block.untake(2)(full | 3), Ok(full | 1));
            assert_eq!(block.untake(2)(full | 1), Err(Error::NoEntry));
        }
        assert_eq!((BLOCK.all_taken(), GIGA.all_taken()), (512, 262_144));
    }

    #[test]
    fn shares_that_go_together_are_the_ones_that_go_alone() {
        for word in [0, 1, 2, 3, 4, 5, 6, 7, 0x402, 0x403, 0b1001, 0x7fff_fff9, 0x7fff_fffd] {
            assert_eq!(is_shared(word, LeafSize::Page), unshare_page(word).is_ok(), "{word:#x}");
            let one = one_share(LeafSize::Page);
            assert!(
                unshare_page(word).is_ok_and(|less| less == word - one)
                    || !is_shared(word, LeafSize::Page)
            );
        }
        for (block, size) in [(BLOCK, LeafSize::Block2M), (GIGA, LeafSize::Block1G)] {
            let one = one_share(size);
            for word in [0, 1, one - 1, one, one + 1, 2 * one, u32::MAX] {
                let less = is_shared(word, size).then(|| word - one);
                assert_eq!(block.unshare()(word).ok(), less, "{word:#x}");
            }
        }
    }

    #[test]
    fn a_page_changes_hands_only_unshared() {
        let vm = Owner::Vm(VmHandle(7));
        assert_eq!(hand_over(Owner::Host, vm)(HOST), Ok(0x1f));
        assert_eq!(hand_over(Owner::Host, vm)(0b101), Err(Error::Busy));
        assert_eq!(hand_over(Owner::Host, vm)(0b10), Err(Error::NotOwner));
        assert_eq!(hand_over(vm, Owner::Host)(0x1f), Ok(HOST));
        assert_eq!(hand_over(vm, Owner::Host)(0x23), Err(Error::NotOwner));
    }
}
