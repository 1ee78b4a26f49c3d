//! Decodes the calls on a VM's addresses: x1 is the VM, x2 the first address, then what the call takes.

use super::*;
use verdigris_abi::{AGE_BUFFER_PAGES, AGE_REGISTER_PAGES, MAP_LIST_PAGES, WORKING_SET_MAP_PAGES};

/// Pages whose idle ages fill one page of a working set's region: a byte each.
const AGES_PER_PAGE: u64 = PAGE_SIZE;

/// Flags that ask for final dirty bits.
const DIRTY: u64 = flags::UNMAP_DIRTY;
const DIRTY_TO_BUFFER: u64 = flags::UNMAP_DIRTY | flags::UNMAP_TO_BUFFER;

/// Decodes the call with this number.
pub(super) fn decode(number: u32, x: &Registers) -> Status<Call> {
    match number {
        call::MAP => map(x),
        call::MAP_LIST => map_list(x),
        call::SET => set(x),
        call::UNMAP | call::INVALIDATE_BEGIN | call::INVALIDATE_END => removal(number, x),
        call::AGE => age(x),
        call::TEST_AGE | call::HARVEST => scan(number, x),
        call::WRITE_PROTECT => Ok(Call::WriteProtect { vm: vm(x[1])?, range: range(x)? }),
        call::TABLES_RECLAIM => Ok(Call::TablesReclaim { vm: vm(x[1])?, range: range(x)? }),
        call::SPLIT | call::COLLAPSE => resize(number, x),
        _ => working_set(number, x),
    }
}

/// Reads x2 and x3.
fn range(x: &Registers) -> Status<IpaRange> {
    IpaRange::new(x[2], x[3])
}

/// Decodes MAP: leaves of one size, aligned to it on both sides.
fn map(x: &Registers) -> Status<Call> {
    let flags = map_flags(x[5], flags::MAP_OLD | flags::MAP_CLEAN)?;
    let range = IpaRange::new(x[2], x[4])?;
    let target = PaRange::new(x[3], x[4])?.start();
    if !target.is_aligned(flags.size.bytes()) {
        return Err(Error::Invalid);
    }
    let range = whole_leaves(range, flags.size)?;
    Ok(Call::Map { vm: vm(x[1])?, range, target, flags, sequence: x[6] })
}

/// Decodes MAP_LIST. What the list says is in the host's memory, and so it isn't looked at here.
fn map_list(x: &Registers) -> Status<Call> {
    at_most(x[3], MAP_LIST_PAGES)?;
    Ok(Call::MapList { vm: vm(x[1])?, range: range(x)?, list: page(x[4])?, sequence: x[5] })
}

/// Decodes SET: one leaf.
fn set(x: &Registers) -> Status<Call> {
    let flags = map_flags(x[4], 0)?;
    let pages = flags.size.bytes() / PAGE_SIZE;
    let ipa = whole_leaves(IpaRange::new(x[2], pages)?, flags.size)?.start();
    let target = PaRange::new(x[3], pages)?.start();
    if !target.is_aligned(flags.size.bytes()) {
        return Err(Error::Invalid);
    }
    Ok(Call::Set { vm: vm(x[1])?, ipa, target, flags, sequence: x[5] })
}

/// Decodes the calls that take pages away, and may return their final dirty bits.
fn removal(number: u32, x: &Registers) -> Status<Call> {
    let (vm, range) = (vm(x[1])?, range(x)?);
    Ok(match number {
        call::UNMAP => Call::Unmap { vm, range, dirty: dirty(x[4], x[6])? },
        call::INVALIDATE_BEGIN => {
            let resume = x[4] & flags::BEGIN_RESUME != 0;
            let done = at_most(x[5], if resume { range.page_count() } else { 0 })?;
            let dirty = dirty(x[4] & !flags::BEGIN_RESUME, x[6])?;
            Call::InvalidateBegin { vm, range, resume, done, dirty }
        }
        _ => {
            let done = at_most(x[4], range.page_count())?;
            Call::InvalidateEnd { vm, range, done, dirty: dirty(x[5], x[6])? }
        }
    })
}

/// Reads the flags that say where final dirty bits go. The range may be longer than what they hold.
fn dirty(bits: u64, buffer: u64) -> Status<Option<BitSink>> {
    match bits {
        0 => Ok(None),
        DIRTY => Ok(Some(BitSink::Registers)),
        DIRTY_TO_BUFFER => Ok(Some(BitSink::Buffer(page(buffer)?))),
        _ => Err(Error::Invalid),
    }
}

/// Decodes AGE.
fn age(x: &Registers) -> Status<Call> {
    let (vm, range, sink) = (vm(x[1])?, range(x)?, bit_sink(x)?);
    Ok(Call::Age { vm, range, flush: age_flush(x[4] & !flags::AGE_TO_BUFFER)?, sink })
}

