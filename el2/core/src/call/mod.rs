//! Decodes the registers of a hypercall into a typed [`Call`].
//!
//! The one invariant: what comes out of [`Call::decode`] is well-formed. Ranges are page-aligned, not
//! empty and do not overflow; no unknown flag is set; counts are within their limits. What is left to
//! the caller is what needs state: whether handles exist, pages are owned and ranges fit a VM.
//! Decoding reads registers and nothing else, so a call that it refuses has changed nothing.

mod range;
#[cfg(test)]
mod tests;

use verdigris_abi::{AGE_BUFFER_PAGES, AGE_REGISTER_PAGES, RECLAIM_ADDRESSES};
use verdigris_abi::{Error, Ipa, MAX_VCPUS, MAX_VMS, PAGE_SIZE, Pa, Status, call, flags};

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

/// Size of the leaves that a map or set installs.
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

/// Where age bits go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgeSink {
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
    Statistics { vm: Option<VmHandle>, first: u64 },
    PageState { page: Pa },
    DebugCrash { kind: u64 },
    VmLayout { ipa_bits: u32 },
    VmCreate { ipa_bits: u32, region: Pa },
    VmDestroy { vm: VmHandle },
    VmDonate { vm: VmHandle, pages: PaRange },
    VmReclaim { vm: VmHandle, max: u64 },
    VcpuCreate { vcpu: VcpuHandle, region: Pa },
    VcpuRun { vcpu: VcpuHandle, resume: Resume },
    VcpuGetReg { vcpu: VcpuHandle, register: u64 },
    VcpuSetReg { vcpu: VcpuHandle, register: u64, value: u64 },
    Map { vm: VmHandle, range: IpaRange, target: Pa, flags: MapFlags, sequence: u64 },
    Unmap { vm: VmHandle, range: IpaRange },
    InvalidateBegin { vm: VmHandle, range: IpaRange, resume: bool, done: u64 },
    InvalidateEnd { vm: VmHandle, range: IpaRange, done: u64 },
    Age { vm: VmHandle, range: IpaRange, flush: AgeFlush, sink: AgeSink },
    TestAge { vm: VmHandle, range: IpaRange, sink: AgeSink },
    Set { vm: VmHandle, ipa: Ipa, target: Pa, flags: MapFlags, sequence: u64 },
    WriteProtect { vm: VmHandle, range: IpaRange },
}

impl Call {
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
            call::DEBUG_CRASH => Self::DebugCrash { kind: x[1] },
            call::VM_LAYOUT => Self::VmLayout { ipa_bits: ipa_bits(x[1])? },
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
            call::SET => set(x)?,
            number => ranged(number, x)?,
        })
    }
}

/// Decodes the calls on a VM and a range of its addresses: x1, x2 and x3 or x4.
fn ranged(number: u32, x: &Registers) -> Status<Call> {
    let range = || IpaRange::new(x[2], x[3]);
    Ok(match number {
        call::MAP => map(x)?,
        call::UNMAP => Call::Unmap { vm: vm(x[1])?, range: range()? },
        call::INVALIDATE_BEGIN => {
            let (range, resume) = (range()?, at_most(x[4], flags::BEGIN_RESUME)? != 0);
            let done = at_most(x[5], if resume { range.page_count() } else { 0 })?;
            Call::InvalidateBegin { vm: vm(x[1])?, range, resume, done }
        }
        call::INVALIDATE_END => {
            let range = range()?;
            Call::InvalidateEnd { vm: vm(x[1])?, range, done: at_most(x[4], range.page_count())? }
        }
        call::AGE => {
            let (flush, sink) = age_flags(x)?;
            Call::Age { vm: vm(x[1])?, range: range()?, flush, sink }
        }
        call::TEST_AGE => match age_flags(x)? {
            (AgeFlush::None, sink) => Call::TestAge { vm: vm(x[1])?, range: range()?, sink },
            _ => return Err(Error::Invalid),
        },
        call::WRITE_PROTECT => Call::WriteProtect { vm: vm(x[1])?, range: range()? },
        _ => return Err(Error::NotSupported),
    })
}

