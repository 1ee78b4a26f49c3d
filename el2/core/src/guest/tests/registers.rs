//! Registers by the identifiers of the hypercall interface.

use std::collections::HashSet;
use std::vec::Vec;

use verdigris_abi::{Error, reg};

use super::*;

#[test]
fn general_registers() {
    let mut context = context();
    for id in 0..=36 {
        let value = if id == 33 { 0x3c4 } else { 0x1000 + id };
        assert_eq!(context.set(id, value, &machine()), Ok(()), "{id}");
        assert_eq!(context.get(id, &machine()), Ok(value), "{id}");
    }
    assert_eq!((context.general.x[30], context.general.sp_el0), (0x101e, 0x101f));
    assert_eq!((context.general.pc, context.general.pstate), (0x1020, 0x3c4));
    assert_eq!(context.system.get(Slot::SpEl1), 0x1022);
    assert_eq!(context.system.get(Slot::Elr), 0x1023);
    assert_eq!(context.system.get(Slot::Spsr), 0x1024);
    assert_eq!(context.get(37, &machine()), Err(Error::NoEntry));
}

#[test]
fn pstate_takes_three_modes_of_aarch64() {
    let mut context = context();
    let before = context;
    // EL2h, EL2t, EL3h, AArch32 user and supervisor, the reserved modes.
    for mode in [0x9, 0x8, 0xd, 0x10, 0x13, 1, 2, 3, 6, 7] {
        let answer = context.set(reg::REG_PSTATE, 0x3c0 | mode, &machine());
        assert_eq!(answer, Err(Error::Invalid), "{mode:#x}");
    }
    for bit in [5, 14, 19, 26, 27, 35, 63] {
        let answer = context.set(reg::REG_PSTATE, 1 << bit | 5, &machine());
        assert_eq!(answer, Err(Error::Invalid), "bit {bit}");
    }
    assert_eq!(context, before);
    for mode in [0, 4, 5] {
        assert_eq!(context.set(reg::REG_PSTATE, 0xf040_0000 | mode, &machine()), Ok(()));
        assert_eq!(context.general.pstate, 0xf040_0000 | mode);
    }
}

#[test]
fn vectors_have_two_halves() {
    let mut context = context();
    context.set(0x2_0000 + 63, 0xaaaa, &machine()).unwrap();
    context.set(0x2_0000 + 62, 0xbbbb, &machine()).unwrap();
    assert_eq!(context.fp.v[31], 0xaaaa << 64 | 0xbbbb);
    assert_eq!(context.get(0x2_003f, &machine()), Ok(0xaaaa));
    assert_eq!(context.get(0x2_003e, &machine()), Ok(0xbbbb));
    context.set(0x2_0041, 0x300_0000, &machine()).unwrap();
    assert_eq!((context.fp.fpcr, context.fp.fpsr), (0x300_0000, 0));
    assert_eq!(context.get(0x2_0042, &machine()), Err(Error::NoEntry));
}

#[test]
fn system_registers_by_encoding() {
    let mut context = context();
    // TTBR0_EL1 is 3, 0, 2, 0, 0; CNTV_CVAL_EL0 3, 3, 14, 3, 2; APGAKeyHi_EL1 3, 0, 2, 3, 1.
    for (id, slot) in [
        (0x1_c100, Slot::Ttbr0),
        (0x1_df1a, Slot::CntvCval),
        (0x1_c119, Slot::ApgaHi),
        (0x3_0000, Slot::Cntvoff),
        (0x1_c005, Slot::Vmpidr),
    ] {
        assert_eq!(context.set(id, 0x77, &machine()), Ok(()), "{id:#x}");
        assert_eq!(context.system.get(slot), 0x77);
        assert_eq!(context.get(id, &machine()), Ok(0x77));
    }
}

#[test]
fn registers_without_an_identifier() {
    let context = context();
    for id in [
        0x1_c200, // SPSR_EL1, has a core identifier
        0x1_c201, // ELR_EL1
        0x1_c208, // SP_EL0
        0x1_e088, // HCR_EL2
        0x1_de68, // AMCR_EL0 or what is near: not offered
        0x1_df10, // CNTP_TVAL_EL0
        0x1_c800, // CCSIDR_EL1 has many values
        0x1_c608, // ISR_EL1 and CNTPCT_EL0 have another each time
        0x1_df01,
        0x1_8084, // OSLAR_EL1 can't be read
        0x1_43b2, // DC ISW is no register
        0x4_0000,
        0x3_0001,
        u64::MAX,
    ] {
        assert_eq!(context.get(id, &machine()), Err(Error::NoEntry), "{id:#x}");
    }
}

