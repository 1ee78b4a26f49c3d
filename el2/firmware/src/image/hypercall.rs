//! Calls of the host: who answers, and the answers about the firmware itself.
//!
//! The owner in the function identifier decides (Arm DEN 0028, section 2.5). A call returns its status
//! in x0 and results from x1 on; registers beyond its results keep what the caller had there.

use log::{Level, log_enabled, trace};
use verdigris_abi::{
    Error, MAX_VMS, Pa, RECLAIM_ADDRESSES, STATS_PER_CALL, Stat, Status, UID, VERSION, call, flags,
};
use verdigris_core::call::{Call, Registers, VmHandle};
use verdigris_core::ownership::Owner;

use super::frame::Frame;
use super::percpu::PerCpu;
use super::vm::{self, VmRef};
use super::vm_env::VmEnv;
use super::{debug, memory, power, room, stage2, statistics, sysreg, system, vcpu};

/// Owner field of the vendor-specific hypervisor service.
const OWNER_HYPERVISOR: u32 = 6;
/// Bit 16 of an identifier: the caller has no live SVE state. Nothing here depends on it.
const SVE_HINT: u32 = 1 << 16;

/// Answers a call by HVC or SMC.
///
/// Whatever takes more than a few instructions is out of line and comes last: so this has no frame.
#[inline]
pub fn dispatch(frame: &mut Frame, percpu: &PerCpu) {
    let function = frame.x[0] as u32 & !SVE_HINT;
    let x: &mut Registers = frame.x.first_chunk_mut().expect("a frame holds x0 to x17");
    match function {
        call::VCPU_RUN => vcpu::answer_run(x, percpu),
        // These two return their first result in x0, and can't fail.
        call::UID => x[..4].copy_from_slice(&UID.map(u64::from)),
        call::REVISION => x[..2].copy_from_slice(&[VERSION.0.into(), VERSION.1.into()]),
        _ if function >> 24 & 0x3f == OWNER_HYPERVISOR => decode(x, percpu),
        _ => power::dispatch(frame, percpu),
    }
}

/// Answers what has to be decoded: out of line, so that the calls before pay for none of its frame.
#[inline(never)]
fn decode(x: &mut Registers, percpu: &PerCpu) {
    let function = x[0] as u32 & !SVE_HINT;
    x[0] = function.into();
    let traced = log_enabled!(Level::Trace);
    if traced {
        trace_call(x, percpu);
    }
    // By reference: moving a call costs more than decoding one.
    let status = match &Call::decode(x) {
        Ok(call) => stage2::answer(call, x, percpu).unwrap_or_else(|| answer(call, x, percpu)),
        Err(error) => Err(*error),
    };
    if traced {
        trace_status(function, status, percpu);
    }
    x[0] = status.map_or_else(|error| error.code() as u64, |()| 0);
}

/// Traces a call. Out of line, as the decision whether to: a call that isn't traced pays for a load.
#[cold]
#[inline(never)]
pub fn trace_call(x: &Registers, percpu: &PerCpu) {
    trace!("CPU {}: call {:#x} with {:x?}", percpu.index(), x[0], &x[1..7]);
}

#[cold]
fn trace_status(function: u32, status: Status, percpu: &PerCpu) {
    if let Err(error) = status {
        trace!("CPU {}: call {function:#x}: {error}", percpu.index());
    }
}

