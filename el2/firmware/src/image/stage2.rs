//! Calls on a VM's stage 2: from decoded arguments to the engine, and its outcome to registers.
//!
//! Each operation stands in a function of its own, out of line, so that a call pays for the stack and the
//! registers that it needs and no more: what a call costs apart from its leaves is nearly all of the cost
//! of a short one.

use verdigris_abi::{Error, Ipa, Pa, Status, WORKING_SET_BUCKETS, flags};
use verdigris_core::call::{
    AgeFlush, BitSink, Call, IpaRange, LeafSize, MapFlags, PaRange, Registers, VmHandle,
};
use verdigris_stage2::{
    self as engine, Attributes, Level, List, Map, MapList, Outcome, Range, WordSink,
};

use super::bits::{self, Dirty, Words};
use super::memory::HostPage;
use super::percpu::PerCpu;
use super::vm::VmRef;
use super::vm_env::VmEnv;
use super::working_set::{self, Rounds};

/// Answers a call on a VM's addresses; `None` if it is none.
pub fn answer(call: &Call, x: &mut Registers, percpu: &PerCpu) -> Option<Status> {
    Some(match *call {
        Call::Age { vm, range, flush, sink } => age(vm, range, mode(flush), sink, x, percpu),
        Call::TestAge { vm, range, sink } => test_age(vm, range, sink, x, percpu),
        Call::Harvest { vm, range, sink } => harvest(vm, range, sink, x, percpu),
        Call::Unmap { .. } | Call::InvalidateBegin { .. } | Call::InvalidateEnd { .. } => {
            remove(call, x, percpu)
        }
        Call::Map { .. } => map(call, x, percpu),
        Call::MapList { vm, range, list, sequence } => {
            map_list(vm, range, list, sequence, x, percpu)
        }
        Call::Set { .. } => set(call, x, percpu),
        Call::Flush { vm } => flush(vm, percpu),
        Call::WriteProtect { vm, range } => write_protect(vm, range, x, percpu),
        Call::Split { vm, range, size } => split(vm, range, level(size), x, percpu),
        Call::Collapse { vm, range, size } => collapse(vm, range, level(size), x, percpu),
        Call::TablesReclaim { vm, range } => reclaim(vm, range, x, percpu),
        Call::WorkingSetCreate { vm, range, region } => {
            create_working_set(vm, range, region, x, percpu)
        }
        Call::WorkingSetDestroy { vm, start } => destroy_working_set(vm, start, x, percpu),
        Call::WorkingSetHistogram { vm, range } => histogram(vm, range, x, percpu),
        Call::WorkingSetMap { vm, range, buffer } => ages(vm, range, buffer, percpu),
        _ => return None,
    })
}

#[inline(never)]
fn map(call: &Call, x: &mut Registers, percpu: &PerCpu) -> Status {
    let Call::Map { vm, range, target, flags, sequence } = *call else {
        return Err(Error::NotSupported);
    };
    let map = Map {
        ipa: range.start(),
        pa: target,
        page_count: range.page_count(),
        level: level(flags.size),
        attributes: attributes(flags),
        sequence,
    };
    let vm = VmRef::get(vm, percpu)?;
    finish(vm.stage2.map(&VmEnv::new(&vm, percpu), &map), x)
}

/// Maps what a page of the host's lists. The list is copied whole before any of it is looked at: what the
/// host makes of it afterwards concerns nobody.
#[inline(never)]
fn map_list(
    vm: VmHandle,
    range: IpaRange,
    list: Pa,
    sequence: u64,
    x: &mut Registers,
    percpu: &PerCpu,
) -> Status {
    let mut room = HostPage::ROOM;
    let vm = VmRef::get(vm, percpu)?;
    let copy =
        HostPage::take(list).and_then(|page| page.copy(range.page_count() as usize, &mut room));
    let pages = match copy.and_then(List::new) {
        Ok(pages) => pages,
        Err(error) => return finish(Outcome::stopped(0, error), x),
    };
    let map = MapList { ipa: range.start(), pages, sequence };
    finish(vm.stage2.map_list(&VmEnv::new(&vm, percpu), &map), x)
}

