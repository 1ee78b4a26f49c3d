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
    assert!(flags.write && !flags.execute && flags.old && !flags.clean);
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
    for number in [0xc600_0008, 0xc600_0026, 0xc600_003e, 0xc600_0044, 0x8600_0000, 0xc600_ffff] {
        assert_eq!(refused(&[number, 1, 0, 1]), Error::NotSupported);
    }
}

/// A well-formed call on VM 1, of which one register is then changed.
fn changed(values: &[u64], register: usize, value: u64) -> Status<Call> {
    let mut x = registers(values);
    x[register] = value;
    Call::decode(&x)
}

#[test]
fn knows_every_bit_of_every_flag_register() {
    // The call, the register with its flags, and the bits that can be added one at a time.
    for (values, register, known) in [
        (&[0xc600_0030, 1, 0, 0, 512, 0x3][..], 5, 0b101_1111_u64),
        (&[0xc600_0031, 1, 0, 1], 4, 0b10),
        (&[0xc600_0032, 1, 0, 1], 4, 0b11),
        (&[0xc600_0033, 1, 0, 1], 5, 0b10),
        (&[0xc600_0034, 1, 0, 1], 4, 0b111),
        (&[0xc600_0035, 1, 0, 1], 4, 0b100),
        (&[0xc600_0036, 1, 0, 0, 0x1], 4, 0b11_0111),
        (&[0xc600_0038, 1, 0, 1], 4, 0b100),
        (&[0xc600_0039, 1, 0, 1], 4, 1 << 4),
        (&[0xc600_003a, 1, 0, 512, 1 << 4], 4, 1 << 4),
    ] {
        for bit in 0..64 {
            let result = changed(values, register, values.get(register).unwrap_or(&0) | (1 << bit));
            let name = std::format!("{:#x}, bit {bit}", values[0]);
            assert_eq!(result.is_ok(), known >> bit & 1 == 1, "{name}: {result:?}");
            assert!(result.is_ok() || result == Err(Error::Invalid), "{name}: {result:?}");
        }
    }
}

#[test]
fn logs_only_what_may_be_written() {
    let map = |flags| changed(&[0xc600_0030, 1, 0, 0, 1], 5, flags);
    assert!(matches!(map(0x43), Ok(Call::Map { flags, .. }) if flags.clean && flags.write));
    assert_eq!(map(0x41), Err(Error::Invalid));
    assert_eq!(map(0x45), Err(Error::Invalid));
    // SET keeps what the leaf had.
    assert_eq!(refused(&[0xc600_0036, 1, 0, 0, 0x43]), Error::Invalid);
}

#[test]
fn decodes_where_final_dirty_bits_go() {
    // The register of the flags, and their value besides.
    for (values, register) in [
        (&[0xc600_0031, 1, 0x1000, 40000][..], 4),
        (&[0xc600_0032, 1, 0x1000, 40000], 4),
        (&[0xc600_0033, 1, 0x1000, 40000], 5),
    ] {
        let sink = |flags, buffer| {
            let mut x = registers(values);
            (x[register], x[6]) = (flags, buffer);
            Call::decode(&x).map(|call| match call {
                Call::Unmap { dirty, .. }
                | Call::InvalidateBegin { dirty, .. }
                | Call::InvalidateEnd { dirty, .. } => dirty,
                other => panic!("{other:?}"),
            })
        };
        assert_eq!(sink(0, 0x1001), Ok(None));
        assert_eq!(sink(2, 0x1001), Ok(Some(BitSink::Registers)));
        assert_eq!(sink(6, 0x1000), Ok(Some(BitSink::Buffer(Pa(0x1000)))));
        // A buffer that is no page, and one for nothing.
        assert_eq!(sink(6, 0x1001), Err(Error::Invalid));
        assert_eq!(sink(4, 0x1000), Err(Error::Invalid));
    }
}

#[test]
fn resumes_with_and_without_dirty_bits() {
    let begin = |flags, done| Call::decode(&registers(&[0xc600_0032, 1, 0, 8, flags, done]));
    let resumed = |call| matches!(call, Ok(Call::InvalidateBegin { resume: true, done: 3, .. }));
    assert!(resumed(begin(1, 3)) && resumed(begin(3, 3)));
    assert_eq!(begin(2, 3), Err(Error::Invalid));
    assert!(matches!(begin(2, 0), Ok(Call::InvalidateBegin { resume: false, done: 0, .. })));
}

#[test]
fn harvests_as_much_as_it_ages() {
    let harvest = |pages, flags| Call::decode(&registers(&[0xc600_0038, 1, 0, pages, flags]));
    assert!(matches!(harvest(1024, 0), Ok(Call::Harvest { sink: BitSink::Registers, .. })));
    assert_eq!(harvest(1025, 0), Err(Error::Invalid));
    assert!(matches!(harvest(32768, 4), Ok(Call::Harvest { sink: BitSink::Buffer(Pa(0)), .. })));
    assert_eq!(harvest(32769, 4), Err(Error::Invalid));
    assert_eq!(harvest(1, 1), Err(Error::Invalid));
}

