//! Stage-2 descriptors as copied values (Arm ARM DDI 0487, section D8.3, VMSAv8-64, 4 KiB granule).
//!
//! What a descriptor is depends on the level that it stands at: `0b11` in bits 1:0 is a page at
//! level 3 and a table above. So the only view is [`Descriptor::kind`], which takes the level; an
//! encoding that the architecture reserves comes out as [`Kind::Invalid`] and can't become a view.
//!
//! Bits 7, 10, 51, 55 and 56 are set in valid leaves only. Tables and invalid entries, annotated ones too,
//! keep them clear (but for the links in the host's own tree, which ageing never sees). So ageing, write-protection and harvest may clear them in whatever stands in an
//! entry by now: in anything but a leaf they change nothing.
//!
//! Those bits are also the log of what was written. GRANTED says that the host allows writing, S2AP\[1\]
//! that the walker does. A leaf with both is *dirty*: it may have been written. Granted and not writable
//! it is *clean*, and the first write makes it dirty: by a fault, or by the walker itself where DBM is
//! set and VTCR_EL2.HD is on (D8.5.3). A leaf that is not granted is read-only, whatever the guest does;
//! if it was dirty when the host took the grant, WRITTEN says so until that is harvested.

use crate::memory::TablePage;
use verdigris_abi::{PAGE_SHIFT, Pa};

/// log2 of the number of entries in a table page.
///
/// Under loom a table has two entries, so that a whole tree is a handful of model atomics.
pub const INDEX_BITS: u32 = if cfg!(loom) { 1 } else { 9 };
/// Number of entries in a table page.
pub const TABLE_ENTRIES: usize = 1 << INDEX_BITS;

/// A level of lookup; level 3 is the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Each entry spans 512 GiB, and is never a block.
    L0 = 0,
    /// Each entry spans 1 GiB.
    L1 = 1,
    /// Each entry spans 2 MiB.
    L2 = 2,
    /// Each entry spans 4 KiB.
    L3 = 3,
}

impl Level {
    /// Returns the next level down; `None` for the last.
    pub const fn next(self) -> Option<Self> {
        match self {
            Self::L0 => Some(Self::L1),
            Self::L1 => Some(Self::L2),
            Self::L2 => Some(Self::L3),
            Self::L3 => None,
        }
    }

    /// Returns the next level up; `None` for the first.
    pub const fn above(self) -> Option<Self> {
        match self {
            Self::L0 => None,
            Self::L1 => Some(Self::L0),
            Self::L2 => Some(Self::L1),
            Self::L3 => Some(Self::L2),
        }
    }

    /// Returns log2 of the bytes that one entry spans.
    pub const fn shift(self) -> u32 {
        PAGE_SHIFT + INDEX_BITS * (3 - self as u32)
    }

    /// Returns the bytes that one entry spans.
    pub const fn bytes(self) -> u64 {
        1 << self.shift()
    }

    /// Returns the 4 KiB pages that one entry spans.
    pub const fn pages(self) -> u64 {
        self.bytes() >> PAGE_SHIFT
    }

    /// Returns the index in its table page of the entry that translates `address`.
    pub const fn index(self, address: u64) -> usize {
        (address >> self.shift()) as usize & (TABLE_ENTRIES - 1)
    }
}

/// What a descriptor is, at the level that it stands at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: an access faults.
    Invalid,
    /// Nothing for now: a CPU is between break and make here. An access faults and is to be retried.
    Busy,
    /// The table of the next level.
    Table(TablePage),
    /// A block (levels 1 and 2) or a page (level 3), by its output address.
    Leaf(Pa),
}

