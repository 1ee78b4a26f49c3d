//! Pages that are not the caller's to give, and places where nothing can be mapped.

use verdigris_abi::{Error, call, flags};

use super::{BEYOND, DEVICE, Scene};
use crate::firmware::{PageState, layout, page_state};
use crate::guest::DATA;
use crate::ktap::test_table;
use crate::pages::Pages;
use crate::raw::raw;
use crate::vm::{IPA_BITS, RW, Vm};

test_table! { "suite", 20: pages_not_owned, pages_shared_or_donated, blocks_misplaced, bad_entries_of_lists, failure_after_progress }

/// Calls that take a page, with `pa` as that page.
fn calls_on_page(scene: &Scene, pa: u64) -> Vec<(u32, Vec<u64>)> {
    let vm = scene.vm();
    let dirty = flags::UNMAP_DIRTY | flags::UNMAP_TO_BUFFER;
    vec![
        (call::MAP, vec![vm, DATA + 0x1_0000, pa, 1, RW, 0]),
        (call::MAP_LIST, vec![vm, DATA + 0x1_0000, 4, pa, 0]),
        (call::SET, vec![vm, DATA, pa, RW, 0]),
        (call::VM_DONATE, vec![vm, pa, 1]),
        (call::VM_CREATE, vec![IPA_BITS, pa]),
        (call::VCPU_CREATE, vec![vm, 9, pa]),
        (call::AGE, vec![vm, DATA, 4, flags::AGE_TO_BUFFER, pa]),
        (call::HARVEST, vec![vm, DATA, 4, flags::AGE_TO_BUFFER, pa]),
        (call::UNMAP, vec![vm, DATA, 4, dirty, 0, pa]),
        (call::INVALIDATE_BEGIN, vec![vm, DATA, 4, dirty, 0, pa]),
        (call::WORKING_SET_CREATE, vec![vm, DATA + (4 << 20), 64, pa]),
        (call::WORKING_SET_MAP, vec![vm, DATA, 4, pa]),
    ]
}

fn pages_not_owned() {
    let scene = Scene::new();
    for pa in [scene.firmware & !0xffff, scene.firmware & !0xffff | 0x1_0000, DEVICE, 0, BEYOND] {
        for (function, arguments) in calls_on_page(&scene, pa) {
            scene.refuses(function, &arguments, &[Error::NotOwner]);
        }
    }
    for pa in [1 << 52, !0xfff, 1 << 63] {
        for (function, arguments) in calls_on_page(&scene, pa) {
            scene.refuses(function, &arguments, &[Error::NotOwner, Error::Invalid]);
        }
    }
    for pa in [scene.spare.address(0) + 1, scene.spare.address(0) + 0x800] {
        for (function, arguments) in calls_on_page(&scene, pa) {
            scene.refuses(function, &arguments, &[Error::Invalid]);
        }
        assert_eq!(raw().value(call::PAGE_STATE, &[pa]), Err(Error::Invalid));
    }
}

fn pages_shared_or_donated() {
    let scene = Scene::new();
    let (order, vcpu_order) = layout(IPA_BITS).expect("a good size");
    let region = Pages::chunks(order.max(vcpu_order), 1);
    scene.guest.map(DATA + 0x10_0000, region.address(0), 1, RW, 0).expect("a good page");
    let (vm, shared) = (scene.vm(), region.address(0));
    scene.refuses(call::VM_DONATE, &[vm, shared, 1], &[Error::Busy]);
    scene.refuses(call::VM_CREATE, &[IPA_BITS, shared], &[Error::Busy]);
    scene.refuses(call::VCPU_CREATE, &[vm, 9, shared], &[Error::Busy]);
    let create = [vm, DATA + (4 << 20), 64, shared];
    scene.refuses(call::WORKING_SET_CREATE, &create, &[Error::Busy]);
    let other = Vm::new();
    let tables = Pages::chunks(order.max(vcpu_order).max(3), 1);
    other.donate_range(tables.address(0), 8).expect("good pages");
    assert_eq!(page_state(tables.address(0)).owner, flags::OWNER_VM);
    assert_eq!(page_state(tables.address(0)).vm, other.handle());
    for (function, arguments) in calls_on_page(&scene, tables.address(0)) {
        scene.refuses(function, &arguments, &[Error::NotOwner]);
    }
    other.keep(tables);
}

