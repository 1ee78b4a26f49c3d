//! Pages: what the guest sees of them, and what it may do with them.

use verdigris_abi::{Error, Stat, flags};
use verdigris_guest::{pattern, program, touch};

use super::support::bytes;
use crate::firmware::{PageState, page_state};
use crate::guest::{DATA, Guest, NOWHERE};
use crate::ktap::test_table;
use crate::pages::Pages;
use crate::vm::{IPA_BITS, RO, RW, RWX};

test_table! { "suite", 20:
    map_unmap_remap, content_of_many_pages, permissions_are_kept, mapping_again, map_over_another_page,
    two_mappings_of_a_page, ends_of_the_address_space, unmap_of_nothing, fault_describes_itself,
}

fn map_unmap_remap() {
    let guest = Guest::new(1);
    let (vcpu, pages) = (guest.cpu(0), Pages::single(2));
    pages.write(0, 1, 0x1111);
    pages.write(1, 1, 0x2222);
    guest.map(DATA, pages.address(0), 1, RW, 0).expect("a fresh page");
    assert_eq!(vcpu.call(program::READ, &[DATA + 8])[0], 0x1111);
    vcpu.call(program::WRITE, &[DATA + 16, 0x3333]);
    assert_eq!(pages.read(0, 2), 0x3333);
    guest.unmap(DATA, 1).expect("a mapping");
    assert_eq!(page_state(pages.address(0)), PageState::FREE);
    let fault = vcpu.call_to_exit(program::READ, &[DATA + 8]).fault();
    assert_eq!((fault.page(), fault.flags & flags::FAULT_PERMISSION), (DATA, 0));
    guest.map(DATA, pages.address(1), 1, RW, fault.sequence).expect("the number of the fault");
    let results = vcpu.run().done().expect("the read is repeated");
    assert_eq!(results[0], 0x2222, "not the page that was mapped last");
    assert_eq!(pages.read(0, 2), 0x3333, "the old page changed");
}

fn content_of_many_pages() {
    const PAGES: usize = 600;
    let guest = Guest::new(1);
    let data = guest.with_data(PAGES, RW);
    guest.cpu(0).call(program::FILL, &[DATA, bytes(PAGES), 7]);
    for page in 0..PAGES {
        for word in [0, 1, 255, 511] {
            let address = DATA + bytes(page) + word as u64 * 8;
            assert_eq!(data.read(page, word), pattern(address, 7), "page {page}, word {word}");
        }
    }
    assert_eq!(guest.cpu(0).call(program::CHECK, &[DATA, bytes(PAGES), 7])[..2], [0, 0]);
    data.write(17, 3, 0);
    let wrong = guest.cpu(0).call(program::CHECK, &[DATA, bytes(PAGES), 7]);
    assert_eq!(wrong[..2], [1, DATA + bytes(17) + 24], "the check can't fail");
}

fn permissions_are_kept() {
    let guest = Guest::new(1);
    let (vcpu, pages) = (guest.cpu(0), Pages::single(1));
    pages.write(0, 0, touch::RET.into());
    guest.map(DATA, pages.address(0), 1, RO, 0).expect("a fresh page");
    assert_eq!(vcpu.call(program::READ, &[DATA])[0], touch::RET.into());
    let fault = vcpu.call_to_exit(program::WRITE, &[DATA + 8, 5]).fault();
    assert!(fault.is(flags::FAULT_WRITE) && fault.is(flags::FAULT_PERMISSION), "{fault:x?}");
    assert_eq!(pages.read(0, 1), 0, "a read-only page was written");
    vcpu.run_with(flags::RUN_SKIP, 0);
    let fault = vcpu.call_to_exit(program::TOUCH, &[DATA, 1, 1, touch::EXECUTE, 0]).fault();
    assert!(fault.is(flags::FAULT_EXEC) && fault.is(flags::FAULT_PERMISSION), "{fault:x?}");
    guest.map(DATA, pages.address(0), 1, RO | flags::PROT_EXEC, 0).expect("more permission");
    assert!(vcpu.run().done().is_some(), "the fetch is repeated");
    guest.map(DATA, pages.address(0), 1, RWX, 0).expect("more permission");
    vcpu.call(program::WRITE, &[DATA + 8, 5]);
    assert_eq!(pages.read(0, 1), 5);
}

