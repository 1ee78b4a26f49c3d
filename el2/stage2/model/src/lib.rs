//! A model of a VM's address space, to test the stage-2 engine against.
//!
//! Four parts, each of which can be used by itself:
//! - [`space`]: what the host should believe, as leaves by page. An executable specification begins here.
//! - [`walker`]: reads the real tables as the architecture says, with constants of its own.
//! - [`tlb`]: all that lazy TLBs may hold at a moment.
//! - [`machine`], with its [`agent`]: the environment of the engine, in which guests, walkers and other CPUs
//!   act at random moments.
//!
//! [`world`] brings them together: it does one random operation after the other and checks each. Its choices
//! come from a seed (`tests/property.rs`) or from the bytes of a fuzzer (`fuzz/`).
//!
//! Nothing here runs at EL2; nothing in the firmware depends on it.

pub mod agent;
pub mod choices;
pub mod machine;
pub mod memory;
pub mod settings;
pub mod shares;
pub mod space;
pub mod tlb;
pub mod vmids;
pub mod walker;
pub mod world;

pub use choices::Choices;
pub use settings::Settings;
pub use world::World;
