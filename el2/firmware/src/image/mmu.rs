//! EL2's own translation: one identity map, built up and never changed, but for memory that goes.
//!
//! Entries only ever go from invalid to valid, so no break-before-make and no invalidation is needed
//! (Arm ARM D8.16: invalid entries are not cached). The entries of memory that came after boot ([`super::room`])
//! also go from valid to invalid, and all CPUs' TLBs are rid of them. RAM is mapped once, writable and not executable;
//! that it *can* be reached does not mean that anyone may: see `memory`.
#![allow(unsafe_code)]

use core::fmt;
use core::ptr;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use spin::mutex::TicketMutex;
use verdigris_abi::{Error, PAGE_SIZE, Pa};
use verdigris_platform::Region;

use super::{sysreg, system, tlb};

/// Attribute 0 is Device-nGnRE, attribute 1 Normal write-back (MAIR_EL2).
pub const MAIR: u64 = 0xff04;

const VALID: u64 = 1;
/// A table, at levels 0 to 2.
pub const TABLE: u64 = 0b11;
/// A page, at level 3.
pub const PAGE: u64 = 0b11;
const BLOCK: u64 = 0b01;
const NORMAL: u64 = 1 << 2;
const AP_RES1: u64 = 1 << 6;
const READ_ONLY: u64 = 1 << 7;
const INNER_SHAREABLE: u64 = 0b11 << 8;
const ACCESS_FLAG: u64 = 1 << 10;
const EXECUTE_NEVER: u64 = 1 << 54;
const OUTPUT: u64 = 0x0000_ffff_ffff_f000;

/// The firmware's code.
pub const TEXT: u64 = NORMAL | AP_RES1 | READ_ONLY | INNER_SHAREABLE | ACCESS_FLAG;
/// The firmware's constants.
pub const RODATA: u64 = TEXT | EXECUTE_NEVER;
/// Data, stacks and all RAM.
pub const DATA: u64 = NORMAL | AP_RES1 | INNER_SHAREABLE | ACCESS_FLAG | EXECUTE_NEVER;
/// Registers of devices.
pub const DEVICE: u64 = AP_RES1 | ACCESS_FLAG | EXECUTE_NEVER;

/// Where stacks are mapped that are not in the image: far above all RAM, so that the pages between
/// them are mapped to nothing.
pub const STACK_WINDOW: u64 = 0xff00_0000_0000;

/// Size of the unmapped gap below each stack.
pub const GUARD_BYTES: u64 = PAGE_SIZE;

/// Table pages for what is mapped before there is a pool.
const SPARE_TABLES: usize = 24;
#[repr(align(4096))]
struct Spare([[AtomicU64; 512]; SPARE_TABLES]);
static SPARE: Spare = Spare([const { [const { AtomicU64::new(0) }; 512] }; SPARE_TABLES]);
static SPARE_USED: AtomicUsize = AtomicUsize::new(0);

/// Serialises changes; walks by hardware need no lock.
static MAP: TicketMutex<()> = TicketMutex::new(());

/// Why a range could not be mapped.
#[derive(Debug)]
pub enum MapError {
    /// All spare table pages are used.
    OutOfTables,
    /// Something else is mapped there.
    Conflict,
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutOfTables => "EL2's own map has no table page left: too many separate ranges",
            Self::Conflict => "it overlaps something that EL2 has mapped already, as its own image",
        })
    }
}

/// Maps `bytes` bytes from `virt` to `phys`, in the largest blocks that fit. What is already mapped
/// the same way stays.
pub fn map(virt: u64, phys: u64, bytes: u64, attributes: u64) -> Result<(), MapError> {
    assert!((virt | phys | bytes) & (PAGE_SIZE - 1) == 0, "mapping of unaligned range");
    let _guard = MAP.lock();
    let mut done = 0;
    while done < bytes {
        done += map_one(virt + done, phys + done, bytes - done, attributes)?;
    }
    sysreg::dsb_ishst();
    sysreg::isb();
    Ok(())
}

/// Maps the identity of a range of RAM or devices, widened to whole pages.
pub fn map_identity(start: u64, bytes: u64, attributes: u64) -> Result<(), MapError> {
    let first = start & !(PAGE_SIZE - 1);
    let end = (start + bytes).next_multiple_of(PAGE_SIZE);
    map(first, first, end - first, attributes)
}

