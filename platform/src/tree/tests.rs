use std::string::ToString;
use std::vec::Vec;

use verdigris_abi::Pa;

use super::*;
use crate::machine::{Conduit, GicVersion, Timer};
use crate::testing::{Builder, QEMU_7, QEMU_10, cells, padded, region, small_machine};

#[test]
fn reads_the_tree_of_qemu_10() {
    let machine = parse(&padded(QEMU_10, 0x10_0000)).unwrap();
    assert_eq!(machine.board.name, "QEMU virt");
    assert_eq!(*machine.memory, [region(0x4000_0000, 0x8000_0000)]);
    assert!(machine.reserved.is_empty());
    let mpidrs: Vec<u64> = machine.cpus.iter().map(|cpu| cpu.mpidr).collect();
    assert_eq!(mpidrs, [0, 1, 2, 3]);
    assert_eq!(machine.psci, Some(Conduit::Smc));
    assert_eq!(machine.uart, Pa(0x900_0000));
    assert_eq!(machine.gic.version, GicVersion::V3);
    assert_eq!(machine.gic.frames[0], region(0x800_0000, 0x801_0000));
    assert_eq!(machine.gic.frames[1], region(0x80a_0000, 0x900_0000));
    assert_eq!(machine.gic.maintenance, Some(25));
    let timer = Timer { physical: Some(30), virt: Some(27), hypervisor: Some(26) };
    assert_eq!(machine.timer, timer);
    assert_eq!(&*machine.command_line, "log=info ha=off");
    assert_eq!(machine.kernel, Some(region(0x4400_0000, 0x442d_c6c0)));
    assert_eq!(machine.ramdisk, Some(region(0x4a00_0000, 0x4a01_86a0)));
}

#[test]
fn reads_the_tree_of_qemu_7_with_a_gicv2_and_short_ramdisk_cells() {
    let machine = parse(QEMU_7).unwrap();
    assert_eq!(machine.gic.version, GicVersion::V2);
    assert_eq!(machine.gic.frames.len(), 4);
    assert_eq!(machine.cpus.len(), 1);
    assert_eq!(machine.kernel, None);
    assert_eq!(machine.ramdisk, Some(region(0x4800_0000, 0x4801_86a0)));
}

#[test]
fn reads_ramdisk_cells_of_8_bytes() {
    let mut tree = small_machine();
    tree.begin("chosen").cells("linux,initrd-start", &[1, 0x4800_0000]);
    tree.cells("linux,initrd-end", &[1, 0x4800_1000]).end().end();
    let machine = parse(&tree.build()).unwrap();
    assert_eq!(machine.ramdisk, Some(region(0x1_4800_0000, 0x1_4800_1000)));
}

#[test]
fn reads_modules_whose_reg_has_cells_of_either_kind() {
    let with_module = |declared: Option<[u32; 2]>, reg: &[u32]| {
        let mut tree = small_machine();
        tree.begin("chosen");
        if let Some([address, size]) = declared {
            tree.cells("#address-cells", &[address]).cells("#size-cells", &[size]);
        }
        tree.begin("module@1").property("compatible", b"multiboot,module\0multiboot,kernel\0");
        tree.cells("reg", reg).end().end().end();
        parse(&tree.build()).map(|machine| machine.kernel)
    };
    let expected = Ok(Some(region(0x4400_0000, 0x4400_3000)));
    assert_eq!(with_module(None, &[0, 0x4400_0000, 0, 0x3000]), expected);
    assert_eq!(with_module(None, &[0x4400_0000, 0x3000]), expected);
    assert_eq!(with_module(Some([2, 1]), &[0, 0x4400_0000, 0x3000]), expected);
    assert_eq!(with_module(Some([1, 2]), &[0x4400_0000, 0, 0x3000]), expected);
    let invalid = Err(Error::Invalid("reg of a module in /chosen"));
    assert_eq!(with_module(None, &[0x4400_0000]), invalid);
    assert_eq!(with_module(None, &[0x4400_0000, 0]), invalid);
    assert_eq!(with_module(None, &[u32::MAX, u32::MAX, 0, 2]), invalid);
}

