//! KVM_RUN: why it comes back, and with what.
#![allow(unsafe_code)]

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use kvm_bindings::{KVMIO, kvm_enable_cap};
use verdigris_ktap::test_table;

use super::code::{CODE, DEVICE, GENERIC, PC, POWER_OFF, PSCI_0_2, Tiny, errno, init, x};
use crate::inside::counters::{is_verdigris, wait_until};
use crate::inside::sys::{self, WRITE, request};

test_table! { "memory", 30:
    loads_are_extended, stores_carry_their_size, an_access_is_complete_when_the_guest_does_not_go_on,
    a_signal_ends_a_run, a_signal_ends_a_wait, a_stopped_vcpu_waits, the_guest_shuts_down, unknown_calls_are_answered,
    an_access_that_cannot_be_decoded, signals_are_blocked_while_running, a_reset_guest_reads_memory_as_it_is,
    the_kernel_finds_time_for_its_work,
}

/// KVM_EXIT_* (linux/kvm.h).
const MMIO: u32 = 6;
const INTR: u32 = 10;
const SYSTEM_EVENT: u32 = 24;
const ARM_NISV: u32 = 28;

/// b .
const FOREVER: u32 = 0x1400_0000;
const WFI: u32 = 0xd503_207f;
const HVC: u32 = 0xd400_0002;
/// `str x1, [x0]`
const STORE: u32 = 0xf900_0001;

/// Loads of x1, or nothing, from `[x0]`; their sizes; and what 0x8182_8384_8586_8788 is read as.
const LOADS: &[(u32, u32, u64)] = &[
    (0xf940_0001, 8, 0x8182_8384_8586_8788), // ldr x1
    (0xb940_0001, 4, 0x8586_8788),           // ldr w1
    (0xb980_0001, 4, 0xffff_ffff_8586_8788), // ldrsw x1
    (0x7940_0001, 2, 0x8788),                // ldrh w1
    (0x79c0_0001, 2, 0xffff_8788),           // ldrsh w1
    (0x7980_0001, 2, 0xffff_ffff_ffff_8788), // ldrsh x1
    (0x3940_0001, 1, 0x88),                  // ldrb w1
    (0x39c0_0001, 1, 0xffff_ff88),           // ldrsb w1
    (0x3980_0001, 1, 0xffff_ffff_ffff_ff88), // ldrsb x1
    (0xf940_001f, 8, 0x5555),                // ldr xzr
];
const DATA: u64 = 0x8182_8384_8586_8788;

/// The rows of the table, less those that Linux's KVM gets wrong: it cuts values to their size after it has
/// extended their sign. Bits 23:22 of such loads are 1x (Arm ARM C4.1.94, LDRSB, LDRSH, LDRSW).
fn rows() -> impl Iterator<Item = (usize, u64)> {
    let all = LOADS.iter().map(|row| row.2).enumerate();
    all.filter(|&(row, _)| is_verdigris() || LOADS[row].0 >> 23 & 1 == 0)
}

/// Runs into a load of the table; it is then to be answered.
fn into_load(row: usize) -> Tiny {
    let (code, size, _) = LOADS[row];
    let tiny = Tiny::new(&[code, STORE, FOREVER], 0);
    tiny.set(x(0), DEVICE + 0x18);
    tiny.set(x(1), 0x5555);
    assert_eq!(tiny.run().expect("an exit"), MMIO);
    let (address, _, length, is_write) = tiny.mmio();
    assert_eq!((address, length, is_write), (DEVICE + 0x18, size, false), "load {row}");
    assert_eq!(tiny.get(PC), CODE);
    tiny.answer(DATA.to_le_bytes());
    tiny
}

fn loads_are_extended() {
    for (row, value) in rows() {
        let tiny = into_load(row);
        assert_eq!(tiny.run().expect("an exit"), MMIO);
        let (_, data, _, is_write) = tiny.mmio();
        assert!(is_write);
        assert_eq!(u64::from_le_bytes(data), value, "load {row}");
    }
}

