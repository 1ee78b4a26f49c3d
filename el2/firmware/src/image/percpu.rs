//! What each CPU has for itself, found through TPIDR_EL2.
//!
//! The owner alone reads and writes a [`PerCpu`]; what other CPUs must see of it lives in shared
//! tables of atomics. The assembly reads its head, so offsets are taken from the type.
#![allow(unsafe_code)]

use core::cell::{Cell, UnsafeCell};
use core::hint;
use core::mem::offset_of;

use spin::Once;
use verdigris_abi::MAX_CPUS;

use super::switch::{HostState, Parts};
use super::sysreg;
use super::system::Cpu;
use super::vm::Vm;

/// Size of each stack; the linker script has the same for the boot CPU.
pub const STACK_BYTES: u64 = 32 << 10;

/// The registers of a CPU at the moment of a crash, as `vectors.S` stores them.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct CrashRegisters {
    /// x0 to x30.
    pub x: [u64; 31],
    /// The stack pointer.
    pub sp: u64,
}

/// The private data of one CPU.
#[repr(C)]
pub struct PerCpu {
    /// Where its stack begins (the address above it).
    pub stack_top: Cell<u64>,
    /// Where its crash stack begins.
    pub crash_stack_top: Cell<u64>,
    /// EL2's key for return addresses, high and low half.
    pub el2_key: Cell<[u64; 2]>,
    /// 1 where the CPU signs return addresses.
    pub has_pauth: Cell<u64>,
    /// What the host has in the CPU, while a guest runs there: near enough to the beginning that its
    /// registers are moved in pairs.
    pub host: HostState,
    /// Its number.
    index: Cell<usize>,
    /// The VM that runs on it: what a fault of its guest asks.
    pub running: Cell<Option<&'static Vm>>,
    /// What the world switch does on it: as in `cpu`, for those in a hurry.
    pub parts: Cell<Parts>,
    /// Registers at a crash.
    pub crash: UnsafeCell<CrashRegisters>,
    /// Its affinity, as MPIDR_EL1 has it, without the flag bits.
    pub affinity: Cell<u64>,
    /// Memory for the host's FP and SVE registers while a guest uses them.
    pub fp_area: Cell<u64>,
    /// What its ID registers amount to, once it runs.
    pub cpu: Once<Cpu>,
}

/// Offsets for the assembly.
pub mod offset {
    use super::*;
    /// Of `stack_top`.
    pub const STACK_TOP: usize = offset_of!(PerCpu, stack_top);
    /// Of `crash_stack_top`.
    pub const CRASH_STACK_TOP: usize = offset_of!(PerCpu, crash_stack_top);
    /// Of `el2_key`.
    pub const EL2_KEY: usize = offset_of!(PerCpu, el2_key);
    /// Of `has_pauth`.
    pub const HAS_PAUTH: usize = offset_of!(PerCpu, has_pauth);
    /// Of the stored x0.
    pub const CRASH_X: usize = offset_of!(PerCpu, crash);
    /// Of the stored stack pointer, from there.
    pub const CRASH_SP: usize = offset_of!(CrashRegisters, sp);
}

impl PerCpu {
    /// Makes the data of a CPU that has no stack yet.
    pub const fn new() -> Self {
        Self {
            stack_top: Cell::new(0),
            crash_stack_top: Cell::new(0),
            el2_key: Cell::new([0; 2]),
            has_pauth: Cell::new(0),
            host: HostState::new(),
            index: Cell::new(0),
            running: Cell::new(None),
            parts: Cell::new(Parts::NONE),
            crash: UnsafeCell::new(CrashRegisters { x: [0; 31], sp: 0 }),
            affinity: Cell::new(0),
            fp_area: Cell::new(0),
            cpu: Once::new(),
        }
    }

    /// Gives the CPU its number, before it runs.
    pub fn set_index(&self, index: usize) {
        assert!(index < MAX_CPUS as usize, "CPUs beyond the last are never prepared");
        self.index.set(index);
    }

    /// Returns its number: 0 is the CPU that booted. It is below [`MAX_CPUS`].
    #[inline(always)]
    pub fn index(&self) -> usize {
        let index = self.index.get();
        // SAFETY: `new` and `set_index` alone write it, and the latter asserts this.
        unsafe { hint::assert_unchecked(index < MAX_CPUS as usize) };
        index
    }

    /// Returns what the CPU's ID registers amount to.
    pub fn cpu(&self) -> &Cpu {
        self.cpu.get().expect("a CPU knows itself before it runs anyone")
    }

    /// Returns the lowest address of the CPU's stack.
    pub fn stack_bottom(&self) -> u64 {
        self.stack_top.get() - STACK_BYTES
    }

    /// Tells whether `bytes` bytes at `address` lie in one of the CPU's two stacks.
    pub fn owns_stack(&self, address: u64, bytes: u64) -> bool {
        [self.stack_top.get(), self.crash_stack_top.get()]
            .iter()
            .any(|&top| address >= top - STACK_BYTES && address <= top - bytes)
    }

    /// Copies the registers that the crash entry stored.
    pub fn crash_registers(&self) -> CrashRegisters {
        // SAFETY: the entry stored them before any Rust ran, and nothing else writes them. The
        // pointer is valid and aligned: it comes from a field of `self`.
        unsafe { *self.crash.get() }
    }
}

/// A [`PerCpu`] that may stand in a static: see [`this`] for why that is sound.
#[repr(transparent)]
pub struct Private(pub PerCpu);

// SAFETY: only the CPU whose TPIDR_EL2 holds the address uses it once that CPU runs; before, only the
// CPU that prepares it does. The hand-over is PSCI CPU_ON, which orders memory.
unsafe impl Sync for Private {}

/// The boot CPU's data; those of the others come from the page pool.
pub static BOOT: Private = Private(PerCpu::new());

/// Returns the data of the CPU that asks.
pub fn this() -> &'static PerCpu {
    let address = sysreg::read!("tpidr_el2") as *const PerCpu;
    // SAFETY: the boot code set TPIDR_EL2 to `BOOT` or to a leaked, initialised `PerCpu` of this CPU
    // before any Rust ran, and nothing writes the register afterwards. EL2 never moves between CPUs.
    unsafe { &*address }
}
