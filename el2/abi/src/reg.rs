//! Identifiers of vCPU registers, for `VCPU_GET_REG` and `VCPU_SET_REG`.
//!
//! The upper half names a class, the lower half a register of it. System registers are named by
//! their encoding, see [`sysreg`].

use crate::item::items;

items! { Register: u64;
    #[doc = "Core registers: x0 to x30 are REG_CORE + 0 to 30."]
    REG_CORE = 0;
    #[doc = "SP_EL0."]
    REG_SP_EL0 = 31;
    #[doc = "The address of the next instruction."]
    REG_PC = 32;
    #[doc = "PSTATE, in the layout of SPSR_EL2. Only AArch64 EL1 and EL0 can be set."]
    REG_PSTATE = 33;
    #[doc = "SP_EL1."]
    REG_SP_EL1 = 34;
    #[doc = "ELR_EL1."]
    REG_ELR_EL1 = 35;
    #[doc = "SPSR_EL1."]
    REG_SPSR_EL1 = 36;
    #[doc = "System registers: REG_SYS | op0 << 14 | op1 << 11 | CRn << 7 | CRm << 3 | op2."]
    REG_SYS = 0x1_0000;
    #[doc = "FP/SIMD: Vn is REG_FP + 2 n (bits 63:0) and REG_FP + 2 n + 1 (bits 127:64)."]
    REG_FP = 0x2_0000;
    #[doc = "FPSR."]
    REG_FPSR = 0x2_0040;
    #[doc = "FPCR."]
    REG_FPCR = 0x2_0041;
    #[doc = "Offset of the guest's virtual counter: CNTVOFF_EL2, in ticks."]
    REG_CNTVOFF = 0x3_0000;
}

/// Returns the identifier of the system register with that encoding (Arm ARM, section C5.3).
pub const fn sysreg(op0: u64, op1: u64, crn: u64, crm: u64, op2: u64) -> u64 {
    REG_SYS | op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2
}

#[cfg(test)]
mod tests {
    use super::sysreg;

    #[test]
    fn identifiers_hold_the_encoding() {
        // TPIDR_EL1, CNTV_CVAL_EL0, all ones, op0 alone.
        assert_eq!(sysreg(3, 0, 13, 0, 4), 0x1_c684);
        assert_eq!(sysreg(3, 3, 14, 3, 2), 0x1_df1a);
        assert_eq!(sysreg(3, 7, 15, 15, 7), 0x1_ffff);
        assert_eq!(sysreg(2, 0, 0, 0, 0), 0x1_8000);
    }
}
