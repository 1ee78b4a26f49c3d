//! Runs machines for tests: each fresh, each with its own log, everything built once.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ValueEnum;
use verdigris_qemu::{Boot, Host, Invocation, Machine, Qemu};

use crate::arguments;
use crate::build::{self, Firmware, Grants, Profile};
use crate::console::{Outcome, Sink, follow};
use crate::job::{HOST_ARGS, Job, Work};
use crate::setup::{self, KernelPackage, NEWEST, Setup, Tools};
use crate::symbols::Symbols;
use crate::{kernel, paths};

/// How long a machine may run, unless it is told otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(300);

/// What is needed to run machines.
pub struct Lab {
    setup: Setup,
    qemu: Qemu,
    kernel: PathBuf,
    memory_folder: &'static str,
    built: Mutex<HashMap<Item, PathBuf>>,
    firmware: Mutex<HashMap<Profile, Firmware>>,
}

/// What goes into the host's root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Item {
    Driver,
    Suite,
    Guest,
    /// A folder to lay over the root.
    Memory,
    Vmm,
    El3,
    /// A folder to lay over the root.
    NextKernel,
}

/// What offers `/dev/kvm`, in the user's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum On {
    /// The driver, with the firmware at EL2
    Verdigris,
    /// Linux's KVM, with the host at EL2 and no firmware
    Kvm,
}

/// What runs below the host.
#[derive(Clone, Debug)]
pub enum Below {
    /// A build of the firmware, with its options.
    Firmware(Profile, String),
    /// Nothing: the host is at EL1, on a machine without EL2.
    Nothing,
    /// Nothing: the host has EL2 to itself, so its own KVM offers `/dev/kvm`.
    OwnKvm,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The name of its log.
    pub name: String,
    /// The board.
    pub machine: Machine,
    /// What runs below the host.
    pub below: Below,
    /// What an EL3 of our own grants the firmware; none where QEMU answers calls to EL3 by itself.
    pub el3: Option<Grants>,
    /// Module parameters of the driver, if it is to be loaded.
    pub driver: Option<String>,
    /// Whether the virtual machine monitor is in the host's root.
    pub vmm: bool,
    /// Directories to lay over the host's root.
    pub overlays: Vec<PathBuf>,
    /// A command line for the host.
    pub command: String,
    /// Where it waits for a debugger, if it does.
    pub gdb_port: Option<u16>,
    /// How long the machine may run.
    pub timeout: Duration,
}

impl Trial {
    /// Makes a run of the release firmware on a machine.
    pub fn new(name: &str, machine: Machine, command: &str) -> Self {
        Self {
            name: name.to_owned(),
            machine,
            below: Below::Firmware(Profile::Release, String::new()),
            el3: None,
            driver: Some("raw=1".into()),
            vmm: false,
            overlays: Vec::new(),
            command: command.to_owned(),
            gdb_port: None,
            timeout: TIMEOUT,
        }
    }
}

impl Lab {
    /// Does the set-up; takes the user's emulator, if there is one.
    pub fn new(qemu: Option<&Path>) -> Result<Self> {
        let setup = setup::ensure()?;
        let qemu = match qemu {
            Some(program) => Tools::qemu_at(program.to_owned())?,
            None => setup.tools.qemu()?,
        };
        Self::with(setup, qemu)
    }

    /// Does the set-up for the oldest emulator that is supported.
    pub fn oldest() -> Result<Self> {
        Self::with(setup::ensure()?, Tools::oldest_qemu()?)
    }

    /// Does the set-up for the newest kernel that there is a package of.
    pub fn newest(qemu: Option<&Path>) -> Result<Self> {
        let setup = setup::ensure_package(&KernelPackage::parse(NEWEST)?)?;
        let qemu = qemu.map(|program| Tools::qemu_at(program.to_owned())).transpose()?;
        let qemu = qemu.map_or_else(|| setup.tools.qemu(), Ok)?;
        Ok(Self { memory_folder: "memory-root-newest", ..Self::with(setup, qemu)? })
    }

