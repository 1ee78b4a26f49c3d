//! What the device tree says of the machine, in plain data.

use verdigris_abi::MAX_CPUS;
use verdigris_abi::Pa;

use crate::board::Board;
use crate::list::{List, Text};
use crate::region::Region;

/// Most separate ranges of RAM, and of reserved memory, that are taken from a device tree.
pub const MAX_REGIONS: usize = 32;
/// Most ranges of memory-mapped debug registers that are taken from a device tree, neighbours merged.
pub const MAX_DEBUG_FRAMES: usize = 48;
/// Longest command line of the firmware itself, in bytes.
pub const MAX_COMMAND_LINE_BYTES: usize = 1024;

/// A machine as its device tree describes it.
///
/// Plain data, read once at boot and kept for good.
#[derive(Clone, Debug)]
pub struct Machine {
    /// What is known of the board beyond its device tree.
    pub board: &'static Board,
    /// RAM: whole pages, ascending, neighbours merged.
    pub memory: List<Region, MAX_REGIONS>,
    /// Memory that nobody may use as ordinary RAM, in the order of the tree.
    pub reserved: List<Reserved, MAX_REGIONS>,
    /// The CPUs, in the order of the tree.
    pub cpus: List<Cpu, { MAX_CPUS as usize }>,
    /// How PSCI is called; `None` where the machine has none.
    pub psci: Option<Conduit>,
    /// Base address of the PL011 that the log goes to.
    pub uart: Pa,
    /// The interrupt controller.
    pub gic: Gic,
    /// Interrupts of the generic timer.
    pub timer: Timer,
    /// Memory-mapped debug registers of CPUs: with them, one CPU can have another execute instructions, at EL2
    /// too, where the board's debug authentication lets it.
    pub debug_frames: List<Region, MAX_DEBUG_FRAMES>,
    /// The firmware's own command line.
    pub command_line: Text<MAX_COMMAND_LINE_BYTES>,
    /// The file of the host's kernel, where the loader put it.
    pub kernel: Option<Region>,
    /// The host's initial ramdisk, where the loader put it.
    pub ramdisk: Option<Region>,
}

const GIB: u64 = 1 << 30;

// Boot code returns it by value, through a few frames of a small stack.
const _: () = assert!(size_of::<Machine>() <= 4096);

impl Machine {
    /// Returns the index of the CPU whose MPIDR_EL1 has these affinity fields.
    pub fn cpu_index(&self, mpidr: u64) -> Option<usize> {
        self.cpus.iter().position(|cpu| cpu.mpidr == mpidr & Cpu::AFFINITY)
    }

    /// Returns the size of RAM in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.memory.iter().map(|region| region.bytes()).sum()
    }

    /// Returns where memory may come after boot: what the board has for it above all RAM, from a boundary of
    /// 1 GiB on. May be empty.
    pub fn window_above(&self) -> Region {
        let window = self.board.memory_window;
        let ram_end = self.memory.iter().map(|bank| bank.end().0).max().unwrap_or(0);
        let start = ram_end.max(window.start().0).next_multiple_of(GIB);
        Region::new(Pa(start), window.end()).unwrap_or_default()
    }

    /// Lists what is reserved for good: memory that the host never takes for its own.
    ///
    /// It does take the ramdisk's, reserved by loaders until it was unpacked, and what is `reusable`, unless
    /// that may not be mapped either: the binding forbids both, and EL2 couldn't reach such a page.
    pub fn reserved_for_good(&self) -> impl Iterator<Item = Region> {
        let is_lent = |reserved: &&Reserved| {
            reserved.is_reusable && !reserved.no_map
                || self.ramdisk.is_some_and(|at| reserved.is_for(at))
        };
        self.reserved.iter().filter(move |reserved| !is_lent(reserved)).map(|item| item.region)
    }

    /// Tells whether all of a range is RAM, reserved or not.
    pub fn is_memory(&self, range: Region) -> bool {
        self.memory.iter().any(|memory| memory.contains(range))
    }
}

/// A CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// The affinity fields of its MPIDR_EL1; all other bits are zero.
    pub mpidr: u64,
}

impl Cpu {
    /// Aff3 (bits 39:32), Aff2, Aff1 and Aff0 (bits 23:0) of MPIDR_EL1 (Arm ARM, section D24.2).
    pub const AFFINITY: u64 = 0xff_00ff_ffff;
}

/// A range of reserved memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    /// Where it is.
    pub region: Region,
    /// Whether the host may not even map it.
    pub no_map: bool,
    /// Whether the host has it until a driver wants it (`reusable`, as for contiguous memory).
    pub is_reusable: bool,
}

impl Reserved {
    /// Tells whether it is reserved for the very thing that is there, as U-Boot does for tree and ramdisk.
    pub fn is_for(&self, at: Region) -> bool {
        !self.no_map && self.region.start().page() == at.start().page()
    }
}

/// The instruction that a firmware interface is called by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduit {
    /// `SMC #0`, answered at EL3 or by the machine: what a hypervisor needs.
    Smc,
    /// `HVC #0`, answered at EL2: by what the firmware itself is meant to be.
    Hvc,
}

/// Generations of Arm's interrupt controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GicVersion {
    /// GICv2: CPU interface in memory.
    V2,
    /// GICv3 or v4: CPU interface in system registers.
    V3,
}

/// The interrupt controller.
#[derive(Clone, Copy, Debug)]
pub struct Gic {
    /// Its generation.
    pub version: GicVersion,
    /// Its register frames as the tree lists them: the distributor first, then the redistributors
    /// (v3) or the CPU interface (v2).
    pub frames: List<Region, 8>,
    /// How many cells an interrupt has in the tree.
    pub interrupt_cells: usize,
    /// INTID of the maintenance interrupt, where the tree tells.
    pub maintenance: Option<u32>,
}

/// INTIDs of the generic timer's interrupts, `None` where the tree doesn't tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timer {
    /// The EL1 physical timer: the host's.
    pub physical: Option<u32>,
    /// The EL1 virtual timer: the guests'.
    pub virt: Option<u32>,
    /// The EL2 physical timer: the firmware's.
    pub hypervisor: Option<u32>,
}