#[test]
fn splits_any_range_and_collapses_whole_blocks() {
    let call = |number, ipa, pages, size| {
        Call::decode(&registers(&[number, 1, ipa, pages, size])).map(|call| match call {
            Call::Split { size, .. } | Call::Collapse { size, .. } => size,
            other => panic!("{other:?}"),
        })
    };
    let (split, collapse) = (0xc600_0039, 0xc600_003a);
    assert_eq!(call(split, 0x1000, 3, 0), Ok(LeafSize::Page));
    assert_eq!(call(split, 0x1000, 3, 0x10), Ok(LeafSize::Block2M));
    assert_eq!(call(split, 0, 1 << 18, 0x20), Err(Error::Invalid));
    assert_eq!(call(collapse, 0x20_0000, 1024, 0x10), Ok(LeafSize::Block2M));
    assert_eq!(call(collapse, 0x4000_0000, 1 << 18, 0x20), Ok(LeafSize::Block1G));
    assert_eq!(call(collapse, 0x20_0000, 1024, 0), Err(Error::Invalid));
    assert_eq!(call(collapse, 0x20_0000, 1024, 0x30), Err(Error::Invalid));
    assert_eq!(call(collapse, 0x20_1000, 512, 0x10), Err(Error::Invalid));
    assert_eq!(call(collapse, 0x20_0000, 513, 0x10), Err(Error::Invalid));
    assert_eq!(call(collapse, 0x20_0000, 1 << 18, 0x20), Err(Error::Invalid));
}

#[test]
fn decodes_the_calls_that_take_a_range_or_a_vm_alone() {
    let x = registers(&[0xc600_003b, 2, 0x5000, 7]);
    assert!(matches!(Call::decode(&x), Ok(Call::TablesReclaim { vm: VmHandle(2), range })
        if (range.start().0, range.page_count()) == (0x5000, 7)));
    assert_eq!(Call::decode(&registers(&[0xc600_003c, 2, 1])), Ok(Call::Flush { vm: VmHandle(2) }));
    assert_eq!(refused(&[0xc600_003c, 0]), Error::NoEntry);
}

#[test]
fn sizes_the_region_of_a_working_set() {
    for (pages, region_pages) in [(1, 1), (4096, 1), (4097, 2), (1 << 18, 64)] {
        let x = registers(&[0xc600_0040, 1, 0x7000, pages, 0x9000]);
        let Ok(Call::WorkingSetCreate { range, region, .. }) = Call::decode(&x) else {
            panic!("{:?}", Call::decode(&x))
        };
        assert_eq!((range.start().0, range.page_count()), (0x7000, pages));
        assert_eq!((region.start().0, region.page_count()), (0x9000, region_pages));
    }
    assert_eq!(refused(&[0xc600_0040, 1, 0, 0, 0]), Error::Invalid);
    assert_eq!(refused(&[0xc600_0040, 1, 0, 1, 0x800]), Error::Invalid);
    assert_eq!(refused(&[0xc600_0040, 1, 0, 1 << 18, (1 << 52) - 0x3_f000]), Error::Invalid);
}

#[test]
fn limits_what_a_working_set_returns() {
    let map = |pages, buffer| Call::decode(&registers(&[0xc600_0043, 1, 0, pages, buffer]));
    assert!(matches!(map(4096, 0x1000), Ok(Call::WorkingSetMap { buffer: Pa(0x1000), .. })));
    assert_eq!(map(4097, 0x1000), Err(Error::Invalid));
    assert_eq!(map(1, 0x1001), Err(Error::Invalid));
    let x = registers(&[0xc600_0042, 1, 0, 1 << 24]);
    assert!(matches!(Call::decode(&x), Ok(Call::WorkingSetHistogram { .. })));
    let x = registers(&[0xc600_0041, 1, 0x3000]);
    assert!(matches!(Call::decode(&x), Ok(Call::WorkingSetDestroy { start: Ipa(0x3000), .. })));
    assert_eq!(refused(&[0xc600_0041, 1, 0x3001]), Error::Invalid);
}

