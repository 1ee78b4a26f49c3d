//! Decodes the registers of a hypercall into a typed [`Call`].
//!
//! The one invariant: what comes out of [`Call::decode`] is well-formed. Ranges are page-aligned, not
//! empty and do not overflow; no unknown flag is set; counts are within their limits. What is left to
//! the caller is what needs state: whether handles exist, pages are owned and ranges fit a VM.
//! Decoding reads registers and nothing else, so a call that it refuses has changed nothing.

mod range;
mod ranged;
#[cfg(test)]
mod tests;

use verdigris_abi::{Error, Ipa, MAX_VCPUS, MAX_VMS, PAGE_SIZE, Pa, RECLAIM_ADDRESSES, Status};
use verdigris_abi::{call, flags};

pub use range::{IpaRange, PaRange};

/// x0 to x17, as a call gives and takes them.
pub type Registers = [u64; 18];

/// The number of a VM, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmHandle(pub u16);

/// A vCPU: its VM, and its index there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuHandle {
    /// The VM.
    pub vm: VmHandle,
    /// The index.
    pub index: u8,
}

/// Size of leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeafSize {
    /// 4 KiB.
    Page,
    /// 2 MiB.
    Block2M,
    /// 1 GiB.
    Block1G,
}

impl LeafSize {
    /// Returns the size in bytes.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Page => PAGE_SIZE,
            Self::Block2M => 2 << 20,
            Self::Block1G => 1 << 30,
        }
    }
}

/// What a guest may do with a page, and how its leaf starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapFlags {
    /// Whether the guest may write.
    pub write: bool,
    /// Whether the guest may execute.
    pub execute: bool,
    /// Whether the access flag starts clear.
    pub old: bool,
    /// Whether the first write is logged: the leaf starts clean. Only with `write`.
    pub clean: bool,
    /// Size of the leaves.
    pub size: LeafSize,
}

/// Which invalidation an age call asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgeFlush {
    /// None.
    None,
    /// Of what was young.
    Young,
    /// Of the whole VM, once, if anything was young.
    All,
}

/// Where bits go, one for each page of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BitSink {
    /// To x2 to x17.
    Registers,
    /// To a page of the host.
    Buffer(Pa),
}

/// How a run goes on from the last exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Executes the next instruction, again if it faulted.
    Continue,
    /// Completes a load or store that the host emulated; a load takes this value.
    MmioDone(u64),
    /// Gives the guest a synchronous external abort.
    InjectAbort,
    /// Steps over the instruction.
    Skip,
}

/// A call of the vendor-specific hypervisor service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "docs/abi.md describes each call and argument")]
pub enum Call {
    Uid,
    Revision,
    Features,
    HostReset,
    Statistics {
        vm: Option<VmHandle>,
        first: u64,
    },
    PageState {
        page: Pa,
    },
    DebugCrash {
        kind: u64,
        hole: u64,
    },
    VmLayout {
        ipa_bits: u32,
    },
    MemoryAdd {
        range: PaRange,
    },
    MemoryRemove {
        range: PaRange,
    },
    VmCreate {
        ipa_bits: u32,
        region: Pa,
    },
    VmDestroy {
        vm: VmHandle,
    },
    VmDonate {
        vm: VmHandle,
        pages: PaRange,
    },
    VmReclaim {
        vm: VmHandle,
        max: u64,
    },
    VcpuCreate {
        vcpu: VcpuHandle,
        region: Pa,
    },
    VcpuRun {
        vcpu: VcpuHandle,
        resume: Resume,
    },
    VcpuGetReg {
        vcpu: VcpuHandle,
        register: u64,
    },
    VcpuSetReg {
        vcpu: VcpuHandle,
        register: u64,
        value: u64,
    },
    VcpuRegList {
        vcpu: VcpuHandle,
        first: u64,
    },
    VcpuReset {
        vcpu: VcpuHandle,
    },
    Map {
        vm: VmHandle,
        range: IpaRange,
        target: Pa,
        flags: MapFlags,
        sequence: u64,
    },
    MapList {
        vm: VmHandle,
        range: IpaRange,
        list: Pa,
        sequence: u64,
    },
    Unmap {
        vm: VmHandle,
        range: IpaRange,
        dirty: Option<BitSink>,
    },
    InvalidateBegin {
        vm: VmHandle,
        range: IpaRange,
        resume: bool,
        done: u64,
        dirty: Option<BitSink>,
    },
    InvalidateEnd {
        vm: VmHandle,
        range: IpaRange,
        done: u64,
        dirty: Option<BitSink>,
    },
    Age {
        vm: VmHandle,
        range: IpaRange,
        flush: AgeFlush,
        sink: BitSink,
    },
    TestAge {
        vm: VmHandle,
        range: IpaRange,
        sink: BitSink,
    },
    Set {
        vm: VmHandle,
        ipa: Ipa,
        target: Pa,
        flags: MapFlags,
        sequence: u64,
    },
    WriteProtect {
        vm: VmHandle,
        range: IpaRange,
    },
    Harvest {
        vm: VmHandle,
        range: IpaRange,
        sink: BitSink,
    },
    Split {
        vm: VmHandle,
        range: IpaRange,
        size: LeafSize,
    },
    Collapse {
        vm: VmHandle,
        range: IpaRange,
        size: LeafSize,
    },
    TablesReclaim {
        vm: VmHandle,
        range: IpaRange,
    },
    Flush {
        vm: VmHandle,
    },
    WorkingSetCreate {
        vm: VmHandle,
        range: IpaRange,
        region: PaRange,
    },
    WorkingSetDestroy {
        vm: VmHandle,
        start: Ipa,
    },
    WorkingSetHistogram {
        vm: VmHandle,
        range: IpaRange,
    },
    WorkingSetMap {
        vm: VmHandle,
        range: IpaRange,
        buffer: Pa,
    },
}

