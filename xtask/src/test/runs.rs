//! The machines of the tests, as data: a name, a CPU model, how many CPUs, the firmware's feature mask, what the host is
//! to do, and what is expected of it. [`super::machines`] runs them.

use std::time::Duration;

use crate::build::{Grants, Profile};
use crate::lab::TIMEOUT;

/// One run, as data.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub(super) name: &'static str,
    pub(super) cpu: &'static str,
    pub(super) smp: u32,
    pub(super) memory_gib: u64,
    pub(super) profile: Profile,
    pub(super) firmware_args: &'static str,
    /// Whether the host has EL2 to itself and no firmware below it: what is asked of `/dev/kvm`
    /// must be true of Linux's own.
    pub(super) own_kvm: bool,
    /// What an EL3 of our own grants, below the firmware.
    pub(super) el3: Option<Grants>,
    pub(super) driver: Option<&'static str>,
    /// Whether the host's root has the memory suite.
    pub(super) memory: bool,
    /// Memory that comes after boot, in GiB.
    pub(super) added_gib: u64,
    /// Whether it has a kernel to start after this one, and what that is to do.
    pub(super) next_kernel: bool,
    /// How long the machine may run, besides what it soaks.
    pub(super) timeout: Duration,
    /// Whether its command is the virtual machine monitor's.
    pub(super) vmm: bool,
    pub(super) command: &'static str,
    pub(super) judge: Judge,
    /// How many times its command takes the time that the user has it soak: [`SOAK_WORD`] becomes that many seconds.
    pub(super) soaks: u32,
    /// Which of its tests may be skipped.
    pub(super) skips: Skips,
}

/// Which tests may be skipped, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Skips {
    /// Any that has a reason.
    Any,
    /// These alone: where everything is there that tests ask for, a skip hides a test.
    Only(&'static [&'static str]),
}

/// How a run is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judge {
    /// By the status of its command: one test.
    Status,
    /// By what it reports in KTAP: many tests.
    Ktap,
}

/// Makes a run of the hypercall suite.
pub(super) const fn run(name: &'static str, cpu: &'static str, smp: u32) -> Run {
    Run {
        name,
        cpu,
        smp,
        memory_gib: 1,
        profile: Profile::Release,
        firmware_args: "",
        own_kvm: false,
        el3: None,
        driver: Some("raw=1"),
        memory: false,
        added_gib: 0,
        next_kernel: false,
        timeout: TIMEOUT,
        vmm: false,
        command: "verdigris-suite test --group suite",
        judge: Judge::Ktap,
        soaks: 0,
        skips: Skips::Any,
    }
}

const fn masked(name: &'static str, firmware_args: &'static str) -> Run {
    Run { firmware_args, ..run(name, "max", 4) }
}

const fn soak(run: Run) -> Run {
    Run { soaks: 1, ..status(run, SOAK) }
}

/// Linux does everything to guests at once, and their VMMs are killed and stopped: each of the three tests takes the whole time,
/// and has the harness's limit besides, which must be over before the machine's is.
const fn soak_memory(run: Run) -> Run {
    Run { command: SOAK_MEMORY, soaks: 3, ..memory(run) }
}

const fn group(run: Run, command: &'static str) -> Run {
    Run { command, ..run }
}

const fn status(run: Run, command: &'static str) -> Run {
    Run { command, judge: Judge::Status, ..run }
}

/// Boots without the driver: what must work before anything else does.
const BOOTED: &str = "test $(nproc) = $(grep -c ^processor /proc/cpuinfo) && echo booted";
const SWEEP_COMMAND: &str = "verdigris-suite test --group sweep";
const HOTPLUG_COMMAND: &str = "verdigris-suite test --group hotplug";
const ROLLOVER_COMMAND: &str = "verdigris-suite test --group rollover";
/// Stands in a command for the seconds that the user has it soak.
pub(super) const SOAK_WORD: &str = "SECONDS";
const SOAK: &str = "verdigris-suite soak SECONDS";
const SOAK_MEMORY: &str = "VERDIGRIS_SOAK=SECONDS verdigris-memory test at_once at_any_moment";
const NEWEST_COMMAND: &str = "verdigris-memory test damon_finds merge_and_break fork_copies pageout minor \
    log_is_exact grace_periods hooks_go time_in_a_guest";
const DEMO: &str = "verdigris-vmm demo";
const DEMO_FAILS: &str =
    "verdigris-vmm demo | tee /tmp/demo; grep -q '^WRONG: not the cold' /tmp/demo";