/// What a fuzzer finds first: no register value panics, and whatever is let through is in range.
#[test]
fn lets_nothing_malformed_through() {
    let values = [0, 1, 2, 511, 512, 0x1000, 0x20_0000, 1 << 40, 1 << 52, u64::MAX, u64::MAX << 12];
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut pick = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        values[seed as usize % values.len()]
    };
    let (mut accepted, steps) = (0, if cfg!(miri) { 500 } else { 200_000 });
    for step in 0..steps {
        let mut x = [0; 18].map(|_| pick());
        (x[0], x[1]) = (0xc600_0000 | (step % 0x48), 1 + x[1] % 300);
        match Call::decode(&x) {
            Ok(Call::Map { range, target, .. }) => {
                assert!(range.end().0 <= 1 << 52 && target.0 % 0x1000 == 0);
                accepted += 1;
            }
            Ok(Call::Age { range, sink, .. }) => {
                assert!(
                    range.page_count() <= if sink == BitSink::Registers { 1024 } else { 32768 }
                );
                accepted += 1;
            }
            Ok(Call::WorkingSetCreate { range, region, .. }) => {
                assert!(region.page_count() * 4096 >= range.page_count());
                accepted += 1;
            }
            Ok(_) | Err(Error::Invalid | Error::NoEntry | Error::NotSupported) => {}
            Err(other) => panic!("{other:?}: decoding knows nothing of that"),
        }
    }
    assert!(accepted > steps / 1000, "only {accepted} calls were well-formed");
}

#[test]
fn a_run_alone_is_decoded_as_a_run_among_all_calls() {
    let some = [0, 1, 2, 3, 4, 7, 8, 15, 16, 63, 64, 65, 255, 256, 257, u64::MAX];
    for x1 in some {
        for x2 in some {
            for x3 in some {
                let x = registers(&[0xc600_0021, x1, x2, x3, 9]);
                let expected = match Call::decode(&x) {
                    Ok(Call::VcpuRun { vcpu, .. }) => Ok(vcpu),
                    Ok(call) => panic!("not a run: {call:?}"),
                    Err(error) => Err(error),
                };
                assert_eq!(Call::decode_run(&x), expected, "{x1:#x} {x2:#x} {x3:#x}");
            }
        }
    }
}

#[test]
fn decodes_the_calls_that_name_a_vcpu_alone() {
    let vcpu = VcpuHandle { vm: VmHandle(3), index: 63 };
    let list = Call::decode(&registers(&[0xc600_0024, 3, 63, u64::MAX]));
    assert_eq!(list, Ok(Call::VcpuRegList { vcpu, first: u64::MAX }));
    assert_eq!(Call::decode(&registers(&[0xc600_0025, 3, 63])), Ok(Call::VcpuReset { vcpu }));
    for number in [0xc600_0024, 0xc600_0025] {
        assert_eq!(refused(&[number, 3, 64]), Error::NoEntry);
        assert_eq!(refused(&[number, 0, 1]), Error::NoEntry);
    }
}

#[test]
fn decodes_a_list_of_pages_to_map() {
    let call = |ipa, pages, list| {
        Call::decode(&registers(&[0xc600_003d, 2, ipa, pages, list, 0x1234_5678]))
    };
    let Ok(Call::MapList { vm, range, list, sequence }) = call(0x5000, 512, 0x8000) else {
        panic!("no list of pages")
    };
    assert_eq!((vm.0, range.start().0, range.page_count()), (2, 0x5000, 512));
    assert_eq!((list.0, sequence), (0x8000, 0x1234_5678));
    for (ipa, pages, list) in [
        (0x5000, 513, 0x8000),
        (0x5000, 0, 0x8000),
        (0x5000, u64::MAX, 0x8000),
        (0x5800, 1, 0x8000),
        ((1 << 52) - 0x1000, 2, 0x8000),
        (0x5000, 1, 0x8008),
        (0x5000, 1, 1 << 52),
    ] {
        assert_eq!(call(ipa, pages, list), Err(Error::Invalid), "{ipa:#x} {pages} {list:#x}");
    }
    assert_eq!(refused(&[0xc600_003d, 0, 0x5000, 1, 0x8000]), Error::NoEntry);
}

#[test]
fn memory_comes_and_goes_in_whole_blocks() {
    for (number, add) in [(0xc600_0006, true), (0xc600_0007, false)] {
        let decode = |start, page_count| {
            let mut x = [0; 18];
            x[..3].copy_from_slice(&[number, start, page_count]);
            Call::decode(&x)
        };
        let range = PaRange::new(0x8020_0000, 1024).unwrap();
        let good = if add { Call::MemoryAdd { range } } else { Call::MemoryRemove { range } };
        assert_eq!(decode(0x8020_0000, 1024), Ok(good));
        for (start, page_count) in [
            (0x8020_0000, 0),
            (0x8020_0000, 511),
            (0x8020_1000, 512),
            (0x801f_f000, 513),
            (0x8020_0001, 512),
            (1 << 52, 512),
            (0x8020_0000, u64::MAX - 511),
        ] {
            assert_eq!(decode(start, page_count), Err(Error::Invalid), "{start:#x} {page_count}");
        }
    }
}
