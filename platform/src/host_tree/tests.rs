use std::string::String;
use std::vec::Vec;

use dtoolkit::fdt::Fdt;

use super::*;
use crate::image::ImageHeader;
use crate::testing::{
    Builder, QEMU_7, QEMU_10, Random, cells, list, padded, region, small_machine, value,
};
use crate::tree::{blob, parse};
use crate::{layout, placement};

const KEPT: (u64, u64) = (0x4000_0000, 0x4200_0000);

/// Edits a tree whose slice has `room_bytes` behind it, and cuts the result to its declared size.
fn edited(dtb: &[u8], room_bytes: usize) -> Result<Vec<u8>, EditError> {
    let machine = parse(dtb).unwrap();
    let mut copy = dtb.to_vec();
    copy.resize(dtb.len() + room_bytes, 0xaa);
    edit(&mut copy, &machine, region(KEPT.0, KEPT.1))?;
    let total_bytes = crate::tree::declared_bytes(&copy).unwrap();
    copy.truncate(total_bytes);
    Fdt::new(&copy).expect("another reader accepts it");
    Ok(copy)
}

/// Lists what differs between two trees: the entries that only the one or only the other has.
fn difference(old: &[u8], new: &[u8]) -> (Vec<String>, Vec<(String, Vec<u8>)>) {
    let (old, new) = (list(old), list(new));
    let gone = old.iter().filter(|entry| !new.contains(entry)).map(|entry| entry.0.clone());
    let added = new.iter().filter(|entry| !old.contains(entry)).cloned();
    (gone.collect(), added.collect())
}

fn entry(path: &str, value: &[u8]) -> (String, Vec<u8>) {
    (path.into(), value.to_vec())
}

#[test]
fn edits_the_tree_of_qemu_10_and_nothing_else_of_it() {
    let old = padded(QEMU_10, 0x10_0000);
    let new = edited(&old, 0).unwrap();
    assert_eq!(new.len(), 0x10_0000);
    let (gone, added) = difference(&old, &new);
    assert_eq!(
        gone,
        [
            "/memory@40000000:reg",
            "/timer:interrupts",
            "/chosen:bootargs",
            "/chosen/module@0x4a000000",
            "/chosen/module@0x4a000000:compatible",
            "/chosen/module@0x4a000000:reg",
            "/chosen/module@0x44000000",
            "/chosen/module@0x44000000:bootargs",
            "/chosen/module@0x44000000:compatible",
            "/chosen/module@0x44000000:reg",
        ]
    );
    assert_eq!(
        added,
        [
            entry("/memory@40000000:reg", &cells(&[0, 0x4200_0000, 0, 0x3e00_0000])),
            entry("/timer:interrupts", &cells(&[1, 13, 4, 1, 14, 4])),
            entry("/chosen:bootargs", b"console=ttyAMA0 quiet\0"),
            entry("/chosen:linux,initrd-start", &cells(&[0, 0x4a00_0000])),
            entry("/chosen:linux,initrd-end", &cells(&[0, 0x4a01_86a0])),
        ]
    );
}

#[test]
fn a_tree_with_modules_needs_no_slack() {
    let new = edited(QEMU_10, 0).unwrap();
    assert_eq!(new.len(), QEMU_10.len());
    assert_eq!(list(&new), list(&edited(&padded(QEMU_10, 0x10_0000), 0).unwrap()));
}

#[test]
fn a_ramdisk_in_short_cells_is_written_in_long_ones() {
    let old = padded(QEMU_7, 0x4000);
    let (gone, added) = difference(&old, &edited(&old, 0).unwrap());
    assert_eq!(gone.len(), 5);
    assert!(added.contains(&entry("/chosen:linux,initrd-start", &cells(&[0, 0x4800_0000]))));
    assert!(added.contains(&entry("/chosen:linux,initrd-end", &cells(&[0, 0x4801_86a0]))));
    assert!(added.contains(&entry("/chosen:bootargs", b"\0")));
}

/// A tree whose edit needs room: a ramdisk in short cells, and memory that falls apart.
fn growing_tree() -> Vec<u8> {
    let mut tree = small_machine();
    tree.begin("chosen").cells("linux,initrd-start", &[0x4800_0000]);
    tree.cells("linux,initrd-end", &[0x4800_1000]).end().end();
    tree.build()
}