#[test]
fn two_kernels_are_one_too_many() {
    let mut tree = small_machine();
    tree.begin("chosen");
    for name in ["module@1", "module@2"] {
        tree.begin(name).property("compatible", b"multiboot,kernel\0");
        tree.cells("reg", &[0x4400_0000, 0x1000]).end();
    }
    let error = parse(&tree.end().end().build()).unwrap_err();
    assert_eq!(error, Error::TooMany { what: "multiboot,kernel", limit: 1 });
}

#[test]
fn memory_is_sorted_merged_and_trimmed_to_pages() {
    let mut tree = small_machine();
    tree.begin("memory@1").property("device_type", b"memory\0");
    let high = [1, 0, 0, 0x1000_0800, 0, 0x3fff_f800, 0, 0x800, 0, 0x2000_0000, 0, 0];
    tree.cells("reg", &high).end();
    tree.begin("secram").property("device_type", b"memory\0").property("status", b"disabled\0");
    tree.cells("reg", &[0, 0xe00_0000, 0, 0x100_0000]).end();
    tree.begin("memory@2").property("device_type", b"memory\0");
    tree.cells("reg", &[0, 0x8000_0000, 0, 0x1000]).end().end();
    let machine = parse(&tree.build()).unwrap();
    let low = region(0x4000_0000, 0x8000_1000);
    assert_eq!(*machine.memory, [low, region(0x1_0000_0000, 0x1_1000_0000)]);
    assert_eq!(machine.memory_bytes(), 0x5000_1000);
}

#[test]
fn reads_every_kind_of_reserved_memory() {
    let mut tree = small_machine();
    tree.reservations.push((0x4100_0000, 0x2000));
    tree.begin("reserved-memory").cells("#address-cells", &[2]).cells("#size-cells", &[2]);
    tree.begin("tee@1").cells("reg", &[0, 0x5000_0000, 0, 0x1000]).property("no-map", b"").end();
    tree.begin("dma").cells("size", &[0, 0x1000]).end();
    tree.begin("off@2")
        .cells("reg", &[0, 0x6000_0000, 0, 0x1000])
        .property("status", b"disabled\0");
    tree.end().end().end();
    let machine = parse(&tree.build()).unwrap();
    let found: Vec<_> = machine.reserved.iter().map(|range| (range.region, range.no_map)).collect();
    let expected =
        [(region(0x4100_0000, 0x4100_2000), false), (region(0x5000_0000, 0x5000_1000), true)];
    assert_eq!(found, expected);
}

/// Linux gives the pages of the ramdisk to everybody once it is unpacked, and lends those of `reusable` ranges.
#[test]
fn what_the_host_takes_for_its_own_is_not_reserved_for_good() {
    let mut tree = small_machine();
    tree.reservations.push((0x4100_0000, 0x2000));
    tree.reservations.push((0x4800_0000, 0x2_0000));
    tree.begin("reserved-memory").cells("#address-cells", &[2]).cells("#size-cells", &[2]);
    tree.begin("tee@1").cells("reg", &[0, 0x5000_0000, 0, 0x1000]).property("no-map", b"").end();
    tree.begin("linux,cma").cells("reg", &[0, 0x5800_0000, 0, 0x80_0000]);
    tree.property("compatible", b"shared-dma-pool\0").property("reusable", b"").end();
    // Against its binding: EL2 leaves it unmapped, so nobody may have it.
    tree.begin("both@2").cells("reg", &[0, 0x5900_0000, 0, 0x1000]);
    tree.property("reusable", b"").property("no-map", b"").end();
    tree.end().end();
    let mut machine = parse(&tree.build()).unwrap();
    let kept = |machine: &Machine| machine.reserved_for_good().collect::<Vec<_>>();
    let (ours, ramdisk, tee, both) = (
        region(0x4100_0000, 0x4100_2000),
        region(0x4800_0000, 0x4802_0000),
        region(0x5000_0000, 0x5000_1000),
        region(0x5900_0000, 0x5900_1000),
    );
    machine.ramdisk = None;
    assert_eq!(kept(&machine), [ours, ramdisk, tee, both]);
    machine.ramdisk = Some(region(0x4800_0000, 0x4801_86a0));
    assert_eq!(kept(&machine), [ours, tee, both]);
    machine.ramdisk = Some(region(0x5000_0000, 0x5000_0800));
    assert_eq!(
        kept(&machine),
        [ours, ramdisk, tee, both],
        "what must not be mapped is nobody's ramdisk"
    );
}

