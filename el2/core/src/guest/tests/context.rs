//! The state at reset, and stepping over instructions.

use super::*;

#[test]
fn reset_state() {
    let context = Context::reset(0x410f_d0c1, 0x3f);
    // EL1h with D, A, I, F masked.
    assert_eq!(context.general.pstate, 0x3c5);
    assert_eq!((context.general.pc, context.general.x), (0, [0; 31]));
    // LSMAOE, nTLSMD, SPAN, EIS, TSCXT, EOS are RES1 in Armv8.0; M, C, I are 0.
    let res1 = 1 << 29 | 1 << 28 | 1 << 23 | 1 << 22 | 1 << 20 | 1 << 11;
    assert_eq!(context.system.get(Slot::Sctlr), res1);
    assert_eq!(context.system.get(Slot::Vpidr), 0x410f_d0c1);
    // Aff1 = 3, Aff0 = 15, bit 31 RES1.
    assert_eq!(context.system.get(Slot::Vmpidr), 0x8000_030f);
    assert_eq!(context.system.get(Slot::CntvCtl), 0);
    assert_eq!(context.debug.os_lock_status(), 0b1010);
}

#[test]
fn advance_clears_step_and_branch_target() {
    let mut general = GeneralRegisters::reset();
    general.pc = u64::MAX - 3;
    general.pstate |= 1 << 21 | 0b11 << 10 | 0xf << 28;
    general.advance(true);
    assert_eq!((general.pc, general.pstate), (0, 0xf000_03c5));
}

#[test]
fn advance_moves_the_it_block_of_aarch32() {
    let mut general = GeneralRegisters::reset();
    // User mode, Thumb, ITSTATE 0b0000_0110: bits 15:10 hold 0b000001, bits 26:25 0b10.
    general.pstate = 0x30 | 0b000001 << 10 | 0b10 << 25;
    general.pc = 0x100;
    general.advance(false);
    // ITSTATE 0b0000_1100.
    assert_eq!((general.pc, general.pstate), (0x102, 0x30 | 0b000011 << 10));
    general.advance(true);
    // ITSTATE[2:0] was 0b100: it becomes 0b0001_1000.
    assert_eq!((general.pc, general.pstate), (0x106, 0x30 | 0b000110 << 10));
    general.advance(true);
    assert_eq!(general.pstate, 0x30);
}

#[test]
fn register_31_is_zero() {
    let mut general = GeneralRegisters::reset();
    general.write(31, 7);
    general.write(30, 9);
    assert_eq!((general.read(31), general.read(30), general.x[30]), (0, 9, 9));
}

#[test]
fn debug_is_active_with_mde_and_without_the_lock() {
    let mut debug = DebugRegisters::reset();
    debug.write(DebugSlot::Mdscr, 0, u64::MAX);
    // SS, TDCC, KDE, MDE and no more.
    assert_eq!(debug.mdscr, 0xb001);
    assert!(!debug.is_active());
    assert_eq!(debug.hardware_mdscr(), 0x1000);
    debug.write_os_lock(0);
    assert!(debug.is_active());
    assert_eq!((debug.hardware_mdscr(), debug.os_lock_status()), (0xb001, 0b1000));
    debug.write(DebugSlot::Mdscr, 0, 1);
    assert!(!debug.is_active());
    assert_eq!(debug.hardware_mdscr(), 1);
}

#[test]
fn debug_controls_keep_their_fields_only() {
    let mut debug = DebugRegisters::reset();
    debug.write(DebugSlot::BreakpointControl, 2, u64::MAX);
    debug.write(DebugSlot::WatchpointControl, 3, u64::MAX);
    debug.write(DebugSlot::BreakpointValue, 2, u64::MAX);
    assert_eq!(debug.breakpoint_controls[2], 0x00ff_e1e7);
    assert_eq!(debug.watchpoint_controls[3], 0x1f1f_ffff);
    assert_eq!(debug.breakpoint_values[2], u64::MAX);
    assert_eq!(debug.breakpoint_controls[3], 0);
}

#[test]
fn groups_follow_the_id_registers() {
    let none = IdRegisters::default();
    assert!(Group::Base.is_present(&none));
    assert!(!Group::PointerAuth.is_present(&none) && !Group::Ras.is_present(&none));
    assert!(Group::PointerAuth.is_present(&PART) && Group::Ras.is_present(&PART));
    assert_eq!(Slot::ApgaHi.group(), Group::PointerAuth);
    assert_eq!((Slot::Vdisr.group(), Slot::Sctlr.group()), (Group::Ras, Group::Walks));
    for always in [Group::Walks, Group::Virtual, Group::Auxiliary] {
        assert!(always.is_present(&none));
    }
    assert!(!Group::SigningKey.is_present(&none) && Group::SigningKey.is_present(&PART));
}

#[test]
fn what_is_never_saved_can_be_written_by_no_guest() {
    for slot in Slot::ALL.iter().filter(|slot| slot.group() == Group::Virtual) {
        // VPIDR_EL2, VMPIDR_EL2 and CNTVOFF_EL2: op1 is 4, which is UNDEFINED at EL1 and EL0.
        assert!(slot.asm().ends_with("_EL2"), "{slot:?}");
    }
}