    fn with(setup: Setup, qemu: Qemu) -> Result<Self> {
        setup::qemu_version(&qemu)?;
        let kernel = kernel::plain(&setup.kernel.image)?;
        let (built, firmware) = (Mutex::default(), Mutex::default());
        let memory_folder = "memory-root";
        Ok(Self { setup, qemu, kernel, memory_folder, built, firmware })
    }

    /// Returns the set-up, for parts that build by themselves.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Refuses a CPU model that the emulator doesn't have, with the names of those that it has.
    pub fn check_cpu(&self, cpu: &str) -> Result<()> {
        arguments::machine(&self.qemu, &Machine { cpu: cpu.to_owned(), ..Machine::default() })
    }

    /// Asks the emulator whether it has a CPU model.
    pub fn has_cpu(&self, cpu: &str) -> Result<bool> {
        let mut command = self.qemu.command();
        command.args(["-machine", "virt", "-cpu", "help"]);
        let text = crate::command::output(&mut command)?;
        // Properties follow the model's name.
        let model = cpu.split(',').next();
        Ok(text.split_whitespace().any(|word| Some(word) == model))
    }

    /// Builds a firmware, or returns the one that was built.
    pub fn firmware(&self, profile: Profile) -> Result<Firmware> {
        let mut firmware = self.firmware.lock().expect("no test panics while building");
        if let Some(built) = firmware.get(&profile) {
            return Ok(built.clone());
        }
        let built = build::firmware(profile)?;
        firmware.insert(profile, built.clone());
        Ok(built)
    }

    /// Builds all that the runs of a part need, so that a broken build is told once.
    pub fn prepare(&self, profile: Profile) -> Result<()> {
        self.firmware(profile)?;
        for item in [Item::Suite, Item::Guest, Item::Driver] {
            self.item(item)?;
        }
        Ok(())
    }

    fn item(&self, item: Item) -> Result<PathBuf> {
        let mut built = self.built.lock().expect("no test panics while building");
        if let Some(file) = built.get(&item) {
            return Ok(file.clone());
        }
        let file = match item {
            Item::Suite => build::suite()?,
            Item::Guest => build::guest()?,
            Item::Memory => self.make_memory_root()?,
            Item::NextKernel => self.make_next_kernel_root()?,
            Item::Vmm => build::vmm()?,
            Item::El3 => build::el3()?,
            Item::Driver => {
                let headers = self.setup.kernel.headers.as_ref().context("no kernel headers")?;
                build::driver(&self.setup.tools, headers, &[])?
            }
        };
        built.insert(item, file.clone());
        Ok(file)
    }

    /// Builds what the runs of the memory suite need, on the driver if they are.
    pub fn prepare_memory(&self, profile: Option<Profile>) -> Result<()> {
        if let Some(profile) = profile {
            self.firmware(profile)?;
            self.item(Item::Driver)?;
        }
        self.memory_root().map(|_| ())
    }

    /// Returns a folder to lay over the host's root: the memory suite, its guest's payload, and the kernel's
    /// own modules that it loads.
    pub fn memory_root(&self) -> Result<PathBuf> {
        self.item(Item::Memory)
    }

    fn make_memory_root(&self) -> Result<PathBuf> {
        let folder = paths::target().join("run").join(self.memory_folder);
        let mut files = vec![
            (build::memory()?, folder.join("bin/verdigris-memory")),
            (build::guest_mmio()?, folder.join("lib/verdigris/guest-mmio.bin")),
        ];
        // Another kernel's were there before.
        let to = folder.join("lib/modules");
        if to.exists() {
            std::fs::remove_dir_all(&to)?;
        }
        for (release, file) in self.few_modules()? {
            let name = file.file_name().context("a file has a name")?;
            let to = to.join(release).join(name);
            files.push((file, to));
        }
        for (from, to) in files {
            std::fs::create_dir_all(to.parent().context("a file of a folder")?)?;
            std::fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        }
        Ok(folder)
    }

    /// Returns a folder to lay over the host's root: a kernel to start after this one, and what that is to do.
    pub fn next_kernel_root(&self) -> Result<PathBuf> {
        self.item(Item::NextKernel)
    }

