//! The walker: reads table memory as the architecture says a CPU does, with constants of its own.
//!
//! Nothing here comes from the engine: the start level follows from VTCR_EL2, the bits from the Arm ARM
//! (DDI 0487, D8.2 for the translation process and concatenated tables, D8.3 for descriptors, all for
//! VMSAv8-64 with the 4 KiB granule and 48-bit output addresses). So where the engine and this walker
//! agree, they agree on what the tables *mean*.

/// Memory as the walker reads it: one descriptor at a physical address.
pub trait Memory {
    /// Reads eight aligned bytes.
    fn load(&self, pa: u64) -> u64;
}

/// Stage-2 translation as the registers describe it.
#[derive(Clone, Copy, Debug)]
pub struct Regime {
    /// VTTBR_EL2.BADDR.
    pub baddr: u64,
    /// VTCR_EL2.T0SZ: the IPA has 64 less this many bits.
    pub t0sz: u64,
    /// VTCR_EL2.SL0: 2, 1 and 0 begin at levels 0, 1 and 2.
    pub sl0: u64,
}

/// How a walk ended: at which descriptor, and through which tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// The level of the descriptor that ended it.
    pub level: u32,
    /// That descriptor.
    pub raw: u64,
    /// Where it stands.
    pub at: u64,
    /// The table of each level that was walked; 0 for a level that was not.
    pub tables: [u64; 4],
}

/// Bits of a descriptor, D8.3.
pub mod bits {
    /// Valid.
    pub const VALID: u64 = 0x1;
    /// A table at levels 0 to 2, a page at level 3.
    pub const TABLE_OR_PAGE: u64 = 0x2;
    /// S2AP\[0\]: reads are allowed.
    pub const READ: u64 = 0x40;
    /// S2AP\[1\]: writes are allowed.
    pub const WRITE: u64 = 0x80;
    /// SH: inner shareable.
    pub const INNER_SHAREABLE: u64 = 0x300;
    /// The access flag.
    pub const AF: u64 = 0x400;
    /// Dirty bit modifier: the walker may set S2AP\[1\].
    pub const DBM: u64 = 0x0008_0000_0000_0000;
    /// XN, the upper bit of the field.
    pub const XN: u64 = 0x0040_0000_0000_0000;
    /// Both bits of the field XN.
    pub const XN_FIELD: u64 = 0x0060_0000_0000_0000;
    /// For software: the host granted writing.
    pub const GRANTED: u64 = 0x0080_0000_0000_0000;
    /// For software: dirty when it lost the permission to write.
    pub const NOTED: u64 = 0x0100_0000_0000_0000;
    /// MemAttr, bits 5 to 2.
    pub const MEMORY_TYPE: u64 = 0x3c;
    /// The address in a table descriptor or page.
    pub const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
}
use bits::{ADDRESS, TABLE_OR_PAGE, VALID};

/// Returns log2 of what one descriptor of a level translates.
pub const fn shift(level: u32) -> u32 {
    39 - 9 * level
}

/// Returns the pages that one descriptor of a level translates.
pub const fn pages(level: u32) -> u64 {
    1 << (27 - 9 * level)
}

impl Regime {
    /// Returns the level that walks begin at.
    pub fn start_level(&self) -> u32 {
        match self.sl0 {
            2 => 0,
            1 => 1,
            0 => 2,
            _ => panic!("SL0 {} is reserved", self.sl0),
        }
    }

    /// Returns the size of the IPA space in bits.
    pub const fn ipa_bits(&self) -> u32 {
        64 - self.t0sz as u32
    }

    /// Checks what the architecture asks of the registers: at most 16 concatenated tables, at least
    /// one entry of the start level, and a base aligned to the root's size.
    pub fn check(&self) {
        let entries_log2 = self.ipa_bits().checked_sub(shift(self.start_level()));
        let entries_log2 = entries_log2.expect("an IPA space of at least one entry");
        assert!((1..=13).contains(&entries_log2), "2^{entries_log2} entries in the root");
        let root_bytes = 8u64 << entries_log2;
        assert_eq!(self.baddr % root_bytes, 0, "the root is aligned to its size");
    }