#[test]
fn groups_that_a_cpu_lacks_have_none() {
    let raw = IdRegisters::default();
    let machine = Machine { raw: &raw, ipa_bits: 40 };
    assert_eq!(context().get(0x1_c108, &machine), Err(Error::NoEntry));
    // DISR_EL1 is 3, 0, 12, 1, 1.
    assert_eq!(context().get(0x1_c609, &machine), Err(Error::NoEntry));
    assert_eq!(context().get(0x1_c609, &super::machine()), Ok(0));
}

#[test]
fn id_registers_take_their_own_value_only() {
    let mut context = context();
    // ID_AA64PFR0_EL1 is 3, 0, 0, 4, 0; MIDR_EL1 3, 0, 0, 0, 0.
    for id in [0x1_c020, 0x1_c000] {
        let value = context.get(id, &machine()).unwrap();
        assert_ne!(value, 0);
        assert_eq!(context.set(id, value, &machine()), Ok(()));
        assert_eq!(context.set(id, value ^ 1, &machine()), Err(Error::Invalid));
    }
}

#[test]
fn constants_and_zeroes_take_their_own_value_only() {
    let raw = IdRegisters {
        revidr: 0x11,
        clidr: 0x2200_0023,
        aidr: 0x33,
        ctr: 0x8444_c004,
        dczid: 4,
        ..IdRegisters::default()
    };
    let machine = Machine { raw: &raw, ipa_bits: 40 };
    let mut context = context();
    let before = context;
    // REVIDR_EL1, CLIDR_EL1, AIDR_EL1, CTR_EL0, DCZID_EL0; ACTLR_EL1 and MDCCINT_EL1.
    for (id, value) in [
        (0x1_c006, 0x11),
        (0x1_c801, 0x2200_0023),
        (0x1_c807, 0x33),
        (0x1_d801, 0x8444_c004),
        (0x1_d807, 4),
        (0x1_c081, 0),
        (0x1_8010, 0),
    ] {
        assert_eq!(context.get(id, &machine), Ok(value), "{id:#x}");
        assert_eq!(context.set(id, value, &machine), Ok(()), "{id:#x}");
        assert_eq!(context.set(id, value ^ 1, &machine), Err(Error::Invalid), "{id:#x}");
    }
    assert_eq!(context, before);
}

#[test]
fn debug_registers_and_the_lock() {
    let mut context = context();
    // DBGWCR3_EL1 is 2, 0, 0, 3, 7; DBGWCR4_EL1 isn't there. OSLSR_EL1 is 2, 0, 1, 1, 4.
    assert_eq!(context.set(0x1_801f, 1, &machine()), Ok(()));
    assert_eq!(context.debug.watchpoint_controls[3], 1);
    assert_eq!(context.get(0x1_8027, &machine()), Err(Error::NoEntry));
    assert_eq!(context.get(0x1_808c, &machine()), Ok(0b1010));
    assert_eq!(context.set(0x1_808c, 0b1000, &machine()), Ok(()));
    assert_eq!(context.get(0x1_808c, &machine()), Ok(0b1000));
}

#[test]
fn the_list_names_each_register_once_and_can_be_written_back() {
    let mut context = context();
    context.system.set(Slot::Tcr, 0x1234);
    context.debug.write(DebugSlot::BreakpointValue, 5, 0x4000);
    let list: Vec<_> = Context::identifiers(machine()).collect();
    let unique: HashSet<_> = list.iter().collect();
    assert_eq!(list.len(), unique.len());
    let before = context;
    for &id in &list {
        let value = context.get(id, &machine()).unwrap();
        assert_eq!(context.set(id, value, &machine()), Ok(()), "{id:#x}");
    }
    assert_eq!(context, before);
    // 37 core, 64 + 2 of FP, the counter's offset.
    let simple = list.iter().filter(|&&id| id >> 16 != 1).count();
    assert_eq!(simple, 37 + 66 + 1);
    // Slots but for SP_EL1, ELR_EL1, SPSR_EL1, CNTVOFF_EL2, VSESR_EL2; 56 ID registers; MDSCR_EL1,
    // OSLSR_EL1, six and four pairs of debug registers; 14 that read as zero; five constants.
    assert_eq!(list.len() - simple, Slot::COUNT - 5 + 56 + 2 + 20 + 14 + 5);
}

/// The list is what the host may rely on: every identifier that can be read, and no other, over all
/// classes and some room behind each.
#[test]
fn the_list_names_exactly_what_can_be_read() {
    let bare = IdRegisters::default();
    let without = Machine { raw: &bare, ipa_bits: 40 };
    for machine in [machine(), without] {
        let listed: HashSet<_> = Context::identifiers(machine).collect();
        let context = context();
        for id in (0..0x8_0000).chain([1 << 32, 1 << 63, u64::MAX]) {
            let read = context.get(id, &machine);
            assert_eq!(read.is_ok(), listed.contains(&id), "{id:#x}: {read:?}");
        }
    }
}