/// Maps one page or block and returns its size.
fn map_one(virt: u64, phys: u64, bytes: u64, attributes: u64) -> Result<u64, MapError> {
    let mut table = verdigris_linker::boot_tables();
    for level in 0..3 {
        let size = PAGE_SIZE << (9 * (3 - level));
        let entry = entry_of(table, virt, level);
        // SAFETY: `entry_of` points into a live table of EL2's own map, and `MAP` is held.
        let old = unsafe { ptr::read_volatile(entry) };
        if old & VALID == 0 {
            if level > 0 && bytes >= size && (virt | phys) & (size - 1) == 0 {
                set(entry, phys | attributes | BLOCK);
                return Ok(size);
            }
            table = new_table()?;
            set(entry, table | TABLE);
        } else if old & TABLE == TABLE {
            table = old & OUTPUT;
        } else {
            let same =
                old & !OUTPUT == attributes | BLOCK && (old & OUTPUT) + (virt & (size - 1)) == phys;
            // A block that covers this and more: go on behind it.
            return if same { Ok(size - (virt & (size - 1))) } else { Err(MapError::Conflict) };
        }
    }
    map_page(entry_of(table, virt, 3), phys | attributes | PAGE)
}

/// Returns how many table pages [`link_tables`] takes for a region of whole GiB.
pub const fn tables_for(room: Region) -> u64 {
    room.bytes() >> 30
}

/// Links tables without entries for a region of whole GiB that has none, at boot: what maps or unmaps blocks
/// there later needs no memory.
pub fn link_tables(room: Region, mut page: impl FnMut() -> Option<Pa>) -> Result<(), Error> {
    for start in (room.start().0..room.end().0).step_by(1 << 30) {
        let table = page().ok_or(Error::NoMemory)?;
        let entry = entry_above(start).ok_or(Error::NoMemory)?;
        set(entry, table.0 | TABLE);
    }
    Ok(())
}

/// Returns the entry of level 1 for an address.
fn entry_above(virt: u64) -> Option<*mut u64> {
    let entry = entry_of(verdigris_linker::boot_tables(), virt, 0);
    // SAFETY: `entry_of` points into a live table of EL2's own map, which no other CPU changes.
    let old = unsafe { ptr::read_volatile(entry) };
    let table = if old & VALID == 0 { new_table().ok()? } else { old & OUTPUT };
    if old & VALID == 0 {
        set(entry, table | TABLE);
    }
    Some(entry_of(table, virt, 1))
}

/// Returns the entry for a block of 2 MiB in a table that [`link_tables`] linked.
fn entry_of_block(block: Pa) -> *mut u64 {
    let above = entry_above(block.0).expect("linked at boot");
    // SAFETY: as in `entry_above`.
    let table = unsafe { ptr::read_volatile(above) };
    assert!(table & TABLE == TABLE, "there is room for the block");
    entry_of(table & OUTPUT, block.0, 2)
}

/// Maps a block of 2 MiB of the room as RAM.
pub fn map_block(block: Pa) {
    let _guard = MAP.lock();
    set(entry_of_block(block), block.0 | DATA | BLOCK);
    sysreg::dsb_ishst();
    sysreg::isb();
}

/// Takes a block of 2 MiB of the room out of EL2's map. When this returns no CPU's TLB has it.
pub fn unmap_block(block: Pa) {
    let _guard = MAP.lock();
    // SAFETY: the entry is of a live table, and nobody uses the block: the caller made it nobody's.
    unsafe { ptr::write_volatile(entry_of_block(block), 0) };
    sysreg::dsb_ish();
    // SAFETY: to lose translations does no harm.
    unsafe {
        core::arch::asm!("tlbi vae2is, {}", in(reg) block.0 >> 12, options(nostack, preserves_flags));
    }
    sysreg::dsb_ish();
    if system::selection().errata.repeat_tlbi {
        tlb::repeat();
    }
    sysreg::isb();
}

fn map_page(entry: *mut u64, new: u64) -> Result<u64, MapError> {
    // SAFETY: as in `map_one`.
    let old = unsafe { ptr::read_volatile(entry) };
    if old & VALID == 0 {
        set(entry, new);
    } else if old != new {
        return Err(MapError::Conflict);
    }
    Ok(PAGE_SIZE)
}

/// Points at the entry for `virt` of a table of a level.
fn entry_of(table: u64, virt: u64, level: u32) -> *mut u64 {
    let index = virt >> (12 + 9 * (3 - level)) & 511;
    (table + index * 8) as *mut u64
}

fn set(entry: *mut u64, value: u64) {
    // A table page is zero before the entry that leads to it.
    sysreg::dsb_ishst();
    // SAFETY: the pointer comes from `entry_of` of a live table; a volatile store of 8 bytes is single
    // and the entry was invalid, so no translation in use changes.
    unsafe { ptr::write_volatile(entry, value) }
}

fn new_table() -> Result<u64, MapError> {
    let index = SPARE_USED.fetch_add(1, Ordering::Relaxed);
    if index >= SPARE_TABLES {
        return Err(MapError::OutOfTables);
    }
    // Zeroed with the rest of .bss, and handed out once.
    Ok(SPARE.0[index].as_ptr() as u64)
}