fn mapping_again() {
    let guest = Guest::new(1);
    let data = guest.with_data(1, RW);
    let before = guest.statistics();
    for flags in [RW, RO] {
        guest.map(DATA, data.address(0), 1, flags, 0).expect("the same page, no more permission");
        assert_eq!(page_state(data.address(0)).shares, 1);
    }
    assert_eq!(guest.statistics().since(&before, Stat::LeavesMapped), 0);
    guest.cpu(0).call(program::WRITE, &[DATA, 9]);
    assert_eq!(data.read(0, 0), 9, "a second map took a permission away");
}

fn map_over_another_page() {
    let guest = Guest::new(1);
    let (data, other) = (guest.with_data(1, RW), Pages::single(1));
    data.write(0, 0, 4);
    assert_eq!(guest.map(DATA, other.address(0), 1, RW, 0), Err(Error::Exists));
    assert_eq!(page_state(other.address(0)), PageState::FREE);
    assert_eq!(guest.cpu(0).call(program::READ, &[DATA])[0], 4);
}

fn two_mappings_of_a_page() {
    let (first, second) = (Guest::new(1), Guest::new(1));
    let page = Pages::single(1);
    let address = page.address(0);
    first.map(DATA, address, 1, RW, 0).expect("a fresh page");
    first.map(DATA + 0x1000, address, 1, RO, 0).expect("a page can be mapped twice");
    second.map(DATA, address, 1, RW, 0).expect("also in another VM");
    assert_eq!(page_state(address).shares, 3);
    first.cpu(0).call(program::WRITE, &[DATA, 77]);
    assert_eq!(first.cpu(0).call(program::READ, &[DATA + 0x1000])[0], 77);
    assert_eq!(second.cpu(0).call(program::READ, &[DATA])[0], 77);
    first.unmap(DATA, 2).expect("mappings");
    assert_eq!(page_state(address).shares, 1);
    assert_eq!(second.cpu(0).call(program::READ, &[DATA])[0], 77, "the other VM lost it");
    second.unmap(DATA, 1).expect("a mapping");
    assert_eq!(page_state(address), PageState::FREE);
}

fn ends_of_the_address_space() {
    let guest = Guest::new(1);
    let pages = Pages::single(2);
    let last = (1 << IPA_BITS) - 0x1000;
    for (index, ipa) in [0, last].into_iter().enumerate() {
        pages.write(index, 0, 0x100 + index as u64);
        guest.map(ipa, pages.address(index), 1, RW, 0).expect("inside the address space");
        assert_eq!(guest.cpu(0).call(program::READ, &[ipa])[0], 0x100 + index as u64);
    }
    // Past the end, stage 2 has an address-size or translation fault of level 0 or of the first level.
    let exit = guest.cpu(0).call_to_exit(program::READ, &[1 << IPA_BITS]);
    assert!(exit.done().is_none(), "a read past the end succeeded");
}

fn unmap_of_nothing() {
    let guest = Guest::new(1);
    let before = guest.statistics();
    guest.unmap(NOWHERE & !0xfff_ffff, 1 << 18).expect("nothing to unmap is no error");
    assert_eq!(guest.statistics().since(&before, Stat::LeavesUnmapped), 0);
}

fn fault_describes_itself() {
    let guest = Guest::new(1);
    let vcpu = guest.cpu(0);
    let at = NOWHERE + 0x2348;
    let read = vcpu.call_to_exit(program::READ, &[at]).fault();
    assert_eq!(
        (read.page(), read.virtual_address, read.flags & 7),
        (at & !0xfff, at, 0),
        "{read:x?}"
    );
    // EC 0x24, a data abort from a lower EL; DFSC 0b0001LL, a translation fault (Arm ARM, D24.2.41).
    assert_eq!((read.syndrome >> 26, read.syndrome >> 2 & 0xf), (0x24, 1), "{read:x?}");
    vcpu.run_with(flags::RUN_SKIP, 0);
    let write = vcpu.call_to_exit(program::WRITE, &[at, 0xabc]).fault();
    assert!(write.is(flags::FAULT_WRITE) && write.is(flags::FAULT_MMIO_VALID), "{write:x?}");
    assert_eq!(write.value, 0xabc);
    vcpu.run_with(flags::RUN_SKIP, 0);
    let fetch = vcpu.call_to_exit(program::TOUCH, &[at, 1, 1, touch::EXECUTE, 0]).fault();
    assert!(fetch.is(flags::FAULT_EXEC) && !fetch.is(flags::FAULT_WRITE), "{fetch:x?}");
    assert_eq!(fetch.syndrome >> 26, 0x20, "{fetch:x?}");
}
