//! A machine as data, and the QEMU arguments that it becomes.
//!
//! Every argument has its reason here, beside it; nothing is taken from QEMU's defaults that a new
//! release could change under a test.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::layout::{ImageHeader, KERNEL_ADDRESS, ramdisk_address};

/// What the disk to swap to is known by in the host, whatever other disks there are.
pub const SWAP_SERIAL: &str = "verdigris-swap";

/// A QEMU `virt` board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The model of all CPUs, with properties if any: `max`, `cortex-a57`, `max,sve=off`.
    pub cpu: String,
    /// How many CPUs.
    pub smp: u32,
    /// RAM in bytes.
    pub memory_bytes: u64,
    /// Memory in bytes that the host may plug in after boot (virtio-mem); 0 for none.
    pub added_bytes: u64,
    /// How many nodes CPUs and RAM are divided among, in equal parts.
    pub nodes: u32,
    /// Version of the generic interrupt controller.
    pub gic: u32,
    /// Whether memory has allocation tags (FEAT_MTE2).
    pub mte: bool,
    /// Whether time is the count of instructions, one a nanosecond, which makes a run repeatable.
    pub icount: bool,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            cpu: "max".into(),
            smp: 4,
            memory_bytes: 1 << 30,
            added_bytes: 0,
            nodes: 1,
            gic: 3,
            mte: false,
            icount: false,
        }
    }
}

/// The host: a Linux kernel and what it starts with.
#[derive(Clone, Debug)]
pub struct Host {
    /// An uncompressed arm64 image.
    pub kernel: PathBuf,
    /// An initramfs.
    pub ramdisk: PathBuf,
    /// The kernel's command line.
    pub args: String,
}

/// What a machine starts with.
#[derive(Clone, Debug)]
pub enum Boot {
    /// The firmware at EL2, which starts the host that it finds as multiboot modules.
    Firmware {
        /// The firmware's flat image.
        image: PathBuf,
        /// The firmware's command line.
        args: String,
        /// What starts before it, at EL3, in the flash of a machine with a secure world; none where QEMU
        /// answers calls to EL3 by itself.
        el3: Option<PathBuf>,
        /// The host beside it.
        host: Host,
    },
    /// The host alone, at EL1, on a machine without EL2: what the firmware is compared with.
    Bare(Host),
    /// The host alone, started at EL2, where its own KVM runs: what `/dev/kvm` is compared with.
    BareAtEl2(Host),
}

impl Boot {
    /// Tells whether the machine is to have EL3, and a secure world.
    fn has_el3(&self) -> bool {
        matches!(self, Self::Firmware { el3: Some(_), .. })
    }

    /// Tells whether the machine is to have EL2.
    fn has_el2(&self) -> bool {
        match self {
            Self::Firmware { .. } | Self::BareAtEl2(_) => true,
            Self::Bare(_) => false,
        }
    }
}

/// All that one run of QEMU is given.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The board.
    pub machine: Machine,
    /// What it starts with.
    pub boot: Boot,
    /// A disk to swap to: a raw file.
    pub disk: Option<PathBuf>,
    /// TCP port on which QEMU waits for a debugger before the first instruction.
    pub gdb_port: Option<u16>,
    /// Whether console input is passed on, with QEMU's escape key (Ctrl-A x ends it).
    pub interactive: bool,
}

impl Machine {
    /// Returns the model with the properties that Verdigris relies on.
    fn cpu_argument(&self) -> String {
        // QARMA5 in emulation doubles the boot time; which algorithm it is tells nothing.
        if self.cpu.split(',').next() == Some("max") && !self.cpu.contains("pauth") {
            return format!("{},pauth-impdef=on", self.cpu);
        }
        self.cpu.clone()
    }

    /// Returns the arguments of the board with EL2, and nothing to run.
    pub(crate) fn bare_arguments(&self) -> Vec<OsString> {
        let mut args = Arguments::default();
        self.arguments(true, false, &mut args);
        args.0
    }

