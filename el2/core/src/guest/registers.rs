//! Reads and writes a vCPU's registers by the identifiers of the hypercall interface.
//!
//! The tables decide: a register that is switched or kept has an identifier, and one identifier only. A
//! value that the host writes is one that the guest could write itself, so the CPU sorts out its fields;
//! only PSTATE is checked, since with it the host could ask EL2 to return to EL2. What a guest reads and
//! nobody writes (constants of the CPU, registers that read as zero) has an identifier too: the host can
//! compare it with another machine's.

use verdigris_abi::{Error, Status, reg};

use super::{Context, DebugSlot, Slot, id};
use crate::cpu::IdRegisters;
use crate::sysreg::{
    Direction, Emulation, Encoding, Fate, INVISIBLE, Place, Register, SWITCHED, TRAPPED, lookup,
};

/// Where the value of an identifier is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    X(usize),
    SpEl0,
    Pc,
    Pstate,
    Slot(Slot),
    ReadOnlySlot(Slot),
    Debug(DebugSlot, u8),
    OsLockStatus,
    Id(Encoding),
    Constant(u64),
    Vector(usize),
    Fpsr,
    Fpcr,
}

/// What a vCPU's registers depend on beside its context.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    /// The ID registers of the CPU.
    pub raw: &'a IdRegisters,
    /// The bits of the VM's intermediate physical addresses.
    pub ipa_bits: u8,
}

const CORE_LAST: u64 = reg::REG_SPSR_EL1;
const FP_VECTORS: u64 = 64;

/// Finds the home of an identifier.
fn find(identifier: u64, machine: &Machine<'_>) -> Status<Home> {
    Ok(match identifier {
        reg::REG_CORE..reg::REG_SP_EL0 => Home::X(identifier as usize),
        reg::REG_SP_EL0 => Home::SpEl0,
        reg::REG_PC => Home::Pc,
        reg::REG_PSTATE => Home::Pstate,
        reg::REG_SP_EL1 => Home::Slot(Slot::SpEl1),
        reg::REG_ELR_EL1 => Home::Slot(Slot::Elr),
        reg::REG_SPSR_EL1 => Home::Slot(Slot::Spsr),
        reg::REG_FP..reg::REG_FPSR => Home::Vector((identifier - reg::REG_FP) as usize),
        reg::REG_FPSR => Home::Fpsr,
        reg::REG_FPCR => Home::Fpcr,
        reg::REG_CNTVOFF => Home::Slot(Slot::Cntvoff),
        _ => find_system(Encoding::from_id(identifier).ok_or(Error::NoEntry)?, machine)?,
    })
}

/// Finds the home of a system register. Those with an identifier of another class have none here.
fn find_system(encoding: Encoding, machine: &Machine<'_>) -> Status<Home> {
    let row = lookup(encoding).filter(|row| row.allows(true)).ok_or(Error::NoEntry)?;
    match row.fate {
        Fate::Switched(Place::Slot(Slot::Elr | Slot::Spsr)) => Err(Error::NoEntry),
        Fate::Switched(Place::Slot(slot)) if !has_group(slot, machine) => Err(Error::NoEntry),
        Fate::Switched(Place::Slot(slot @ Slot::Vpidr)) => Ok(Home::ReadOnlySlot(slot)),
        Fate::Switched(Place::Slot(slot)) => Ok(Home::Slot(slot)),
        Fate::Trapped(_, Emulation::Id) => Ok(Home::Id(encoding)),
        Fate::Trapped(_, Emulation::Debug(slot)) if has_debug(slot, encoding.crm(), machine) => {
            Ok(Home::Debug(slot, encoding.crm()))
        }
        Fate::Trapped(_, Emulation::OsLockStatus) => Ok(Home::OsLockStatus),
        Fate::Trapped(_, Emulation::ZeroIgnore) => Ok(Home::Constant(0)),
        Fate::Invisible(_) => constant(encoding, machine.raw).map(Home::Constant),
        _ => Err(Error::NoEntry),
    }
}

/// Finds what a guest reads of the CPU itself, where that is the same each time.
fn constant(encoding: Encoding, raw: &IdRegisters) -> Status<u64> {
    const REVIDR_EL1: Encoding = Encoding::new(3, 0, 0, 0, 6);
    const CLIDR_EL1: Encoding = Encoding::new(3, 1, 0, 0, 1);
    const AIDR_EL1: Encoding = Encoding::new(3, 1, 0, 0, 7);
    const CTR_EL0: Encoding = Encoding::new(3, 3, 0, 0, 1);
    const DCZID_EL0: Encoding = Encoding::new(3, 3, 0, 0, 7);
    match encoding {
        REVIDR_EL1 => Ok(raw.revidr),
        CLIDR_EL1 => Ok(raw.clidr),
        AIDR_EL1 => Ok(raw.aidr),
        CTR_EL0 => Ok(raw.ctr),
        DCZID_EL0 => Ok(raw.dczid),
        _ => Err(Error::NoEntry),
    }
}