const VALID: u64 = 1 << 0;
/// Table above level 3, page at level 3.
const TABLE_OR_PAGE: u64 = 1 << 1;
/// In an invalid entry: between break and make. The walker ignores all bits but bit 0 there; in a leaf
/// this one is the software's, and stays clear.
pub(crate) const BUSY: u64 = 1 << 57;
const S2AP_READ: u64 = 1 << 6;
pub(crate) const S2AP_WRITE: u64 = 1 << 7;
/// The access flag.
pub(crate) const AF: u64 = 1 << 10;
/// Dirty bit modifier: the walker answers a write to a leaf without S2AP\[1\] by setting it (D8.5.3).
pub(crate) const DBM: u64 = 1 << 51;
/// The upper bit of XN: no execution at EL1 and EL0. The lower one (bit 53) stays 0, so FEAT_XNX makes no difference.
const XN: u64 = 1 << 54;
/// Software bit: the host allowed writing. Bits 58:55 are reserved for software use (D8.3.2).
pub(crate) const GRANTED: u64 = 1 << 55;
/// Software bit: the leaf was dirty when the host write-protected it.
const WRITTEN: u64 = 1 << 56;
/// Output address of a leaf or table, bits 47:12.
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// In a link of the host's tree: how many parts of the table are missing. The walker ignores bits 11:2 of a
/// table descriptor (D8.3.1; VTCR_EL2.DS and VTCR_EL2.HAFT, which would give some a meaning, are 0).
const MISSING: u64 = 0x3ff << MISSING_SHIFT;
const MISSING_SHIFT: u32 = 2;

/// A bit of each entry above level 3 that is neither a block nor invalid for good.
pub(crate) const NO_BLOCK: u64 = TABLE_OR_PAGE | BUSY;
/// All that has to do with writing: what write-protection takes.
const WRITING: u64 = S2AP_WRITE | DBM | GRANTED;
/// What makes a leaf dirty: what a harvest takes.
pub(crate) const DIRTY: u64 = S2AP_WRITE | WRITTEN;

/// What tells a valid leaf, and what only leaves may have.
pub(crate) const LEAVES_ONLY: u64 = VALID | AF | WRITING | DIRTY;

/// Where a BUSY entry keeps AF, S2AP\[1\], GRANTED, WRITTEN and DBM of the leaf that it remembers.
const FROZEN: u64 = 0b1_1111 << 58;

/// One 64-bit descriptor: a value that was read from a table, or will be written to one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct Descriptor(pub(crate) u64);

impl Descriptor {
    /// An entry that translates nothing.
    pub const INVALID: Self = Self(0);
    /// An invalid entry that tells other CPUs to retry: its owner is between break and make.
    pub const BUSY: Self = Self(BUSY);

    /// Makes the descriptor that links a table of the next level.
    ///
    /// All attribute bits stay 0; stage 2 tables have none.
    pub const fn table(page: TablePage) -> Self {
        Self(page.pa().0 & ADDRESS | TABLE_OR_PAGE | VALID)
    }

    /// Counts the missing parts of a table in its link: at least 1, since a table without goes.
    pub(crate) fn with_missing(self, count: u64) -> Self {
        assert!(count > 0 && count <= TABLE_ENTRIES as u64, "a table has 1 to 512 missing parts");
        Self(self.0 & !MISSING | count << MISSING_SHIFT)
    }

    /// Returns how many parts of a linked table are missing; 0 if that isn't counted.
    pub(crate) fn missing(self) -> u64 {
        if self.is_shared_table() { 0 } else { (self.0 & MISSING) >> MISSING_SHIFT }
    }

    /// Marks a link whose table stands in several places and never changes.
    pub(crate) fn with_shared_table(self) -> Self {
        Self(self.0 | MISSING)
    }

    /// Tells whether a link has that mark.
    pub(crate) fn is_shared_table(self) -> bool {
        self.0 & MISSING == MISSING
    }

    /// Makes the link of a retired table: an invalid entry that holds a page address.
    pub(crate) const fn link(next: u64) -> Self {
        assert!(next & (LEAVES_ONLY | BUSY) == 0, "a link reads as an invalid entry");
        Self(next)
    }

    /// Makes the leaf for a level, with attribute bits that `Attributes` built.
    pub(crate) fn leaf(pa: Pa, level: Level, bits: u64) -> Self {
        assert!(level > Level::L0, "level 0 has no blocks (Arm ARM D8.3.1)");
        assert!(pa.is_aligned(level.bytes()) && pa.0 & !ADDRESS == 0, "misplaced leaf");
        let kind = if level == Level::L3 { TABLE_OR_PAGE | VALID } else { VALID };
        Self(pa.0 | bits | kind)
    }

    /// Returns the bits as the walker reads them.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// Tells whether the walker takes the entry as valid.
    pub const fn is_valid(self) -> bool {
        self.0 & VALID != 0
    }