    /// Builds the arguments for the board itself.
    fn arguments(&self, has_el2: bool, has_el3: bool, args: &mut Arguments) {
        let on = |yes| if yes { "on" } else { "off" };
        let mut board = format!("virt,virtualization={},gic-version={}", on(has_el2), self.gic);
        if has_el3 {
            board += ",secure=on";
        }
        if self.mte {
            board += ",mte=on";
        }
        if self.icount {
            // A random seed in the device tree would change what the kernel does.
            board += ",dtb-randomness=off";
            // An idle CPU skips to its next timer: waiting in real time would not repeat.
            args.pair("-icount", "shift=0,sleep=off");
            args.pair("-seed", "1");
            args.pair("-rtc", "base=2026-01-01,clock=vm");
        }
        args.pair("-machine", board);
        args.pair("-cpu", self.cpu_argument());
        args.pair("-smp", self.smp.to_string());
        let memory = format!("{}M", self.memory_bytes >> 20);
        if self.added_bytes == 0 {
            args.pair("-m", memory);
        } else {
            let (added, all) = (self.added_bytes, self.memory_bytes + self.added_bytes);
            args.pair("-m", format!("{memory},maxmem={}M", all >> 20));
            args.pair("-object", format!("memory-backend-ram,id=added,size={added}"));
            args.pair("-device", format!("virtio-mem-pci,memdev=added,requested-size={added}"));
        }
        // The board divides the CPUs by itself, in turns.
        if self.nodes > 1 {
            let bytes = self.memory_bytes / u64::from(self.nodes);
            for node in 0..self.nodes {
                args.pair("-object", format!("memory-backend-ram,id=node{node},size={bytes}"));
                args.pair("-numa", format!("node,nodeid={node},memdev=node{node}"));
            }
        }
        // No devices that a distribution's package may lack files for.
        for word in ["-nodefaults", "-no-user-config", "-no-reboot"] {
            args.0.push(word.into());
        }
        args.pair("-display", "none");
        args.pair("-nic", "none");
    }
}

impl Invocation {
    /// Builds the argument list; reads the header of the kernel and the size of the ramdisk.
    pub fn arguments(&self) -> Result<Vec<OsString>> {
        let mut args = Arguments::default();
        self.machine.arguments(self.boot.has_el2(), self.boot.has_el3(), &mut args);
        match &self.boot {
            Boot::Firmware { image, args: words, el3, host } => {
                if let Some(el3) = el3 {
                    // The kernel is then left in a device, and its command line in the tree: so it is
                    // loaded once more, to where QEMU would have put it.
                    args.pair("-bios", el3);
                    let address = read_header(image)?.load_address();
                    let file = format!("file={},addr={address:#x}", escape_path(image));
                    args.pair("-device", format!("loader,{file},force-raw=on"));
                }
                self.firmware_arguments(image, words, host, &mut args)?;
            }
            Boot::Bare(host) | Boot::BareAtEl2(host) => {
                // QEMU starts a Linux image at the highest level that the machine has.
                args.pair("-kernel", &host.kernel);
                args.pair("-initrd", &host.ramdisk);
                args.pair("-append", &host.args);
            }
        }
        if let Some(disk) = &self.disk {
            // Nothing of it outlives the run: a flush need not reach this machine's disk.
            let file = escape_path(disk);
            args.pair(
                "-drive",
                format!("file={file},if=none,id=swap,format=raw,cache=unsafe,discard=unmap"),
            );
            args.pair("-device", format!("virtio-blk-pci,drive=swap,serial={SWAP_SERIAL}"));
        }
        args.pair("-serial", if self.interactive { "mon:stdio" } else { "stdio" });
        if !self.interactive {
            args.pair("-monitor", "none");
        }
        if let Some(port) = self.gdb_port {
            args.pair("-gdb", format!("tcp:127.0.0.1:{port}"));
            args.0.push("-S".into());
        }
        Ok(args.0)
    }

