//! Status codes: zero is success, negative numbers are errors, as the SMC Calling Convention has it.

use crate::item::Item;
use crate::item::Section;

/// What a call returns: a value of its own, or an [`Error`].
pub type Status<T = ()> = Result<T, Error>;

macro_rules! errors {
    ($( #[doc = $doc:literal] $name:ident $c_name:literal = $value:literal; )*) => {
        /// Why a call was refused, as returned in `x0`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(i64)]
        pub enum Error { $( #[doc = $doc] $name = $value, )* }

        impl Error {
            /// Finds the error that a status code stands for; `None` for success and unknown codes.
            pub const fn from_code(code: i64) -> Option<Self> {
                match code { $( $value => Some(Self::$name), )* _ => None }
            }

            /// Returns the status code, a negative number.
            pub const fn code(self) -> i64 {
                self as i64
            }
        }

        pub(crate) const ITEMS: &[Item] = &[ $( Item {
            section: Section::Error, name: $c_name, value: $value, doc: $doc,
        } ),* ];
    };
}

errors! {
    #[doc = "The call, or what it asks for, does not exist in this firmware or on this CPU."]
    NotSupported "NOT_SUPPORTED" = -1;
    #[doc = "An argument is unaligned, out of range, overflows, or has an unknown bit set."]
    Invalid "INVALID" = -2;
    #[doc = "No VM, vCPU, register, mark or mapping has that handle, index or address."]
    NoEntry "NO_ENTRY" = -3;
    #[doc = "A page is not the caller's to give, share or read: it is no RAM, the firmware's, or donated."]
    NotOwner "NOT_OWNER" = -4;
    #[doc = "The object is in use on another CPU, or pages are shared that the call needs unshared."]
    Busy "BUSY" = -5;
    #[doc = "An invalidation of the range is in progress or ended since the sequence number was taken; another CPU is at work on the same leaf or table; or a table page is on its way to the pool."]
    Retry "RETRY" = -6;
    #[doc = "The VM has no free table page left: donate, and call again."]
    NoMemory "NO_MEMORY" = -7;
    #[doc = "Something else is there already."]
    Exists "EXISTS" = -8;
    #[doc = "A fixed table or a saturating count of the firmware is full."]
    Limit "LIMIT" = -9;
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let item = ITEMS.iter().find(|item| item.value == self.code());
        f.write_str(item.map_or("unknown error", |item| item.doc))
    }
}

impl core::error::Error for Error {}