    /// Tells what the descriptor is at `level`.
    pub fn kind(self, level: Level) -> Kind {
        let table_or_page = self.0 & TABLE_OR_PAGE != 0;
        match (self.is_valid(), table_or_page, level) {
            (false, ..) if self.0 & BUSY != 0 => Kind::Busy,
            (false, ..) => Kind::Invalid,
            (true, true, Level::L3) | (true, false, Level::L1 | Level::L2) => {
                Kind::Leaf(Pa(self.0 & ADDRESS & !(level.bytes() - 1)))
            }
            (true, true, _) => Kind::Table(TablePage::linked(Pa(self.0 & ADDRESS))),
            // Reserved encodings: a block at level 0 or 3. The walker faults on them.
            (true, false, Level::L0 | Level::L3) => Kind::Invalid,
        }
    }

    /// Returns the table that the descriptor leads to, if it leads to one at `level`.
    #[inline]
    pub fn table_below(self, level: Level) -> Option<TablePage> {
        let is_table = self.0 & (VALID | TABLE_OR_PAGE) == VALID | TABLE_OR_PAGE;
        (is_table && level != Level::L3).then(|| TablePage::linked(Pa(self.0 & ADDRESS)))
    }

    /// Returns the output address if the descriptor is a leaf at `level`.
    #[inline]
    pub fn leaf_address(self, level: Level) -> Option<Pa> {
        match self.kind(level) {
            Kind::Leaf(pa) => Some(pa),
            _ => None,
        }
    }

    /// Returns the output address of an entry of a last-level table: there all that is valid is a page.
    #[inline(always)]
    pub(crate) const fn page_address(self) -> Option<Pa> {
        if self.is_valid() { Some(Pa(self.0 & ADDRESS)) } else { None }
    }

    /// Tells whether the access flag is set. Only leaves have it.
    pub const fn is_young(self) -> bool {
        self.0 & AF != 0
    }

    /// Sets or clears the access flag of a leaf.
    pub const fn with_young(self, young: bool) -> Self {
        if young { Self(self.0 | AF) } else { Self(self.0 & !AF) }
    }

    /// Tells whether writes are allowed by the walker: the upper bit of S2AP.
    pub const fn is_writable(self) -> bool {
        self.0 & S2AP_WRITE != 0
    }

    /// Tells whether instruction fetches are allowed.
    pub const fn is_executable(self) -> bool {
        self.0 & XN == 0
    }

    /// Tells whether the host allowed writing, whatever S2AP says at the moment.
    pub const fn is_granted(self) -> bool {
        self.0 & GRANTED != 0
    }

    /// Tells whether the page may have been written since it was last found, or made, clean.
    pub const fn is_dirty(self) -> bool {
        self.is_valid() && self.0 & DIRTY != 0
    }

    /// Returns 1 for what is valid, or else 0.
    #[inline(always)]
    pub(crate) const fn valid_bit(self) -> u64 {
        self.0 & VALID
    }

    /// Returns 1 for a young leaf, or else 0.
    #[inline(always)]
    pub(crate) const fn young_bit(self) -> u64 {
        self.0 >> AF.trailing_zeros() & 1
    }

    /// Returns 1 for a dirty leaf, or else 0: what is no leaf has none of the bits that make one dirty.
    #[inline(always)]
    pub(crate) const fn dirty_bit(self) -> u64 {
        (self.0 >> S2AP_WRITE.trailing_zeros() | self.0 >> WRITTEN.trailing_zeros()) & 1
    }

    /// Takes the permission to write, and the host's grant of it.
    pub const fn write_protected(self) -> Self {
        Self(self.0 & !WRITING)
    }

    /// Takes the permission and the grant from a leaf in use: if it was dirty, it stays so.
    pub(crate) const fn write_revoked(self) -> Self {
        if self.is_writable() { self.write_revoked_of_dirty() } else { self.write_protected() }
    }

    /// Takes the permission and the grant from a leaf that is writable, and so dirty.
    pub(crate) const fn write_revoked_of_dirty(self) -> Self {
        Self(self.write_protected().0 | WRITTEN)
    }

    /// Adds access flag and dirty state of another leaf with the same grant.
    pub const fn with_history_of(self, other: Self) -> Self {
        assert!(self.is_granted() == other.is_granted(), "dirty state means more under a grant");
        Self(self.0 | other.0 & (AF | DIRTY))
    }