fn stores_carry_their_size() {
    // strb w1; strh w1; str w1; str x1; str xzr
    let sizes =
        [(0x3900_0001, 1), (0x7900_0001, 2), (0xb900_0001, 4), (STORE, 8), (0xf900_001f, 8)];
    for (row, (code, size)) in sizes.into_iter().enumerate() {
        let tiny = Tiny::new(&[code, FOREVER], 0);
        tiny.set(x(0), DEVICE);
        tiny.set(x(1), DATA);
        assert_eq!(tiny.run().expect("an exit"), MMIO);
        let (address, data, length, is_write) = tiny.mmio();
        assert_eq!((address, length, is_write), (DEVICE, size, true));
        let expected = if row == 4 { [0; 8] } else { DATA.to_le_bytes() };
        assert_eq!(data[..size as usize], expected[..size as usize], "store {row}");
    }
}

/// Whoever saves the registers of a guest has it finish its access first, by an immediate exit.
fn an_access_is_complete_when_the_guest_does_not_go_on() {
    for (row, value) in rows() {
        let tiny = into_load(row);
        tiny.set_immediate_exit(true);
        assert_eq!(errno(tiny.run()), libc::EINTR);
        assert_eq!((tiny.get(PC), tiny.get(x(1))), (CODE + 4, value), "load {row}");
        assert_eq!(errno(tiny.run()), libc::EINTR);
        assert_eq!((tiny.get(PC), tiny.get(x(1))), (CODE + 4, value), "load {row}");
        tiny.set_immediate_exit(false);
        assert_eq!(tiny.run().expect("an exit"), MMIO);
        assert_eq!(u64::from_le_bytes(tiny.mmio().1), value, "load {row}");
    }
}

/// Tells whether a thread is in KVM_RUN: it sleeps there, or has spent some ticks in its guest since `before`.
fn is_inside(thread: i32, before: u64) -> bool {
    /// The number of the system call ioctl (asm-generic/unistd.h), and what its arguments are behind.
    const IOCTL: &str = "29 ";
    let call = std::fs::read_to_string(format!("/proc/self/task/{thread}/syscall"));
    call.is_ok_and(|text| text.starts_with(IOCTL)) || guest_ticks(thread) > before + 2
}

/// Returns the ticks that a thread has spent in guests (proc(5): the 43rd word; the second is the name).
fn guest_ticks(thread: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat"));
    let text = text.expect("statistics of a thread");
    let ticks = text.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(40));
    ticks.expect("a 43rd word").parse().expect("a number")
}

/// Runs until a signal of another thread comes, which is sent once. Nothing happens before.
pub fn interrupted(tiny: &Tiny) {
    /// Longer than a thread of a loaded machine has to wait for a CPU.
    const LOST: Duration = Duration::from_secs(10);
    sys::make_interruptible();
    let thread = sys::thread_number();
    let (before, ended) = (guest_ticks(thread), AtomicBool::new(false));
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            wait_until("the vCPU runs", || is_inside(thread, before));
            sys::signal_thread(thread, libc::SIGUSR1);
            let sent = Instant::now();
            while !ended.load(SeqCst) && sent.elapsed() < LOST {
                thread::sleep(Duration::from_millis(5));
            }
            assert!(ended.load(SeqCst), "the signal was lost");
        });
        assert_eq!(errno(tiny.run()), libc::EINTR);
        ended.store(true, SeqCst);
        sender.join().expect("a sender");
    });
    assert_eq!(tiny.reason(), INTR);
}

fn a_signal_ends_a_run() {
    let tiny = Tiny::new(&[FOREVER], 0);
    for _ in 0..8 {
        interrupted(&tiny);
        assert_eq!(tiny.get(PC), CODE);
    }
    // The time was the guest's, and is the process's too.
    let ticks = guest_ticks(sys::thread_number());
    assert!(ticks >= 16, "{ticks} ticks of guest time");
}

fn a_signal_ends_a_wait() {
    let tiny = Tiny::new(&[WFI, STORE, FOREVER], 0);
    tiny.set(x(0), DEVICE);
    interrupted(&tiny);
}

