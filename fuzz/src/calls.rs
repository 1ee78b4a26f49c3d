//! The registers of a hypercall: decoding is total, and what comes out is what went in.
//!
//! Whatever decodes is written back here, from the numbers in docs/abi.md and not from those of the interface
//! crate; the registers that count have to be those that were given. So no bit is ignored, none is invented, and
//! no two calls are taken for each other. Then the promises of the decoder: aligned ranges, limits kept.

use verdigris_abi::{Ipa, Pa};
use verdigris_core::call::{
    AgeFlush, BitSink, Call, IpaRange, LeafSize, MapFlags, PaRange, Registers, Resume, VcpuHandle,
    VmHandle,
};

/// Bytes of one register: a rotation and 32 bits, so that round numbers are as near as small ones.
const REGISTER_BYTES: usize = 5;

/// Decodes a call and checks what came out; tells whether it is one. A register's first byte says how far its 32
/// bits are rotated.
pub fn calls(bytes: &[u8]) -> bool {
    let mut x: Registers = [0; 18];
    for (register, bytes) in x.iter_mut().zip(bytes.chunks_exact(REGISTER_BYTES)) {
        let low = u32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
        *register = u64::from(low).rotate_left(u32::from(bytes[0]));
    }
    let Ok(call) = Call::decode(&x) else {
        return false;
    };
    assert_eq!(Call::decode(&x), Ok(call), "the same registers are the same call");
    let (number, written) = write(&call);
    assert_eq!(x[0] as u32, number, "{call:?}");
    for (register, value) in written {
        assert_eq!(x[register], value, "x{register} of {call:?}");
    }
    check(&call);
    true
}

type Written = Vec<(usize, u64)>;

/// Returns the number of a call, and the registers that say the rest of it.
fn write(call: &Call) -> (u32, Written) {
    let (number, registers) = match *call {
        Call::Uid => return (0x8600_ff01, vec![]),
        Call::Revision => return (0x8600_ff03, vec![]),
        Call::Features => (0x00, vec![]),
        Call::HostReset => (0x01, vec![]),
        Call::Statistics { vm, first } => (0x02, vec![(1, vm.map_or(0, handle)), (2, first)]),
        Call::PageState { page } => (0x03, vec![(1, page.0)]),
        Call::DebugCrash { kind, hole } => (0x04, vec![(1, kind), (2, hole)]),
        Call::VmLayout { ipa_bits } => (0x05, vec![(1, ipa_bits.into())]),
        Call::MemoryAdd { range } => (0x06, vec![(1, range.start().0), (2, range.page_count())]),
        Call::MemoryRemove { range } => (0x07, vec![(1, range.start().0), (2, range.page_count())]),
        Call::VmCreate { ipa_bits, region } => (0x10, vec![(1, ipa_bits.into()), (2, region.0)]),
        Call::VmDestroy { vm } => (0x11, vec![(1, handle(vm))]),
        Call::VmDonate { vm, pages } => {
            (0x12, vec![(1, handle(vm)), (2, pages.start().0), (3, pages.page_count())])
        }
        Call::VmReclaim { vm, max } => (0x13, vec![(1, handle(vm)), (2, max)]),
        Call::VcpuCreate { vcpu, region } => (0x20, of_vcpu(vcpu, vec![(3, region.0)])),
        Call::VcpuRun { vcpu, resume } => (0x21, of_vcpu(vcpu, of_resume(resume))),
        Call::VcpuGetReg { vcpu, register } => (0x22, of_vcpu(vcpu, vec![(3, register)])),
        Call::VcpuSetReg { vcpu, register, value } => {
            (0x23, of_vcpu(vcpu, vec![(3, register), (4, value)]))
        }
        Call::VcpuRegList { vcpu, first } => (0x24, of_vcpu(vcpu, vec![(3, first)])),
        Call::VcpuReset { vcpu } => (0x25, of_vcpu(vcpu, vec![])),
        _ => write_ranged(call),
    };
    (0xc600_0000 | number, registers)
}