/// Builds a tree with these CPUs: `reg` and whether PSCI starts them.
fn parse_cpus(address_cells: u32, cpus: &[(&[u32], bool)]) -> Result<Machine, Error> {
    let mut tree = Builder::default();
    tree.begin("").property("compatible", b"linux,dummy-virt\0");
    tree.cells("#address-cells", &[2]).cells("#size-cells", &[2]);
    tree.begin("memory").property("device_type", b"memory\0");
    tree.cells("reg", &[0, 0x4000_0000, 0, 0x4000_0000]).end();
    tree.begin("timer").property("compatible", b"arm,armv8-timer\0").cells("interrupts", &[]).end();
    tree.begin("intc").property("compatible", b"arm,gic-v3\0").cells("reg", &[]).end();
    tree.begin("cpus").cells("#address-cells", &[address_cells]).cells("#size-cells", &[0]);
    for (index, (reg, psci)) in cpus.iter().enumerate() {
        tree.begin(&std::format!("cpu@{index}"))
            .property("device_type", b"cpu\0")
            .cells("reg", reg);
        if *psci {
            tree.property("enable-method", b"psci\0");
        }
        tree.end();
    }
    parse(&tree.end().end().build())
}

#[test]
fn reads_cpus_with_ids_of_one_and_two_cells() {
    let machine = parse_cpus(2, &[(&[1, 0x2_0300], true), (&[0, 1], true)]).unwrap();
    assert_eq!(machine.cpu_index(0x1_0002_0300), Some(0));
    // U, MT and RES1 (bits 30, 24 and 31) of MPIDR_EL1 are no affinity.
    assert_eq!(machine.cpu_index(0xc100_0001), Some(1));
    assert_eq!(machine.cpu_index(2), None);
    assert_eq!(parse_cpus(1, &[(&[0x100], true)]).unwrap().cpus[0].mpidr, 0x100);
}

#[test]
fn refuses_cpus_that_it_could_not_tell_apart_or_start() {
    let error =
        |address_cells, cpus: &[(&[u32], bool)]| parse_cpus(address_cells, cpus).unwrap_err();
    assert_eq!(error(1, &[(&[5], true), (&[5], true)]), Error::SameCpu { mpidr: 5 });
    assert_eq!(error(1, &[(&[0], true), (&[1], false)]), Error::CpuWithoutPsci { mpidr: 1 });
    assert_eq!(error(1, &[(&[0x8000_0000], true)]), Error::Invalid("reg of a CPU"));
    assert_eq!(error(2, &[(&[0], true)]), Error::Invalid("reg of a CPU"));
    assert_eq!(error(1, &[]), Error::Missing("CPU in /cpus"));
    let regs: Vec<[u32; 1]> = (0..65).map(|index| [index]).collect();
    let cpus: Vec<(&[u32], bool)> = regs.iter().map(|reg| (&reg[..], true)).collect();
    assert_eq!(error(1, &cpus), Error::TooMany { what: "CPUs", limit: 64 });
    assert_eq!(parse_cpus(1, &cpus[..64]).unwrap().cpus.len(), 64);
}

#[test]
fn takes_the_uart_of_stdout_path_through_alias_and_bus() {
    let mut tree = small_machine();
    tree.begin("uart@1")
        .property("compatible", b"arm,pl011\0")
        .cells("reg", &[0, 1 << 16, 0, 1 << 12]);
    tree.end().begin("soc").property("ranges", b"");
    tree.cells("#address-cells", &[1]).cells("#size-cells", &[1]);
    tree.begin("uart@2").property("compatible", b"arm,pl011\0arm,primecell\0");
    tree.cells("reg", &[2 << 16, 1 << 12]).end().end();
    tree.begin("aliases").property("serial1", b"/soc/uart@2\0").end();
    tree.begin("chosen").property("stdout-path", b"serial1:115200n8\0").end().end();
    assert_eq!(parse(&tree.build()).unwrap().uart, Pa(2 << 16));
}

