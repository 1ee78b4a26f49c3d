//! The one type that touches table memory.
//!
//! Every write is an atomic read-modify-write, although a plain store would do in places: the
//! hardware walker updates entries too (the access flag today, the dirty state once it is turned on),
//! and a store that replaces what was never read would lose its update. What a caller knows about the
//! old entry is what the operation returned.

use crate::descriptor::Descriptor;
use crate::sync::{AtomicU64, Ordering};

/// One entry of a table, shared with the walker and with all CPUs.
#[repr(transparent)]
pub struct Entry(AtomicU64);

impl Entry {
    /// Makes an entry outside of any table, for tests and for memory built in place.
    #[cfg(not(loom))]
    pub const fn new(value: Descriptor) -> Self {
        Self(AtomicU64::new(value.0))
    }

    /// Makes an entry outside of any table, for tests and for memory built in place.
    #[cfg(loom)]
    pub fn new(value: Descriptor) -> Self {
        Self(AtomicU64::new(value.0))
    }

    /// Copies the descriptor.
    ///
    /// Acquire, so that what is reached through a table descriptor was written before it was linked.
    pub fn read(&self) -> Descriptor {
        Descriptor(self.0.load(Ordering::Acquire))
    }

    /// Puts a descriptor in place and returns what stood there at that moment.
    pub fn replace(&self, new: Descriptor) -> Descriptor {
        Descriptor(self.0.swap(new.0, Ordering::AcqRel))
    }

    /// Puts `new` in place if the entry still is `old`; otherwise returns what stands there.
    pub fn exchange(&self, old: Descriptor, new: Descriptor) -> Result<(), Descriptor> {
        self.0
            .compare_exchange(old.0, new.0, Ordering::AcqRel, Ordering::Acquire)
            .map(drop)
            .map_err(Descriptor)
    }
}