#[test]
fn without_room_the_error_tells_how_much_is_missing() {
    let needed = (0..256).find(|room| edited(&growing_tree(), *room).is_ok()).unwrap();
    // Longer cells (2 * 4), bootargs (12 + 4) and its name (9), less two interrupts (24).
    assert_eq!(needed, 8 + 16 + 9 - 24);
    let error = edited(&growing_tree(), needed - 3).unwrap_err();
    assert_eq!(error, EditError::NoRoom { missing_bytes: 3 });
    assert!(std::format!("{error}").contains("3 bytes are missing: pad it"));
}

#[test]
fn grows_into_what_is_behind_the_declared_size() {
    let new = edited(&growing_tree(), 4096).unwrap();
    assert_eq!(new.len(), growing_tree().len() + 9);
}

/// Edits a small machine with two more memory nodes, keeping a range.
fn memory_without(kept: Region) -> [Option<Vec<u8>>; 2] {
    let mut tree = small_machine();
    tree.begin("memory@8").property("device_type", b"memory\0");
    tree.cells("reg", &[0, 0x8000_0000, 0, 0x1000_0000, 1, 0, 0, 0x1000_0000]).end();
    tree.begin("chosen").end().end();
    let mut dtb = padded(&tree.build(), 0x2000);
    let machine = parse(&dtb).unwrap();
    edit(&mut dtb, &machine, kept).unwrap();
    Fdt::new(&dtb).unwrap();
    ["/memory:reg", "/memory@8:reg"].map(|path| value(&dtb, path))
}

#[test]
fn memory_is_cut_wherever_the_hole_is() {
    let low = Some(cells(&[0, 0x4000_0000, 0, 0x4000_0000]));
    let high = Some(cells(&[0, 0x8000_0000, 0, 0x1000_0000, 1, 0, 0, 0x1000_0000]));
    assert_eq!(memory_without(region(0x2000_0000, 0x4000_0000)), [low.clone(), high.clone()]);
    let middle = cells(&[0, 0x4000_0000, 0, 0x1000_0000, 0, 0x6000_0000, 0, 0x2000_0000]);
    assert_eq!(memory_without(region(0x5000_0000, 0x6000_0000)), [Some(middle), high.clone()]);
    assert_eq!(memory_without(region(0x4000_0000, 0x8000_0000)), [None, high]);
    let across =
        [Some(cells(&[0, 0x4000_0000, 0, 0x3000_0000])), Some(cells(&[1, 0, 0, 0x1000_0000]))];
    assert_eq!(memory_without(region(0x7000_0000, 0x9000_0000)), across);
}

/// Edits a machine whose timer has names.
fn named_timer(names: &[u8], interrupts: &[u32]) -> Result<[Option<Vec<u8>>; 2], EditError> {
    timer_of(3, names, interrupts)
}

/// The same with so many cells for each interrupt.
fn timer_of(
    interrupt_cells: usize,
    names: &[u8],
    interrupts: &[u32],
) -> Result<[Option<Vec<u8>>; 2], EditError> {
    let mut tree = Builder::default();
    tree.begin("").property("compatible", b"linux,dummy-virt\0");
    tree.begin("timer").property("compatible", b"arm,armv8-timer\0");
    tree.property("interrupt-names", names).cells("interrupts", interrupts).end();
    let mut dtb = tree.end().build();
    let mut editor = Editor::new(&mut dtb).unwrap();
    hide_virtual_timer(&mut editor, interrupt_cells)?;
    Ok(["/timer:interrupt-names", "/timer:interrupts"].map(|path| value(&dtb, path)))
}

#[test]
fn a_timer_with_names_keeps_what_is_named_physical() {
    let all = [1, 11, 4, 1, 14, 8, 1, 13, 4];
    let kept = named_timer(b"virt\0phys\0sec-phys\0", &all).unwrap();
    assert_eq!(kept[0].as_deref(), Some(&b"sec-phys\0phys\0"[..]));
    assert_eq!(kept[1], Some(cells(&[1, 13, 4, 1, 14, 8])));
    let kept = named_timer(b"phys\0virt\0", &all).unwrap();
    assert_eq!(kept[0].as_deref(), Some(&b"phys\0"[..]));
    assert_eq!(kept[1], Some(cells(&[1, 11, 4])));
    let invalid = EditError::Tree(Error::Invalid("interrupts of the timer"));
    assert_eq!(named_timer(b"virt\0", &all), Err(invalid));
    assert_eq!(named_timer(b"sec-phys\0phys\0", &all[..3]), Err(invalid));
}

