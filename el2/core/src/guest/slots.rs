//! The system registers that a world switch saves and restores, each with its place.
//!
//! One list makes the enum, the reset values and, through [`for_each_switched!`](crate::for_each_switched), the firmware's code
//! that reads and writes the registers: so a register can't be saved and not restored. Registers of
//! a group that a CPU lacks have their place all the same, and the firmware skips the group.

use crate::cpu::IdRegisters;

/// Calls a macro with all switched registers, group by group.
///
/// The callback gets rows `Group Name "asm" [op0, op1, CRn, CRm, op2] = reset;` in the order of the
/// places. The assembler's name is the generic one where an assembler for Armv8.0 knows no other.
/// Registers are moved two at a time where two that follow each other, from an even place on, are of one
/// group.
#[macro_export]
macro_rules! for_each_switched {
    ($callback:ident) => {
        $callback! {
            Walks Sctlr "SCTLR_EL1" [3, 0, 1, 0, 0] = 0x30d0_0800;
            Walks Tcr "TCR_EL1" [3, 0, 2, 0, 2] = 0;
            Base Cpacr "CPACR_EL1" [3, 0, 1, 0, 2] = 0;
            Base Ttbr0 "TTBR0_EL1" [3, 0, 2, 0, 0] = 0;
            Base Ttbr1 "TTBR1_EL1" [3, 0, 2, 0, 1] = 0;
            Base Spsr "SPSR_EL1" [3, 0, 4, 0, 0] = 0;
            Base Elr "ELR_EL1" [3, 0, 4, 0, 1] = 0;
            Base SpEl1 "SP_EL1" [3, 4, 4, 1, 0] = 0;
            Base Esr "ESR_EL1" [3, 0, 5, 2, 0] = 0;
            Base Far "FAR_EL1" [3, 0, 6, 0, 0] = 0;
            Base Par "PAR_EL1" [3, 0, 7, 4, 0] = 0;
            Base Mair "MAIR_EL1" [3, 0, 10, 2, 0] = 0;
            Base Vbar "VBAR_EL1" [3, 0, 12, 0, 0] = 0;
            Base Contextidr "CONTEXTIDR_EL1" [3, 0, 13, 0, 1] = 0;
            Base TpidrEl1 "TPIDR_EL1" [3, 0, 13, 0, 4] = 0;
            Base TpidrEl0 "TPIDR_EL0" [3, 3, 13, 0, 2] = 0;
            Base TpidrroEl0 "TPIDRRO_EL0" [3, 3, 13, 0, 3] = 0;
            Base Csselr "CSSELR_EL1" [3, 2, 0, 0, 0] = 0;
            Base Cntkctl "CNTKCTL_EL1" [3, 0, 14, 1, 0] = 0;
            Base CntvCtl "CNTV_CTL_EL0" [3, 3, 14, 3, 1] = 0;
            Base CntvCval "CNTV_CVAL_EL0" [3, 3, 14, 3, 2] = 0;
            Virtual Cntvoff "CNTVOFF_EL2" [3, 4, 14, 0, 3] = 0;
            SigningKey ApiaLo "S3_0_C2_C1_0" [3, 0, 2, 1, 0] = 0;
            SigningKey ApiaHi "S3_0_C2_C1_1" [3, 0, 2, 1, 1] = 0;
            PointerAuth ApibLo "S3_0_C2_C1_2" [3, 0, 2, 1, 2] = 0;
            PointerAuth ApibHi "S3_0_C2_C1_3" [3, 0, 2, 1, 3] = 0;
            PointerAuth ApdaLo "S3_0_C2_C2_0" [3, 0, 2, 2, 0] = 0;
            PointerAuth ApdaHi "S3_0_C2_C2_1" [3, 0, 2, 2, 1] = 0;
            PointerAuth ApdbLo "S3_0_C2_C2_2" [3, 0, 2, 2, 2] = 0;
            PointerAuth ApdbHi "S3_0_C2_C2_3" [3, 0, 2, 2, 3] = 0;
            PointerAuth ApgaLo "S3_0_C2_C3_0" [3, 0, 2, 3, 0] = 0;
            PointerAuth ApgaHi "S3_0_C2_C3_1" [3, 0, 2, 3, 1] = 0;
            Ras Vdisr "S3_4_C12_C1_1" [3, 4, 12, 1, 1] = 0;
            Ras Vsesr "S3_4_C5_C2_3" [3, 4, 5, 2, 3] = 0;
            Virtual Vpidr "VPIDR_EL2" [3, 4, 0, 0, 0] = 0;
            Virtual Vmpidr "VMPIDR_EL2" [3, 4, 0, 0, 5] = 0x8000_0000;
            Auxiliary Afsr0 "AFSR0_EL1" [3, 0, 5, 1, 0] = 0;
            Auxiliary Afsr1 "AFSR1_EL1" [3, 0, 5, 1, 1] = 0;
            Auxiliary Amair "AMAIR_EL1" [3, 0, 10, 3, 0] = 0;
        }
    };
}

/// Which CPUs have a switched register, and when it is switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Those that can keep stage 1 from being walked, which may have to be loaded last.
    Walks,
    /// All others of Armv8.0 that EL1 or EL0 can write.
    Base,
    /// The key that signs return addresses at EL2 too, with FEAT_PAuth: switched where EL2's own is.
    SigningKey,
    /// The other keys of FEAT_PAuth.
    PointerAuth,
    /// Those of FEAT_RAS, which mean nothing while the host runs: its HCR_EL2.AMO is 0.
    Ras,
    /// What EL2 tells a guest of itself, and no guest can write: never saved.
    Virtual,
    /// Those whose meaning is a part's own. Many parts have none, and then the registers hold nothing
    /// (Arm ARM D24.2, AFSR0_EL1, AFSR1_EL1, AMAIR_EL1: RES0 where not implemented).
    Auxiliary,
}

impl Group {
    /// Tells whether a CPU has the registers of the group.
    pub const fn is_present(self, id: &IdRegisters) -> bool {
        match self {
            Self::Walks | Self::Base | Self::Virtual | Self::Auxiliary => true,
            Self::SigningKey | Self::PointerAuth => id.has_pauth(),
            Self::Ras => id.has_ras(),
        }
    }
}

macro_rules! slots {
    ($( $group:ident $name:ident $asm:literal $encoding:tt = $reset:literal; )*) => {
        /// The place of a switched register.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        #[allow(missing_docs, reason = "the names are the architecture's")]
        pub enum Slot { $( $name, )* }

        impl Slot {
            /// All places, in their order.
            pub const ALL: &'static [Self] = &[ $( Self::$name, )* ];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// Returns the name that any assembler knows.
            pub const fn asm(self) -> &'static str {
                match self { $( Self::$name => $asm, )* }
            }

            /// Tells which CPUs have the register.
            pub const fn group(self) -> Group {
                match self { $( Self::$name => Group::$group, )* }
            }

            /// Returns the value at reset: MMU and caches off, all RES1 bits of Armv8.0 set.
            pub const fn reset(self) -> u64 {
                match self { $( Self::$name => $reset, )* }
            }
        }
    };
}

for_each_switched!(slots);