/// Decodes MAP: leaves of one size, aligned to it on both sides.
fn map(x: &Registers) -> Status<Call> {
    let flags = map_flags(x[5], flags::MAP_OLD)?;
    let range = IpaRange::new(x[2], x[4])?;
    let target = PaRange::new(x[3], x[4])?.start();
    let bytes = flags.size.bytes();
    if !(range.start().is_aligned(bytes) && target.is_aligned(bytes)) {
        return Err(Error::Invalid);
    }
    if range.page_count() % (bytes / PAGE_SIZE) != 0 {
        return Err(Error::Invalid);
    }
    Ok(Call::Map { vm: vm(x[1])?, range, target, flags, sequence: x[6] })
}

/// Decodes SET: one leaf.
fn set(x: &Registers) -> Status<Call> {
    let flags = map_flags(x[4], 0)?;
    let pages = flags.size.bytes() / PAGE_SIZE;
    let ipa = IpaRange::new(x[2], pages)?.start();
    let target = PaRange::new(x[3], pages)?.start();
    if !(ipa.is_aligned(flags.size.bytes()) && target.is_aligned(flags.size.bytes())) {
        return Err(Error::Invalid);
    }
    Ok(Call::Set { vm: vm(x[1])?, ipa, target, flags, sequence: x[5] })
}

fn map_flags(bits: u64, also: u64) -> Status<MapFlags> {
    const SIZES: u64 = flags::MAP_BLOCK_2M | flags::MAP_BLOCK_1G;
    let known = flags::PROT_READ | flags::PROT_WRITE | flags::PROT_EXEC | SIZES | also;
    if bits & !known != 0 || bits & flags::PROT_READ == 0 {
        return Err(Error::Invalid);
    }
    let size = match bits & SIZES {
        0 => LeafSize::Page,
        flags::MAP_BLOCK_2M => LeafSize::Block2M,
        flags::MAP_BLOCK_1G => LeafSize::Block1G,
        _ => return Err(Error::Invalid),
    };
    Ok(MapFlags {
        write: bits & flags::PROT_WRITE != 0,
        execute: bits & flags::PROT_EXEC != 0,
        old: bits & flags::MAP_OLD != 0,
        size,
    })
}

/// Decodes x4 and x5 of AGE and TEST_AGE, and checks x3 against what the sink holds.
fn age_flags(x: &Registers) -> Status<(AgeFlush, AgeSink)> {
    if x[4] & !(flags::AGE_FLUSH_MASK | flags::AGE_TO_BUFFER) != 0 {
        return Err(Error::Invalid);
    }
    let flush = match x[4] & flags::AGE_FLUSH_MASK {
        flags::AGE_NO_FLUSH => AgeFlush::None,
        flags::AGE_FLUSH_YOUNG => AgeFlush::Young,
        flags::AGE_FLUSH_ALL => AgeFlush::All,
        _ => return Err(Error::Invalid),
    };
    if x[4] & flags::AGE_TO_BUFFER == 0 {
        at_most(x[3], AGE_REGISTER_PAGES)?;
        Ok((flush, AgeSink::Registers))
    } else {
        at_most(x[3], AGE_BUFFER_PAGES)?;
        Ok((flush, AgeSink::Buffer(page(x[5])?)))
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

fn ipa_bits(value: u64) -> Status<u32> {
    if (32..=48).contains(&value) { Ok(value as u32) } else { Err(Error::Invalid) }
}

fn at_most(value: u64, limit: u64) -> Status<u64> {
    between(value, 0, limit)
}

fn between(value: u64, least: u64, most: u64) -> Status<u64> {
    if (least..=most).contains(&value) { Ok(value) } else { Err(Error::Invalid) }
}
