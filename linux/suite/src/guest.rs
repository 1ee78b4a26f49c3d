//! A VM with the payload in it: image, stacks and the pages through which it is talked to.

use std::ops::Deref;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use verdigris_abi::reg;
use verdigris_guest::{control, program};

use crate::pages::{PAGE, Pages};
use crate::sys;
use crate::vcpu::{Exit, Vcpu};
use crate::vm::{RW, RWX, Vm};

/// Where the image of the payload lies in the host's root.
const PAYLOAD: &str = "/lib/verdigris/guest.bin";

/// IPA of the image.
pub const IMAGE: u64 = 0x4000_0000;
/// IPA of the first stack.
const STACKS: u64 = 0x4010_0000;
const STACK_PAGES: usize = 4;
/// IPA of the first control page; each vCPU has one.
const CONTROLS: u64 = 0x4020_0000;
/// IPA where tests map their own.
pub const DATA: u64 = 0x8000_0000;
/// IPA at which nothing is ever mapped.
pub const NOWHERE: u64 = 0x70_0000_0000;

/// A VM that runs the payload on each of its vCPUs.
pub struct Guest {
    // First, so that it ends before its memory is freed.
    vm: Vm,
    vcpus: Vec<Vcpu>,
    controls: Pages,
    _memory: [Pages; 2],
}

impl Deref for Guest {
    type Target = Vm;

    fn deref(&self) -> &Vm {
        &self.vm
    }
}

fn read_payload() -> Vec<u8> {
    let path = std::env::var("VERDIGRIS_GUEST").unwrap_or_else(|_| PAYLOAD.to_owned());
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

impl Guest {
    /// Creates a VM with the payload ready to start on each of `vcpus` vCPUs.
    pub fn new(vcpus: usize) -> Self {
        Self::inside(Vm::new(), vcpus)
    }

    /// Puts the payload into a VM.
    pub fn inside(vm: Vm, vcpus: usize) -> Self {
        let bytes = read_payload();
        let image = Pages::single(bytes.len().div_ceil(PAGE));
        image.copy_from(&bytes);
        vm.map_pages(IMAGE, &image, RWX);
        let stacks = Pages::single(vcpus * STACK_PAGES);
        vm.map_pages(STACKS, &stacks, RW);
        let controls = Pages::single(vcpus);
        vm.map_pages(CONTROLS, &controls, RW);
        let vcpus = (0..vcpus).map(|index| new_vcpu(&vm, index)).collect();
        Self { vm, vcpus, controls, _memory: [image, stacks] }
    }

    /// Returns a vCPU.
    pub fn cpu(&self, index: usize) -> Vcpu {
        self.vcpus[index]
    }

    /// Returns all vCPUs.
    pub fn cpus(&self) -> &[Vcpu] {
        &self.vcpus
    }

    /// Maps fresh pages at [`DATA`].
    pub fn with_data(&self, page_count: usize, flags: u64) -> Pages {
        let pages = Pages::single(page_count);
        self.vm.map_pages(DATA, &pages, flags);
        pages
    }

    /// Returns the VM's current sequence number, by running a vCPU into a fault.
    #[track_caller]
    pub fn sequence(&self, vcpu: usize) -> u64 {
        let vcpu = self.cpu(vcpu);
        let fault = vcpu.call_to_exit(program::READ, &[NOWHERE]).fault();
        let exit = vcpu.run_with(verdigris_abi::flags::RUN_SKIP, 0);
        assert!(exit.done().is_some(), "the read was not stepped over: {exit:x?}");
        fault.sequence
    }

    /// Reads a word of a vCPU's control page.
    pub fn control(&self, vcpu: usize, word: usize) -> u64 {
        self.controls.read(vcpu, word)
    }

    /// Returns the IPA of a vCPU's control page.
    pub fn control_ipa(&self, vcpu: usize) -> u64 {
        CONTROLS + (vcpu * PAGE) as u64
    }

    /// Ends the program of a vCPU whose spinner left by a fault: steps over accesses until it sees the stop.
    #[track_caller]
    pub fn stop_program(&self, vcpu: usize) {
        self.tell_stop(vcpu);
        let runner = self.cpu(vcpu);
        let mut exit = runner.run_with(verdigris_abi::flags::RUN_SKIP, 0);
        while exit.done().is_none() {
            exit.fault();
            exit = runner.run_with(verdigris_abi::flags::RUN_SKIP, 0);
        }
    }

    /// Makes a program that ends only when it is told to the next thing that a vCPU does.
    ///
    /// The IPA of the control page becomes its last argument.
    pub fn start(&self, vcpu: usize, number: u64, arguments: &[u64]) -> Vcpu {
        (0..control::WORDS).for_each(|word| self.controls.write(vcpu, word, 0));
        let arguments: Vec<_> = arguments.iter().copied().chain([self.control_ipa(vcpu)]).collect();
        let runner = self.cpu(vcpu);
        runner.prepare(number, &arguments);
        runner
    }

    /// Tells the program of a vCPU to stop.
    pub fn tell_stop(&self, vcpu: usize) {
        self.controls.write(vcpu, control::STOP, 1);
    }

    /// Starts a program that ends only when it is told to, on a thread of its own, bound to `cpu`.
    pub fn spin(&self, vcpu: usize, cpu: usize, number: u64, arguments: &[u64]) -> Spinner<'_> {
        let runner = self.start(vcpu, number, arguments);
        let thread = thread::spawn(move || {
            sys::run_on(cpu).expect("the CPU is there");
            runner.run()
        });
        Spinner { guest: self, vcpu, thread: Some(thread) }
    }
}