const fn boot(name: &'static str, cpu: &'static str, smp: u32) -> Run {
    Run { driver: None, ..status(run(name, cpu, smp), BOOTED) }
}

/// The driver is loaded as a user has it.
const fn demo(run: Run) -> Run {
    Run { vmm: true, driver: Some(""), ..status(run, DEMO) }
}

const fn own_kvm(run: Run) -> Run {
    Run { own_kvm: true, driver: None, ..run }
}

/// The host boots. The last has no firmware: its own KVM is what the driver's is compared with.
pub const BOOT: &[Run] = &[
    boot("boot-max", "max", 4),
    boot("boot-neoverse-n1", "neoverse-n1", 4),
    boot("boot-cortex-a57", "cortex-a57", 4),
    boot("boot-cortex-a53", "cortex-a53", 4),
    boot("boot-cortex-a76", "cortex-a76", 2),
    boot("boot-max-1", "max", 1),
    // Below an EL3 that grants nothing optional: each register of it that the firmware tries is a trap there.
    Run { el3: Some(Grants::LEAST), ..boot("boot-el3", "max,sve=off,sme=off,pauth=off", 4) },
    status(own_kvm(run("boot-own-kvm", "max", 4)), "test -c /dev/kvm && echo booted"),
];

/// The hypercall suite. The first is the one that passes on the oldest QEMU too; it has memory
/// enough for a block of 1 GiB, which the others skip.
pub const SUITE: &[Run] = &[
    Run { memory_gib: 3, ..run("suite-max", "max", 4) },
    Run { profile: Profile::Checked, ..run("suite-checked", "max", 4) },
    masked("suite-max-no-ha", "ha=off"),
    masked("suite-max-no-hd", "hd=off"),
    masked("suite-max-no-epoch", "epoch=off"),
    masked("suite-max-bbm0", "bbm=0"),
    masked("suite-max-no-tlbirange", "tlbirange=off"),
    masked("suite-max-no-fwb", "fwb=off"),
    masked("suite-max-vmid8", "vmid=8"),
    run("suite-neoverse-n1", "neoverse-n1", 4),
    run("suite-cortex-a57", "cortex-a57", 4),
    run("suite-max-1", "max", 1),
    run("suite-neoverse-n1-1", "neoverse-n1", 1),
    run("suite-cortex-a57-1", "cortex-a57", 1),
    run("suite-cortex-a55-1", "cortex-a55", 1),
];

/// CPUs come and go.
pub const HOTPLUG: &[Run] = &[
    group(run("hotplug-max", "max", 4), HOTPLUG_COMMAND),
    group(run("hotplug-neoverse-n1", "neoverse-n1", 4), HOTPLUG_COMMAND),
    group(run("hotplug-cortex-a57", "cortex-a57", 4), HOTPLUG_COMMAND),
];

/// More VMs than VMIDs.
pub const ROLLOVER: &[Run] = &[
    group(Run { firmware_args: "vmid=3", ..run("rollover-max", "max", 4) }, ROLLOVER_COMMAND),
    group(Run { firmware_args: "vmid=4", ..run("rollover-max-4", "max", 2) }, ROLLOVER_COMMAND),
    group(
        Run { firmware_args: "vmid=3", ..run("rollover-cortex-a57", "cortex-a57", 4) },
        ROLLOVER_COMMAND,
    ),
];

/// Everything at once, for a minute or as long as the user says.
pub const SOAKS: &[Run] = &[
    soak(run("soak-max", "max", 4)),
    soak(masked("soak-max-no-ha", "ha=off")),
    soak(run("soak-neoverse-n1", "neoverse-n1", 4)),
    soak(run("soak-cortex-a76", "cortex-a76", 4)),
    soak(run("soak-cortex-a57", "cortex-a57", 4)),
    // The firmware checks itself, and the VMs that come and go use up the VMIDs.
    Run {
        profile: Profile::Checked,
        firmware_args: "vmid=3",
        ..soak(run("soak-checked", "max", 4))
    },
    soak_memory(run("soak-memory-max", "max", 4)),
    soak_memory(masked("soak-memory-max-no-ha", "ha=off")),
    soak_memory(run("soak-memory-cortex-a57", "cortex-a57", 4)),
];

/// The encoding sweep.
pub const SWEEP: &[Run] = &[
    group(run("sweep-max", "max", 1), SWEEP_COMMAND),
    group(run("sweep-neoverse-n1", "neoverse-n1", 1), SWEEP_COMMAND),
    group(run("sweep-cortex-a57", "cortex-a57", 1), SWEEP_COMMAND),
];

