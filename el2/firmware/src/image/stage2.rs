//! Calls on a VM's stage 2: from decoded arguments to the engine, and its outcome to registers.

use verdigris_abi::{Error, Status, flags};
use verdigris_core::call::{
    AgeFlush, BitSink, Call, IpaRange, LeafSize, MapFlags, Registers, VmHandle,
};
use verdigris_stage2::{self as engine, Attributes, Level, Map, NoDirty, Outcome, Range};

use super::memory::HostPage;
use super::percpu::PerCpu;
use super::vm::VmRef;
use super::vm_env::VmEnv;

/// Answers a call on a range of a VM's addresses.
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
            let _ = vm.stage2.set(&VmEnv::new(&vm, percpu), &set)?;
            Ok(())
        }
        Call::Age { vm, range, flush, sink } => age(vm, range, Some(flush), sink, x, percpu),
        Call::TestAge { vm, range, sink } => age(vm, range, None, sink, x, percpu),
        Call::Unmap { vm, range, dirty: None } => {
            on_range(vm, range, x, percpu, |vm, env, range| {
                vm.stage2.unmap(env, range, &mut NoDirty)
            })
        }
        Call::WriteProtect { vm, range } => {
            on_range(vm, range, x, percpu, |vm, env, range| vm.stage2.write_protect(env, range))
        }
        Call::InvalidateBegin { vm, range, resume, done, dirty: None } => {
            on_range(vm, range, x, percpu, |vm, env, range| {
                vm.stage2.invalidate_begin(env, range, resume, done, &mut NoDirty)
            })
        }
        Call::InvalidateEnd { vm, range, done, dirty: None } => {
            on_range(vm, range, x, percpu, |vm, env, range| {
                vm.stage2.invalidate_end(env, range, done, &mut NoDirty)
            })
        }
        _ => Err(Error::NotSupported),
    }
}

/// Does something to a range that lies in the VM's address space.
fn on_range(
    vm: VmHandle,
    range: IpaRange,
    x: &mut Registers,
    percpu: &PerCpu,
    operation: impl FnOnce(&VmRef, &VmEnv, Range) -> Outcome,
) -> Status {
    let vm = VmRef::get(vm, percpu)?;
    let range = vm.stage2.range(range.start(), range.page_count())?;
    finish(operation(&vm, &VmEnv::new(&vm, percpu), range), x)
}

/// Returns progress in x1, also beside an error: what was done before it stays done.
pub fn finish(outcome: Outcome, x: &mut Registers) -> Status {
    x[1] = outcome.pages;
    outcome.error.map_or(Ok(()), Err)
}

/// Ages, or only tests, and puts one bit a page where the caller wants it.
fn age(
    vm: VmHandle,
    range: IpaRange,
    flush: Option<AgeFlush>,
    sink: BitSink,
    x: &mut Registers,
    percpu: &PerCpu,
) -> Status {
    let mut page = match sink {
        BitSink::Registers => None,
        BitSink::Buffer(page) => Some(HostPage::take(page)?),
    };
    let mut words = [0; 16];
    let outcome = {
        let vm = VmRef::get(vm, percpu)?;
        let range = vm.stage2.range(range.start(), range.page_count())?;
        let env = VmEnv::new(&vm, percpu);
        let put = |index, word| match &mut page {
            Some(page) => page.write(index, word),
            None => words[index] = word,
        };
        match flush {
            Some(flush) => vm.stage2.age(&env, range, mode(flush), put),
            None => vm.stage2.test_age(&env, range, put),
        }
    };
    if sink == BitSink::Registers {
        x[2..].copy_from_slice(&words);
    }
    finish(outcome, x)
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
    for (set, bit) in
        [(map.write, flags::PROT_WRITE), (map.execute, flags::PROT_EXEC), (map.old, flags::MAP_OLD)]
    {
        if set {
            bits |= bit;
        }
    }
    Attributes::guest(bits)
}