/// Answers a call that is not on a VM's addresses. Out of line: those that are have a frame as small as
/// they need.
#[inline(never)]
fn answer(call: &Call, x: &mut Registers, percpu: &PerCpu) -> Status {
    match *call {
        // `dispatch` has answered these.
        Call::Uid | Call::Revision | Call::VcpuRun { .. } => {}
        Call::Features => features(x, percpu),
        Call::HostReset => x[1] = vm::destroy_all(percpu)?,
        Call::Statistics { vm, first } => counters(vm, first, x, percpu)?,
        Call::PageState { page } => page_state(page, x),
        Call::DebugCrash { kind, hole } => debug::crash(kind, hole)?,
        Call::VmLayout { ipa_bits } => {
            x[1] = vm::region_order(ipa_bits)?.into();
            x[2] = vcpu::REGION_ORDER.into();
        }
        Call::MemoryAdd { range } => stage2::finish(room::add(&range), x)?,
        Call::MemoryRemove { range } => stage2::finish(room::remove(&range), x)?,
        Call::VmCreate { ipa_bits, region } => x[1] = vm::create(ipa_bits, region)?.0.into(),
        Call::VmDestroy { vm } => x[1] = vm::destroy(vm, percpu)?,
        Call::VmDonate { vm, pages } => {
            let vm = VmRef::get(vm, percpu)?;
            stage2::finish(vm.donate(pages.start(), pages.page_count()), x)?;
        }
        Call::VmReclaim { vm, max } => {
            let mut pages = [0; RECLAIM_ADDRESSES as usize];
            let vm = VmRef::get(vm, percpu)?;
            // Tables that were unlinked earlier may be free by now.
            vm.stage2.reap(&VmEnv::new(&vm, percpu));
            let count = vm.reclaim(&mut pages[..max as usize]);
            x[1] = count as u64;
            x[2..2 + count].copy_from_slice(&pages[..count]);
        }
        Call::VcpuCreate { vcpu, region } => {
            vcpu::create(&*VmRef::get(vcpu.vm, percpu)?, vcpu, region)?;
        }
        Call::VcpuGetReg { vcpu, register } => {
            let vm = VmRef::get(vcpu.vm, percpu)?;
            x[1] = vcpu::get_register(&vm, vcpu.index, register, percpu)?;
        }
        Call::VcpuSetReg { vcpu, register, value } => {
            let vm = VmRef::get(vcpu.vm, percpu)?;
            vcpu::set_register(&vm, vcpu.index, register, value, percpu)?;
        }
        Call::VcpuRegList { vcpu, first } => {
            let vm = VmRef::get(vcpu.vm, percpu)?;
            vcpu::list_registers(&vm, vcpu.index, first, x, percpu)?;
        }
        Call::VcpuReset { vcpu } => {
            let vm = VmRef::get(vcpu.vm, percpu)?;
            vcpu::reset(&vm, vcpu.index, percpu)?;
        }
        _ => return Err(Error::NotSupported),
    }
    Ok(())
}

/// Describes the firmware: version, features, limits.
fn features(x: &mut Registers, percpu: &PerCpu) {
    let debug_build = if cfg!(debug_assertions) { flags::FEATURE_DEBUG_BUILD } else { 0 };
    x[1] = u64::from(VERSION.0) << 16 | u64::from(VERSION.1);
    x[2] = system::selection().feature_flags(&percpu.cpu().selection) | debug_build;
    x[3] = u64::from(system::pa_bits());
    x[4] = MAX_VMS;
    x[5] = power::cpu_count() as u64;
    x[6] = sysreg::read!("cntfrq_el0");
}

/// Returns sixteen counters of a VM, or their sums over all VMs, from one index on.
fn counters(vm: Option<VmHandle>, first: u64, x: &mut Registers, percpu: &PerCpu) -> Status {
    let count = Stat::COUNT as u64;
    if first >= count {
        return Err(Error::Invalid);
    }
    let vm = vm.map(|handle| VmRef::get(handle, percpu)).transpose()?;
    x[1] = count;
    for (index, result) in x[2..2 + STATS_PER_CALL as usize].iter_mut().enumerate() {
        *result = match (Stat::ALL.get(first as usize + index), &vm) {
            (None, _) => 0,
            (Some(&stat), Some(vm)) => vm.statistic(stat),
            (Some(&stat), None) => statistics::total(stat, percpu),
        };
    }
    Ok(())
}

/// Tells whose a page is, and how many mappings share it.
fn page_state(page: Pa, x: &mut Registers) {
    let state = memory::ownership().query(page);
    (x[1], x[3]) = match state.owner {
        Owner::Host => (flags::OWNER_HOST, 0),
        Owner::El2 => (flags::OWNER_EL2, 0),
        Owner::Vm(vm) => (flags::OWNER_VM, vm.0.into()),
        Owner::None => (flags::OWNER_NONE, 0),
    };
    x[2] = state.shares;
}
