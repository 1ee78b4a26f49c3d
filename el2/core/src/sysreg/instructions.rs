//! Cache, TLB, address-translation and other system instructions that a guest can try.
//!
//! HCR_EL2.FB makes a guest's local invalidations reach every CPU that its vCPU may have been on, and
//! all of its TLB invalidations apply to its own VMID only.

use super::controls::*;
use super::row::{Control, Direction, Emulation, Fate, Register};

const fn direct(name: &'static str, encoding: [u8; 5], why: &'static str) -> Register {
    Register::new(name, encoding, Direction::WriteOnly, Fate::Invisible(why))
}

const fn no(name: &'static str, encoding: [u8; 5], control: Control) -> Register {
    let fate = Fate::Trapped(control, Emulation::Undefined);
    Register::new(name, encoding, Direction::ReadWrite, fate)
}

/// Set/way maintenance reaches a cache, not an address: on a machine with more than one CPU it can't do
/// what a guest wants of it, and stage 2 does what is needed when pages come and go. It is stepped over.
const fn set_way(name: &'static str, encoding: [u8; 5]) -> Register {
    let fate = Fate::Trapped(TSW, Emulation::ZeroIgnore);
    Register::new(name, encoding, Direction::WriteOnly, fate)
}

const CPP_STEPPED_OVER: Fate = Fate::Trapped(CPP_RCTX, Emulation::ZeroIgnore);

const CACHE: &str =
    "stage 2 checks the address; it writes back or drops copies of the guest's memory";
const DROP: &str = "stage 2 checks the address; HCR_EL2.VM makes it clean what it invalidates";
const FETCH: &str = "drops copies of instructions, which are fetched again";
const TRANSLATE: &str = "writes PAR_EL1, which is switched";
const TLB: &str = "applies to the guest's VMID only, on all CPUs";
const PREDICT: &str = "drops predictions of the guest's own context";
const STORE: &str = "a store, checked by stage 2";
const TRACE: &str = "emits trace only where the host lets EL1 be traced";

