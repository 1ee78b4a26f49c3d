//! The register file of a vCPU, in the layout that the world switch relies on.
//!
//! While the guest runs, the general registers here are stale and the CPU holds them; at every trap
//! they are saved, and the policy of this crate reads and changes them. The *system* registers stay in
//! the CPU until the run ends: no policy reads a slot while a guest runs. Debug registers are the other
//! way round: their home is here, and the CPU gets copies.

use core::mem::{offset_of, size_of};

use super::{DebugRegisters, Slot};

/// Registers that every exception saves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct GeneralRegisters {
    /// x0 to x30.
    pub x: [u64; 31],
    /// SP_EL0.
    pub sp_el0: u64,
    /// The address of the next instruction: ELR_EL2.
    pub pc: u64,
    /// PSTATE: SPSR_EL2.
    pub pstate: u64,
}

/// Registers that the world switch saves and restores, each at its [`Slot`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct SystemRegisters(pub [u64; Slot::COUNT]);

/// FP and SIMD registers, switched when first used in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(16))]
pub struct FpRegisters {
    /// V0 to V31.
    pub v: [u128; 32],
    /// FPSR.
    pub fpsr: u64,
    /// FPCR.
    pub fpcr: u64,
}

/// All registers of a vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(16))]
pub struct Context {
    /// What every exception saves.
    pub general: GeneralRegisters,
    /// What the world switch saves.
    pub system: SystemRegisters,
    /// What is kept here for the guest.
    pub debug: DebugRegisters,
    /// What is switched when first used.
    pub fp: FpRegisters,
}

/// D, A, I and F masked, EL1 with its own stack pointer.
const PSTATE_RESET: u64 = 0b1111 << 6 | 0b0101;

const PSTATE_AARCH32: u64 = 1 << 4;
const PSTATE_BTYPE: u64 = 0b11 << 10;
const PSTATE_SS: u64 = 1 << 21;

impl GeneralRegisters {
    /// Returns the state in which a vCPU starts: EL1h, all interrupts masked, everything else zero.
    pub const fn reset() -> Self {
        Self { x: [0; 31], sp_el0: 0, pc: 0, pstate: PSTATE_RESET }
    }

    /// Reads a register by its number in an instruction, where 31 is the zero register.
    pub const fn read(&self, register: u8) -> u64 {
        if register < 31 { self.x[register as usize] } else { 0 }
    }

    /// Writes a register by its number in an instruction, where 31 is the zero register.
    pub const fn write(&mut self, register: u8, value: u64) {
        if register < 31 {
            self.x[register as usize] = value;
        }
    }

    /// Tells whether the state is one of AArch32.
    pub const fn is_aarch32(&self) -> bool {
        self.pstate & PSTATE_AARCH32 != 0
    }

    /// Steps over an instruction as if it had been executed.
    ///
    /// A step counts for software stepping, and a branch target is no longer awaited. In AArch32 (which
    /// EL0 can enter though it isn't offered) the IT block moves on too.
    pub const fn advance(&mut self, is_32_bit_instruction: bool) {
        self.pc = self.pc.wrapping_add(if is_32_bit_instruction { 4 } else { 2 });
        self.pstate &= !PSTATE_SS;
        if self.is_aarch32() {
            self.pstate = advance_it(self.pstate);
        } else {
            self.pstate &= !PSTATE_BTYPE;
        }
    }
}

/// Moves the IT block on by one instruction: bits 15:10 hold `ITSTATE[7:2]`, bits 26:25 `ITSTATE[1:0]`.
///
/// The low five bits shift left until the low three are zero, which ends the block (Arm ARM, G1.8.4).
const fn advance_it(pstate: u64) -> u64 {
    let it = pstate >> 8 & 0xfc | pstate >> 25 & 3;
    let next = if it & 7 == 0 { 0 } else { it & 0xe0 | it << 1 & 0x1f };
    pstate & !(0x3f << 10 | 3 << 25) | (next & 0xfc) << 8 | (next & 3) << 25
}

impl SystemRegisters {
    /// Returns the values at reset.
    pub const fn reset() -> Self {
        let mut values = [0; Slot::COUNT];
        let mut index = 0;
        while index < Slot::COUNT {
            values[index] = Slot::ALL[index].reset();
            index += 1;
        }
        Self(values)
    }

    /// Reads a slot.
    pub const fn get(&self, slot: Slot) -> u64 {
        self.0[slot as usize]
    }

    /// Writes a slot.
    pub const fn set(&mut self, slot: Slot, value: u64) {
        self.0[slot as usize] = value;
    }
}

impl FpRegisters {
    /// Returns the values at reset.
    pub const fn reset() -> Self {
        Self { v: [0; 32], fpsr: 0, fpcr: 0 }
    }
}

impl Context {
    /// Returns the state in which a vCPU starts.
    ///
    /// `midr` is the CPU's own. The affinity is the vCPU's index, sixteen to a cluster as an interrupt
    /// controller's target lists want it; bit 31 is RES1 (Arm ARM, D24.2 `MPIDR_EL1`).
    pub const fn reset(midr: u64, index: u32) -> Self {
        let mut system = SystemRegisters::reset();
        let affinity = (index & 0xf) as u64 | (index as u64 >> 4 & 0xff) << 8;
        system.set(Slot::Vpidr, midr);
        system.set(Slot::Vmpidr, 1 << 31 | affinity);
        Self {
            general: GeneralRegisters::reset(),
            system,
            debug: DebugRegisters::reset(),
            fp: FpRegisters::reset(),
        }
    }
}

// The world switch addresses these by offsets.
const _: () = assert!(offset_of!(Context, general) == 0);
const _: () = assert!(offset_of!(GeneralRegisters, sp_el0) == 31 * 8);
const _: () = assert!(offset_of!(GeneralRegisters, pc) == 32 * 8);
const _: () = assert!(offset_of!(GeneralRegisters, pstate) == 33 * 8);
const _: () = assert!(offset_of!(Context, system) == 34 * 8);
const _: () = assert!(offset_of!(Context, debug) == 34 * 8 + Slot::COUNT * 8);
const _: () = assert!(offset_of!(Context, fp).is_multiple_of(16));
const _: () = assert!(offset_of!(FpRegisters, fpsr) == 32 * 16);
const _: () = assert!(size_of::<FpRegisters>() == 33 * 16);