/// Returns the same for the calls on a VM's addresses.
fn write_ranged(call: &Call) -> (u32, Written) {
    match *call {
        Call::Map { vm, range, target, flags, sequence } => {
            let flags = of_map(flags);
            let registers = [(3, target.0), (4, range.page_count()), (5, flags), (6, sequence)];
            (0x30, of_vm(vm, range.start(), &registers))
        }
        Call::Set { vm, ipa, target, flags, sequence } => {
            (0x36, of_vm(vm, ipa, &[(3, target.0), (4, of_map(flags)), (5, sequence)]))
        }
        Call::WriteProtect { vm, range } => (0x37, of_range(vm, range, &[])),
        Call::Split { vm, range, size } => (0x39, of_range(vm, range, &[(4, of_size(size))])),
        Call::Collapse { vm, range, size } => (0x3a, of_range(vm, range, &[(4, of_size(size))])),
        Call::TablesReclaim { vm, range } => (0x3b, of_range(vm, range, &[])),
        Call::Flush { vm } => (0x3c, vec![(1, handle(vm))]),
        Call::MapList { vm, range, list, sequence } => {
            (0x3d, of_range(vm, range, &[(4, list.0), (5, sequence)]))
        }
        Call::WorkingSetCreate { vm, range, region } => {
            assert_eq!(region.page_count(), range.page_count().div_ceil(4096), "a byte a page");
            (0x40, of_range(vm, range, &[(4, region.start().0)]))
        }
        Call::WorkingSetDestroy { vm, start } => (0x41, of_vm(vm, start, &[])),
        Call::WorkingSetHistogram { vm, range } => (0x42, of_range(vm, range, &[])),
        Call::WorkingSetMap { vm, range, buffer } => (0x43, of_range(vm, range, &[(4, buffer.0)])),
        _ => write_bits(call),
    }
}

/// Returns the same for the calls that return bits.
fn write_bits(call: &Call) -> (u32, Written) {
    let dirty = |sink: Option<BitSink>| match sink {
        None => (0, None),
        Some(BitSink::Registers) => (0b010, None),
        Some(BitSink::Buffer(page)) => (0b110, Some((6, page.0))),
    };
    let (number, vm, range, registers, buffer) = match *call {
        Call::Unmap { vm, range, dirty: sink } => {
            let (flags, buffer) = dirty(sink);
            (0x31, vm, range, vec![(4, flags)], buffer)
        }
        Call::InvalidateBegin { vm, range, resume, done, dirty: sink } => {
            let (flags, buffer) = dirty(sink);
            (0x32, vm, range, vec![(4, flags | u64::from(resume)), (5, done)], buffer)
        }
        Call::InvalidateEnd { vm, range, done, dirty: sink } => {
            let (flags, buffer) = dirty(sink);
            (0x33, vm, range, vec![(4, done), (5, flags)], buffer)
        }
        Call::Age { vm, range, flush, sink } => {
            let mode = [AgeFlush::None, AgeFlush::Young, AgeFlush::All];
            let mode = mode.iter().position(|mode| *mode == flush).expect("a mode") as u64;
            let (flags, buffer) = of_sink(sink);
            (0x34, vm, range, vec![(4, flags | mode)], buffer)
        }
        Call::TestAge { vm, range, sink } => {
            let (flags, buffer) = of_sink(sink);
            (0x35, vm, range, vec![(4, flags)], buffer)
        }
        Call::Harvest { vm, range, sink } => {
            let (flags, buffer) = of_sink(sink);
            (0x38, vm, range, vec![(4, flags)], buffer)
        }
        _ => panic!("docs/abi.md has no {call:?}"),
    };
    (number, of_range(vm, range, &[registers, buffer.into_iter().collect()].concat()))
}

fn handle(vm: VmHandle) -> u64 {
    vm.0.into()
}

fn of_vcpu(vcpu: VcpuHandle, rest: Written) -> Written {
    [vec![(1, handle(vcpu.vm)), (2, vcpu.index.into())], rest].concat()
}

fn of_resume(resume: Resume) -> Written {
    match resume {
        Resume::Continue => vec![(3, 0)],
        Resume::MmioDone(value) => vec![(3, 1), (4, value)],
        Resume::InjectAbort => vec![(3, 2)],
        Resume::Skip => vec![(3, 4)],
    }
}

