//! Decoding, with registers and numbers spelled out from docs/abi.md.

use super::*;

fn registers(values: &[u64]) -> Registers {
    let mut x = [0; 18];
    x[..values.len()].copy_from_slice(values);
    x
}

fn refused(values: &[u64]) -> Error {
    Call::decode(&registers(values)).expect_err("the call is malformed")
}

#[test]
fn decodes_a_map_of_pages() {
    let x = registers(&[0xc600_0030, 3, 0x8000_0000, 0x4_2000, 2, 0b1011, 77]);
    let Ok(Call::Map { vm, range, target, flags, sequence }) = Call::decode(&x) else {
        panic!("not a map: {:?}", Call::decode(&x))
    };
    assert_eq!((vm.0, range.start().0, range.page_count()), (3, 0x8000_0000, 2));
    assert_eq!((target.0, sequence), (0x4_2000, 77));
    assert!(flags.write && !flags.execute && flags.old);
    assert_eq!(flags.size, LeafSize::Page);
}

#[test]
fn ignores_the_upper_half_of_the_identifier() {
    assert_eq!(Call::decode(&registers(&[0xffff_ffff_c600_0000])), Ok(Call::Features));
}

#[test]
fn refuses_blocks_that_are_unaligned_on_either_side_or_cut() {
    assert_eq!(refused(&[0xc600_0030, 1, 0x20_1000, 0x20_0000, 512, 0x11]), Error::Invalid);
    assert_eq!(refused(&[0xc600_0030, 1, 0x20_0000, 0x20_1000, 512, 0x11]), Error::Invalid);
    assert_eq!(refused(&[0xc600_0030, 1, 0x20_0000, 0x20_0000, 511, 0x11]), Error::Invalid);
    assert_eq!(refused(&[0xc600_0030, 1, 0, 0, 512, 0x31]), Error::Invalid);
    assert!(Call::decode(&registers(&[0xc600_0030, 1, 0x20_0000, 0x40_0000, 512, 0x11])).is_ok());
}

#[test]
fn refuses_flags_that_do_not_exist_and_maps_without_read() {
    assert_eq!(refused(&[0xc600_0030, 1, 0, 0, 1, 0b10]), Error::Invalid);
    assert_eq!(refused(&[0xc600_0030, 1, 0, 0, 1, 0x41]), Error::Invalid);
    assert_eq!(refused(&[0xc600_0036, 1, 0, 0, 0b1001]), Error::Invalid);
    assert_eq!(refused(&[0xc600_0034, 1, 0, 1, 3]), Error::Invalid);
    assert_eq!(refused(&[0xc600_0035, 1, 0, 1, 1]), Error::Invalid);
    assert_eq!(refused(&[0xc600_0021, 1, 0, 3]), Error::Invalid);
}

#[test]
fn refuses_ranges_that_are_empty_unaligned_or_overflow() {
    for start in [1u64, 0xfff, 1 << 52, 0xffff_ffff_ffff_f000] {
        assert_eq!(refused(&[0xc600_0031, 1, start, 1]), Error::Invalid);
    }
    for count in [0, (1 << 40) + 1, u64::MAX, 1 << 52, 1 << 63] {
        assert_eq!(refused(&[0xc600_0031, 1, 0, count]), Error::Invalid);
    }
    assert_eq!(refused(&[0xc600_0031, 1, (1 << 52) - 0x1000, 2]), Error::Invalid);
    assert!(Call::decode(&registers(&[0xc600_0031, 1, (1 << 52) - 0x1000, 1])).is_ok());
}

#[test]
fn limits_age_bits_to_what_the_sink_holds() {
    assert!(Call::decode(&registers(&[0xc600_0034, 1, 0, 1024, 0])).is_ok());
    assert_eq!(refused(&[0xc600_0034, 1, 0, 1025, 0]), Error::Invalid);
    assert!(Call::decode(&registers(&[0xc600_0034, 1, 0, 32768, 4, 0x1000])).is_ok());
    assert_eq!(refused(&[0xc600_0034, 1, 0, 32769, 4, 0x1000]), Error::Invalid);
    assert_eq!(refused(&[0xc600_0034, 1, 0, 1, 4, 0x1001]), Error::Invalid);
}

#[test]
fn names_no_vm_and_no_vcpu_outside_the_limits() {
    for vm in [0, 257, u64::MAX] {
        assert_eq!(refused(&[0xc600_0011, vm]), Error::NoEntry);
    }
    assert_eq!(refused(&[0xc600_0021, 1, 64]), Error::NoEntry);
    assert_eq!(refused(&[0xc600_0020, 1, 64, 0x1000]), Error::Invalid);
    assert_eq!(refused(&[0xc600_0003, 1]), Error::Invalid);
    assert_eq!(refused(&[0xc600_0013, 1, 0]), Error::Invalid);
    assert_eq!(refused(&[0xc600_0013, 1, 17]), Error::Invalid);
}

#[test]
fn takes_progress_of_a_begin_only_when_it_is_resumed() {
    assert_eq!(refused(&[0xc600_0032, 1, 0, 8, 0, 1]), Error::Invalid);
    assert!(Call::decode(&registers(&[0xc600_0032, 1, 0, 8, 1, 8])).is_ok());
    assert_eq!(refused(&[0xc600_0032, 1, 0, 8, 1, 9]), Error::Invalid);
    assert_eq!(refused(&[0xc600_0033, 1, 0, 8, 9]), Error::Invalid);
}

#[test]
fn answers_unknown_numbers_as_not_supported() {
    for number in [0xc600_0006, 0xc600_0038, 0x8600_0000, 0xc600_ffff] {
        assert_eq!(refused(&[number, 1, 0, 1]), Error::NotSupported);
    }
}
