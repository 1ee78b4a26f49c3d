//! FP and SIMD registers: the payload is compiled without them, so they hold what these functions put
//! there until something else on the CPU does.

use core::arch::{asm, global_asm};

use verdigris_guest::scramble;

/// CPACR_EL1.FPEN: no trap (Arm ARM, D24.2.33).
const FPEN: u64 = 3 << 20;
/// ZEN and SMEN: neither for SVE and SME, where the CPU has the fields.
const ZEN_SMEN: u64 = 3 << 16 | 3 << 24;
/// FPCR: RMode towards minus infinity, FZ (Arm ARM, C5.2.8).
const FPCR: u64 = 2 << 22 | 1 << 24;

global_asm!(
    r#"
    .arch_extension fp
    .arch_extension simd
    .text
    // Vn = (x0 + n, x1 + n)
guest_fp_fill:
    .irp    n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    add     x2, x0, #\n
    add     x3, x1, #\n
    fmov    d\n, x2
    ins     v\n\().d[1], x3
    .endr
    ret

    // x0 = a bit for each Vn that is not (x0 + n, x1 + n)
guest_fp_check:
    mov     x9, #0
    .irp    n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    fmov    x2, d\n
    umov    x3, v\n\().d[1]
    sub     x2, x2, #\n
    sub     x3, x3, #\n
    eor     x2, x2, x0
    eor     x3, x3, x1
    orr     x2, x2, x3
    cmp     x2, #0
    cset    x2, ne
    orr     x9, x9, x2, lsl #\n
    .endr
    mov     x0, x9
    ret
    .arch_extension nosimd
    .arch_extension nofp
    "#
);

unsafe extern "C" {
    fn guest_fp_fill(low: u64, high: u64);
    fn guest_fp_check(low: u64, high: u64) -> u64;
}

/// Ends all traps of CPACR_EL1 to EL1, so that what EL2 does is seen.
pub fn enable_all() {
    enable(FPEN | ZEN_SMEN);
}

fn enable(fields: u64) {
    // SAFETY: vector instructions stop trapping to EL1; compiled code doesn't use them.
    unsafe {
        asm!("mrs {t}, cpacr_el1", "orr {t}, {t}, {on}", "msr cpacr_el1, {t}", "isb",
            t = out(reg) _, on = in(reg) fields, options(nomem, nostack));
    }
}

/// Fills V0 to V31 and FPCR.
pub fn fill(seed: u64) {
    enable(FPEN);
    // SAFETY: compiled code doesn't use these registers.
    unsafe {
        asm!("msr s3_3_c4_c4_0, {}", in(reg) FPCR, options(nomem, nostack));
        guest_fp_fill(scramble(seed), scramble(!seed));
    }
}

/// Compares V0 to V31 (bits 0 to 31) and FPCR (bit 32).
pub fn check(seed: u64) -> u64 {
    let fpcr: u64;
    // SAFETY: reads registers only.
    let wrong = unsafe {
        asm!("mrs {}, s3_3_c4_c4_0", out(reg) fpcr, options(nomem, nostack));
        guest_fp_check(scramble(seed), scramble(!seed))
    };
    wrong | u64::from(fpcr != FPCR) << 32
}
