//! The stage-2 page-table engine of Verdigris.
//!
//! Stage 2 maps what a VM calls physical (an IPA) to what is physical (a PA). The engine owns the
//! format of the tables, the order of every store to them, and the order of stores and TLB
//! invalidations. It has no assembly and no statics: hardware enters through the traits of
//! [`memory`] and [`hardware`], so that the same code runs in the firmware, under `cargo test`,
//! under Miri, and under loom, where the `sync` module swaps the atomics.
//!
//! The one invariant: **the hardware walker is a concurrent writer.** It reads the tables at any
//! moment, caches what it read, and may set the access flag of a valid leaf between any two
//! instructions of ours. So
//! - a [`Descriptor`] is a copied value, never a reference into a table;
//! - [`Entry`] is the only type that touches table memory, by atomic operations alone;
//! - what an entry held is what the exchange *returned*, not what a load saw before.
//!
//! Layers, from the bottom: [`descriptor`] and [`geometry`] (pure values), [`entry`] (the atomic),
//! [`memory`] and [`hardware`] (traits), [`walk`], [`flush`] (invalidation), and on these [`identity`]
//! (the host) and [`stage2`] (a VM). What keeps concurrent calls on a VM apart: [`contract`],
//! [`batches`], [`epoch`], [`drain`], [`dirty`], [`limbo`]. The operations on a VM are methods of [`Stage2`], one module each.
#![cfg_attr(not(any(test, loom, feature = "weakness")), no_std)]

#[cfg(all(feature = "weakness", target_os = "none"))]
compile_error!("the firmware is built without mistakes on purpose");

pub mod attributes;
pub mod batches;
pub mod contract;
pub mod descriptor;
pub mod dirty;
pub mod drain;
pub mod entry;
pub mod epoch;
pub mod flush;
pub mod geometry;
pub mod hardware;
pub mod identity;
pub mod limbo;
pub mod memory;
pub mod operand;
pub mod range;
pub mod stage2;
pub mod sweep;
pub mod sync;
pub mod walk;
pub mod working_set;

mod age;
mod collapse;
mod fault;
mod gather;
mod harvest;
mod leaves;
mod map;
mod protect;
mod reclaim;
mod scan;
mod set;
mod source;
mod split;
mod unmap;

pub use age::AgeFlush;
pub use attributes::Attributes;
pub use descriptor::{Descriptor, Kind, Level};
pub use dirty::{DirtySink, NoDirty};
pub use entry::Entry;
pub use fault::{Access, FaultKind, Resolution};
pub use flush::Config;
pub use geometry::Geometry;
pub use hardware::{Cache, Counters, Cpus, Env, Removed, Shares, Tlb};
pub use identity::{HostFault, Identity};
pub use map::{Map, MapList};
pub use memory::{PageSource, Root, Table, TableMemory, TablePage};
pub use range::{Outcome, Range};
pub use scan::WordSink;
pub use set::Set;
pub use source::List;
pub use stage2::Stage2;
pub use verdigris_abi::{Error, Ipa, PAGE_SHIFT, PAGE_SIZE, Pa, Stat};
