//! A vCPU: its registers, and why it stops.

use verdigris_abi::{Error, ExitReason, Status, call, flags, reg};
use verdigris_guest::event;

use crate::raw::{Registers, raw};

/// A fault that the host has to do something about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub ipa: u64,
    /// `FAULT_*`
    pub flags: u64,
    /// ESR_EL2.
    pub syndrome: u64,
    /// For MAP and SET.
    pub sequence: u64,
    /// Where in the guest's own terms.
    pub virtual_address: u64,
    /// `MMIO_*`
    pub access: u64,
    /// What a store stores.
    pub value: u64,
}

impl Fault {
    /// Tells whether a flag is set.
    pub fn is(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }

    /// Returns the address of the page.
    pub fn page(&self) -> u64 {
        self.ipa & !0xfff
    }
}

/// Why a vCPU stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// An interrupt of the host's.
    Interrupt,
    /// A stage-2 fault.
    Fault(Fault),
    /// An HVC or SMC: x0 to x7, immediate, is it an SMC.
    Hypercall([u64; 8], u64, bool),
    /// WFI (0), WFE (1), WFIT (2), WFET (3).
    Wait(u64),
    /// SHUTDOWN_OFF or SHUTDOWN_RESET.
    Shutdown(u64),
    /// An SError: ESR_EL2.
    SError(u64),
    /// Something that nobody emulates: ESR_EL2, virtual address.
    Unhandled(u64, u64),
}

impl Exit {
    fn decode(reply: &Registers) -> Self {
        let x = &reply.0;
        match ExitReason::from_code(x[1]).unwrap_or_else(|| panic!("unknown exit {:#x}", x[1])) {
            ExitReason::Interrupt => Self::Interrupt,
            ExitReason::Fault => Self::Fault(Fault {
                ipa: x[2],
                flags: x[3],
                syndrome: x[4],
                sequence: x[5],
                virtual_address: x[6],
                access: x[7],
                value: x[8],
            }),
            ExitReason::Hypercall => {
                let mut registers = [0; 8];
                registers.copy_from_slice(&x[2..10]);
                Self::Hypercall(registers, x[10], x[11] == 1)
            }
            ExitReason::Wait => Self::Wait(x[2]),
            ExitReason::Shutdown => Self::Shutdown(x[2]),
            ExitReason::SError => Self::SError(x[4]),
            ExitReason::Unhandled => Self::Unhandled(x[4], x[6]),
        }
    }

    /// Returns the results of a program that is done.
    pub fn done(self) -> Option<[u64; 7]> {
        match self {
            Self::Hypercall([_, results @ ..], event::DONE, false) => Some(results),
            _ => None,
        }
    }

    /// Returns the fault, or panics.
    #[track_caller]
    pub fn fault(self) -> Fault {
        match self {
            Self::Fault(fault) => fault,
            other => panic!("no fault but {other:x?}"),
        }
    }

    /// Returns vector, ESR_EL1, ELR_EL1, FAR_EL1 of an exception in the payload, or panics.
    #[track_caller]
    pub fn exception(self) -> [u64; 4] {
        match self {
            Self::Hypercall([a, b, c, d, ..], event::EXCEPTION, false) => [a, b, c, d],
            other => panic!("no exception but {other:x?}"),
        }
    }
}

/// How often to try a vCPU that is busy.
const BUSY_PATIENCE: u32 = 100_000;

/// A vCPU, by VM and index.
#[derive(Clone, Copy, Debug)]
pub struct Vcpu {
    vm: u64,
    index: u64,
}

impl Vcpu {
    /// Names a vCPU, whether it exists or not.
    pub fn new(vm: u64, index: u64) -> Self {
        Self { vm, index }
    }

    /// Returns the index.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Runs until the first exit, on whatever CPU this is.
    pub fn enter(&self, flags: u64, value: u64) -> Status<Exit> {
        let reply = raw().call(call::VCPU_RUN, &[self.vm, self.index, flags, value]);
        reply.status().map(|()| Exit::decode(&reply))
    }

    /// Runs until an exit that is no interrupt.
    #[track_caller]
    pub fn run(&self) -> Exit {
        self.run_with(0, 0)
    }

    /// As `run`, with flags for the first entry.
    #[track_caller]
    pub fn run_with(&self, mut flags: u64, value: u64) -> Exit {
        let mut patience = BUSY_PATIENCE;
        loop {
            match self.enter(flags, value) {
                Ok(Exit::Interrupt) => flags = 0,
                Ok(exit) => return exit,
                // Another thread of the test looks at its registers.
                Err(Error::Busy) if patience > 0 => patience -= 1,
                Err(error) => panic!("vCPU {} can't run: {error}", self.index),
            }
        }
    }

    /// Answers a read of a device.
    #[track_caller]
    pub fn answer(&self, value: u64) -> Exit {
        self.run_with(flags::RUN_MMIO_DONE, value)
    }

    /// Reads a register.
    pub fn get(&self, register: u64) -> Status<u64> {
        raw().value(call::VCPU_GET_REG, &[self.vm, self.index, register])
    }

    /// Writes a register.
    pub fn set(&self, register: u64, value: u64) -> Status {
        raw().value(call::VCPU_SET_REG, &[self.vm, self.index, register, value]).map(|_| ())
    }

    /// Lists the identifiers of all registers.
    #[track_caller]
    pub fn registers(&self) -> Vec<u64> {
        let mut identifiers = Vec::new();
        loop {
            let first = identifiers.len();
            let reply = raw().call(call::VCPU_REG_LIST, &[self.vm, self.index, first as u64]);
            reply.status().expect("a vCPU that exists");
            let count = reply.0[1] as usize;
            identifiers.extend(reply.0[2..].iter().take(count - first));
            if identifiers.len() == count {
                return identifiers;
            }
        }
    }

    /// Gives it the state in which it was created.
    pub fn reset(&self) -> Status {
        raw().call(call::VCPU_RESET, &[self.vm, self.index]).status()
    }

    /// Makes a program the next thing that the payload does.
    #[track_caller]
    pub fn prepare(&self, program: u64, arguments: &[u64]) {
        let registers = std::iter::once(&program).chain(arguments);
        for (number, &value) in registers.enumerate() {
            self.set(reg::REG_CORE + number as u64, value).expect("a vCPU that doesn't run");
        }
    }

    /// Runs a program to its end and returns its results.
    #[track_caller]
    pub fn call(&self, program: u64, arguments: &[u64]) -> [u64; 7] {
        self.prepare(program, arguments);
        let exit = self.run();
        exit.done().unwrap_or_else(|| panic!("program {program} ended in {exit:x?}"))
    }

    /// Starts a program that is expected to exit for another reason than its end.
    #[track_caller]
    pub fn call_to_exit(&self, program: u64, arguments: &[u64]) -> Exit {
        self.prepare(program, arguments);
        self.run()
    }
}