/// The instructions with op0 = 1.
pub const INSTRUCTIONS: &[Register] = &[
    direct("IC IALLUIS", [1, 0, 7, 1, 0], FETCH),
    direct("IC IALLU", [1, 0, 7, 5, 0], FETCH),
    direct("IC IVAU", [1, 3, 7, 5, 1], FETCH),
    direct("DC IVAC", [1, 0, 7, 6, 1], DROP),
    direct("DC IGVAC", [1, 0, 7, 6, 3], DROP).needs("FEAT_MTE2"),
    direct("DC IGDVAC", [1, 0, 7, 6, 5], DROP).needs("FEAT_MTE2"),
    direct("DC CVAC", [1, 3, 7, 10, 1], CACHE),
    direct("DC CGVAC", [1, 3, 7, 10, 3], CACHE).needs("FEAT_MTE"),
    direct("DC CGDVAC", [1, 3, 7, 10, 5], CACHE).needs("FEAT_MTE"),
    direct("DC CVAU", [1, 3, 7, 11, 1], CACHE),
    direct("DC CVAP", [1, 3, 7, 12, 1], CACHE).needs("FEAT_DPB"),
    direct("DC CGVAP", [1, 3, 7, 12, 3], CACHE).needs("FEAT_MTE"),
    direct("DC CGDVAP", [1, 3, 7, 12, 5], CACHE).needs("FEAT_MTE"),
    direct("DC CVADP", [1, 3, 7, 13, 1], CACHE).needs("FEAT_DPB2"),
    direct("DC CGVADP", [1, 3, 7, 13, 3], CACHE).needs("FEAT_MTE"),
    direct("DC CGDVADP", [1, 3, 7, 13, 5], CACHE).needs("FEAT_MTE"),
    direct("DC CIVAC", [1, 3, 7, 14, 1], CACHE),
    direct("DC CIGVAC", [1, 3, 7, 14, 3], CACHE).needs("FEAT_MTE"),
    direct("DC CIGDVAC", [1, 3, 7, 14, 5], CACHE).needs("FEAT_MTE"),
    direct("DC CVAOC", [1, 3, 7, 11, 0], CACHE).needs("FEAT_OCCMO"),
    direct("DC CGDVAOC", [1, 3, 7, 11, 7], CACHE).needs("FEAT_OCCMO"),
    direct("DC CIVAOC", [1, 3, 7, 15, 0], CACHE).needs("FEAT_OCCMO"),
    direct("DC CIGDVAOC", [1, 3, 7, 15, 7], CACHE).needs("FEAT_OCCMO"),
    direct("DC ZVA", [1, 3, 7, 4, 1], STORE),
    direct("DC GVA", [1, 3, 7, 4, 3], STORE).needs("FEAT_MTE"),
    direct("DC GZVA", [1, 3, 7, 4, 4], STORE).needs("FEAT_MTE"),
    set_way("DC ISW", [1, 0, 7, 6, 2]),
    set_way("DC IGSW", [1, 0, 7, 6, 4]).needs("FEAT_MTE2"),
    set_way("DC IGDSW", [1, 0, 7, 6, 6]).needs("FEAT_MTE2"),
    set_way("DC CSW", [1, 0, 7, 10, 2]),
    set_way("DC CGSW", [1, 0, 7, 10, 4]).needs("FEAT_MTE2"),
    set_way("DC CGDSW", [1, 0, 7, 10, 6]).needs("FEAT_MTE2"),
    set_way("DC CISW", [1, 0, 7, 14, 2]),
    set_way("DC CIGSW", [1, 0, 7, 14, 4]).needs("FEAT_MTE2"),
    set_way("DC CIGDSW", [1, 0, 7, 14, 6]).needs("FEAT_MTE2"),
    direct("AT S1E1R", [1, 0, 7, 8, 0], TRANSLATE),
    direct("AT S1E1W", [1, 0, 7, 8, 1], TRANSLATE),
    direct("AT S1E0R", [1, 0, 7, 8, 2], TRANSLATE),
    direct("AT S1E0W", [1, 0, 7, 8, 3], TRANSLATE),
    direct("AT S1E1RP", [1, 0, 7, 9, 0], TRANSLATE).needs("FEAT_PAN2"),
    direct("AT S1E1WP", [1, 0, 7, 9, 1], TRANSLATE).needs("FEAT_PAN2"),
    direct("AT S1E1A", [1, 0, 7, 9, 2], TRANSLATE).needs("FEAT_ATS1A"),
    direct("TLBI VMALLE1", [1, 0, 8, 7, 0], TLB),
    direct("TLBI VAE1", [1, 0, 8, 7, 1], TLB),
    direct("TLBI ASIDE1", [1, 0, 8, 7, 2], TLB),
    direct("TLBI VAAE1", [1, 0, 8, 7, 3], TLB),
    direct("TLBI VALE1", [1, 0, 8, 7, 5], TLB),
    direct("TLBI VAALE1", [1, 0, 8, 7, 7], TLB),
    direct("TLBI VMALLE1IS", [1, 0, 8, 3, 0], TLB),
    direct("TLBI VAE1IS", [1, 0, 8, 3, 1], TLB),
    direct("TLBI ASIDE1IS", [1, 0, 8, 3, 2], TLB),
    direct("TLBI VAAE1IS", [1, 0, 8, 3, 3], TLB),
    direct("TLBI VALE1IS", [1, 0, 8, 3, 5], TLB),
    direct("TLBI VAALE1IS", [1, 0, 8, 3, 7], TLB),
    direct("TLBI VMALLE1OS", [1, 0, 8, 1, 0], TLB).needs("FEAT_TLBIOS"),
    direct("TLBI VAE1OS", [1, 0, 8, 1, 1], TLB).needs("FEAT_TLBIOS"),
    direct("TLBI ASIDE1OS", [1, 0, 8, 1, 2], TLB).needs("FEAT_TLBIOS"),
    direct("TLBI VAAE1OS", [1, 0, 8, 1, 3], TLB).needs("FEAT_TLBIOS"),
    direct("TLBI VALE1OS", [1, 0, 8, 1, 5], TLB).needs("FEAT_TLBIOS"),
    direct("TLBI VAALE1OS", [1, 0, 8, 1, 7], TLB).needs("FEAT_TLBIOS"),
    // op2 is odd: RVAE1, RVAAE1, RVALE1, RVAALE1.
    direct("TLBI RVA{A,L}E1IS", [1, 0, 8, 2, 1], TLB).each(0, 0, 6).needs("FEAT_TLBIRANGE"),
    direct("TLBI RVA{A,L}E1OS", [1, 0, 8, 5, 1], TLB).each(0, 0, 6).needs("FEAT_TLBIRANGE"),
    direct("TLBI RVA{A,L}E1", [1, 0, 8, 6, 1], TLB).each(0, 0, 6).needs("FEAT_TLBIRANGE"),
    // The same once more, with CRn 9.
    direct("TLBI VMALLE1NXS", [1, 0, 9, 7, 0], TLB).needs("FEAT_XS"),
    direct("TLBI VAE1NXS", [1, 0, 9, 7, 1], TLB).needs("FEAT_XS"),
    direct("TLBI ASIDE1NXS", [1, 0, 9, 7, 2], TLB).needs("FEAT_XS"),
    direct("TLBI VAAE1NXS", [1, 0, 9, 7, 3], TLB).needs("FEAT_XS"),
    direct("TLBI VALE1NXS", [1, 0, 9, 7, 5], TLB).needs("FEAT_XS"),
    direct("TLBI VAALE1NXS", [1, 0, 9, 7, 7], TLB).needs("FEAT_XS"),
    direct("TLBI VMALLE1{IS,OS}NXS", [1, 0, 9, 1, 0], TLB).each(0, 2, 0).needs("FEAT_XS"),
    direct("TLBI VAE1{IS,OS}NXS", [1, 0, 9, 1, 1], TLB).each(0, 2, 0).needs("FEAT_XS"),
    direct("TLBI ASIDE1{IS,OS}NXS", [1, 0, 9, 1, 2], TLB).each(0, 2, 0).needs("FEAT_XS"),
    direct("TLBI VAAE1{IS,OS}NXS", [1, 0, 9, 1, 3], TLB).each(0, 2, 0).needs("FEAT_XS"),
    direct("TLBI VALE1{IS,OS}NXS", [1, 0, 9, 1, 5], TLB).each(0, 2, 0).needs("FEAT_XS"),
    direct("TLBI VAALE1{IS,OS}NXS", [1, 0, 9, 1, 7], TLB).each(0, 2, 0).needs("FEAT_XS"),
    direct("TLBI RVA{A,L}E1ISNXS", [1, 0, 9, 2, 1], TLB).each(0, 0, 6).needs("FEAT_XS"),
    direct("TLBI RVA{A,L}E1OSNXS", [1, 0, 9, 5, 1], TLB).each(0, 0, 6).needs("FEAT_XS"),
    direct("TLBI RVA{A,L}E1NXS", [1, 0, 9, 6, 1], TLB).each(0, 0, 6).needs("FEAT_XS"),
    direct("CFP RCTX", [1, 3, 7, 3, 4], PREDICT).needs("FEAT_SPECRES"),
    direct("DVP RCTX", [1, 3, 7, 3, 5], PREDICT).needs("FEAT_SPECRES"),
    direct("COSP RCTX", [1, 3, 7, 3, 6], PREDICT).needs("FEAT_SPECRES2"),
    // It can keep invalidations of other CPUs from taking effect (CVE-2025-0647): stepped over.
    Register::new("CPP RCTX", [1, 3, 7, 3, 7], Direction::WriteOnly, CPP_STEPPED_OVER)
        .needs("FEAT_SPECRES"),
    direct("TRCIT", [1, 3, 7, 2, 7], TRACE).needs("FEAT_ITE"),
    no("BRB IALL", [1, 1, 7, 2, 4], N_BRBIALL).needs("FEAT_BRBE"),
    no("BRB INJ", [1, 1, 7, 2, 5], N_BRBINJ).needs("FEAT_BRBE"),
    no("GCSPUSHX, GCSPOPCX, GCSPOPX", [1, 0, 7, 7, 4], N_GCSEPP).each(0, 0, 3).needs("FEAT_GCS"),
    no("GCSPUSHM", [1, 3, 7, 7, 0], N_GCSPUSHM).needs("FEAT_GCS"),
    no("GCSPOPM", [1, 3, 7, 7, 1], GCS_EN).needs("FEAT_GCS"),
    no("GCSSS1", [1, 3, 7, 7, 2], GCS_EN).needs("FEAT_GCS"),
    no("GCSSS2", [1, 3, 7, 7, 3], GCS_EN).needs("FEAT_GCS"),
    no("implementation-defined (CRn 11)", [1, 0, 11, 0, 0], TIDCP).each(0, 15, 7),
    no("implementation-defined (CRn 11)", [1, 1, 11, 0, 0], TIDCP).each(0, 15, 7),
    no("implementation-defined (CRn 11)", [1, 2, 11, 0, 0], TIDCP).each(0, 15, 7),
    no("implementation-defined (CRn 11)", [1, 3, 11, 0, 0], TIDCP).each(0, 15, 7),
    no("implementation-defined (CRn 15)", [1, 0, 15, 0, 0], TIDCP).each(0, 15, 7),
    no("implementation-defined (CRn 15)", [1, 1, 15, 0, 0], TIDCP).each(0, 15, 7),
    no("implementation-defined (CRn 15)", [1, 2, 15, 0, 0], TIDCP).each(0, 15, 7),
    no("implementation-defined (CRn 15)", [1, 3, 15, 0, 0], TIDCP).each(0, 15, 7),
];
