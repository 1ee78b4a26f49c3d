//! A vCPU: registers in, run, events out.

use std::fs::File;
use std::io::Error;

use kvm_bindings::kvm_vcpu_init;
use kvm_ioctls::{VcpuExit, VcpuFd};
use verdigris_guest::{door, event};

use super::sys;
use super::vm::{self, Vm};

/// KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE (asm/kvm.h): the index of a 32-bit word of
/// struct kvm_regs is added.
const CORE: u64 = 0x6030_0000_0010_0000;
const PC: u64 = CORE + 64;
const SP_EL1: u64 = CORE + 68;

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Exit {
    /// The payload stored an event to its door.
    Event(u64),
    /// A load where no slot is: address and size. It is answered by the next run, with what
    /// [`Vcpu::answer`] was given.
    Load(u64, usize),
    /// A store where no slot is, or one that may not be written: address and value.
    Store(u64, u64),
    /// A signal, or the request for an immediate exit.
    Interrupted,
    /// An access that could not be served: what KVM_RUN said, and the address if it told.
    Failed(i32, Option<u64>),
}

/// A vCPU.
pub struct Vcpu {
    fd: VcpuFd,
    answer: u64,
}

impl Vcpu {
    /// Makes the vCPU with this number.
    pub fn new(vm: &Vm, index: u64) -> Self {
        let fd = vm.fd.create_vcpu(index).expect("a vCPU");
        let mut init = kvm_vcpu_init::default();
        vm.fd.get_preferred_target(&mut init).expect("a target");
        fd.vcpu_init(&init).expect("a target that is preferred");
        Self { fd, answer: 0 }
    }

    fn set(&self, register: u64, value: u64) {
        self.fd.set_one_reg(register, &value.to_le_bytes()).expect("a register that there is");
    }

    fn get(&self, register: u64) -> u64 {
        let mut bytes = [0; 8];
        self.fd.get_one_reg(register, &mut bytes).expect("a register that there is");
        u64::from_le_bytes(bytes)
    }

    /// Lets it begin at an address, on a stack.
    pub fn enter_at(&self, pc: u64, stack: u64) {
        self.set(PC, pc);
        self.set(SP_EL1, stack);
    }

    /// Sets x0 to x7.
    pub fn set_arguments(&self, arguments: &[u64]) {
        for index in 0..8u64 {
            self.set(CORE + 2 * index, arguments.get(index as usize).copied().unwrap_or(0));
        }
    }

    /// Reads x0 to x7.
    pub fn results(&self) -> [u64; 8] {
        std::array::from_fn(|index| self.get(CORE + 2 * index as u64))
    }

    /// Opens its statistics, which can be read while it runs.
    pub fn statistics(&self) -> File {
        vm::statistics_of(&self.fd)
    }

    /// Chooses what a load is answered with.
    pub fn answer(&mut self, value: u64) {
        self.answer = value;
    }

    /// Runs until something happens.
    pub fn run(&mut self) -> Exit {
        let answer = self.answer.to_le_bytes();
        let errno = match self.fd.run() {
            Ok(VcpuExit::MmioWrite(door::ADDRESS, data)) => return Exit::Event(value(data)),
            Ok(VcpuExit::MmioWrite(address, data)) => return Exit::Store(address, value(data)),
            Ok(VcpuExit::MmioRead(address, data)) => {
                let size = data.len();
                data.copy_from_slice(&answer[..size]);
                return Exit::Load(address, size);
            }
            Ok(VcpuExit::Intr) => return Exit::Interrupted,
            Ok(VcpuExit::MemoryFault { gpa, .. }) => return Exit::Failed(libc::EFAULT, Some(gpa)),
            Ok(other) => panic!("a run ended with {other:?}"),
            Err(error) => error.errno(),
        };
        match errno {
            libc::EINTR | libc::EAGAIN => Exit::Interrupted,
            errno => Exit::Failed(errno, None),
        }
    }

    /// Runs through interruptions until an event; anything else is a failure of the test.
    pub fn run_to_event(&mut self) -> u64 {
        loop {
            match self.run() {
                Exit::Event(number) => return number,
                Exit::Interrupted => {}
                Exit::Failed(errno, address) => {
                    let error = Error::from_raw_os_error(errno);
                    panic!("the run failed at {address:x?}: {error}; x0..x7 {:x?}", self.results())
                }
                other => panic!("the run ended with {other:x?}"),
            }
        }
    }

    /// Runs a program of the payload to its end.
    pub fn program(&mut self, program: u64, arguments: &[u64]) -> [u64; 8] {
        self.begin(program, arguments);
        self.finish()
    }

    /// Sets a program of the payload up to be run.
    pub fn begin(&self, program: u64, arguments: &[u64]) {
        let mut words = vec![program];
        words.extend(arguments);
        self.set_arguments(&words);
    }

    /// Runs a program that was begun to its end.
    pub fn finish(&mut self) -> [u64; 8] {
        let number = self.run_to_event();
        let results = self.results();
        assert_eq!(number, event::DONE, "the payload took an exception: {results:x?}");
        results
    }
}

fn value(data: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    bytes[..data.len()].copy_from_slice(data);
    u64::from_le_bytes(bytes)
}

/// Asks a vCPU's thread to leave its run.
pub fn kick(thread: i32) {
    sys::signal_thread(thread, libc::SIGUSR1);
}