    /// Walks for an address below the end of the IPA space.
    #[inline]
    pub fn walk<M: Memory>(&self, memory: &M, ipa: u64) -> Walk {
        assert!(ipa >> self.ipa_bits() == 0, "the walker faults before it walks");
        let level = self.start_level();
        // With concatenated tables the index has more than nine bits.
        let index = ipa >> shift(level);
        let table = self.baddr + (index >> 9) * 4096;
        walk_from(memory, level, table, ipa)
    }

    /// Calls `leaf` with page and walk of each leaf, in order; `table` with each table's level and address.
    pub fn visit<M: Memory>(
        &self,
        memory: &M,
        mut leaf: impl FnMut(u64, u32, u64),
        mut table: impl FnMut(u32, u64),
    ) {
        let level = self.start_level();
        for part in 0..1u64 << (self.ipa_bits() - shift(level)).saturating_sub(9) {
            let base = part << (shift(level) + 9 - 12);
            let entries = 1 << (self.ipa_bits() - shift(level)).min(9);
            let at = self.baddr + part * 4096;
            visit(memory, (level, at, entries, base), &mut leaf, &mut table);
        }
    }
}

/// Walks on from a table of a level.
#[inline]
pub fn walk_from<M: Memory>(memory: &M, start: u32, table: u64, ipa: u64) -> Walk {
    let mut walk = Walk { level: start, raw: 0, at: table, tables: [0; 4] };
    walk.tables[start as usize] = table;
    loop {
        walk.at = walk.tables[walk.level as usize] + (ipa >> shift(walk.level) & 0x1ff) * 8;
        walk.raw = memory.load(walk.at);
        if walk.raw & (VALID | TABLE_OR_PAGE) != VALID | TABLE_OR_PAGE || walk.level == 3 {
            return walk;
        }
        walk.level += 1;
        walk.tables[walk.level as usize] = walk.raw & ADDRESS;
    }
}

fn visit<M: Memory>(
    memory: &M,
    (level, at, entries, base): (u32, u64, u64, u64),
    leaf: &mut impl FnMut(u64, u32, u64),
    table: &mut impl FnMut(u32, u64),
) {
    for index in 0..entries {
        let raw = memory.load(at + index * 8);
        let page = base + index * pages(level);
        if raw & VALID == 0 {
            assert_eq!(raw & bits::AF, 0, "bit 10 is set in valid leaves only");
        } else if level < 3 && raw & TABLE_OR_PAGE != 0 {
            assert_eq!(raw & !(ADDRESS | 3), 0, "a table descriptor has no attributes");
            table(level + 1, raw & ADDRESS);
            visit(memory, (level + 1, raw & ADDRESS, 512, page), leaf, table);
        } else {
            leaf(page, level, raw);
        }
    }
}

impl Walk {
    /// Tells whether the walk found a leaf. A block at level 0 and `0b01` at level 3 are reserved, and fault.
    #[inline]
    pub const fn is_leaf(&self) -> bool {
        match self.raw & (VALID | TABLE_OR_PAGE) {
            0b11 => self.level == 3,
            0b01 => self.level == 1 || self.level == 2,
            _ => false,
        }
    }

    /// Returns the address that a leaf of this walk translates `ipa` to.
    #[inline]
    pub const fn output(&self, ipa: u64) -> u64 {
        output(self.raw, self.level, ipa)
    }
}

/// Returns the address that a leaf translates `ipa` to.
#[inline]
pub const fn output(raw: u64, level: u32, ipa: u64) -> u64 {
    let offset_mask = (1 << shift(level)) - 1;
    raw & ADDRESS & !offset_mask | ipa & offset_mask
}