    fn make_next_kernel_root(&self) -> Result<PathBuf> {
        let folder = paths::target().join("run/next-kernel-root");
        let jobs = paths::root().join("linux/host/kernels");
        for (from, to) in [
            (self.kernel.clone(), "boot/Image"),
            (jobs.join("second"), "lib/verdigris/second"),
            (jobs.join("third"), "lib/verdigris/third"),
        ] {
            let to = folder.join(to);
            std::fs::create_dir_all(to.parent().context("a file of a folder")?)?;
            std::fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        }
        Ok(folder)
    }

    /// Lists the modules that tests load, each with the kernel's release.
    fn few_modules(&self) -> Result<Vec<(OsString, PathBuf)>> {
        let mut files = Vec::new();
        let Some(modules) = &self.setup.kernel.few_modules else { return Ok(files) };
        for release in std::fs::read_dir(modules)? {
            let release = release?;
            for file in std::fs::read_dir(release.path())? {
                files.push((release.file_name(), file?.path()));
            }
        }
        Ok(files)
    }

    /// Runs a machine to its end, or until its time is over.
    pub fn run(&self, trial: &Trial, sink: &mut dyn Sink) -> Result<Outcome> {
        let mut job = Job::new(Work::Command(trial.command.clone()));
        if trial.command.contains("verdigris-suite") {
            job.suite = Some(self.item(Item::Suite)?);
        }
        if let Some(args) = &trial.driver {
            job.driver = Some((self.item(Item::Driver)?, args.clone()));
        }
        if job.suite.is_some() {
            job.guest = Some(self.item(Item::Guest)?);
        }
        if trial.vmm {
            job.vmm = Some(self.item(Item::Vmm)?);
            job.modules.clone_from(&self.setup.kernel.few_modules);
        }
        job.overlays.clone_from(&trial.overlays);
        let ramdisk = paths::target().join("run").join(format!("{}.cpio", trial.name));
        job.write_root(&ramdisk)?;
        let host =
            Host { kernel: self.kernel.clone(), ramdisk: ramdisk.clone(), args: HOST_ARGS.into() };
        let boot = self.boot(trial, host)?;
        let machine = trial.machine.clone();
        let gdb_port = trial.gdb_port;
        let invocation = Invocation { machine, boot, disk: None, gdb_port, interactive: false };
        let session = self.qemu.start(&invocation, &paths::log(&trial.name))?;
        let mut outcome = follow(session, &job.nonce, Some(Instant::now() + trial.timeout), sink)?;
        outcome.complete_tail(&paths::log(&trial.name));
        std::fs::remove_file(ramdisk)?;
        if let Below::Firmware(profile, _) = &trial.below {
            let symbols = Symbols::open(&self.firmware(*profile)?.elf);
            outcome.tail.iter_mut().for_each(|line| symbols.annotate(line));
        }
        Ok(outcome)
    }

    /// Makes the EL3 of a run, if it has one.
    fn el3(&self, trial: &Trial) -> Result<Option<PathBuf>> {
        let Some(grants) = trial.el3 else { return Ok(None) };
        let image = paths::target().join("run").join(format!("{}.el3", trial.name));
        build::el3_with(&self.item(Item::El3)?, grants, &image)?;
        Ok(Some(image))
    }

    fn boot(&self, trial: &Trial, host: Host) -> Result<Boot> {
        Ok(match &trial.below {
            Below::Nothing => Boot::Bare(host),
            Below::OwnKvm => Boot::BareAtEl2(host),
            Below::Firmware(profile, args) => Boot::Firmware {
                image: self.firmware(*profile)?.image,
                args: format!("crash=semihosting {args}").trim().to_owned(),
                el3: self.el3(trial)?,
                host,
            },
        })
    }
}

/// Keeps the lines of the host's boot and of the job.
#[derive(Debug, Default)]
pub struct Transcript {
    /// Lines from before the job.
    pub boot: Vec<String>,
    /// Lines of the job.
    pub job: Vec<String>,
}

impl Sink for Transcript {
    fn boot_line(&mut self, line: &str) {
        self.boot.push(line.to_owned());
    }

    fn job_line(&mut self, line: &str) -> Option<String> {
        self.job.push(line.to_owned());
        None
    }
}
