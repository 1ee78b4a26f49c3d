//! Addresses of the two spaces that stage 2 joins, as types that cannot be mixed up.

use core::fmt;

/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;
/// Size in bytes of a page: the granule of every table that the firmware builds.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;

macro_rules! address {
    ($name:ident, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// Tells whether the address is a multiple of `bytes`, a power of two.
            pub const fn is_aligned(self, bytes: u64) -> bool {
                self.0 & (bytes - 1) == 0
            }

            /// Rounds down to a multiple of `bytes`, a power of two.
            pub const fn align_down(self, bytes: u64) -> Self {
                Self(self.0 & !(bytes - 1))
            }

            /// Adds a number of bytes; `None` where the sum does not fit 64 bits.
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }

            /// Returns the number of the page that holds the address.
            pub const fn page(self) -> u64 {
                self.0 >> PAGE_SHIFT
            }

            /// Returns the first address of a page.
            pub const fn from_page(page: u64) -> Self {
                Self(page << PAGE_SHIFT)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address!(Pa, "A physical address, the output of stage 2.");
address!(Ipa, "An intermediate physical address, the input of stage 2: what a VM calls physical.");

#[cfg(test)]
mod tests {
    use super::PAGE_SIZE;

    #[test]
    fn a_page_is_what_the_interface_says() {
        assert_eq!(PAGE_SIZE, 4096);
    }
}
