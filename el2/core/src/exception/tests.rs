//! Checks each field against the Arm ARM's rule for taking an exception to EL1.

use super::*;

const NONE: PstateFeatures =
    PstateFeatures { pan: false, ssbs: false, mte: false, nmi: false, ebep: false, exlock: false };

fn at(pstate: u64) -> Interrupted {
    Interrupted { pc: 0x1000, pstate, sctlr: 0, sctlr2: 0, vbar: 0xffff_8000_0001_0800 }
}

fn external(address: Option<u64>) -> Exception {
    Exception::Abort {
        cause: AbortCause::External,
        instruction: false,
        write: false,
        cache_maintenance: false,
        address,
    }
}

#[test]
fn undefined_from_el0() {
    // EL0t with NZCV set.
    let entry = enter(&at(0xf000_0000), Exception::Undefined, NONE);
    let expected = Entry {
        pc: 0xffff_8000_0001_0c00,
        pstate: 0xf000_03c5,
        elr: 0x1000,
        spsr: 0xf000_0000,
        esr: 0x0200_0000,
        far: None,
    };
    assert_eq!(entry, expected);
}

#[test]
fn vector_is_chosen_by_level_stack_and_width() {
    for (pstate, offset) in [(0x4, 0x000), (0x5, 0x200), (0x0, 0x400), (0x10, 0x600), (0x30, 0x600)]
    {
        let mut from = at(pstate);
        from.vbar = 0x8_0000_07ff;
        assert_eq!(enter(&from, Exception::Undefined, NONE).pc, 0x8_0000_0000 + offset);
    }
}

#[test]
fn vector_at_the_top_of_the_address_space_wraps() {
    let mut from = at(0);
    from.vbar = u64::MAX;
    assert_eq!(enter(&from, Exception::Undefined, NONE).pc, 0xffff_ffff_ffff_fc00);
}

#[test]
fn external_abort_says_whence_and_where() {
    let entry = enter(&at(0), external(Some(0xdead_b000)), NONE);
    assert_eq!((entry.esr, entry.far), (0x9200_0010, Some(0xdead_b000)));
    let entry = enter(&at(0x3c5), external(None), NONE);
    assert_eq!((entry.esr, entry.far), (0x9600_0410, None));
}

#[test]
fn instruction_abort_has_no_direction() {
    let fetch = Exception::Abort {
        cause: AbortCause::ExternalOnWalk,
        instruction: true,
        write: true,
        cache_maintenance: true,
        address: Some(4),
    };
    assert_eq!(enter(&at(0), fetch, NONE).esr, 0x8200_0017);
    assert_eq!(enter(&at(5), fetch, NONE).esr, 0x8600_0017);
}

#[test]
fn direction_and_cache_maintenance_are_told() {
    let abort = |write, cache_maintenance| Exception::Abort {
        cause: AbortCause::Alignment,
        instruction: false,
        write,
        cache_maintenance,
        address: Some(0),
    };
    assert_eq!(enter(&at(0), abort(true, false), NONE).esr, 0x9200_0061);
    assert_eq!(enter(&at(0), abort(false, true), NONE).esr, 0x9200_0161);
}

#[test]
fn external_abort_goes_to_the_serror_vector_on_request() {
    let mut from = at(5);
    from.sctlr2 = 1 << 5;
    from.vbar = 0;
    assert_eq!(enter(&from, external(None), NONE).pc, 0x380);
    assert_eq!(enter(&from, Exception::Undefined, NONE).pc, 0x200);
}

#[test]
fn only_lasting_fields_of_pstate_survive() {
    let entry = enter(&at(!0x1f | 5), Exception::Undefined, NONE);
    // NZCV, DIT and PAN stay; TCO, UAO, SS, IL, ALLINT, SSBS, BTYPE and all unknown bits go.
    assert_eq!(entry.pstate, 0xf140_03c5);
    assert_eq!(entry.spsr, 0xffff_ffff_ffff_ffe5);
}

#[test]
fn pan_is_set_unless_span() {
    let features = PstateFeatures { pan: true, ..NONE };
    let mut from = at(0);
    assert_eq!(enter(&from, Exception::Undefined, features).pstate, 0x40_03c5);
    from.sctlr = 1 << 23;
    assert_eq!(enter(&from, Exception::Undefined, features).pstate, 0x3c5);
    from.pstate = 1 << 22;
    assert_eq!(enter(&from, Exception::Undefined, features).pstate, 0x40_03c5);
}

#[test]
fn features_set_their_own_bit() {
    let ssbs = PstateFeatures { ssbs: true, ..NONE };
    let nmi = PstateFeatures { nmi: true, ..NONE };
    let mut from = at(5);
    assert_eq!(enter(&from, Exception::Undefined, ssbs).pstate, 0x3c5);
    assert_eq!(enter(&from, Exception::Undefined, nmi).pstate, 0x23c5);
    from.sctlr = 1 << 44 | 1 << 62;
    assert_eq!(enter(&from, Exception::Undefined, ssbs).pstate, 0x13c5);
    assert_eq!(enter(&from, Exception::Undefined, nmi).pstate, 0x3c5);
    let mte = PstateFeatures { mte: true, ..NONE };
    assert_eq!(enter(&from, Exception::Undefined, mte).pstate, 0x200_03c5);
    let ebep = PstateFeatures { ebep: true, ..NONE };
    assert_eq!(enter(&from, Exception::Undefined, ebep).pstate, 0x1_0000_03c5);
    let exlock = PstateFeatures { exlock: true, ..NONE };
    assert_eq!(enter(&from, Exception::Undefined, exlock).pstate, 0x4_0000_03c5);
    assert_eq!(enter(&at(0), Exception::Undefined, exlock).pstate, 0x3c5);
}

