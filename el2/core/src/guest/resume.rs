//! Continues a vCPU after a fault exit, as the flags of the next run say.

use verdigris_abi::{Error, Status, flags};

use super::exit::ones;
use super::{Context, StageTwoFault};
use crate::esr::{Access, Load};
use crate::exception::Exception;

/// What the last exit left open. Every run takes it: only the first run after a fault may have flags.
pub type Pending = Option<StageTwoFault>;

/// Completes, skips or aborts the access of the last exit, before the guest is entered.
///
/// Returns the exception that the firmware gives to EL1 before it enters the guest, if any. An error has
/// changed nothing, and leaves what is pending.
#[inline]
pub fn resume(
    context: &mut Context,
    pending: &mut Pending,
    run_flags: u64,
    value: u64,
) -> Status<Option<Exception>> {
    if run_flags == 0 {
        *pending = None;
        return Ok(None);
    }
    resume_pending(context, pending, run_flags, value)
}

fn resume_pending(
    context: &mut Context,
    pending: &mut Pending,
    run_flags: u64,
    value: u64,
) -> Status<Option<Exception>> {
    let fault = pending.ok_or(Error::Invalid)?;
    let exception = match run_flags {
        flags::RUN_MMIO_DONE => {
            let load = fault.mmio().ok_or(Error::Invalid)?;
            if fault.abort.access() == Access::Read {
                context.general.write(load.register, loaded(load, value));
            }
            context.general.advance(fault.syndrome.is_32_bit_instruction());
            None
        }
        flags::RUN_SKIP => {
            context.general.advance(fault.syndrome.is_32_bit_instruction());
            None
        }
        flags::RUN_INJECT_ABORT => Some(Exception::external_abort(&fault.abort, fault.far)),
        _ => return Err(Error::Invalid),
    };
    *pending = None;
    Ok(exception)
}

/// Cuts a value to the size of a load, extends its sign, and cuts it to the register.
const fn loaded(load: Load, value: u64) -> u64 {
    let bits = 8 << load.size_log2;
    let mut result = value & ones(bits);
    if load.sign_extend {
        let unused = 64 - bits;
        result = ((result << unused) as i64 >> unused) as u64;
    }
    if load.is_64_bit { result } else { result & ones(32) }
}
