//! `cargo xtask run`: builds everything, boots it, shows the demonstration or does what it is told.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use verdigris_qemu::{Boot, Host, Invocation, Machine, Qemu, Session, parse_size};

use crate::build::{self, Firmware, Profile};
use crate::console::{CRASH_STATUS, Outcome, follow};
use crate::display::Display;
use crate::job::{Job, Work};
use crate::lab::On;
use crate::setup::{self, HostKernel, KernelPackage, Setup, Tools};
use crate::symbols::Symbols;
use crate::{arguments, gdb, job, kernel, paths, terminal};

/// The exit status after a timeout, as of timeout(1).
const TIMEOUT_STATUS: u8 = 124;
/// The command of the demonstration.
const DEMO: &str = "verdigris-vmm demo";

/// What a run can be told.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// Give a root shell in the host, on this terminal (Ctrl-A x ends the machine)
    #[arg(long, conflicts_with = "script")]
    shell: bool,
    /// What offers /dev/kvm in the host
    #[arg(long, value_enum, default_value = "verdigris")]
    on: On,
    /// Model of the CPUs, as QEMU names them
    #[arg(long, default_value = "max", value_name = "NAME")]
    cpu: String,
    /// Number of CPUs [default: 4, or 1 with --icount]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    smp: Option<u32>,
    /// Memory, as 1024M or 6G
    #[arg(long, default_value = "1G", value_name = "SIZE", value_parser = parse_size)]
    memory: u64,
    /// Run this kernel image as host, instead of the one that set-up fetched
    #[arg(long, value_name = "IMAGE", requires = "kernel_headers")]
    kernel: Option<PathBuf>,
    /// Build the driver against these headers, of the same kernel
    #[arg(long, value_name = "DIR", requires = "kernel")]
    kernel_headers: Option<PathBuf>,
    /// Run a kernel of Debian's as host, by its package: linux-image-arm64/sid, linux-image-6.12*-arm64
    #[arg(long, value_name = "NAME", conflicts_with = "kernel", value_parser = KernelPackage::parse)]
    kernel_package: Option<KernelPackage>,
    /// Give the host a disk of this size to swap to, as 512M or 2G
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    swap: Option<u64>,
    /// Lay the files of a directory over the host's root; may be given more than once
    #[arg(long, value_name = "DIR")]
    overlay: Vec<PathBuf>,
    /// Run this file as root in the host once the driver is loaded, and exit with its status
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// Add to the host's command line
    #[arg(long, value_name = "ARGS", default_value = "", allow_hyphen_values = true)]
    append: String,
    /// Give the firmware these options: log level and feature mask (log=info ha=off ...)
    #[arg(long, value_name = "ARGS", default_value = "", allow_hyphen_values = true)]
    firmware_args: String,
    /// Give the driver these module parameters
    #[arg(long, value_name = "ARGS", default_value = "", allow_hyphen_values = true)]
    driver_args: String,
    /// Count instructions as time: one CPU, fixed clock and seeds, the same run every time
    #[arg(long)]
    icount: bool,
    /// Wait for a debugger, at this port or a free one, and print the line that attaches one
    #[arg(long, value_name = "PORT", num_args = 0..=1, require_equals = true)]
    gdb: Option<Option<u16>>,
    /// Give up after so many seconds
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Write the console to this file [default: target/logs/run.log]
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Show all lines of the host's boot
    #[arg(long, short)]
    verbose: bool,
    /// Use this emulator
    #[arg(long, value_name = "PATH")]
    qemu: Option<PathBuf>,
}

