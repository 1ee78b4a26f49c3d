//! Who is there, and what it can do.

use verdigris_abi::{Error, Stat, call, flags};

use crate::firmware::{Features, Statistics, layout};
use crate::ktap::{skip, test_table};
use crate::raw::{Registers, raw};
use crate::sys;

test_table! { "suite", 10:
    uid_and_revision, features_are_plausible, unknown_functions_are_refused, registers_come_back,
    hint_bit_is_ignored, layouts_by_ipa_bits, statistics_by_index, release_refuses_to_crash,
    el2_survives_what_may_fail,
}

fn uid_and_revision() {
    let uid = raw().call(call::UID, &[]);
    assert_eq!(uid.0[..4], [0xedd5_8a5a, 0x4e4d_602d, 0x6576_6b9a, 0x17e9_6472]);
    let revision = raw().call(call::REVISION, &[]);
    assert_eq!(revision.0[..2], [1, 3]);
}

fn features_are_plausible() {
    let features = Features::read();
    assert_eq!(features.version, 1 << 16 | 3);
    assert!((32..=48).contains(&features.ipa_bits), "{} IPA bits", features.ipa_bits);
    assert_eq!(features.vms, 256);
    assert!(features.cpus >= sys::cpus().len() as u64, "{} CPUs", features.cpus);
    assert!(features.counter_hz >= 1_000_000, "{} Hz", features.counter_hz);
}

fn unknown_functions_are_refused() {
    let gaps = [0xc600_0008, 0xc600_0014, 0xc600_0026, 0xc600_003e, 0xc600_0044, 0xc600_ffff];
    let others = [0x8600_ff00, 0x8600_ff02, 0x8600_0000, 0x8600_0030, 0x4600_0000, 0xc700_0000];
    for function in gaps.into_iter().chain(others) {
        let reply = raw().call(function, &[1, 2, 3]);
        // SMC32 calls answer in w0, so that the upper half may be anything.
        assert_eq!(reply.0[0] as u32, u32::MAX, "function {function:#x}");
    }
}

fn registers_come_back() {
    let mut registers = Registers(std::array::from_fn(|index| 0x1111_0000_0000 + index as u64));
    registers.0[0] = call::FEATURES.into();
    let reply = raw().exchange(registers);
    assert_eq!(reply.status(), Ok(()));
    assert_eq!(reply.0[7..], registers.0[7..], "registers without a result changed");
    registers.0[0] = 0xc600_ffff;
    let refused = raw().exchange(registers);
    assert_eq!(refused.status(), Err(Error::NotSupported));
    assert_eq!(refused.0[1..], registers.0[1..], "a refused call changed registers");
}

fn hint_bit_is_ignored() {
    let plain = raw().call(call::FEATURES, &[]);
    let hinted = raw().call(call::FEATURES | 1 << 16, &[]);
    assert_eq!(plain, hinted);
}

fn layouts_by_ipa_bits() {
    let most = Features::read().ipa_bits;
    for bits in 32..=most {
        let (vm, vcpu) = layout(bits).expect("a size that is offered");
        assert!(vm <= 8 && vcpu <= 4, "{bits} bits want 2^{vm} and 2^{vcpu} pages");
    }
    for bits in [0, 31, most + 1, 64, u64::MAX] {
        assert_eq!(layout(bits), Err(Error::Invalid), "{bits} bits");
    }
}

fn statistics_by_index() {
    let all = Statistics::read(0);
    assert!(all.count() > Stat::FreeTablePages as usize, "{} counters", all.count());
    let past = raw().call(call::STATISTICS, &[0, all.count() as u64]);
    assert_eq!(past.status(), Err(Error::Invalid));
    assert_eq!(raw().call(call::STATISTICS, &[200, 0]).status(), Err(Error::NoEntry));
    assert_eq!(raw().call(call::STATISTICS, &[u64::MAX, 0]).status(), Err(Error::NoEntry));
}

/// Only a build with assertions can be made to fail on purpose.
fn release_refuses_to_crash() {
    if Features::read().has(flags::FEATURE_DEBUG_BUILD) {
        skip("this firmware is a build with assertions");
    }
    for kind in 0..9 {
        let status = raw().call(call::DEBUG_CRASH, &[kind]).status();
        assert_eq!(status, Err(Error::NotSupported), "kind {kind}");
    }
}

/// Loads of the host's memory, walks of its tables and registers of EL3 may fail by an exception at EL2 itself.
fn el2_survives_what_may_fail() {
    /// Nothing answers there on QEMU's `virt` board without a secure world.
    const HOLE: u64 = 0x0e00_0000;
    if !Features::read().has(flags::FEATURE_DEBUG_BUILD) {
        skip("this firmware is no build with assertions");
    }
    for kind in [flags::SURVIVE_READ, flags::SURVIVE_WALK, flags::SURVIVE_REGISTER] {
        // Twice: what the first leaves must not be what the second finds.
        for _ in 0..2 {
            let status = raw().call(call::DEBUG_CRASH, &[kind, HOLE]).status();
            assert_eq!(status, Ok(()), "kind {kind}");
        }
    }
}