fn a_stopped_vcpu_waits() {
    let tiny = Tiny::new(&[STORE], PSCI_0_2);
    init(&tiny.vcpu, GENERIC, [PSCI_0_2 | POWER_OFF, 0, 0, 0, 0, 0, 0]).expect("the same");
    tiny.set(PC, CODE);
    tiny.set(x(0), DEVICE);
    interrupted(&tiny);
    super::mistakes::set_mp_state(tiny.vcpu.as_raw_fd(), 0).expect("a state");
    assert_eq!(tiny.run().expect("an exit"), MMIO);
}

/// A call of the guest, by its number, in x0.
fn call(number: u64) -> Tiny {
    let tiny = Tiny::new(&[HVC, 0xaa00_03e1, 0xd2a1_2000, STORE], PSCI_0_2); // hvc; mov x1, x0; mov x0, DEVICE; str
    tiny.set(x(0), number);
    tiny
}

fn the_guest_shuts_down() {
    for (number, event) in [(0x8400_0008, 1), (0x8400_0009, 2)] {
        let tiny = call(number);
        tiny.spoil_exit();
        assert_eq!(tiny.run().expect("an exit"), SYSTEM_EVENT);
        // KVM_CAP_SYSTEM_EVENT_DATA: one word of flags, of which neither event has one.
        assert_eq!(tiny.system_event(), (event, vec![0]));
        // It stays switched off until somebody says otherwise.
        interrupted(&tiny);
        init(&tiny.vcpu, GENERIC, [PSCI_0_2, 0, 0, 0, 0, 0, 0]).expect("the same");
        tiny.set(PC, CODE + 12);
        tiny.set(x(0), DEVICE);
        assert_eq!(tiny.run().expect("an exit"), MMIO);
    }
}

fn unknown_calls_are_answered() {
    // SMCCC_VERSION; a vendor's hypervisor call that is the firmware's for hosts; nobody's.
    for (number, answer) in
        [(0x8000_0000, 0x1_0001), (0xc600_0000, u64::MAX), (0xc200_7777, u64::MAX)]
    {
        let tiny = call(number);
        assert_eq!(tiny.run().expect("an exit"), MMIO);
        assert_eq!(u64::from_le_bytes(tiny.mmio().1), answer, "{number:#x}");
    }
}

fn an_access_that_cannot_be_decoded() {
    const NISV_TO_USER: u32 = 177;
    let tiny = Tiny::new(&[0xa940_0801], 0); // ldp x1, x2, [x0]
    tiny.set(x(0), DEVICE);
    assert_eq!(errno(tiny.run()), libc::ENOSYS);
    let mut cap = kvm_enable_cap { cap: NISV_TO_USER, ..Default::default() };
    let call = request::<kvm_enable_cap>(WRITE, KVMIO.into(), 0xa3);
    // SAFETY: numbers only.
    unsafe { sys::ioctl(tiny.vm.as_raw_fd(), call, &mut cap) }.expect("a capability");
    assert_eq!(tiny.run().expect("an exit"), ARM_NISV);
    assert_eq!(tiny.get(PC), CODE);
}

/// Tells whether this CPU is a Cortex-A57, whose guests read past the caches while their MMU is off.
fn has_no_forced_write_back() -> bool {
    let text = std::fs::read_to_string("/proc/cpuinfo").expect("CPUs");
    text.lines().any(|line| line.starts_with("CPU part") && line.ends_with("0xd07"))
}

/// Memory is cleaned from the caches when it is mapped: so it is mapped anew for a guest that begins again, where
/// that matters, and only there.
fn a_reset_guest_reads_memory_as_it_is() {
    let tiny = Tiny::new(&[0xf940_0001, STORE, FOREVER], 0);
    let begin = || {
        tiny.set(PC, CODE + 4);
        tiny.set(x(0), DEVICE);
        assert_eq!(tiny.run().expect("an exit"), MMIO);
        // Linux's KVM completes a store that is open across a reset.
        tiny.set_immediate_exit(true);
        assert_eq!(errno(tiny.run()), libc::EINTR);
        tiny.set_immediate_exit(false);
    };
    begin();
    let mapped = || -> Option<u64> {
        let fd = super::code::file(tiny.vm.as_raw_fd(), super::code::GET_STATS_FD, 0).expect("one");
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::fs::File::from(fd), &mut bytes).expect("statistics");
        crate::stats::parse(&bytes)?.get("fw_pages_mapped").copied()
    };
    let before = mapped();
    assert_eq!(before.is_some(), is_verdigris());
    init(&tiny.vcpu, GENERIC, [0; 7]).expect("the same");
    let after = if has_no_forced_write_back() { before.map(|_| 0) } else { before };
    assert_eq!(mapped(), after, "before it were {before:?}");
    begin();
    assert_eq!(mapped(), before);
}