#[test]
fn takes_no_uart_behind_a_bus_that_translates() {
    let mut tree = small_machine();
    tree.begin("soc").cells("ranges", &[0, 0, 0xc00_0000, 0x100_0000]);
    tree.cells("#address-cells", &[1]).cells("#size-cells", &[1]);
    tree.begin("uart@2")
        .property("compatible", b"arm,pl011\0")
        .cells("reg", &[0, 4096])
        .end()
        .end();
    // The board's own instead.
    assert_eq!(parse(&tree.end().build()).unwrap().uart, Pa(0x900_0000));
}

#[test]
fn names_override_the_order_of_the_timers_interrupts() {
    let mut tree = Builder::default();
    tree.begin("").property("compatible", b"linux,dummy-virt\0");
    tree.begin("intc").property("compatible", b"arm,gic-v3\0").cells("reg", &[]).end();
    tree.begin("timer").property("compatible", b"arm,armv8-timer\0");
    tree.property("interrupt-names", b"virt\0phys\0");
    tree.cells("interrupts", &[1, 11, 4, 1, 14, 4]).end().end();
    let dtb = tree.build();
    let timer = devices::timer(&Tree::new_unaligned_fallible(&dtb).unwrap()).unwrap();
    assert_eq!(timer, Timer { physical: Some(30), virt: Some(27), hypervisor: None });
}

#[test]
fn errors_say_what_to_do() {
    let mut tree = Builder::default();
    let unknown = parse(&tree.begin("").property("compatible", b"a,b\0").end().build());
    assert_eq!(unknown.unwrap_err(), Error::UnknownBoard);
    let broken = Error::Malformed { offset: 0x1c, flaw: Flaw::Token };
    let text =
        "the device tree is broken at byte 0x1c: a token is unknown or misplaced; load another one";
    assert_eq!(broken.to_string(), text);
}

#[test]
fn a_command_line_that_is_too_long_is_an_error() {
    let mut tree = small_machine();
    tree.begin("chosen").property("bootargs", &[b'x'; 1025]).end().end();
    assert!(matches!(parse(&tree.build()), Err(Error::TooMany { limit: 1024, .. })));
}

/// Changes a word of QEMU's tree, and returns the flaw that is found.
fn flaw_with(offset: usize, word: u32) -> Flaw {
    let mut dtb = QEMU_10.to_vec();
    dtb[offset..offset + 4].copy_from_slice(&word.to_be_bytes());
    match parse(&dtb) {
        Err(Error::Malformed { flaw, .. }) => flaw,
        other => panic!("{other:?}"),
    }
}

#[test]
fn refuses_headers_that_lie() {
    assert_eq!(flaw_with(0, 0xd00d_feee), Flaw::Magic);
    assert_eq!(flaw_with(4, 39), Flaw::TooShort);
    assert_eq!(flaw_with(4, 0x20_0001), Flaw::TooLarge);
    assert_eq!(flaw_with(4, QEMU_10.len() as u32 + 1), Flaw::TooShort);
    assert_eq!(flaw_with(4, QEMU_10.len() as u32 - 1), Flaw::Blocks);
    assert_eq!(flaw_with(8, 0x2c), Flaw::Blocks);
    assert_eq!(flaw_with(12, u32::MAX), Flaw::Blocks);
    assert_eq!(flaw_with(16, 8), Flaw::Blocks);
    assert_eq!(flaw_with(8, 0x3c), Flaw::Reservations);
    assert_eq!(flaw_with(20, 16), Flaw::Version);
    assert_eq!(flaw_with(24, 18), Flaw::Version);
    assert_eq!(flaw_with(32, u32::MAX), Flaw::Blocks);
    assert_eq!(flaw_with(36, 0x10), Flaw::TooShort);
}

