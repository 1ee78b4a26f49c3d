//! Calls of the host: who answers, and the answers about the firmware itself.
//!
//! The owner in the function identifier decides (Arm DEN 0028, section 2.5). A call returns its status
//! in x0 and results from x1 on; registers beyond its results keep what the caller had there.

use verdigris_abi::{Error, MAX_VMS, UID, VERSION, flags};
use verdigris_core::call::{Call, Registers};

use super::frame::Frame;
use super::percpu::PerCpu;
use super::{debug, power, sysreg, system};

/// Owner field of the vendor-specific hypervisor service.
const OWNER_HYPERVISOR: u32 = 6;

/// Answers a call by HVC or SMC.
pub fn dispatch(frame: &mut Frame, percpu: &PerCpu) {
    let function = frame.x[0] as u32;
    if function >> 24 & 0x3f != OWNER_HYPERVISOR {
        return power::dispatch(frame, percpu);
    }
    let x = frame.x.first_chunk_mut().expect("a frame holds x0 to x17");
    let status = match Call::decode(x) {
        // These two return their first result in x0 and can't fail.
        Ok(Call::Uid) => return x[..4].copy_from_slice(&UID.map(u64::from)),
        Ok(Call::Revision) => return x[..2].copy_from_slice(&[VERSION.0.into(), VERSION.1.into()]),
        Ok(call) => answer(call, x, percpu),
        Err(error) => Err(error),
    };
    x[0] = match status {
        Ok(()) => 0,
        Err(error) => error.code() as u64,
    };
}

fn answer(call: Call, x: &mut Registers, percpu: &PerCpu) -> Result<(), Error> {
    match call {
        Call::Features => features(x, percpu),
        Call::DebugCrash { kind } => debug::crash(kind)?,
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