fn of_vm(vm: VmHandle, start: Ipa, rest: &[(usize, u64)]) -> Written {
    [&[(1, handle(vm)), (2, start.0)], rest].concat()
}

fn of_range(vm: VmHandle, range: IpaRange, rest: &[(usize, u64)]) -> Written {
    of_vm(vm, range.start(), &[&[(3, range.page_count())], rest].concat())
}

fn of_sink(sink: BitSink) -> (u64, Option<(usize, u64)>) {
    match sink {
        BitSink::Registers => (0, None),
        BitSink::Buffer(page) => (0b100, Some((5, page.0))),
    }
}

fn of_size(size: LeafSize) -> u64 {
    match size {
        LeafSize::Page => 0,
        LeafSize::Block2M => 0x10,
        LeafSize::Block1G => 0x20,
    }
}

fn of_map(flags: MapFlags) -> u64 {
    let MapFlags { write, execute, old, clean, size } = flags;
    let bits = [(write, 0b10), (execute, 0b100), (old, 0b1000), (clean, 0x40)];
    bits.iter().filter(|bit| bit.0).map(|bit| bit.1).sum::<u64>() | of_size(size) | 1
}

/// Checks the limits of what decoded.
fn check(call: &Call) {
    match *call {
        Call::PageState { page } => check_page(page),
        Call::VmLayout { ipa_bits } => assert!((32..=48).contains(&ipa_bits)),
        Call::VmCreate { ipa_bits, region } => {
            assert!((32..=48).contains(&ipa_bits));
            check_page(region);
        }
        Call::VmDonate { pages, .. } => check_pages(pages),
        Call::VmReclaim { max, .. } => assert!((1..=16).contains(&max)),
        Call::VcpuCreate { vcpu, region } => {
            assert!(vcpu.index < 64);
            check_page(region);
        }
        Call::Map { range, target, flags, .. } => {
            let bytes = 0x1000 << (9 * flags.size as u64);
            assert!((range.start().0 | target.0 | range.end().0) % bytes == 0, "whole leaves");
            check_range(range);
            assert!(flags.write || !flags.clean);
        }
        Call::MapList { range, list, .. } => {
            check_range(range);
            check_page(list);
            assert!(range.page_count() <= 512);
        }
        Call::Set { ipa, target, flags, .. } => {
            let bytes = 0x1000 << (9 * flags.size as u64);
            assert!((ipa.0 | target.0) % bytes == 0, "a whole leaf");
        }
        Call::InvalidateBegin { range, resume, done, .. } => {
            assert!(done <= range.page_count() && (resume || done == 0));
            check_range(range);
        }
        Call::InvalidateEnd { range, done, .. } => assert!(done <= range.page_count()),
        Call::Age { range, sink, .. }
        | Call::TestAge { range, sink, .. }
        | Call::Harvest { range, sink, .. } => check_bits(range, sink),
        Call::WorkingSetMap { range, buffer, .. } => {
            assert!(range.page_count() <= 4096);
            check_page(buffer);
        }
        _ => {}
    }
}

/// Checks that the bits of a range fit where they go.
fn check_bits(range: IpaRange, sink: BitSink) {
    check_range(range);
    match sink {
        BitSink::Registers => assert!(range.page_count() <= 16 * 64),
        BitSink::Buffer(page) => {
            check_page(page);
            assert!(range.page_count() <= 4096 * 8);
        }
    }
}

fn check_range(range: IpaRange) {
    check_span(range.start().0, range.end().0, range.page_count());
}

fn check_pages(range: PaRange) {
    check_span(range.start().0, range.end().0, range.page_count());
}

fn check_span(start: u64, end: u64, page_count: u64) {
    assert!(start < end && end <= 1 << 52 && start.is_multiple_of(0x1000));
    assert_eq!((end - start) / 0x1000, page_count);
}

fn check_page(page: Pa) {
    assert!(page.0 < 1 << 52 && page.0.is_multiple_of(0x1000));
}