    /// Gives the walker's permission to write back to a leaf that the host granted it for.
    pub const fn writable_again(self) -> Self {
        assert!(self.is_granted(), "only the host grants writing");
        Self(self.0 | S2AP_WRITE)
    }

    /// Takes the walker's permission to write and keeps the host's grant: the next write is logged.
    pub const fn write_logged(self) -> Self {
        Self(self.0 & !S2AP_WRITE)
    }

    /// Tells whether `other` allows nothing that this leaf doesn't.
    pub const fn allows_all_of(self, other: Self) -> bool {
        let allowed = S2AP_READ | WRITING;
        other.0 & allowed & !self.0 == 0 && (self.is_executable() || !other.is_executable())
    }

    /// Adds the permissions of `other` and keeps everything else.
    pub const fn with_permissions_of(self, other: Self) -> Self {
        let added = other.0 & (S2AP_READ | WRITING);
        Self((self.0 | added) & !(XN & !other.0))
    }

    /// Makes the descriptor of one part of this leaf, for the table that replaces it at a split.
    ///
    /// All attributes carry over, access flag, dirty state and software bits included.
    pub fn part(self, level: Level, index: usize) -> Self {
        let pa = self.leaf_address(level).expect("only leaves are split");
        let next = level.next().expect("pages are not split");
        let bits = self.0 & !ADDRESS & !(TABLE_OR_PAGE | VALID);
        Self::leaf(Pa(pa.0 + index as u64 * next.bytes()), next, bits)
    }

    /// Makes the descriptor of the leaf one level up whose first part this one is; `None` if its memory
    /// isn't aligned to that.
    pub fn whole(self, level: Level) -> Option<Self> {
        let pa = self.leaf_address(level).expect("only leaves become part of a larger one");
        let above = level.above()?;
        let bits = self.0 & !ADDRESS & !(TABLE_OR_PAGE | VALID);
        pa.is_aligned(above.bytes()).then(|| Self::leaf(pa, above, bits))
    }

    /// Tells whether two leaves of a level differ in access flag and dirty state at most.
    pub const fn is_same_but_history(self, other: Self) -> bool {
        (self.0 ^ other.0) & !(AF | DIRTY) == 0
    }

    /// Makes a BUSY entry that remembers a leaf: what only leaves may have stands five bits elsewhere.
    pub(crate) const fn frozen(self) -> Self {
        assert!(self.is_valid(), "only leaves are remembered");
        let rest = self.0 & !LEAVES_ONLY;
        let history = (self.0 & AF) << 48 | (self.0 & S2AP_WRITE) << 52;
        let grant = (self.0 & (GRANTED | WRITTEN)) << 5 | (self.0 & DBM) << 11;
        Self(rest | history | grant | BUSY)
    }

    /// Returns the leaf that a BUSY entry remembers; `None` for any other entry.
    pub(crate) const fn thawed(self) -> Option<Self> {
        if self.is_valid() || self.0 & BUSY == 0 || self.0 == BUSY {
            return None;
        }
        let rest = self.0 & !(FROZEN | BUSY);
        let history = (self.0 >> 48 & AF) | (self.0 >> 52 & S2AP_WRITE);
        let grant = (self.0 >> 5 & (GRANTED | WRITTEN)) | (self.0 >> 11 & DBM);
        Some(Self(rest | history | grant | VALID))
    }

    /// Returns the bits that break-before-make protects: memory type and shareability.
    pub(crate) const fn memory_type(self) -> u64 {
        self.0 & 0x33c
    }
}

impl core::fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Descriptor({:#018x})", self.0)
    }
}

/// Tells whether an entry must be broken and invalidated before `new` may stand where `old` stood.
///
/// Needed where output address, memory type, shareability or block size change between two valid
/// entries (Arm ARM D8.16.1). Permissions, access flag and software bits may change in place.
pub fn needs_break(old: Descriptor, new: Descriptor, level: Level) -> bool {
    match (old.kind(level), new.kind(level)) {
        (Kind::Invalid | Kind::Busy, _) | (_, Kind::Invalid | Kind::Busy) => false,
        (Kind::Leaf(from), Kind::Leaf(to)) => from != to || old.memory_type() != new.memory_type(),
        (Kind::Table(_), _) | (_, Kind::Table(_)) => true,
    }
}