/// Decodes the other calls that return one bit a page of the whole range, and have no modes.
fn scan(number: u32, x: &Registers) -> Status<Call> {
    let (vm, range, sink) = (vm(x[1])?, range(x)?, bit_sink(x)?);
    at_most(x[4] & !flags::AGE_TO_BUFFER, 0)?;
    Ok(match number {
        call::TEST_AGE => Call::TestAge { vm, range, sink },
        _ => Call::Harvest { vm, range, sink },
    })
}

fn age_flush(mode: u64) -> Status<AgeFlush> {
    match mode {
        flags::AGE_NO_FLUSH => Ok(AgeFlush::None),
        flags::AGE_FLUSH_YOUNG => Ok(AgeFlush::Young),
        flags::AGE_FLUSH_ALL => Ok(AgeFlush::All),
        _ => Err(Error::Invalid),
    }
}

/// Reads where bits go, and checks x3 against what fits there.
fn bit_sink(x: &Registers) -> Status<BitSink> {
    if x[4] & flags::AGE_TO_BUFFER == 0 {
        at_most(x[3], AGE_REGISTER_PAGES)?;
        Ok(BitSink::Registers)
    } else {
        at_most(x[3], AGE_BUFFER_PAGES)?;
        Ok(BitSink::Buffer(page(x[5])?))
    }
}

/// Decodes SPLIT (what to stop at) and COLLAPSE (what to make: whole blocks).
fn resize(number: u32, x: &Registers) -> Status<Call> {
    let (vm, range, size) = (vm(x[1])?, range(x)?, leaf_size(x[4])?);
    match (number, size) {
        (call::SPLIT, LeafSize::Page | LeafSize::Block2M) => Ok(Call::Split { vm, range, size }),
        (call::COLLAPSE, LeafSize::Block2M | LeafSize::Block1G) => {
            Ok(Call::Collapse { vm, range: whole_leaves(range, size)?, size })
        }
        _ => Err(Error::Invalid),
    }
}

/// Decodes the calls on idle ages.
fn working_set(number: u32, x: &Registers) -> Status<Call> {
    Ok(match number {
        call::WORKING_SET_CREATE => {
            let range = range(x)?;
            let region = PaRange::new(x[4], range.page_count().div_ceil(AGES_PER_PAGE))?;
            Call::WorkingSetCreate { vm: vm(x[1])?, range, region }
        }
        call::WORKING_SET_DESTROY => {
            Call::WorkingSetDestroy { vm: vm(x[1])?, start: IpaRange::new(x[2], 1)?.start() }
        }
        call::WORKING_SET_HISTOGRAM => {
            Call::WorkingSetHistogram { vm: vm(x[1])?, range: range(x)? }
        }
        call::WORKING_SET_MAP => {
            at_most(x[3], WORKING_SET_MAP_PAGES)?;
            Call::WorkingSetMap { vm: vm(x[1])?, range: range(x)?, buffer: page(x[4])? }
        }
        _ => return Err(Error::NotSupported),
    })
}

/// Checks that a range consists of whole leaves of a size.
fn whole_leaves(range: IpaRange, size: LeafSize) -> Status<IpaRange> {
    let pages = size.bytes() / PAGE_SIZE;
    let whole = range.start().is_aligned(size.bytes()) && range.page_count().is_multiple_of(pages);
    if whole { Ok(range) } else { Err(Error::Invalid) }
}

fn map_flags(bits: u64, also: u64) -> Status<MapFlags> {
    const SIZES: u64 = flags::MAP_BLOCK_2M | flags::MAP_BLOCK_1G;
    let known = flags::PROT_READ | flags::PROT_WRITE | flags::PROT_EXEC | SIZES | also;
    let [read, write, execute, old, clean] =
        [flags::PROT_READ, flags::PROT_WRITE, flags::PROT_EXEC, flags::MAP_OLD, flags::MAP_CLEAN]
            .map(|flag| bits & flag != 0);
    // Nothing is logged of a leaf that may not be written.
    if bits & !known != 0 || !read || clean && !write {
        return Err(Error::Invalid);
    }
    Ok(MapFlags { write, execute, old, clean, size: leaf_size(bits & SIZES)? })
}

/// Reads the flags that name a size, of which at most one may be set.
fn leaf_size(bits: u64) -> Status<LeafSize> {
    match bits {
        0 => Ok(LeafSize::Page),
        flags::MAP_BLOCK_2M => Ok(LeafSize::Block2M),
        flags::MAP_BLOCK_1G => Ok(LeafSize::Block1G),
        _ => Err(Error::Invalid),
    }
}
