//! Calls that change the shape of tables, and working sets: sizes, places and regions that can't be.

use verdigris_abi::{Error, WORKING_SET_MAP_PAGES, call, flags};

use super::Scene;
use crate::guest::DATA;
use crate::ktap::test_table;
use crate::pages::Pages;
use crate::raw::raw;
use crate::vm::RW;

test_table! { "suite", 20: shapes_that_no_leaf_has, working_sets_misplaced, final_bits_without_a_place }

const LARGE: u64 = flags::MAP_BLOCK_2M;
const HUGE: u64 = flags::MAP_BLOCK_1G;

fn shapes_that_no_leaf_has() {
    let scene = Scene::new();
    let vm = scene.vm();
    for bad in [HUGE, LARGE | HUGE, RW, LARGE | RW, 1 << 3, 1 << 63, u64::MAX] {
        scene.refuses(call::SPLIT, &[vm, DATA, 1, bad], &[Error::Invalid]);
    }
    for bad in [0, LARGE | HUGE, RW, LARGE | RW, 1 << 63, u64::MAX] {
        scene.refuses(call::COLLAPSE, &[vm, DATA, 512, bad], &[Error::Invalid]);
    }
    for (ipa, count, size) in [
        (DATA + 0x1000, 512, LARGE),
        (DATA, 1, LARGE),
        (DATA, 511, LARGE),
        (DATA, 513, LARGE),
        (DATA, 512, HUGE),
        (DATA + (2 << 20), 1 << 18, HUGE),
    ] {
        scene.refuses(call::COLLAPSE, &[vm, ipa, count, size], &[Error::Invalid]);
    }
    // There are pages, but not all of a block.
    scene.refuses(call::COLLAPSE, &[vm, DATA, 512, LARGE], &[Error::Exists]);
}

fn working_sets_misplaced() {
    let scene = Scene::new();
    let (vm, region) = (scene.vm(), scene.spare.address(0));
    let create = |ipa, count, region, error| {
        scene.refuses(call::WORKING_SET_CREATE, &[vm, ipa, count, region], &[error]);
    };
    let far = DATA + (4 << 20);
    create(far, 64, region + 0x800, Error::Invalid);
    create(far, 0, region, Error::Invalid);
    for (ipa, count) in [(DATA, 8), (DATA, 1), (DATA + 0x7000, 1), (DATA - 0x1000, 2)] {
        create(ipa, count, region, Error::Exists);
        let reply = raw().call(call::WORKING_SET_CREATE, &[vm, ipa, count, region]);
        assert_eq!(reply.0[1], 0, "pages done, and not the handle");
    }
    for function in [call::WORKING_SET_HISTOGRAM, call::WORKING_SET_MAP] {
        for (ipa, count) in [(far, 1), (DATA, 9), (DATA - 0x1000, 2), (DATA + 0x8000, 1)] {
            scene.refuses(function, &[vm, ipa, count, region], &[Error::NoEntry]);
        }
    }
    let most = WORKING_SET_MAP_PAGES;
    scene.refuses(call::WORKING_SET_MAP, &[vm, DATA, most + 1, region], &[Error::Invalid]);
    for ipa in [DATA + 0x1000, far, DATA - 0x1000] {
        scene.refuses(call::WORKING_SET_DESTROY, &[vm, ipa], &[Error::NoEntry]);
    }
}

/// The buffer of an end without a mark is not touched, and neither is that of a begin that resumes none.
fn final_bits_without_a_place() {
    let scene = Scene::new();
    let (vm, buffer) = (scene.vm(), Pages::single(1));
    buffer.write(0, 0, 0x7777);
    let dirty = flags::UNMAP_DIRTY | flags::UNMAP_TO_BUFFER;
    let page = buffer.address(0);
    scene.refuses(call::INVALIDATE_END, &[vm, DATA, 4, 0, dirty, page], &[Error::NoEntry]);
    let resumed = dirty | flags::BEGIN_RESUME;
    scene.refuses(call::INVALIDATE_BEGIN, &[vm, DATA, 4, resumed, 0, page], &[Error::NoEntry]);
    assert_eq!(buffer.read(0, 0), 0x7777, "a refused call wrote bits");
    let none = raw().call(call::UNMAP, &[vm, DATA + (4 << 20), 4, dirty, 0, page]);
    assert_eq!((none.status(), none.0[1], buffer.read(0, 0)), (Ok(()), 4, 0));
}