/// Tells whether the CPU has the registers of a slot's group.
fn has_group(slot: Slot, machine: &Machine<'_>) -> bool {
    slot.group().is_present(machine.raw)
}

/// Tells whether the CPU has that breakpoint or watchpoint: ID_AA64DFR0_EL1 counts from one less.
pub(super) fn has_debug(slot: DebugSlot, n: u8, machine: &Machine<'_>) -> bool {
    let last = |shift: u32| (machine.raw.dfr0 >> shift & 0xf) as u8;
    match slot {
        DebugSlot::Mdscr => true,
        DebugSlot::BreakpointValue | DebugSlot::BreakpointControl => n <= last(12),
        DebugSlot::WatchpointValue | DebugSlot::WatchpointControl => n <= last(20),
    }
}

impl Context {
    /// Reads a register by its identifier.
    pub fn get(&self, identifier: u64, machine: &Machine<'_>) -> Status<u64> {
        Ok(match find(identifier, machine)? {
            Home::X(n) => self.general.x[n],
            Home::SpEl0 => self.general.sp_el0,
            Home::Pc => self.general.pc,
            Home::Pstate => self.general.pstate,
            Home::Slot(slot) | Home::ReadOnlySlot(slot) => self.system.get(slot),
            Home::Debug(slot, n) => self.debug.read(slot, n),
            Home::OsLockStatus => self.debug.os_lock_status(),
            Home::Id(encoding) => id::value(encoding, machine.raw, machine.ipa_bits),
            Home::Constant(value) => value,
            Home::Vector(half) => (self.fp.v[half / 2] >> (half % 2 * 64)) as u64,
            Home::Fpsr => self.fp.fpsr,
            Home::Fpcr => self.fp.fpcr,
        })
    }

    /// Writes a register by its identifier.
    ///
    /// A register that only tells what the machine is takes no other value than it has: so that a
    /// register list can be written back as it was read.
    pub fn set(&mut self, identifier: u64, value: u64, machine: &Machine<'_>) -> Status {
        match find(identifier, machine)? {
            Home::X(n) => self.general.x[n] = value,
            Home::SpEl0 => self.general.sp_el0 = value,
            Home::Pc => self.general.pc = value,
            Home::Pstate => self.general.pstate = checked_pstate(value)?,
            Home::Slot(slot) => self.system.set(slot, value),
            Home::Debug(slot, n) => self.debug.write(slot, n, value),
            Home::OsLockStatus => self.debug.write_os_lock(value >> 1),
            Home::ReadOnlySlot(_) | Home::Id(_) | Home::Constant(_) => {
                if self.get(identifier, machine)? != value {
                    return Err(Error::Invalid);
                }
            }
            Home::Vector(half) => {
                let shift = half % 2 * 64;
                let kept = self.fp.v[half / 2] & !(u128::from(u64::MAX) << shift);
                self.fp.v[half / 2] = kept | u128::from(value) << shift;
            }
            Home::Fpsr => self.fp.fpsr = value,
            Home::Fpcr => self.fp.fpcr = value,
        }
        Ok(())
    }

    /// Lists the identifiers of all registers, each once.
    pub fn identifiers(machine: Machine<'_>) -> impl Iterator<Item = u64> {
        let core = reg::REG_CORE..=CORE_LAST;
        let fp = reg::REG_FP..reg::REG_FP + FP_VECTORS;
        let rows = SWITCHED.iter().chain(TRAPPED).chain(INVISIBLE);
        let system = rows.flat_map(encodings).map(Encoding::id);
        core.chain(fp)
            .chain([reg::REG_FPSR, reg::REG_FPCR, reg::REG_CNTVOFF])
            .chain(system)
            .filter(move |&identifier| find(identifier, &machine).is_ok())
    }
}

/// Lists the encodings of a row: its first, with every value of the bits that vary.
fn encodings(row: &'static Register) -> impl Iterator<Item = Encoding> {
    let kept = matches!(row.fate, Fate::Switched(_))
        || matches!(row.fate, Fate::Trapped(_, how) if how != Emulation::Undefined);
    let readable = row.direction != Direction::WriteOnly;
    let mask = if kept && readable { row.varies } else { 0 };
    let mut next = Some(0);
    core::iter::from_fn(move || {
        let bits = next?;
        // Counts through the submasks in order: the carry skips the bits that don't vary.
        let following = (bits | !mask).wrapping_add(1) & mask;
        next = (following != 0).then_some(following);
        Some(row.encoding.with(bits))
    })
}

/// Accepts AArch64 EL0t, EL1t and EL1h with no bit set that SPSR_EL2 doesn't define.
///
/// PM, PPEND and EXLOCK (34:32) are defined: the CPU may set them, though no guest is offered them.
fn checked_pstate(value: u64) -> Status<u64> {
    const UNDEFINED: u64 = !0x7_ffff_ffff | 0b11 << 26 | 0b11_1111 << 14 | 1 << 5;
    let mode_allowed = matches!(value & 0x1f, 0b00000 | 0b00100 | 0b00101);
    if mode_allowed && value & UNDEFINED == 0 { Ok(value) } else { Err(Error::Invalid) }
}
