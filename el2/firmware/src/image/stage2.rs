//! Calls on a VM's stage 2: from decoded arguments to the engine, and its outcome to registers.

use verdigris_abi::{Error, Status, WORKING_SET_BUCKETS, flags};
use verdigris_core::call::{
    AgeFlush, BitSink, Call, IpaRange, LeafSize, MapFlags, PaRange, Registers, VmHandle,
};
use verdigris_stage2::{self as engine, Attributes, Level, Map, Outcome, Range};

use super::bits::{self, Dirty};
use super::percpu::PerCpu;
use super::vm::VmRef;
use super::vm_env::VmEnv;
use super::working_set::{self, Rounds};

/// Answers a call on a VM's addresses.
pub fn answer(call: Call, x: &mut Registers, percpu: &PerCpu) -> Status {
    match call {
        Call::Map { vm, range, target, flags, sequence } => {
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
        Call::Set { vm, ipa, target, flags, sequence } => {
            let (level, attributes) = (level(flags.size), attributes(flags));
            let set = engine::Set { ipa, pa: target, level, attributes, sequence };
            let vm = VmRef::get(vm, percpu)?;
            let was_dirty = vm.stage2.set(&VmEnv::new(&vm, percpu), &set)?;
            x[1] = if was_dirty { flags::SET_WAS_DIRTY } else { 0 };
            Ok(())
        }
        Call::Flush { vm } => {
            let vm = VmRef::get(vm, percpu)?;
            vm.stage2.flush_epoch(&VmEnv::new(&vm, percpu));
            Ok(())
        }
        Call::Age { vm, range, flush, sink } => age(vm, range, mode(flush), sink, x, percpu),
        Call::TestAge { vm, range, sink } => on_bits(vm, range, sink, x, percpu, |at, put| {
            at.vm.stage2.test_age(at.env, at.range, put)
        }),
        Call::Harvest { vm, range, sink } => on_bits(vm, range, sink, x, percpu, |at, put| {
            at.vm.stage2.harvest(at.env, at.range, put)
        }),
        Call::Unmap { .. } | Call::InvalidateBegin { .. } | Call::InvalidateEnd { .. } => {
            remove(call, x, percpu)
        }
        Call::WriteProtect { vm, range } => {
            on_range(vm, range, x, percpu, |at| at.vm.stage2.write_protect(at.env, at.range))
        }
        Call::Split { vm, range, size } => on_range(vm, range, x, percpu, |at| {
            at.vm.stage2.split_range(at.env, at.range, level(size))
        }),
        Call::Collapse { vm, range, size } => on_range(vm, range, x, percpu, |at| {
            at.vm.stage2.collapse(at.env, at.range, level(size))
        }),
        Call::TablesReclaim { vm, range } => {
            on_range(vm, range, x, percpu, |at| at.vm.stage2.reclaim_tables(at.env, at.range))
        }
        _ => working_sets(call, x, percpu),
    }
}

/// A range that lies in a VM's address space, and what works on it.
struct At<'a> {
    vm: &'a VmRef,
    env: &'a VmEnv<'a>,
    range: Range,
}

/// Does something to a range.
fn on_range(
    vm: VmHandle,
    range: IpaRange,
    x: &mut Registers,
    percpu: &PerCpu,
    operation: impl FnOnce(&At) -> Outcome,
) -> Status {
    let vm = VmRef::get(vm, percpu)?;
    let range = vm.stage2.range(range.start(), range.page_count())?;
    finish(operation(&At { vm: &vm, env: &VmEnv::new(&vm, percpu), range }), x)
}

/// Returns progress in x1, also beside an error: what was done before it stays done.
pub fn finish(outcome: Outcome, x: &mut Registers) -> Status {
    x[1] = outcome.pages;
    outcome.error.map_or(Ok(()), Err)
}