fn blocks_misplaced() {
    let scene = Scene::new();
    let block = Pages::chunks(9, 1);
    let (vm, pa) = (scene.vm(), block.address(0));
    let (large, huge) = (RW | flags::MAP_BLOCK_2M, RW | flags::MAP_BLOCK_1G);
    let at = DATA + 0x20_0000;
    for (ipa, pa, count, flags) in [
        (at + 0x1000, pa, 512, large),
        (at, pa + 0x1000, 512, large),
        (at, pa, 511, large),
        (at, pa, 1, large),
        (at, pa, 513, large),
        (at, pa, 1 << 18, huge),
        (DATA, pa & !0x3fff_ffff, 512, huge),
    ] {
        scene.refuses(call::MAP, &[vm, ipa, pa, count, flags, 0], &[Error::Invalid]);
    }
    scene.refuses(call::SET, &[vm, at + 0x1000, pa, large, 0], &[Error::Invalid]);
    scene.refuses(call::SET, &[vm, at, pa + 0x1000, large, 0], &[Error::Invalid]);
    // 2 MiB of DATA have pages in them: a block can neither replace nor cover them.
    scene.refuses(call::MAP, &[vm, DATA, pa, 512, large, 0], &[Error::Exists]);
    scene.refuses(call::SET, &[vm, DATA, pa, large, 0], &[Error::Exists]);
    assert_eq!(page_state(pa), PageState::FREE);
}

/// An error of the list itself comes before any page.
#[track_caller]
fn list_is_refused(scene: &Scene, list: &Pages, count: u64, error: Error) {
    let arguments = [scene.vm(), DATA + 0x1_0000, count, list.address(0), 0];
    scene.refuses(call::MAP_LIST, &arguments, &[error]);
}

/// One bad entry, wherever it stands, and nothing of the list is mapped.
fn bad_entries_of_lists() {
    let scene = Scene::new();
    let (list, page) = (Pages::single(1), scene.spare.address(0));
    let clean_but_never_written = flags::PROT_READ | flags::MAP_CLEAN;
    let flag_sets =
        [0, flags::PROT_WRITE, flags::PROT_EXEC, flags::MAP_OLD, clean_but_never_written];
    let unknown = [4, 5].into_iter().chain(7..12).chain(48..64).map(|bit| RW | 1 << bit);
    for bad in flag_sets.into_iter().chain(unknown) {
        for place in [0, 1, 69, 511] {
            (0..512).for_each(|index| list.write(0, index, page | RW));
            list.write(0, place, page | bad);
            list_is_refused(&scene, &list, 512, Error::Invalid);
            // Behind the end nobody looks.
            if place == 511 {
                (0..511).for_each(|index| list.write(0, index, 0));
                let arguments = [scene.vm(), DATA + 0x1_0000, 511, list.address(0), 0];
                assert!(raw().value(call::MAP_LIST, &arguments).is_ok());
            }
        }
    }
    list.write(0, 0, DEVICE | RW);
    list_is_refused(&scene, &list, 1, Error::NotOwner);
    for address in [scene.firmware, DEVICE] {
        let arguments = [scene.vm(), DATA + 0x1_0000, 1, address & !0xfff, 0];
        let reply = raw().call(call::MAP_LIST, &arguments);
        assert_eq!((reply.status(), reply.0[1]), (Err(Error::NotOwner), 0), "no progress");
    }
}

/// A range whose second page can't be mapped: the first is, and the error comes with that progress.
fn failure_after_progress() {
    let scene = Scene::new();
    let (vm, chunk) = (scene.vm(), Pages::chunks(1, 1));
    let other = Vm::new();
    other.donate_range(chunk.address(1), 1).expect("a good page");
    let (ipa, pa) = (DATA + 0x1_0000, chunk.address(0));
    let reply = raw().call(call::MAP, &[vm, ipa, pa, 2, RW, 0]);
    assert_eq!((reply.status(), reply.0[1]), (Err(Error::NotOwner), 1));
    assert_eq!(page_state(pa).shares, 1, "the page that was good");
    scene.refuses(call::MAP, &[vm, ipa + 0x1000, pa + 0x1000, 1, RW, 0], &[Error::NotOwner]);
    other.keep(chunk);
}
