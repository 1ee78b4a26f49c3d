//! Reasons for which `VCPU_RUN` returns; the record stands in `x2` to `x17`.

use crate::item::{Item, Section};

macro_rules! exits {
    ($( #[doc = $doc:literal] $name:ident $c_name:literal = $value:literal; )*) => {
        /// Why a vCPU stopped running, as returned in `x1` by `VCPU_RUN`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u64)]
        pub enum ExitReason { $( #[doc = $doc] $name = $value, )* }

        impl ExitReason {
            /// Finds the reason that a number stands for.
            pub const fn from_code(code: u64) -> Option<Self> {
                match code { $( $value => Some(Self::$name), )* _ => None }
            }
        }

        pub(crate) const ITEMS: &[Item] = &[ $( Item {
            section: Section::Exit, name: $c_name, value: $value, doc: $doc,
        } ),* ];
    };
}

exits! {
    #[doc = "A physical interrupt is pending for the host."]
    Interrupt "EXIT_INTERRUPT" = 0;
    #[doc = "A stage-2 fault: x2 IPA, x3 flags, x4 ESR_EL2, x5 sequence number, x6 virtual address, x7 access, x8 value stored."]
    Fault "EXIT_FAULT" = 1;
    #[doc = "A guest call: x2 to x9 hold the guest's x0 to x7, x10 the immediate, x11 is 1 for SMC."]
    Hypercall "EXIT_HYPERCALL" = 2;
    #[doc = "The guest waits: x2 is 0 for WFI, 1 for WFE, 2 for WFIT, 3 for WFET."]
    Wait "EXIT_WAIT" = 3;
    #[doc = "The guest asked to be shut down: x2 tells how."]
    Shutdown "EXIT_SHUTDOWN" = 4;
    #[doc = "An SError arrived while the guest ran: x4 ESR_EL2."]
    SError "EXIT_SERROR" = 5;
    #[doc = "The guest did what the firmware does not emulate: x4 ESR_EL2, x6 virtual address."]
    Unhandled "EXIT_UNHANDLED" = 6;
}
