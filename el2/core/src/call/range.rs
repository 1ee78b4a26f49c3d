//! Ranges of pages: aligned, not empty, and without overflow, by construction.

use verdigris_abi::{Error, Ipa, PAGE_SIZE, Pa, Status};

/// One past the largest address that any stage of translation handles: 52 bits.
const ADDRESS_LIMIT: u64 = 1 << 52;

macro_rules! range {
    ($name:ident, $address:ident, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name {
            start: $address,
            page_count: u64,
        }

        impl $name {
            /// Makes a range of pages. Refuses an unaligned start, no pages, and an end past 52 bits.
            pub const fn new(start: u64, page_count: u64) -> Status<Self> {
                let aligned = start % PAGE_SIZE == 0;
                if !aligned || start >= ADDRESS_LIMIT || page_count == 0 {
                    return Err(Error::Invalid);
                }
                if page_count > (ADDRESS_LIMIT - start) / PAGE_SIZE {
                    return Err(Error::Invalid);
                }
                Ok(Self { start: $address(start), page_count })
            }

            /// Returns the first address.
            pub const fn start(&self) -> $address {
                self.start
            }

            /// Returns the address behind the last page.
            pub const fn end(&self) -> $address {
                $address(self.start.0 + self.page_count * PAGE_SIZE)
            }

            /// Returns the number of pages, at least 1.
            pub const fn page_count(&self) -> u64 {
                self.page_count
            }
        }
    };
}

range!(IpaRange, Ipa, "A range of a VM's addresses.");
range!(PaRange, Pa, "A range of physical addresses.");
