//! System registers that hold what is written and do nothing while stage 1 is off: a vCPU must find its
//! own in them, whatever else ran on its CPU.

use core::arch::asm;

use verdigris_guest::scramble;

use super::timer::read_register;

/// ID_AA64ISAR1_EL1: APA, API; a CPU has keys if one is not 0 (ISAR2 has a third, APA3).
const ISAR1_ADDRESS_AUTH: u64 = 0xff << 4;
const ISAR2_APA3: u64 = 0xf << 12;

/// Lists registers with the bits of them that hold any value (Arm ARM, D24.2).
macro_rules! for_each_register {
    ($do:ident) => {
        $do!(0, "tpidr_el0", u64::MAX);
        $do!(1, "tpidr_el1", u64::MAX);
        $do!(2, "tpidrro_el0", u64::MAX);
        $do!(3, "contextidr_el1", 0xffff_ffff);
        $do!(4, "far_el1", u64::MAX);
        $do!(5, "sp_el0", u64::MAX);
        $do!(6, "elr_el1", u64::MAX);
        $do!(7, "ttbr0_el1", 0xff_ffff_f000);
        $do!(8, "ttbr1_el1", 0xff_ffff_f000);
        $do!(9, "mair_el1", 0x4444_4444_4444_4444);
        $do!(10, "esr_el1", 0x01ff_ffff);
        $do!(11, "cntv_cval_el0", u64::MAX);
        $do!(12, "spsr_el1", 0xf000_0000);
        $do!(13, "tcr_el1", 0x3f_003f);
        $do!(14, "cntkctl_el1", 0x3);
        $do!(15, "mdscr_el1", 1 << 12);
    };
}

/// Lists the keys of pointer authentication, by encoding: they may not exist.
macro_rules! for_each_key {
    ($do:ident) => {
        $do!(16, "s3_0_c2_c1_0", u64::MAX);
        $do!(17, "s3_0_c2_c1_1", u64::MAX);
        $do!(18, "s3_0_c2_c1_2", u64::MAX);
        $do!(19, "s3_0_c2_c1_3", u64::MAX);
        $do!(20, "s3_0_c2_c2_0", u64::MAX);
        $do!(21, "s3_0_c2_c2_1", u64::MAX);
        $do!(22, "s3_0_c2_c2_2", u64::MAX);
        $do!(23, "s3_0_c2_c2_3", u64::MAX);
    };
}

fn has_keys() -> bool {
    let isar2 = read_register!("s3_0_c0_c6_2");
    read_register!("id_aa64isar1_el1") & ISAR1_ADDRESS_AUTH != 0 || isar2 & ISAR2_APA3 != 0
}

/// Writes a value of its own to each register.
pub fn fill(seed: u64) {
    macro_rules! write {
        ($index:literal, $name:literal, $mask:expr) => {
            let value = scramble(seed ^ $index << 32) & $mask;
            // SAFETY: with stage 1 off and exceptions masked none of these registers has an effect; code
            // that takes exceptions or uses SP_EL0 doesn't run until the check.
            unsafe { asm!(concat!("msr ", $name, ", {}"), in(reg) value, options(nomem, nostack)) };
        };
    }
    for_each_register!(write);
    if has_keys() {
        for_each_key!(write);
    }
}

/// Compares each register with what `fill` wrote; returns a bit for each that differs.
pub fn check(seed: u64) -> u64 {
    let mut wrong = 0;
    macro_rules! compare {
        ($index:literal, $name:literal, $mask:expr) => {
            let expected = scramble(seed ^ $index << 32) & $mask;
            wrong |= u64::from(read_register!($name) & $mask != expected) << $index;
        };
    }
    for_each_register!(compare);
    if has_keys() {
        for_each_key!(compare);
    }
    wrong
}