/// Does something that tells one bit a page, word by word, and puts them where the caller wants them.
#[inline]
fn on_bits(
    vm: VmHandle,
    range: IpaRange,
    sink: BitSink,
    x: &mut Registers,
    percpu: &PerCpu,
    operation: impl FnOnce(&At, &mut dyn FnMut(usize, u64)) -> Outcome,
) -> Status {
    let mut page = bits::buffer(sink)?;
    let vm = VmRef::get(vm, percpu)?;
    let range = vm.stage2.range(range.start(), range.page_count())?;
    let at = At { vm: &vm, env: &VmEnv::new(&vm, percpu), range };
    let outcome = operation(&at, &mut |index, word| bits::put(&mut page, x, index, word));
    finish(outcome, x)
}

/// Ages: a round for the working sets of the range.
fn age(
    vm: VmHandle,
    pages: IpaRange,
    flush: engine::AgeFlush,
    sink: BitSink,
    x: &mut Registers,
    percpu: &PerCpu,
) -> Status {
    on_bits(vm, pages, sink, x, percpu, |at, put| match Rounds::begin(at.vm, pages) {
        None => at.vm.stage2.age(at.env, at.range, flush, put),
        Some(rounds) => at.vm.stage2.age(at.env, at.range, flush, |index, young| {
            rounds.note(at.range, index, young);
            put(index, young);
        }),
    })
}

/// Takes pages away, and returns their final dirty bits where they were asked for.
fn remove(call: Call, x: &mut Registers, percpu: &PerCpu) -> Status {
    let (vm, range, from, sink) = match call {
        Call::Unmap { vm, range, dirty } => (vm, range, 0, dirty),
        Call::InvalidateBegin { vm, range, done, dirty, .. }
        | Call::InvalidateEnd { vm, range, done, dirty } => (vm, range, done, dirty),
        _ => return Err(Error::NotSupported),
    };
    let mut dirty = Dirty::new(sink, range.page_count() - from)?;
    let vm = VmRef::get(vm, percpu)?;
    let range = vm.stage2.range(range.start(), range.page_count())?;
    let env = &VmEnv::new(&vm, percpu);
    let outcome = match call {
        Call::InvalidateBegin { resume, done, .. } => {
            vm.stage2.invalidate_begin(env, range, resume, done, &mut dirty)
        }
        Call::InvalidateEnd { done, .. } => vm.stage2.invalidate_end(env, range, done, &mut dirty),
        _ => vm.stage2.unmap(env, range, &mut dirty),
    };
    dirty.finish(outcome.pages.saturating_sub(from), x);
    finish(outcome, x)
}

/// Answers a call on idle ages.
fn working_sets(call: Call, x: &mut Registers, percpu: &PerCpu) -> Status {
    match call {
        Call::WorkingSetCreate { vm, range, region } => {
            create_working_set(vm, range, region, x, percpu)
        }
        Call::WorkingSetDestroy { vm, start } => {
            let (region, page_count) = working_set::destroy(&*VmRef::get(vm, percpu)?, start)?;
            (x[1], x[2]) = (region.0, page_count);
            Ok(())
        }
        Call::WorkingSetHistogram { vm, range } => {
            let mut buckets = [0; WORKING_SET_BUCKETS as usize];
            let vm = VmRef::get(vm, percpu)?;
            let outcome = working_set::histogram(&vm, range, &mut buckets)?;
            x[2..].copy_from_slice(&buckets);
            finish(outcome, x)
        }
        Call::WorkingSetMap { vm, range, buffer } => {
            working_set::map(&*VmRef::get(vm, percpu)?, range, buffer)
        }
        _ => Err(Error::NotSupported),
    }
}

fn create_working_set(
    vm: VmHandle,
    range: IpaRange,
    region: PaRange,
    x: &mut Registers,
    percpu: &PerCpu,
) -> Status {
    let vm = VmRef::get(vm, percpu)?;
    // Every page of a set is one that could be mapped.
    vm.stage2.range(range.start(), range.page_count())?;
    finish(working_set::create(&vm, range, region)?, x)
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