/// Runs, and returns the exit status for the user.
pub fn run(args: RunArgs) -> Result<ExitCode> {
    args.check()?;
    let setup = prepare(&args)?;
    let qemu = match &args.qemu {
        Some(program) => Tools::qemu_at(program.clone())?,
        None => setup.tools.qemu()?,
    };
    setup::qemu_version(&qemu)?;
    let kernel = args.check_with(&setup, &qemu)?;
    let firmware = args.firmware()?;
    let job = args.job(&setup)?;
    let files = Files::new()?;
    job.write_root(&files.ramdisk)?;
    let host = Host { kernel, ramdisk: files.ramdisk.clone(), args: args.host_args() };
    let disk = args.swap.map(|bytes| files.disk(bytes)).transpose()?;
    let gdb_port = args.gdb.map(gdb::choose_port).transpose()?;
    let invocation = Invocation { disk, gdb_port, ..args.invocation(firmware.as_ref(), host) };
    if let Some((firmware, port)) = firmware.as_ref().zip(gdb_port) {
        let machine = &invocation.machine;
        if machine.cpu != args.cpu {
            println!(
                "The CPU is {}: gdb can't read return addresses that are signed.",
                machine.cpu
            );
        }
        println!("Waiting for a debugger; attach one with:\n  {}", gdb::line(firmware, port));
    }
    let log = args.log.clone().unwrap_or_else(|| paths::log("run"));
    let session = qemu.start(&invocation, &log)?;
    let outcome = watch(session, &job, &args, firmware.as_ref());
    drop(files);
    let mut outcome = outcome?;
    outcome.complete_tail(&log);
    Ok(conclude(&outcome, &log))
}

/// Shows a session to its end; a shell gets the terminal once the host has come so far.
fn watch(
    mut session: Session,
    job: &Job,
    args: &RunArgs,
    firmware: Option<&Firmware>,
) -> Result<Outcome> {
    let symbols = firmware.map_or(Symbols::none(), |firmware| Symbols::open(&firmware.elf));
    let waits = args.gdb.map(|_| "waiting for a debugger");
    let mut display = Display::new(symbols, args.verbose, args.shell, waits);
    if !args.shell && args.script.is_none() && !args.verbose {
        display.keep_kernel_aside();
    }
    let raw = Rc::new(RefCell::new(None));
    if let Some(input) = session.take_input() {
        let raw = Rc::clone(&raw);
        display.on_begin(move || {
            *raw.borrow_mut() = Some(terminal::Raw::new());
            terminal::connect(input);
        });
    }
    let deadline = args.timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let outcome = follow(session, &job.nonce, deadline, &mut display);
    // The terminal is as it was before anything else is written to it.
    raw.take();
    outcome
}

fn prepare(args: &RunArgs) -> Result<Setup> {
    match (&args.kernel_package, &args.kernel) {
        (Some(package), _) => setup::ensure_package(package),
        (None, None) => setup::ensure(),
        (None, Some(image)) => setup::ensure_with(HostKernel {
            image: image.clone(),
            headers: args.kernel_headers.clone(),
            modules: None,
            few_modules: None,
        }),
    }
}

/// Files that a run makes and removes. Another run may be under way: each has its own.
struct Files {
    ramdisk: PathBuf,
    disk: PathBuf,
}

impl Files {
    /// Names them, and removes what runs have left that were killed.
    fn new() -> Result<Self> {
        let folder = paths::target().join("run");
        std::fs::create_dir_all(&folder)?;
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            let owner = path.file_stem().and_then(|stem| stem.to_str()?.strip_prefix("of-"));
            if owner.is_some_and(|owner| !Path::new("/proc").join(owner).exists()) {
                std::fs::remove_file(path)?;
            }
        }
        let own = folder.join(format!("of-{}", std::process::id()));
        Ok(Self { ramdisk: own.with_extension("cpio"), disk: own.with_extension("disk") })
    }

    /// Makes a disk that takes no space until it is written to.
    fn disk(&self, bytes: u64) -> Result<PathBuf> {
        let made = std::fs::File::create(&self.disk).and_then(|file| file.set_len(bytes));
        made.with_context(|| format!("cannot make a disk at {}", self.disk.display()))?;
        Ok(self.disk.clone())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // A disk is there only if it was asked for.
        let _ = std::fs::remove_file(&self.ramdisk);
        let _ = std::fs::remove_file(&self.disk);
    }
}

