//! A device tree of nobody knows where: read, planned with, and edited for the host.

use verdigris_abi::Pa;
use verdigris_platform::{ImageHeader, Machine, Region, host_tree, layout, parse, placement, tree};

/// Room that a loader leaves behind a tree.
const ROOM_BYTES: usize = 1024;
/// Where the loader has put the firmware's image, in the seeds' machines.
const IMAGE: u64 = 0x4020_0000;

/// Reads a tree; where that works, does what the firmware does with it, and checks the tree that the host gets.
/// Tells whether it came that far.
pub fn device_tree(bytes: &[u8]) -> bool {
    let Ok(machine) = parse(bytes) else {
        return false;
    };
    check_memory(&machine);
    let image = region(IMAGE, 1 << 20);
    let Ok(kept) = layout::plan(&machine.memory, image, |memory| {
        (8 << 20) + memory.iter().map(|region| region.bytes() >> 12).sum::<u64>()
    }) else {
        return false;
    };
    let kept = kept.region;
    assert!(kept.contains(image), "the image stays");
    check_placement(&machine, kept, bytes.len());
    let mut edited = bytes.to_vec();
    edited.resize(bytes.len() + ROOM_BYTES, 0);
    let is_edited = host_tree::edit(&mut edited, &machine, kept).is_ok();
    if is_edited {
        check_edited(&edited, kept);
    }
    is_edited
}

/// Checks what the rest of the firmware takes for granted: whole pages, ascending, apart from each other.
fn check_memory(machine: &Machine) {
    assert!(!machine.memory.is_empty());
    for region in machine.memory.iter() {
        assert!(region.start().0 % 4096 == 0 && region.end().0 % 4096 == 0 && !region.is_empty());
    }
    let apart = |pair: &[Region]| pair[0].end() < pair[1].start();
    assert!(machine.memory.windows(2).all(apart), "ranges that touch are merged");
    for (index, cpu) in machine.cpus.iter().enumerate() {
        assert_eq!(machine.cpu_index(cpu.mpidr), Some(index), "each CPU is found, once");
    }
}

/// Checks that what the host starts with overlaps nothing, if it may start.
fn check_placement(machine: &Machine, kept: Region, tree_bytes: usize) {
    let tree = region(0x4800_0000, tree_bytes as u64);
    let mut kernel = [0; 64];
    kernel[18] = 0x40;
    kernel[56..60].copy_from_slice(b"ARM\x64");
    let header = ImageHeader::parse(&kernel).expect("a header");
    let Ok(host) = placement::check(machine, kept, tree, &header) else {
        return;
    };
    let parts = [Some(kept), Some(host.kernel), Some(host.tree), host.ramdisk];
    let parts: Vec<Region> = parts.into_iter().flatten().collect();
    for (index, part) in parts.iter().enumerate() {
        assert!(machine.is_memory(*part), "{part:?} is not in RAM");
        assert!(parts[..index].iter().all(|other| !other.overlaps(*part)), "{part:?} overlaps");
    }
}

/// Checks that an edited tree is a tree, and shows the host nothing of what the firmware keeps.
fn check_edited(edited: &[u8], kept: Region) {
    tree::blob::check(edited).expect("what was edited is well formed");
    // A tree may be left without memory at all, if the firmware keeps all there is.
    let Ok(seen) = parse(edited) else {
        return;
    };
    assert!(seen.memory.iter().all(|region| !region.overlaps(kept)), "the host sees kept memory");
    assert!(seen.kernel.is_none(), "the firmware's modules are gone");
}

fn region(start: u64, bytes: u64) -> Region {
    Region::with_size(Pa(start), bytes).expect("a small region")
}