#[inline(never)]
fn set(call: &Call, x: &mut Registers, percpu: &PerCpu) -> Status {
    let Call::Set { vm, ipa, target, flags, sequence } = *call else {
        return Err(Error::NotSupported);
    };
    let (level, attributes) = (level(flags.size), attributes(flags));
    let set = engine::Set { ipa, pa: target, level, attributes, sequence };
    let vm = VmRef::get(vm, percpu)?;
    let was_dirty = vm.stage2.set(&VmEnv::new(&vm, percpu), &set)?;
    x[1] = if was_dirty { flags::SET_WAS_DIRTY } else { 0 };
    Ok(())
}

#[inline(never)]
fn flush(vm: VmHandle, percpu: &PerCpu) -> Status {
    let vm = VmRef::get(vm, percpu)?;
    vm.stage2.flush_epoch(&VmEnv::new(&vm, percpu));
    Ok(())
}

/// A range that lies in a VM's address space, and what works on it.
struct At<'a> {
    vm: &'a VmRef,
    env: &'a VmEnv<'a>,
    range: Range,
}

/// Does something to a range.
#[inline]
fn on_range(
    vm: VmHandle,
    range: IpaRange,
    x: &mut Registers,
    percpu: &PerCpu,
    operation: impl FnOnce(&At, &mut Registers) -> Outcome,
) -> Status {
    let vm = VmRef::get(vm, percpu)?;
    let range = vm.stage2.range(range.start(), range.page_count())?;
    finish(operation(&At { vm: &vm, env: &VmEnv::new(&vm, percpu), range }, x), x)
}

/// Returns progress in x1, also beside an error: what was done before it stays done.
pub fn finish(outcome: Outcome, x: &mut Registers) -> Status {
    x[1] = outcome.pages;
    outcome.error.map_or(Ok(()), Err)
}

/// Ages: a round for the working sets of the range.
#[inline(never)]
fn age(
    vm: VmHandle,
    pages: IpaRange,
    flush: engine::AgeFlush,
    sink: BitSink,
    x: &mut Registers,
    percpu: &PerCpu,
) -> Status {
    let mut page = bits::buffer(sink)?;
    on_range(vm, pages, x, percpu, |at, x| {
        let words = Words::new(&mut page, x, at.range.page_count());
        match Rounds::begin(at.vm, pages) {
            None => at.vm.stage2.age(at.env, at.range, flush, words),
            Some(rounds) => age_in_rounds(at, flush, &rounds, words),
        }
    })
}

/// Ages where there are working sets, apart: without them not even the question has to be asked.
#[inline(never)]
fn age_in_rounds(at: &At, flush: engine::AgeFlush, rounds: &Rounds, mut words: Words) -> Outcome {
    at.vm.stage2.age(at.env, at.range, flush, |index, young| {
        rounds.note(at.range, index, young);
        words.put(index, young);
    })
}

#[inline(never)]
fn test_age(
    vm: VmHandle,
    range: IpaRange,
    sink: BitSink,
    x: &mut Registers,
    percpu: &PerCpu,
) -> Status {
    let mut page = bits::buffer(sink)?;
    on_range(vm, range, x, percpu, |at, x| {
        let words = Words::new(&mut page, x, at.range.page_count());
        at.vm.stage2.test_age(at.env, at.range, words)
    })
}

#[inline(never)]
fn harvest(
    vm: VmHandle,
    range: IpaRange,
    sink: BitSink,
    x: &mut Registers,
    percpu: &PerCpu,
) -> Status {
    let mut page = bits::buffer(sink)?;
    on_range(vm, range, x, percpu, |at, x| {
        let words = Words::new(&mut page, x, at.range.page_count());
        at.vm.stage2.harvest(at.env, at.range, words)
    })
}

#[inline(never)]
fn write_protect(vm: VmHandle, range: IpaRange, x: &mut Registers, percpu: &PerCpu) -> Status {
    on_range(vm, range, x, percpu, |at, _| at.vm.stage2.write_protect(at.env, at.range))
}

#[inline(never)]
fn split(
    vm: VmHandle,
    range: IpaRange,
    level: Level,
    x: &mut Registers,
    percpu: &PerCpu,
) -> Status {
    on_range(vm, range, x, percpu, |at, _| at.vm.stage2.split_range(at.env, at.range, level))
}