    fn firmware_arguments(
        &self,
        image: &Path,
        words: &str,
        host: &Host,
        args: &mut Arguments,
    ) -> Result<()> {
        let header = read_header(&host.kernel)?;
        let ramdisk_bytes = std::fs::metadata(&host.ramdisk)
            .with_context(|| format!("cannot read {}", host.ramdisk.display()))?
            .len();
        let address = ramdisk_address(self.machine.memory_bytes, header, ramdisk_bytes)?;
        args.pair("-kernel", image);
        args.pair("-append", words);
        let kernel =
            format!("kernel={},bootargs={}", escape_path(&host.kernel), escape(&host.args));
        args.pair("-device", format!("guest-loader,addr={KERNEL_ADDRESS:#x},{kernel}"));
        let ramdisk = format!("initrd={}", escape_path(&host.ramdisk));
        args.pair("-device", format!("guest-loader,addr={address:#x},{ramdisk}"));
        // The firmware ends the machine through this when it stops on a fault of its own.
        args.pair("-semihosting-config", "enable=on,target=native");
        Ok(())
    }
}

/// An argument list under construction.
#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn pair(&mut self, option: &str, value: impl Into<OsString>) {
        self.0.push(option.into());
        self.0.push(value.into());
    }
}

/// Doubles commas, which end a value in QEMU's option syntax.
fn escape(value: &str) -> String {
    value.replace(',', ",,")
}

fn escape_path(path: &Path) -> String {
    escape(&path.to_string_lossy())
}

fn read_header(kernel: &Path) -> Result<ImageHeader> {
    let mut bytes = [0; ImageHeader::BYTES];
    File::open(kernel)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .with_context(|| format!("cannot read {}", kernel.display()))?;
    ImageHeader::parse(&bytes).with_context(|| format!("cannot use {}", kernel.display()))
}