const fn memory(run: Run) -> Run {
    let (command, timeout) = ("verdigris-memory test", Duration::from_secs(2400));
    // On Linux's own KVM there is nothing of what only the driver has.
    let skips = if run.own_kvm { Skips::Any } else { Skips::Only(&[]) };
    Run { memory: true, memory_gib: 2, command, timeout, skips, ..run }
}

/// What Linux does to the memory of guests.
pub const MEMORY: &[Run] = &[
    memory(run("memory-max", "max", 4)),
    memory(masked("memory-max-no-ha", "ha=off")),
    memory(run("memory-cortex-a57", "cortex-a57", 4)),
    placement(run("memory-placement-max", "max", 4)),
    placement(masked("memory-placement-max-no-ha", "ha=off")),
    placement(run("memory-placement-cortex-a57", "cortex-a57", 4)),
    added(run("memory-added-max", "max", 4)),
];

/// Memory comes after boot, as much as there was.
const fn added(run: Run) -> Run {
    let run = group(memory(run), "verdigris-memory test --group added");
    Run { memory_gib: 1, added_gib: 1, ..run }
}

/// Huge pages and migration, on a machine whose memory is not in pieces yet.
const fn placement(run: Run) -> Run {
    group(memory(run), "verdigris-memory test --group placement")
}

/// What changes most from kernel to kernel: reclaim and ageing, huge pages, KSM, userfaultfd, fork, the log.
pub const NEWEST: &[Run] = &[
    group(memory(run("memory-newest", "max", 4)), NEWEST_COMMAND),
    demo(run("run-newest", "max", 4)),
];

/// What reads all of the host's memory; then a kernel that kexec starts while guests run, and one that a panic does.
/// The machine's status is the last kernel's.
const KERNELS_COMMAND: &str =
    "verdigris-memory test --group kernel && verdigris-memory kexec 'sh /lib/verdigris/second'";

const fn kernels(run: Run) -> Run {
    let driver = if run.own_kvm { None } else { Some("") };
    Run { next_kernel: true, driver, ..group(memory(run), KERNELS_COMMAND) }
}

/// Linux 6.12 with addresses of 52 bits (FEAT_LPA2) oopses in kexec_load() by itself, in trans_pgd_create_copy().
const SMALLER_MAX: &str = "max,lpa2=off";

/// The host's own kernel, beside memory that guests were given.
pub const KERNELS: &[Run] = &[
    kernels(run("kernels-max", SMALLER_MAX, 4)),
    kernels(run("kernels-neoverse-n1", "neoverse-n1", 4)),
];

/// The same program on Linux's own KVM: what a test says of Linux must be so.
pub const MEMORY_KVM: &[Run] = &[
    memory(own_kvm(run("memory-kvm-max", "max", 4))),
    memory(own_kvm(run("memory-kvm-cortex-a57", "cortex-a57", 4))),
    placement(own_kvm(run("memory-kvm-placement-max", "max", 4))),
    added(own_kvm(run("memory-kvm-added-max", "max", 4))),
    kernels(own_kvm(run("memory-kvm-kernels-max", SMALLER_MAX, 4))),
    kernels(own_kvm(run("memory-kvm-kernels-neoverse-n1", "neoverse-n1", 4))),
];

/// What ageing, reclaim and faults cost, with and without the flush epoch.
pub const FIGURES: &[Run] =
    &[figures(run("figures-max", "max", 4)), figures(masked("figures-max-no-epoch", "epoch=off"))];

const fn figures(run: Run) -> Run {
    group(memory(run), "verdigris-memory test --group figures")
}

/// The demonstration, as `cargo xtask run` shows it.
pub const RUN: &[Run] = &[
    demo(run("run-max", "max", 4)),
    demo(run("run-cortex-a57", "cortex-a57", 2)),
    // It can fail: where the driver calls every page old, Linux takes what was there first, the hot half.
    Run {
        driver: Some("age_answers=0"),
        ..status(demo(run("run-max-no-answers", "max", 4)), DEMO_FAILS)
    },
    // What it says of Linux must be so on Linux's own KVM.
    own_kvm(demo(run("run-own-kvm", "max", 4))),
];

/// Lists the names of runs.
pub fn names(runs: &'static [Run]) -> impl Iterator<Item = &'static str> {
    runs.iter().map(|run| run.name)
}