#[test]
fn features_come_from_the_id_registers() {
    let none = IdRegisters::default();
    assert_eq!(PstateFeatures::of(&none), NONE);
    // PAN is MMFR1[23:20], SSBS PFR1[7:4], MTE PFR1[11:8], NMI PFR1[39:36], EBEP DFR1[51:48].
    let pan = IdRegisters { mmfr1: 3 << 20, ..none };
    assert_eq!(PstateFeatures::of(&pan), PstateFeatures { pan: true, ..NONE });
    let ssbs = IdRegisters { pfr1: 2 << 4, ..none };
    assert_eq!(PstateFeatures::of(&ssbs), PstateFeatures { ssbs: true, ..NONE });
    let mte = IdRegisters { pfr1: 3 << 8, ..none };
    assert_eq!(PstateFeatures::of(&mte), PstateFeatures { mte: true, ..NONE });
    let nmi = IdRegisters { pfr1: 1 << 36, ..none };
    assert_eq!(PstateFeatures::of(&nmi), PstateFeatures { nmi: true, ..NONE });
    let ebep = IdRegisters { dfr1: 1 << 48, ..none };
    assert_eq!(PstateFeatures::of(&ebep), PstateFeatures { ebep: true, ..NONE });
}

#[test]
fn a_stage_2_fault_becomes_an_external_abort() {
    use crate::esr::Syndrome;
    // A write by EL0, translation fault, level 3; then the same on a walk, and a fetch.
    let abort = |esr| Abort::decode(Syndrome(esr));
    let entry =
        |esr, pstate| enter(&at(pstate), Exception::external_abort(&abort(esr), 0x1234), NONE);
    assert_eq!(entry(0x9200_0047, 0).esr, 0x9200_0050);
    assert_eq!(entry(0x9200_0087, 5).esr, 0x9600_0017);
    assert_eq!(entry(0x8200_0007, 5).esr, 0x8600_0010);
    assert_eq!(entry(0x9200_0047, 0).far, Some(0x1234));
    // FnV of the fault is passed on.
    assert_eq!(entry(0x9200_0410, 0).far, None);
}

#[test]
fn the_host_is_told_what_it_can_mend() {
    use crate::esr::Syndrome;
    const KERNEL: u64 = 0xffff_0000_1234_5678;
    const USER: u64 = 0x0000_ffff_1234_5678;
    let told = |esr, pstate, far| {
        let abort = Abort::decode(Syndrome(esr));
        let entry = enter(&at(pstate), Exception::denied_to_host(&abort, pstate, far), NONE);
        assert_eq!(entry.far, (esr & 1 << 10 == 0).then_some(far));
        entry.esr
    };
    // A write of the kernel, by its own half: permission, level 3, S1PTW; whatever stage 2 said.
    for esr in [0x9200_0047, 0x9200_004f, 0x9200_0044] {
        assert_eq!(told(esr, 0x3c5, KERNEL), 0x9600_00cf);
        assert_eq!(told(esr, 4, KERNEL), 0x9600_00cf, "on SP_EL0");
    }
    // Reading, cleaning, fetching; a tag in the top byte leaves bit 55 what it is.
    assert_eq!(told(0x9200_0007, 5, KERNEL & !(0xff << 56)), 0x9600_008f);
    assert_eq!(told(0x9200_014f, 5, KERNEL), 0x9600_01cf);
    assert_eq!(told(0x8200_000f, 5, KERNEL), 0x8600_008f);
    // By the user's half: an alignment fault; a fetch has no fix-up.
    assert_eq!(told(0x9200_004f, 5, USER), 0x9600_0061);
    assert_eq!(told(0x9200_0047, 5, USER | 0x55 << 56), 0x9600_0061);
    assert_eq!(told(0x8200_0007, 5, USER), 0x8600_0010);
    // EL0 as a bus would answer it, whatever address it used.
    assert_eq!(told(0x9200_004f, 0, USER), 0x9200_0050);
    assert_eq!(told(0x9200_0047, 0x10, KERNEL), 0x9200_0050, "AArch32");
    assert_eq!(told(0x8200_0007, 0, USER), 0x8200_0010);
    // A walk, and what has no address or isn't of stage 2.
    assert_eq!(told(0x9200_00cf, 5, KERNEL), 0x9600_0057);
    assert_eq!(told(0x9200_0447, 5, KERNEL), 0x9600_0450);
    assert_eq!(told(0x9200_0070, 5, KERNEL), 0x9600_0050, "TLB conflict");
}