/// Reads a size in QEMU's manner: a number of MiB, or a number with K, M, G or T behind it.
pub fn parse_size(text: &str) -> Result<u64> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "M" | "MB" | "MIB" => 20,
        "K" | "KB" | "KIB" => 10,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        other => anyhow::bail!("unknown unit {other} in the size {text}"),
    };
    let number: u64 = digits.parse().with_context(|| format!("{text} is no size"))?;
    let bytes = number.checked_mul(1 << shift).with_context(|| format!("{text} is too large"))?;
    ensure!(bytes >> 20 > 0 && bytes % (1 << 20) == 0, "{text} is no whole number of MiB");
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(invocation: &Invocation) -> Vec<String> {
        let args = invocation.arguments().unwrap();
        args.into_iter().map(|arg| arg.into_string().unwrap()).collect()
    }

    fn after<'a>(args: &'a [String], option: &str) -> Vec<&'a str> {
        let positions = args.iter().enumerate().filter(|(_, arg)| *arg == option);
        positions.map(|(at, _)| args[at + 1].as_str()).collect()
    }

    fn files(name: &str) -> Host {
        let dir =
            std::env::temp_dir().join(format!("verdigris-qemu-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut image = vec![0; 64];
        image[16..24].copy_from_slice(&0x2b2_0000_u64.to_le_bytes());
        image[56..60].copy_from_slice(b"ARMd");
        std::fs::write(dir.join("Image"), image).unwrap();
        std::fs::write(dir.join("ramdisk"), [0; 512]).unwrap();
        Host { kernel: dir.join("Image"), ramdisk: dir.join("ramdisk"), args: "quiet a=1,2".into() }
    }

    fn invocation(machine: Machine, boot: Boot) -> Invocation {
        Invocation { machine, boot, disk: None, gdb_port: None, interactive: false }
    }

    #[test]
    fn firmware_gets_the_host_as_modules() {
        let host = files("modules");
        let boot =
            Boot::Firmware { image: "fw.bin".into(), args: "log=info".into(), el3: None, host };
        let args = strings(&invocation(Machine::default(), boot));
        assert_eq!(after(&args, "-machine"), ["virt,virtualization=on,gic-version=3"]);
        assert_eq!(after(&args, "-cpu"), ["max,pauth-impdef=on"]);
        assert_eq!(after(&args, "-append"), ["log=info"]);
        let devices = after(&args, "-device");
        assert!(devices[0].starts_with("guest-loader,addr=0x50000000,kernel="), "{}", devices[0]);
        assert!(devices[0].ends_with(",bootargs=quiet a=1,,2"), "{}", devices[0]);
        assert!(devices[1].starts_with("guest-loader,addr=0x52e00000,initrd="), "{}", devices[1]);
    }

    #[test]
    fn an_el3_starts_from_flash_with_the_firmware_beside_it() {
        let host = files("el3");
        // Any image with a header stands for the firmware.
        let (image, el3) = (host.kernel.clone(), Some("el3.bin".into()));
        let boot = Boot::Firmware { image, args: "log=info".into(), el3, host };
        let args = strings(&invocation(Machine::default(), boot));
        assert_eq!(after(&args, "-machine"), ["virt,virtualization=on,gic-version=3,secure=on"]);
        assert_eq!(after(&args, "-bios"), ["el3.bin"]);
        let loader = after(&args, "-device")[0];
        assert!(loader.starts_with("loader,file="), "{loader}");
        assert!(loader.ends_with(",addr=0x40200000,force-raw=on"), "{loader}");
        assert_eq!(after(&args, "-append"), ["log=info"]);
    }

    #[test]
    fn bare_host_has_no_el2() {
        let args = strings(&invocation(Machine::default(), Boot::Bare(files("bare"))));
        assert_eq!(after(&args, "-machine"), ["virt,virtualization=off,gic-version=3"]);
        assert_eq!(after(&args, "-append"), ["quiet a=1,2"]);
        assert!(after(&args, "-device").is_empty());
    }

    #[test]
    fn bare_host_with_el2_differs_by_el2_alone() {
        let without = strings(&invocation(Machine::default(), Boot::Bare(files("el1"))));
        let with = strings(&invocation(Machine::default(), Boot::BareAtEl2(files("el1"))));
        assert_eq!(after(&with, "-machine"), ["virt,virtualization=on,gic-version=3"]);
        let board = without.iter().position(|word| word.starts_with("virt,")).unwrap();
        for (at, (word, other)) in with.iter().zip(&without).enumerate() {
            assert_eq!(word == other, at != board, "{word} {other}");
        }
        assert_eq!(with.len(), without.len());
    }

    #[test]
    fn icount_brings_all_that_repeats_a_run() {
        let machine = Machine { icount: true, smp: 1, ..Machine::default() };
        let args = strings(&invocation(machine, Boot::Bare(files("icount"))));
        assert_eq!(after(&args, "-icount"), ["shift=0,sleep=off"]);
        assert_eq!(after(&args, "-seed"), ["1"]);
        assert_eq!(after(&args, "-rtc"), ["base=2026-01-01,clock=vm"]);
        assert!(after(&args, "-machine")[0].ends_with(",dtb-randomness=off"));
    }

    #[test]
    fn memory_is_divided_among_nodes() {
        let machine = Machine { nodes: 2, memory_bytes: 2 << 30, ..Machine::default() };
        let args = strings(&invocation(machine, Boot::Bare(files("nodes"))));
        let objects = after(&args, "-object");
        assert_eq!(objects[1], "memory-backend-ram,id=node1,size=1073741824");
        assert_eq!(
            after(&args, "-numa"),
            ["node,nodeid=0,memdev=node0", "node,nodeid=1,memdev=node1"]
        );
        let plain = strings(&invocation(Machine::default(), Boot::Bare(files("nodes"))));
        assert!(after(&plain, "-numa").is_empty());
    }

    #[test]
    fn memory_that_comes_later_is_a_device_beside_ram() {
        let machine = Machine { added_bytes: 1 << 30, ..Machine::default() };
        let args = strings(&invocation(machine, Boot::BareAtEl2(files("added"))));
        assert_eq!(after(&args, "-m"), ["1024M,maxmem=2048M"]);
        assert_eq!(
            after(&args, "-device"),
            ["virtio-mem-pci,memdev=added,requested-size=1073741824"]
        );
    }

    #[test]
    fn named_cpus_are_left_alone() {
        for cpu in ["cortex-a57", "max,pauth=off", "neoverse-n1"] {
            let machine = Machine { cpu: cpu.into(), ..Machine::default() };
            assert_eq!(machine.cpu_argument(), cpu);
        }
    }

    #[test]
    fn sizes_are_read_as_qemu_reads_them() {
        assert_eq!(parse_size("1024").unwrap(), 1 << 30);
        assert_eq!(parse_size("6G").unwrap(), 6 << 30);
        assert_eq!(parse_size("512MiB").unwrap(), 512 << 20);
        for wrong in ["", "G", "1X", "1K", "99999999999999999999", "99999999999T"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
