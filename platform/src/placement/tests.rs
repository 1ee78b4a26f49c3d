use std::string::ToString;

use super::*;
use crate::testing::{QEMU_10, region};
use crate::tree::parse;

/// QEMU's machine: kernel file at 0x4400_0000 to 0x442d_c6c0, ramdisk at 0x4a00_0000 to 0x4a01_86a0.
fn machine() -> Machine {
    parse(QEMU_10).unwrap()
}

fn image(image_bytes: u64) -> ImageHeader {
    ImageHeader { text_offset: 0, image_bytes }
}

fn check_with(change: impl FnOnce(&mut Machine)) -> Result<Host, PlacementError> {
    let mut machine = machine();
    change(&mut machine);
    check(&machine, kept(), tree(), &image(0x40_0000))
}

fn kept() -> Region {
    region(0x4000_0000, 0x4200_0000)
}

/// Where QEMU puts its tree: RAM plus 128 MiB, 1 MiB long.
fn tree() -> Region {
    region(0x4800_0000, 0x4810_0000)
}

#[test]
fn accepts_what_does_not_overlap() {
    let host = check_with(|_| {}).unwrap();
    assert_eq!(host.kernel, region(0x4400_0000, 0x4440_0000));
    assert_eq!(host.tree, tree());
    assert_eq!(host.ramdisk, Some(region(0x4a00_0000, 0x4a01_86a0)));
    assert_eq!(check_with(|machine| machine.ramdisk = None).unwrap().ramdisk, None);
}

#[test]
fn a_kernel_needs_the_room_behind_its_file() {
    let machine = machine();
    assert!(check(&machine, kept(), tree(), &image(0x400_0000)).is_ok());
    let error = check(&machine, kept(), tree(), &image(0x400_0001)).unwrap_err();
    let text = "the kernel module at 0x44000000..0x48000001 overlaps the device tree at \
                0x48000000..0x48100000: load it at or above 0x48200000";
    assert_eq!(error.to_string(), text);
    let error = check(&machine, kept(), tree(), &image(u64::MAX)).unwrap_err();
    assert!(matches!(error, PlacementError::OutsideMemory { part: Part::Kernel, .. }));
}

#[test]
fn every_pair_of_parts_is_compared() {
    let overlap = |part, at: (u64, u64)| {
        let at = region(at.0, at.1);
        match check_with(|machine| match part {
            Part::Kernel => machine.kernel = Some(at),
            _ => machine.ramdisk = Some(at),
        }) {
            Err(PlacementError::Overlap { part: found, other, .. }) if found == part => other,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(overlap(Part::Kernel, (0x41e0_0000, 0x41e0_1000)), Part::Firmware);
    assert_eq!(overlap(Part::Kernel, (0x4800_0000, 0x4800_1000)), Part::Tree);
    assert_eq!(overlap(Part::Ramdisk, (0x41ff_ffff, 0x4300_0000)), Part::Firmware);
    assert_eq!(overlap(Part::Ramdisk, (0x480f_ffff, 0x4820_0000)), Part::Tree);
    // Behind the kernel's file, inside what it needs.
    assert_eq!(overlap(Part::Ramdisk, (0x443f_ffff, 0x4500_0000)), Part::Kernel);
    let in_firmware = check(&machine(), region(0x4000_0000, 0x4820_0000), tree(), &image(1));
    assert!(matches!(in_firmware, Err(PlacementError::Overlap { part: Part::Tree, .. })));
}

#[test]
fn parts_must_be_in_memory() {
    let error = check_with(|machine| machine.ramdisk = Some(region(0x7fff_f000, 0x8000_0001)));
    let text = "the ramdisk module at 0x7ffff000..0x80000001 is not in RAM: \
                load it elsewhere, or add RAM";
    assert_eq!(error.unwrap_err().to_string(), text);
    let top = region(u64::MAX - 0x1000, u64::MAX - 0x800);
    let error = check_with(|machine| machine.kernel = Some(top)).unwrap_err();
    assert!(matches!(error, PlacementError::OutsideMemory { part: Part::Kernel, .. }));
}

#[test]
fn reserved_memory_is_in_the_way_unless_it_is_the_parts_own() {
    let reserve = |start, end, no_map| {
        check_with(|machine| {
            machine
                .reserved
                .push(Reserved { region: region(start, end), no_map, is_reusable: false })
                .unwrap();
        })
    };
    let other = |result| match result {
        Err(PlacementError::Overlap { part, other: Part::Reserved, .. }) => Some(part),
        Ok(_) => None,
        other => panic!("{other:?}"),
    };
    assert_eq!(other(reserve(0x4100_0000, 0x4100_1000, true)), Some(Part::Firmware));
    assert_eq!(other(reserve(0x4430_0000, 0x4430_1000, false)), Some(Part::Kernel));
    assert_eq!(other(reserve(0x4400_0000, 0x4440_0000, false)), Some(Part::Kernel));
    assert_eq!(other(reserve(0x4a00_0000, 0x4a01_86a0, false)), None);
    assert_eq!(other(reserve(0x4800_0000, 0x4800_2000, false)), None);
    assert_eq!(other(reserve(0x4800_0000, 0x4800_2000, true)), Some(Part::Tree));
    assert_eq!(other(reserve(0x6000_0000, 0x6000_2000, true)), None);
}

#[test]
fn kernels_start_at_their_offset_from_2_mib() {
    let at = |start: u64, text_offset| {
        let mut machine = machine();
        machine.kernel = Some(region(start, start + 0x1000));
        check(&machine, kept(), tree(), &ImageHeader { text_offset, image_bytes: 0x1000 })
    };
    let wanted = |result| match result {
        Err(PlacementError::Misaligned { part: Part::Kernel, wanted, .. }) => wanted,
        other => panic!("{other:?}"),
    };
    assert!(at(0x4420_0000, 0).is_ok());
    assert!(at(0x4408_0000, 0x8_0000).is_ok());
    assert_eq!(wanted(at(0x4400_1000, 0)), Pa(0x4420_0000));
    assert_eq!(wanted(at(0x4400_0000, 0x8_0000)), Pa(0x4408_0000));
    assert_eq!(wanted(at(0x4410_0000, 0x8_0000)), Pa(0x4428_0000));
}

#[test]
fn the_tree_must_be_one_that_linux_takes() {
    let with = |tree| check(&machine(), kept(), tree, &image(1));
    let odd = with(region(0x4800_0004, 0x4800_2000));
    assert_eq!(
        odd.unwrap_err().to_string(),
        "the device tree can't be at 0x48000004: load it at 0x48000008"
    );
    let large = with(region(0x4800_0000, 0x4820_0001));
    assert_eq!(large, Err(PlacementError::TreeTooLarge));
}

#[test]
fn machines_that_could_not_work_are_refused() {
    let error = |change: fn(&mut Machine)| check_with(change).unwrap_err();
    assert_eq!(error(|machine| machine.kernel = None), PlacementError::NoKernel);
    assert_eq!(error(|machine| machine.psci = Some(Conduit::Hvc)), PlacementError::ConduitIsHvc);
    assert_eq!(error(|machine| machine.psci = None), PlacementError::NoPsci);
    let far = region(0xff_0000_0000, 0x100_0000_1000);
    let beyond = check_with(|machine| machine.memory.push(far).unwrap());
    assert_eq!(beyond, Err(PlacementError::BeyondAddresses { memory: far, bits: 40 }));
    let last = region(0xff_0000_0000, 0x100_0000_0000);
    assert!(check_with(|machine| machine.memory.push(last).unwrap()).is_ok());
}