#[inline(never)]
fn collapse(
    vm: VmHandle,
    range: IpaRange,
    level: Level,
    x: &mut Registers,
    percpu: &PerCpu,
) -> Status {
    on_range(vm, range, x, percpu, |at, _| at.vm.stage2.collapse(at.env, at.range, level))
}

#[inline(never)]
fn reclaim(vm: VmHandle, range: IpaRange, x: &mut Registers, percpu: &PerCpu) -> Status {
    on_range(vm, range, x, percpu, |at, _| at.vm.stage2.reclaim_tables(at.env, at.range))
}

/// Takes pages away, and returns their final dirty bits where they were asked for.
#[inline(never)]
fn remove(call: &Call, x: &mut Registers, percpu: &PerCpu) -> Status {
    let (vm, range, from, sink) = match *call {
        Call::Unmap { vm, range, dirty } => (vm, range, 0, dirty),
        Call::InvalidateBegin { vm, range, done, dirty, .. }
        | Call::InvalidateEnd { vm, range, done, dirty } => (vm, range, done, dirty),
        _ => return Err(Error::NotSupported),
    };
    let mut dirty = Dirty::new(sink, range.page_count() - from)?;
    on_range(vm, range, x, percpu, |at, x| {
        let outcome = match *call {
            Call::InvalidateBegin { resume, done, .. } => {
                at.vm.stage2.invalidate_begin(at.env, at.range, resume, done, &mut dirty)
            }
            Call::InvalidateEnd { done, .. } => {
                at.vm.stage2.invalidate_end(at.env, at.range, done, &mut dirty)
            }
            _ => at.vm.stage2.unmap(at.env, at.range, &mut dirty),
        };
        dirty.finish(outcome.pages.saturating_sub(from), x);
        outcome
    })
}

/// Every page of a working set is one that could be mapped.
#[inline(never)]
fn create_working_set(
    vm: VmHandle,
    range: IpaRange,
    region: PaRange,
    x: &mut Registers,
    percpu: &PerCpu,
) -> Status {
    let vm = VmRef::get(vm, percpu)?;
    vm.stage2.range(range.start(), range.page_count())?;
    finish(working_set::create(&vm, range, region), x)
}

#[inline(never)]
fn destroy_working_set(vm: VmHandle, start: Ipa, x: &mut Registers, percpu: &PerCpu) -> Status {
    let vm = VmRef::get(vm, percpu)?;
    vm.stage2.range(start, 1)?;
    let (region, page_count) = working_set::destroy(&vm, start)?;
    (x[1], x[2]) = (region.0, page_count);
    Ok(())
}

#[inline(never)]
fn histogram(vm: VmHandle, range: IpaRange, x: &mut Registers, percpu: &PerCpu) -> Status {
    let mut buckets = [0; WORKING_SET_BUCKETS as usize];
    let vm = VmRef::get(vm, percpu)?;
    let outcome = working_set::histogram(&vm, range, &mut buckets)?;
    x[2..].copy_from_slice(&buckets);
    finish(outcome, x)
}

#[inline(never)]
fn ages(vm: VmHandle, range: IpaRange, buffer: Pa, percpu: &PerCpu) -> Status {
    working_set::map(&*VmRef::get(vm, percpu)?, range, buffer)
}

const fn mode(flush: AgeFlush) -> engine::AgeFlush {
    match flush {
        AgeFlush::None => engine::AgeFlush::None,
        AgeFlush::Young => engine::AgeFlush::Young,
        AgeFlush::All => engine::AgeFlush::All,
    }
}

const fn level(size: LeafSize) -> Level {
    match size {
        LeafSize::Page => Level::L3,
        LeafSize::Block2M => Level::L2,
        LeafSize::Block1G => Level::L1,
    }
}

/// Returns the attributes of guest memory with these permissions.
fn attributes(map: MapFlags) -> Attributes {
    let mut bits = flags::PROT_READ;
    for (set, bit) in [
        (map.write, flags::PROT_WRITE),
        (map.execute, flags::PROT_EXEC),
        (map.old, flags::MAP_OLD),
        (map.clean, flags::MAP_CLEAN),
    ] {
        if set {
            bits |= bit;
        }
    }
    Attributes::guest(bits)
}
