//! Checks the decoder against syndromes written out from the Arm ARM, most of them seen in QEMU.

use verdigris_abi::Ipa;

use super::*;

fn abort(esr: u64) -> Abort {
    match Trap::decode(Syndrome(esr)) {
        Trap::Abort(abort) => abort,
        other => panic!("{esr:#x} decodes to {other:?}"),
    }
}

#[test]
fn access_flag_fault_of_a_read_with_syndrome() {
    let abort = abort(0x93c1_800b);
    assert_eq!(abort.status, FaultStatus::AccessFlag(3));
    assert_eq!(abort.access(), Access::Read);
    let load = Load { size_log2: 3, sign_extend: false, register: 1, is_64_bit: true };
    assert_eq!(abort.load, Some(load));
    assert!(abort.address_valid && !abort.table_walk && !abort.cache_maintenance);
    assert!(abort.is_hpfar_valid());
}

#[test]
fn permission_fault_of_a_write_leaves_hpfar_unknown() {
    let abort = abort(0x93c0_804f);
    assert_eq!(abort.status, FaultStatus::Permission(3));
    assert_eq!(abort.access(), Access::Write);
    assert!(!abort.is_hpfar_valid());
    assert!(abort.is_stage2());
}

#[test]
fn byte_load_with_sign_extension() {
    // ISV, SAS = 0, SSE, SRT = 7, SF = 0; translation fault, level 2.
    let abort = abort(0x9127_0006 | 1 << 25);
    let load = Load { size_log2: 0, sign_extend: true, register: 7, is_64_bit: false };
    assert_eq!(abort.load, Some(load));
    assert_eq!(abort.status, FaultStatus::Translation(2));
}

#[test]
fn instruction_abort_has_no_load_and_no_write() {
    let abort = abort(0x8200_000b | 1 << 6);
    assert!(abort.instruction);
    assert_eq!(abort.access(), Access::Execute);
    assert_eq!(abort.load, None);
}

#[test]
fn table_walks_read_unless_permission_fails() {
    let walk = 1 << 7;
    let write = 1 << 6;
    assert_eq!(abort(0x9200_0007 | walk | write).access(), Access::Read);
    assert_eq!(abort(0x9200_000f | walk).access(), Access::Write);
    assert!(abort(0x9200_000f | walk).is_hpfar_valid());
    assert_eq!(abort(0x8200_0007 | walk).access(), Access::Read);
    assert_eq!(abort(0x8200_000f | walk).access(), Access::Write);
}

#[test]
fn cache_maintenance_is_no_write() {
    let clean = 0x9200_0007 | 1 << 8 | 1 << 6;
    assert!(abort(clean).cache_maintenance);
    assert_eq!(abort(clean).access(), Access::Read);
    assert_eq!(abort(0x9200_000f | 1 << 8 | 1 << 6).access(), Access::Write);
}

#[test]
fn external_abort_may_hide_its_address() {
    let abort = abort(0x9200_0010 | 1 << 10);
    assert_eq!(abort.status, FaultStatus::External);
    assert!(!abort.address_valid && !abort.is_hpfar_valid() && !abort.is_stage2());
}

#[test]
fn levels_below_zero() {
    for (code, status) in [
        (0b101011, FaultStatus::Translation(-1)),
        (0b101001, FaultStatus::AddressSize(-1)),
        (0b010011, FaultStatus::ExternalOnWalk(-1)),
        (0b010101, FaultStatus::ExternalOnWalk(1)),
        (0b110000, FaultStatus::TlbConflict),
        (0b110001, FaultStatus::UnsupportedUpdate),
        (0b110101, FaultStatus::UnsupportedExclusive),
        (0b100001, FaultStatus::Alignment),
        (0b101000, FaultStatus::GranuleProtection),
        (0b111110, FaultStatus::Other(0x3e)),
    ] {
        assert_eq!(FaultStatus::decode(code), status);
    }
}

#[test]
fn ipa_comes_from_hpfar_and_the_offset_from_far() {
    assert_eq!(hpfar_to_ipa(0x43_7e90), Ipa(0x437e_9000));
    let read = abort(0x9200_0007);
    assert_eq!(read.ipa(0x43_7e90, 0xffff_0000_1234_5678), Ipa(0x437e_9678));
    let walk = abort(0x9200_0087);
    assert_eq!(walk.ipa(0x43_7e90, 0xffff_0000_1234_5678), Ipa(0x437e_9000));
    // NS (bit 63) and RES0 bits 3:0 are no address.
    assert_eq!(hpfar_to_ipa(1 << 63 | 0xf), Ipa(0));
}

#[test]
fn calls_carry_their_immediate() {
    assert_eq!(Trap::decode(Syndrome(0x5a00_0001)), Trap::Hvc(1));
    assert_eq!(Trap::decode(Syndrome(0x5e00_ffff)), Trap::Smc(0xffff));
    assert_eq!(Trap::decode(Syndrome(0x5600_0003)), Trap::Svc(3));
}

#[test]
fn waits() {
    assert_eq!(Trap::decode(Syndrome(0x07e0_0000)), Trap::Wait(Wait::Wfi));
    assert_eq!(Trap::decode(Syndrome(0x07e0_0001)), Trap::Wait(Wait::Wfe));
    assert_eq!(Trap::decode(Syndrome(0x07e0_0002)), Trap::Wait(Wait::Wfit));
    assert_eq!(Trap::decode(Syndrome(0x07e0_0003)), Trap::Wait(Wait::Wfet));
}

#[test]
fn system_access_names_its_register() {
    // ICC_SGI1R_EL1 is op0 3, op1 0, CRn 12, CRm 11, op2 5; written from x1.
    let Trap::System(access) = Trap::decode(Syndrome(0x623a_3036)) else {
        panic!("no system access");
    };
    assert_eq!(access.encoding, Encoding::new(3, 0, 12, 11, 5));
    assert_eq!(access.register, 1);
    assert!(!access.read);
}

#[test]
fn every_class_decodes_to_itself_or_other() {
    for class in 0..64_u64 {
        for iss in [0, 0x1ff_ffff] {
            let trap = Trap::decode(Syndrome(class << 26 | iss));
            if let Trap::Other(other) | Trap::Aarch32(other) = trap {
                assert_eq!(u64::from(other), class);
            }
        }
    }
    assert_eq!(Trap::decode(Syndrome(0)), Trap::Unknown);
    assert_eq!(Trap::decode(Syndrome(0x1fe0_0000)), Trap::Fp);
    assert_eq!(Trap::decode(Syndrome(0x6600_0000)), Trap::Sve);
    assert_eq!(Trap::decode(Syndrome(0x7600_0000)), Trap::Sme);
    assert_eq!(Trap::decode(Syndrome(0xbe00_0000)), Trap::SError);
    assert_eq!(Trap::decode(Syndrome(0x3a00_0000)), Trap::IllegalState);
    assert!(matches!(Trap::decode(Syndrome(0x9600_0004)), Trap::OwnAbort(_)));
    assert!(matches!(Trap::decode(Syndrome(0x8600_0004)), Trap::OwnAbort(_)));
}