fn new_vcpu(vm: &Vm, index: usize) -> Vcpu {
    let vcpu = vm.vcpu(index as u64).expect("a vCPU can be created");
    let stack_top = STACKS + ((index + 1) * STACK_PAGES * PAGE) as u64;
    vcpu.set(reg::REG_PC, IMAGE).expect("the PC can be set");
    vcpu.set(reg::REG_SP_EL1, stack_top).expect("the stack pointer can be set");
    vcpu
}

/// A vCPU that runs a program for as long as this lives.
pub struct Spinner<'guest> {
    guest: &'guest Guest,
    vcpu: usize,
    thread: Option<JoinHandle<Exit>>,
}

/// How long a running guest may take for a few rounds.
const PATIENCE: Duration = Duration::from_secs(10);

impl Spinner<'_> {
    /// Returns the rounds done so far.
    pub fn rounds(&self) -> u64 {
        self.guest.control(self.vcpu, control::ROUNDS)
    }

    /// Returns the value last seen.
    pub fn value(&self) -> u64 {
        self.guest.control(self.vcpu, control::VALUE)
    }

    /// Tells whether the program has ended, for whatever reason.
    pub fn has_exited(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until the guest has begun and ended at least one round from now on.
    #[track_caller]
    pub fn wait_a_round(&self) {
        let target = self.rounds() + 2;
        let end = Instant::now() + PATIENCE;
        while self.rounds() < target {
            assert!(!self.has_exited(), "the guest stopped by itself");
            assert!(Instant::now() < end, "the guest makes no progress");
            sys::pause();
        }
    }

    /// Tells the program to stop, and returns how it ended.
    pub fn stop(mut self) -> Exit {
        self.tell_stop();
        self.thread.take().expect("joined once").join().expect("the thread doesn't panic")
    }

    /// Waits for an exit that nobody asked the guest for.
    #[track_caller]
    pub fn exit(mut self) -> Exit {
        let end = Instant::now() + PATIENCE;
        while !self.has_exited() {
            assert!(Instant::now() < end, "the guest runs on");
            sys::pause();
        }
        self.thread.take().expect("joined once").join().expect("the thread doesn't panic")
    }

    fn tell_stop(&self) {
        self.guest.tell_stop(self.vcpu);
    }
}

impl Drop for Spinner<'_> {
    fn drop(&mut self) {
        self.tell_stop();
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}
