//! The power state of one CPU, as the host sees it.
//!
//! The invariant: **the place where a CPU's start is written belongs to one CPU at a time.** A caller
//! of CPU_ON has it from the exchange that takes the state from off to claimed; the started CPU has it
//! until it has read the start, and only then says that it is on. A second CPU_ON in between is
//! answered ON_PENDING, as the standard has it, so no lock is held across the call to the firmware
//! below.

use super::Return;
use crate::sync::{AtomicU32, AtomicU64, Ordering, spin_loop};
use verdigris_abi::Pa;

/// Where the host wants a CPU to start, and what it will find in x0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The address of the first instruction, as the host sees it.
    pub entry: Pa,
    /// The value of x0.
    pub context: u64,
}

/// What a CPU is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum PowerState {
    /// It is off, or on the way there.
    Off = 0,
    /// Another CPU is writing its start.
    Claimed = 1,
    /// Its start is written; it is being switched on.
    Pending = 2,
    /// It runs.
    On = 3,
    /// It is going to sleep, and will come back through EL2's entry, or has not slept at all.
    Suspending = 4,
}

/// The power state of one CPU and its next start.
#[derive(Debug)]
pub struct CpuPower {
    state: AtomicU32,
    entry: AtomicU64,
    context: AtomicU64,
}

impl CpuPower {
    /// Returns the record of a CPU in that state.
    #[cfg(not(loom))]
    pub const fn new(state: PowerState) -> Self {
        let (entry, context) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { state: AtomicU32::new(state as u32), entry, context }
    }

    /// Returns the record of a CPU in that state; the model's atomics can't be constants.
    #[cfg(loom)]
    pub fn new(state: PowerState) -> Self {
        let (entry, context) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { state: AtomicU32::new(state as u32), entry, context }
    }

    /// Returns the state at some moment of the call.
    pub fn state(&self) -> PowerState {
        match self.state.load(Ordering::Acquire) {
            0 => PowerState::Off,
            1 => PowerState::Claimed,
            2 => PowerState::Pending,
            3 => PowerState::On,
            _ => PowerState::Suspending,
        }
    }

    /// Claims a CPU that is off and writes its start. The caller now asks the firmware below to switch
    /// it on, and calls [`withdraw`](Self::withdraw) if that refuses.
    pub fn claim(&self, start: Start) -> Result<(), Return> {
        match self.change(PowerState::Off, PowerState::Claimed) {
            Ok(()) => {}
            Err(PowerState::On | PowerState::Suspending) => return Err(Return::AlreadyOn),
            Err(_) => return Err(Return::OnPending),
        }
        self.write(start);
        self.state.store(PowerState::Pending as u32, Ordering::Release);
        Ok(())
    }

    /// Takes a claim back: the firmware below has refused, so the CPU will not read its start.
    pub fn withdraw(&self) {
        let withdrawn = self.change(PowerState::Pending, PowerState::Off);
        assert!(withdrawn.is_ok(), "a CPU has started that could not be switched on");
    }

    /// Reads, on the CPU itself and once, where it shall start. `None` if nobody has asked for it.
    pub fn take(&self) -> Option<Start> {
        if !matches!(self.state(), PowerState::Pending | PowerState::Suspending) {
            return None;
        }
        let start = Start {
            entry: Pa(self.entry.load(Ordering::Relaxed)),
            context: self.context.load(Ordering::Relaxed),
        };
        self.state.store(PowerState::On as u32, Ordering::Release);
        Some(start)
    }

    /// Says, on the CPU itself, that it is about to call CPU_OFF.
    ///
    /// It is not off yet: a CPU_ON by another CPU that comes now is refused by the firmware below,
    /// which knows, and its claim is withdrawn.
    pub fn go_off(&self) {
        let gone = self.change(PowerState::On, PowerState::Off);
        assert!(gone.is_ok(), "a CPU that is not on wants to go off");
    }

    /// Says that CPU_OFF has returned, so that the CPU is still on. A claim made meanwhile is waited
    /// for: it is about to be withdrawn.
    pub fn stay_on(&self) {
        while self.change(PowerState::Off, PowerState::On).is_err() {
            spin_loop();
        }
    }

    /// Writes, on the CPU itself, where it shall go on when it wakes up.
    pub fn suspend(&self, start: Start) {
        self.write(start);
        let suspended = self.change(PowerState::On, PowerState::Suspending);
        assert!(suspended.is_ok(), "a CPU that is not on wants to sleep");
    }

    /// Says that the call to suspend has returned: the CPU was not powered down.
    pub fn stay_awake(&self) {
        let awake = self.change(PowerState::Suspending, PowerState::On);
        assert!(awake.is_ok(), "a CPU is awake that was not going to sleep");
    }

    fn write(&self, start: Start) {
        self.entry.store(start.entry.0, Ordering::Relaxed);
        self.context.store(start.context, Ordering::Relaxed);
    }

    /// Changes the state, or returns what it is instead.
    fn change(&self, from: PowerState, to: PowerState) -> Result<(), PowerState> {
        let (from, to) = (from as u32, to as u32);
        match self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Ok(()),
            Err(_) => Err(self.state()),
        }
    }
}