#[test]
fn a_timers_interrupts_may_be_as_long_as_the_binding_allows() {
    let all: Vec<u32> = (1..=24).collect();
    let kept = timer_of(8, b"virt\0phys\0sec-phys\0", &all).unwrap();
    assert_eq!(kept[1], Some([cells(&all[16..]), cells(&all[8..16])].concat()));
}

#[test]
fn fillers_and_the_order_of_nodes_do_not_matter() {
    let mut tree = Builder::default();
    tree.begin("").nop();
    tree.begin("chosen").nop().begin("module@1").nop();
    tree.property("compatible", b"multiboot,kernel\0").nop().property("bootargs", b"root=/dev/x\0");
    tree.cells("reg", &[0x4400_0000, 0x1000]).nop().end().nop().end();
    tree.begin("other")
        .begin("chosen")
        .property("bootargs", b"mine\0")
        .end()
        .end()
        .nop()
        .end()
        .nop();
    let mut dtb = padded(&tree.build(), 4096);
    let mut editor = Editor::new(&mut dtb).unwrap();
    edit_chosen(&mut editor, None).unwrap();
    assert_eq!(value(&dtb, "/chosen:bootargs").unwrap(), b"root=/dev/x\0");
    assert_eq!(value(&dtb, "/other/chosen:bootargs").unwrap(), b"mine\0");
    assert_eq!(value(&dtb, "/chosen/module@1"), None);
}

#[test]
fn a_command_line_longer_than_linux_takes_is_an_error() {
    let with_length = |length| {
        let mut tree = small_machine();
        tree.begin("chosen").begin("module").property("compatible", b"multiboot,kernel\0");
        tree.cells("reg", &[0x4400_0000, 0x1000]).property("bootargs", &std::vec![b'x'; length]);
        edited(&tree.end().end().end().build(), 0).map(|dtb| value(&dtb, "/chosen:bootargs"))
    };
    assert_eq!(with_length(2047).unwrap().unwrap().len(), 2048);
    assert!(matches!(with_length(2048), Err(EditError::Tree(Error::TooMany { .. }))));
}

/// Changes a few places of a tree, in the ways that hurt readers most.
fn mutate(dtb: &mut [u8], random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        // Half of all changes hit the header or a word of the structure block.
        let at = match random.below(4) {
            0 => random.below(40) & !3,
            1 => 64 + (random.below(7500) & !3),
            _ => random.below(dtb.len()),
        };
        let end = (at + 4).min(dtb.len());
        let room = &mut dtb[at..end];
        match random.below(4) {
            0 => room[0] ^= 1 << random.below(8),
            1 => room.fill(if random.below(2) == 0 { 0 } else { 0xff }),
            2 => room.copy_from_slice(&cells(&[random.below(16) as u32])[..room.len()]),
            _ => room.rotate_left(1),
        }
    }
}

/// Plans and checks as the firmware does. What comes out is not this test's matter, but that it does.
fn place(machine: &Machine) {
    let image = region(0x4020_0000, 0x4030_0000);
    if let Ok(kept) = layout::plan(&machine.memory, image, |memory| memory[0].bytes() >> 12) {
        let header = ImageHeader { text_offset: 0x8_0000, image_bytes: 0x2b2_0000 };
        let tree = region(0x4800_0000, 0x4810_0000);
        let _ = placement::check(machine, kept.region, tree, &header);
    }
}

/// How many mutated trees are tried.
const ROUNDS: usize = 6_000;