impl RunArgs {
    /// Checks what can be checked before anything is fetched.
    fn check(&self) -> Result<()> {
        arguments::firmware(&self.firmware_args)?;
        arguments::driver(&self.driver_args)?;
        arguments::memory(self.memory)?;
        self.overlay.iter().try_for_each(|directory| arguments::overlay(directory))?;
        self.script.iter().try_for_each(|file| arguments::script(file))?;
        self.log.iter().try_for_each(|file| arguments::log(file))?;
        ensure!(
            self.gdb.is_none() || self.on == On::Verdigris,
            "--gdb is for the firmware, which does not run with --on kvm"
        );
        if let Some(program) = &self.qemu {
            Tools::qemu_at(program.clone())?;
        }
        if let Some(image) = &self.kernel {
            kernel::plain(image)?;
        }
        if let Some(headers) = &self.kernel_headers {
            build::check_headers(headers)?;
        }
        Ok(())
    }

    /// Checks what needs the emulator and the host's kernel, before anything is built; returns the plain kernel.
    fn check_with(&self, setup: &Setup, qemu: &Qemu) -> Result<PathBuf> {
        let kernel = kernel::plain(&setup.kernel.image)?;
        arguments::machine(qemu, &self.machine())?;
        if let Some(script) = &self.script {
            arguments::interpreter(script, &self.overlay, &setup::busybox()?)?;
        }
        Ok(kernel)
    }

    fn job(&self, setup: &Setup) -> Result<Job> {
        let work = match &self.script {
            _ if self.shell => Work::Shell,
            Some(script) => Work::Script(script.clone()),
            None => Work::Command(DEMO.into()),
        };
        let mut job = Job::new(work);
        job.swap = self.swap.is_some();
        job.overlays.clone_from(&self.overlay);
        job.suite = Some(build::suite()?);
        job.vmm = Some(build::vmm()?);
        job.modules.clone_from(&setup.kernel.modules);
        if self.on == On::Kvm {
            return Ok(job);
        }
        let headers = setup.kernel.headers.as_ref().context("the driver needs kernel headers")?;
        job.driver = Some((build::driver(&setup.tools, headers, &[])?, self.driver_args.clone()));
        job.guest = Some(build::guest()?);
        Ok(job)
    }

    /// Builds the firmware, where one is to run.
    fn firmware(&self) -> Result<Option<Firmware>> {
        if self.on == On::Verdigris {
            return build::firmware(Profile::Release).map(Some);
        }
        Ok(None)
    }

    fn host_args(&self) -> String {
        format!("{} {}", job::HOST_ARGS, self.append).trim().to_owned()
    }

    fn machine(&self) -> Machine {
        Machine {
            cpu: if self.gdb.is_some() { gdb::unsigned(&self.cpu) } else { self.cpu.clone() },
            smp: self.smp.unwrap_or(if self.icount { 1 } else { 4 }),
            memory_bytes: self.memory,
            icount: self.icount,
            ..Machine::default()
        }
    }

    fn invocation(&self, firmware: Option<&Firmware>, host: Host) -> Invocation {
        let machine = self.machine();
        let boot = match firmware {
            None => Boot::BareAtEl2(host),
            Some(firmware) => Boot::Firmware {
                image: firmware.image.clone(),
                args: format!("crash=semihosting {}", self.firmware_args).trim().to_owned(),
                el3: None,
                host,
            },
        };
        Invocation { machine, boot, disk: None, gdb_port: None, interactive: self.shell }
    }
}

/// Says what went wrong, if anything did, and chooses the exit status.
fn conclude(outcome: &Outcome, log: &Path) -> ExitCode {
    if let Some(failure) = outcome.failure() {
        eprintln!("{failure}. The last lines of {}:\n{}", log.display(), outcome.tail_text());
    }
    if outcome.timed_out {
        return ExitCode::from(TIMEOUT_STATUS);
    }
    match (outcome.qemu, outcome.status) {
        (Some(CRASH_STATUS), _) => ExitCode::from(CRASH_STATUS as u8),
        (_, Some(status)) => ExitCode::from(u8::try_from(status).unwrap_or(1)),
        (_, None) => ExitCode::FAILURE,
    }
}
