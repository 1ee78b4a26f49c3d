//! How the engine reaches table memory, and where table pages come from.
//!
//! Table pages are named by physical address and reached through [`TableMemory`], so that the engine
//! never makes a pointer from a number. A [`TablePage`] is the promise that makes that safe: it comes
//! into being only by the `unsafe` [`TablePage::new`], or from a descriptor that the engine itself
//! linked, and those were made from one.
#![allow(unsafe_code)]

use crate::descriptor::TABLE_ENTRIES;
use crate::entry::Entry;
use crate::geometry::Geometry;
use crate::sweep::GROUP;
use verdigris_abi::{Ipa, PAGE_SIZE, Pa};

/// The entries of one table page.
pub type Table = [Entry; TABLE_ENTRIES];

#[cfg(not(loom))]
const _: () = assert!(size_of::<Table>() == PAGE_SIZE as usize);

/// The physical address of a page that holds a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct TablePage(Pa);

impl TablePage {
    /// Names a page of table memory.
    ///
    /// # Safety
    /// `pa` is the aligned address of a page that the [`TableMemory`] in use can reach, and that is
    /// read and written as a table by nobody but the engine and the hardware walker until the engine
    /// gives it back to its [`PageSource`] (or, for a root, until the tree is no longer used).
    pub const unsafe fn new(pa: Pa) -> Self {
        assert!(pa.is_aligned(PAGE_SIZE), "table pages are aligned");
        Self(pa)
    }

    /// Takes the address out of a table descriptor, which was made from a `TablePage`.
    pub(crate) const fn linked(pa: Pa) -> Self {
        Self(pa)
    }

    /// Returns the physical address.
    pub const fn pa(self) -> Pa {
        self.0
    }
}

/// Reaches table pages by their physical address.
pub trait TableMemory {
    /// Returns the entries of a table page.
    fn table(&self, page: TablePage) -> &Table;

    /// Returns each bit that any of eight entries has, by plain loads in no order.
    ///
    /// This tells where to look closer, and costs most of a sweep that finds nothing. The language has no
    /// atomic load of two entries at once; the architecture has (LDP, Arm ARM B2.2.1).
    #[inline(always)]
    fn any_bits(&self, group: &[Entry; GROUP]) -> u64 {
        group.iter().fold(0, |any, entry| any | entry.peek())
    }
}

/// Gives and takes back pages for tables: a VM's donated pool, or EL2's own.
pub trait PageSource {
    /// Takes a page out of the pool: all entries zero, and the zeroes visible to the walker no later
    /// than a store that links the page. `None` if the pool is empty.
    fn alloc(&self) -> Option<TablePage>;

    /// Gives a page back, in whatever state. No CPU and no walker can reach it any more.
    fn free(&self, page: TablePage);
}

/// The root of a tree: what VTTBR_EL2 and VTCR_EL2 describe together.
#[derive(Clone, Copy, Debug)]
pub struct Root {
    base: TablePage,
    geometry: Geometry,
}

impl Root {
    /// Makes the root of a tree from `geometry.root_pages()` contiguous, aligned pages.
    ///
    /// # Safety
    /// What [`TablePage::new`] asks for holds for each of the root pages from `base` on, and a tree
    /// in them was built by this engine (zeroes are the empty tree).
    pub const unsafe fn new(base: Pa, geometry: Geometry) -> Self {
        assert!(base.is_aligned(geometry.root_alignment()), "roots are aligned to their size");
        Self { base: TablePage(base), geometry }
    }

    /// Returns the physical address for VTTBR_EL2.BADDR.
    pub const fn pa(self) -> Pa {
        self.base.0
    }

    /// Returns the shape of the tree.
    pub const fn geometry(self) -> Geometry {
        self.geometry
    }

    /// Returns the root page that the walk of an IPA begins in.
    ///
    /// Panics if the IPA is outside of the tree: what lies behind the root is no table.
    pub(crate) const fn page_for(self, ipa: Ipa) -> TablePage {
        let root_page = self.geometry.root_page(ipa);
        assert!(root_page < self.geometry.root_pages(), "an IPA outside of the root");
        TablePage(Pa(self.base.0.0 + root_page * PAGE_SIZE))
    }
}
