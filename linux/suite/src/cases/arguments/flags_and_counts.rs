//! Flags that don't exist, and counts that no call takes.

use verdigris_abi::{Error, call, flags};

use super::Scene;
use crate::firmware::layout;
use crate::guest::DATA;
use crate::ktap::test_table;
use crate::pages::Pages;
use crate::vm::{IPA_BITS, RW};

test_table! { "suite", 20: flags_of_calls, counts_of_calls }

fn flags_of_calls() {
    let scene = Scene::new();
    let (vm, spare) = (scene.vm(), scene.spare.address(0));
    let ipa = DATA + 0x1_0000;
    let both = flags::MAP_BLOCK_2M | flags::MAP_BLOCK_1G | RW;
    let clean_but_never_written = flags::PROT_READ | flags::MAP_CLEAN;
    for bad in [
        0,
        flags::PROT_WRITE,
        flags::PROT_EXEC,
        clean_but_never_written,
        RW | 1 << 7,
        RW | 1 << 63,
        both,
        u64::MAX,
    ] {
        scene.refuses(call::MAP, &[vm, ipa, spare, 1, bad, 0], &[Error::Invalid]);
        scene.refuses(call::SET, &[vm, DATA, spare, bad, 0], &[Error::Invalid]);
    }
    scene.refuses(call::SET, &[vm, DATA, spare, RW | flags::MAP_OLD, 0], &[Error::Invalid]);
    for bad in [3, 1 << 3, 1 << 63, u64::MAX] {
        scene.refuses(call::AGE, &[vm, DATA, 1, bad, spare], &[Error::Invalid]);
    }
    for bad in [1, 2, 3, 1 << 3, u64::MAX] {
        scene.refuses(call::TEST_AGE, &[vm, DATA, 1, bad, spare], &[Error::Invalid]);
        scene.refuses(call::HARVEST, &[vm, DATA, 1, bad, spare], &[Error::Invalid]);
    }
    scene.refuses(call::SET, &[vm, DATA, spare, RW | flags::MAP_CLEAN, 0], &[Error::Invalid]);
    // A buffer for dirty bits that nobody asked for.
    for bad in [4, 5, 1 << 3, 1 << 63] {
        scene.refuses(call::INVALIDATE_BEGIN, &[vm, DATA, 1, bad, 0, spare], &[Error::Invalid]);
    }
    for bad in [1, 4, 1 << 3, 1 << 63] {
        scene.refuses(call::UNMAP, &[vm, DATA, 1, bad, 0, spare], &[Error::Invalid]);
        scene.refuses(call::INVALIDATE_END, &[vm, DATA, 1, 0, bad, spare], &[Error::Invalid]);
    }
    scene.refuses(call::INVALIDATE_BEGIN, &[vm, DATA, 1, 1, 0], &[Error::NoEntry]);
    scene.refuses(call::INVALIDATE_END, &[vm, DATA, 1, 1], &[Error::NoEntry]);
}

fn counts_of_calls() {
    let scene = Scene::new();
    let (vm, spare) = (scene.vm(), scene.spare.address(0));
    let buffer = flags::AGE_TO_BUFFER;
    for function in [call::AGE, call::TEST_AGE, call::HARVEST] {
        scene.refuses(function, &[vm, DATA, 1025, 0, 0], &[Error::Invalid]);
        scene.refuses(function, &[vm, DATA, 32769, buffer, spare], &[Error::Invalid]);
    }
    for bad in [0, 513, 32768, u64::MAX] {
        scene.refuses(call::MAP_LIST, &[vm, DATA + 0x1_0000, bad, spare, 0], &[Error::Invalid]);
    }
    for bad in [0, 17, u64::MAX] {
        scene.refuses(call::VM_RECLAIM, &[vm, bad], &[Error::Invalid]);
    }
    scene.refuses(call::VM_DONATE, &[vm, spare, 0], &[Error::Invalid]);
    scene.refuses(call::VM_DONATE, &[vm, spare, 1 << 52], &[Error::Invalid, Error::NotOwner]);
    for bits in [0, 31, 49, 64, u64::MAX] {
        scene.refuses(call::VM_CREATE, &[bits, spare], &[Error::Invalid]);
    }
    let (order, _) = layout(IPA_BITS).expect("a good size");
    if order > 0 {
        let region = Pages::chunks(order + 1, 1);
        let askew = region.address(0) + 0x1000;
        scene.refuses(call::VM_CREATE, &[IPA_BITS, askew], &[Error::Invalid]);
    }
}