/// Returns the flaw of a tree of these words between the root's begin and the strings.
fn flaw_of(words: &[u32]) -> Flaw {
    let structure = cells(words);
    let strings = b"name\0";
    let (structure_at, strings_at) = (56, 56 + structure.len());
    let total = strings_at + strings.len();
    let header = [0xd00d_feed, total, structure_at, strings_at, 40, 17, 16, 0, 5, structure.len()];
    let header: Vec<u32> = header.iter().map(|word| *word as u32).collect();
    match blob::check(&[cells(&header), [0; 16].to_vec(), structure, strings.to_vec()].concat()) {
        Err(Error::Malformed { flaw, .. }) => flaw,
        other => panic!("{other:?}"),
    }
}

#[test]
fn refuses_tokens_out_of_place() {
    const A: u32 = 0x6100_0000;
    assert_eq!(flaw_of(&[9]), Flaw::Token);
    assert_eq!(flaw_of(&[4, 1, 0, 2, 9]), Flaw::Token);
    assert_eq!(flaw_of(&[1, 0, 2, 1, 0, 2, 9]), Flaw::Token);
    assert_eq!(flaw_of(&[1, 0, 2, 2, 9]), Flaw::Token);
    assert_eq!(flaw_of(&[1, 0, 9]), Flaw::Token);
    assert_eq!(flaw_of(&[1, 0, 2, 9, 4]), Flaw::Token);
    assert_eq!(flaw_of(&[1, 0, 2]), Flaw::TooShort);
    assert_eq!(flaw_of(&[1, 0, 5, 2, 9]), Flaw::Token);
    assert_eq!(flaw_of(&[1, 0, 1, A, 2, 3, 0, 0, 2, 9]), Flaw::Token);
    assert_eq!(flaw_of(&[1, A, 2, 9]), Flaw::Name);
    assert_eq!(flaw_of(&[1, 0, 1, 0, 2, 2, 9]), Flaw::Name);
    assert_eq!(flaw_of(&[1, 0, 1, 0x2f00_0000, 2, 2, 9]), Flaw::Name);
    assert_eq!(flaw_of(&[1, 0, 3, 0, 4, 2, 9]), Flaw::Name);
    assert_eq!(flaw_of(&[1, 0, 3, 0, u32::MAX, 2, 9]), Flaw::Name);
    assert_eq!(flaw_of(&[1, 0, 3, u32::MAX, 0, 2, 9]), Flaw::TooShort);
    let deep: Vec<u32> = [1, 0].into_iter().chain([1, A].repeat(15)).chain([2; 16]).collect();
    assert_eq!(flaw_of(&[deep, [9].to_vec()].concat()), Flaw::Depth);
}

#[test]
fn refuses_numbers_of_cells_that_make_no_sense() {
    let parse_root = |address, size| {
        let mut tree = Builder::default();
        tree.begin("").property("compatible", b"linux,dummy-virt\0");
        tree.cells("#address-cells", &[address]).cells("#size-cells", &[size]);
        tree.begin("memory").property("device_type", b"memory\0").cells("reg", &[0; 12]).end();
        parse(&tree.end().build()).unwrap_err()
    };
    for (address, size) in [(u32::MAX, u32::MAX), (0, 2), (2, 0), (3, 2), (0x4000_0001, 1)] {
        assert_eq!(parse_root(address, size), Error::Invalid("reg of a memory node"));
    }
}

/// QEMU plugs memory behind RAM, from the next boundary of 1 GiB on, and below 256 GiB.
#[test]
fn memory_may_come_behind_ram() {
    let window = |start: [u32; 2], bytes: [u32; 2]| {
        let mut tree = small_machine();
        tree.begin("memory@1").property("device_type", b"memory\0");
        tree.cells("reg", &[start[0], start[1], bytes[0], bytes[1]]).end().end();
        parse(&tree.build()).unwrap().window_above()
    };
    let end = 256 << 30;
    assert_eq!(window([0, 0x8000_0000], [0, 0x20_0000]), region(3 << 30, end));
    assert_eq!(window([0, 0x8000_0000], [0, 0x4000_0000]), region(3 << 30, end));
    assert_eq!(window([1, 0], [0x3e, 0xffff_f000]), region(end, end));
    assert!(window([1, 0], [0x40, 0]).is_empty(), "RAM past it");
}