impl Call {
    /// Decodes the vCPU of VCPU_RUN alone, after the same checks as [`Self::decode`] makes.
    #[inline]
    pub fn decode_run(x: &Registers) -> Status<VcpuHandle> {
        let vcpu = vcpu(x)?;
        if x[3] != 0 {
            resume(x[3], x[4])?;
        }
        Ok(vcpu)
    }

    /// Decodes a call. The identifier is the low half of x0; all other registers count whole.
    pub fn decode(x: &Registers) -> Status<Self> {
        Ok(match x[0] as u32 {
            call::UID => Self::Uid,
            call::REVISION => Self::Revision,
            call::FEATURES => Self::Features,
            call::HOST_RESET => Self::HostReset,
            call::STATISTICS => {
                Self::Statistics { vm: if x[1] == 0 { None } else { Some(vm(x[1])?) }, first: x[2] }
            }
            call::PAGE_STATE => Self::PageState { page: page(x[1])? },
            call::DEBUG_CRASH => Self::DebugCrash { kind: x[1], hole: x[2] },
            call::VM_LAYOUT => Self::VmLayout { ipa_bits: ipa_bits(x[1])? },
            call::MEMORY_ADD => Self::MemoryAdd { range: blocks(x[1], x[2])? },
            call::MEMORY_REMOVE => Self::MemoryRemove { range: blocks(x[1], x[2])? },
            call::VM_CREATE => Self::VmCreate { ipa_bits: ipa_bits(x[1])?, region: page(x[2])? },
            call::VM_DESTROY => Self::VmDestroy { vm: vm(x[1])? },
            call::VM_DONATE => Self::VmDonate { vm: vm(x[1])?, pages: PaRange::new(x[2], x[3])? },
            call::VM_RECLAIM => {
                Self::VmReclaim { vm: vm(x[1])?, max: between(x[2], 1, RECLAIM_ADDRESSES)? }
            }
            call::VCPU_CREATE => {
                at_most(x[2], MAX_VCPUS - 1)?;
                Self::VcpuCreate { vcpu: vcpu(x)?, region: page(x[3])? }
            }
            call::VCPU_RUN => Self::VcpuRun { vcpu: vcpu(x)?, resume: resume(x[3], x[4])? },
            call::VCPU_GET_REG => Self::VcpuGetReg { vcpu: vcpu(x)?, register: x[3] },
            call::VCPU_SET_REG => Self::VcpuSetReg { vcpu: vcpu(x)?, register: x[3], value: x[4] },
            call::VCPU_REG_LIST => Self::VcpuRegList { vcpu: vcpu(x)?, first: x[3] },
            call::VCPU_RESET => Self::VcpuReset { vcpu: vcpu(x)? },
            call::FLUSH => Self::Flush { vm: vm(x[1])? },
            number => ranged::decode(number, x)?,
        })
    }
}

fn resume(bits: u64, value: u64) -> Status<Resume> {
    match bits {
        0 => Ok(Resume::Continue),
        flags::RUN_MMIO_DONE => Ok(Resume::MmioDone(value)),
        flags::RUN_INJECT_ABORT => Ok(Resume::InjectAbort),
        flags::RUN_SKIP => Ok(Resume::Skip),
        _ => Err(Error::Invalid),
    }
}

/// Reads a VM's handle; one that no VM can have names nothing.
fn vm(value: u64) -> Status<VmHandle> {
    if (1..=MAX_VMS).contains(&value) { Ok(VmHandle(value as u16)) } else { Err(Error::NoEntry) }
}

fn vcpu(x: &Registers) -> Status<VcpuHandle> {
    if x[2] >= MAX_VCPUS {
        return Err(Error::NoEntry);
    }
    Ok(VcpuHandle { vm: vm(x[1])?, index: x[2] as u8 })
}

fn page(value: u64) -> Status<Pa> {
    Ok(PaRange::new(value, 1)?.start())
}

/// Reads a range of whole blocks of 2 MiB.
fn blocks(start: u64, page_count: u64) -> Status<PaRange> {
    let range = PaRange::new(start, page_count)?;
    let whole = (start | range.end().0).is_multiple_of(LeafSize::Block2M.bytes());
    if whole { Ok(range) } else { Err(Error::Invalid) }
}

fn ipa_bits(value: u64) -> Status<u32> {
    if (32..=48).contains(&value) { Ok(value as u32) } else { Err(Error::Invalid) }
}

fn at_most(value: u64, limit: u64) -> Status<u64> {
    between(value, 0, limit)
}

fn between(value: u64, least: u64, most: u64) -> Status<u64> {
    if (least..=most).contains(&value) { Ok(value) } else { Err(Error::Invalid) }
}