static CAUGHT: AtomicI32 = AtomicI32::new(0);

extern "C" fn catch(number: i32) {
    CAUGHT.store(number, SeqCst);
}

/// A signal that is blocked outside ends the run, if it is not blocked inside, and stays pending.
fn signals_are_blocked_while_running() {
    let tiny = Tiny::new(&[FOREVER], 0);
    let bit = 1u64 << (libc::SIGUSR1 - 1);
    // SAFETY: plain calls on signals of this thread; the handler stores a number.
    unsafe {
        libc::signal(libc::SIGUSR1, catch as *const () as usize);
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&raw mut set, libc::SIGUSR1);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        // struct kvm_signal_mask: its length, and the set inside, which blocks nothing.
        let mut mask = [8u32, 0, 0];
        let call = request::<u32>(WRITE, KVMIO.into(), 0x8b);
        sys::ioctl(tiny.vcpu.as_raw_fd(), call, &mut mask).expect("a mask");
        sys::signal_thread(sys::thread_number(), libc::SIGUSR1);
        assert_eq!(errno(tiny.run()), libc::EINTR);
        assert_eq!(CAUGHT.load(SeqCst), 0, "delivered, though it is blocked outside");
        let mut pending: libc::sigset_t = std::mem::zeroed();
        libc::sigpending(&raw mut pending);
        assert_eq!(libc::sigismember(&raw const pending, libc::SIGUSR1), 1, "{bit:#x}");
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
    }
    assert_eq!(CAUGHT.load(SeqCst), libc::SIGUSR1);
}

/// struct rseq (linux/rseq.h): its second word is the CPU, which the kernel writes on its way to user space.
#[repr(align(32))]
struct Restartable([AtomicU32; 8]);

/// What the kernel does on its way to user space (task work, throttling of memory cgroups) has to be done too while
/// the guest goes on for ever. Here: it tells the thread on which CPU it is.
fn the_kernel_finds_time_for_its_work() {
    static RESTARTABLE: Restartable = Restartable([const { AtomicU32::new(0) }; 8]);
    sys::make_interruptible();
    let tiny = Tiny::new(&[FOREVER], 0);
    // SAFETY: the structure lives as long as the process, and the kernel alone writes it.
    let registered = unsafe {
        let start = &raw const RESTARTABLE;
        libc::syscall(libc::SYS_rseq, start, size_of::<Restartable>(), 0, 0x5305_3053)
    };
    assert_eq!(registered, 0, "rseq: {}", std::io::Error::last_os_error());
    let (thread, ended) = (sys::thread_number(), AtomicBool::new(false));
    thread::scope(|scope| {
        let mover = scope.spawn(|| {
            thread::sleep(Duration::from_millis(200));
            let followed = [1, 0, 3, 2, 1].map(|cpu| {
                move_to(thread, cpu);
                let end = Instant::now() + Duration::from_secs(3);
                while RESTARTABLE.0[1].load(SeqCst) != cpu as u32 && Instant::now() < end {
                    thread::sleep(Duration::from_millis(5));
                }
                RESTARTABLE.0[1].load(SeqCst)
            });
            while !ended.load(SeqCst) {
                sys::signal_thread(thread, libc::SIGUSR1);
                thread::sleep(Duration::from_millis(100));
            }
            followed
        });
        // One call for all of it: it is restarted unseen.
        assert_eq!(errno(tiny.run()), libc::EINTR);
        ended.store(true, SeqCst);
        assert_eq!(mover.join().expect("a mover"), [1, 0, 3, 2, 1]);
    });
}

/// Binds a thread to a CPU.
fn move_to(thread: i32, cpu: usize) {
    // SAFETY: the set is ours, and as large as the kernel is told.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        assert_eq!(libc::sched_setaffinity(thread, size_of_val(&set), &raw const set), 0);
    }
}