#[test]
fn mutated_trees_never_panic_and_what_is_accepted_stays_sound() {
    let (mut accepted, mut edits) = (0, 0);
    let random = &mut Random(0x5eed_0f0d_7b01);
    for round in 0..ROUNDS {
        let mut dtb = padded(if round % 2 == 0 { QEMU_10 } else { QEMU_7 }, QEMU_10.len() + 64);
        mutate(&mut dtb, random);
        if blob::check(&dtb).is_ok() {
            assert!(!list(&dtb).is_empty());
        }
        let Ok(machine) = parse(&dtb) else { continue };
        accepted += 1;
        let kept = region(KEPT.0, KEPT.1);
        place(&machine);
        dtb.resize(dtb.len() + 4096, 0x5a);
        if edit(&mut dtb, &machine, kept).is_ok() {
            edits += 1;
            if machine.memory.iter().all(|memory| kept.contains(*memory)) {
                // All its memory is kept; the placement check refuses that before any edit.
                continue;
            }
            let host = parse(&dtb).expect("an edited tree can be read");
            assert!(host.memory.iter().all(|memory| !memory.overlaps(kept)), "round {round}");
            assert_eq!((host.kernel, host.ramdisk), (None, machine.ramdisk));
        }
    }
    // Neither all nor nothing: the mutations reach every layer.
    std::println!("{accepted} trees accepted, {edits} edited, of {ROUNDS}");
    assert!((ROUNDS / 10..ROUNDS / 2).contains(&accepted) && edits > ROUNDS / 10);
}

/// Fills a tree to almost 2 MiB by what `fill` adds inside `/chosen`, over and over.
fn large_tree(fill: impl Fn(&mut Builder)) -> Vec<u8> {
    let mut tree = small_machine();
    tree.begin("chosen");
    while tree.bytes() < 0x1f_0000 {
        fill(&mut tree);
    }
    tree.end().end().build()
}

/// Adds nodes inside nodes, as deep as they may be.
fn add_comb(tree: &mut Builder) {
    for _ in 0..12 {
        tree.begin("x");
    }
    tree.cells("ranges", &[]).cells("reg", &[1]);
    for _ in 0..12 {
        tree.end();
    }
}

#[test]
fn the_largest_trees_take_time_in_proportion() {
    let name = "x".repeat(200);
    let add = |tree: &mut Builder, kind| match kind {
        0 => _ = tree.property("x", b""),
        1 => _ = tree.property(&name, b""),
        2 => _ = tree.begin("x").end(),
        3 => _ = tree.nop(),
        _ => add_comb(tree),
    };
    for kind in 0..5 {
        let mut dtb = large_tree(|tree| add(tree, kind));
        dtb.resize(dtb.len() + 4096, 0);
        let start = std::time::Instant::now();
        let machine = parse(&dtb).unwrap();
        edit(&mut dtb, &machine, region(KEPT.0, KEPT.1)).unwrap();
        // About a second without optimisation; minutes if a pass were quadratic.
        let seconds = start.elapsed().as_secs_f32();
        std::println!("kind {kind}: {seconds} s");
        assert!(seconds < 60.0);
    }
}

#[test]
fn debug_registers_of_cpus_are_not_the_hosts() {
    let mut tree = small_machine();
    for (name, kind, at, status) in [
        ("debug@850000", &b"arm,coresight-cpu-debug\0arm,primecell\0"[..], 0x85_0000, "okay"),
        ("debug@851000", b"arm,coresight-cpu-debug\0arm,primecell\0", 0x85_1000, "disabled"),
        ("cti@900000", b"arm,coresight-cti\0arm,primecell\0", 0x90_0000, "okay"),
        ("etm@a00000", b"arm,coresight-etm4x\0arm,primecell\0", 0xa0_0000, "okay"),
    ] {
        tree.begin(name).property("compatible", kind);
        tree.property("status", std::format!("{status}\0").as_bytes());
        tree.cells("reg", &[0, at, 0, 0x1000]).end();
    }
    let dtb = tree.begin("chosen").end().end().build();
    // Those that the tree disables answer all the same; neighbours are one range.
    let frames = parse(&dtb).unwrap().debug_frames;
    assert_eq!(*frames, [region(0x85_0000, 0x85_2000), region(0x90_0000, 0x90_1000)]);
    let new = edited(&dtb, 4096).unwrap();
    let nodes: Vec<_> = list(&new).into_iter().map(|entry| entry.0).collect();
    assert!(
        !nodes.iter().any(|path| path.contains("debug@") || path.contains("cti@")),
        "{nodes:?}"
    );
    assert!(nodes.iter().any(|path| path == "/etm@a00000"));
}
