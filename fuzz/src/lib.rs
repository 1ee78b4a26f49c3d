//! What a fuzzer does: functions of some bytes, which panic where something is wrong.
//!
//! Three inputs come from outside of EL2's code: what a host calls and in which order, the registers of a call,
//! and the device tree. Each has a function here. The fuzzers (`fuzz_targets`, built with the feature `libfuzzer`)
//! are one line each; without them, `cargo test` runs the functions over the committed seeds (`corpus`), so that
//! an input that once failed stays a test on every machine.
//!
//! `cargo xtask test fuzz` builds the fuzzers and lets each run for a while.

mod calls;
mod device_tree;
mod operations;

pub use calls::calls;
pub use device_tree::device_tree;
pub use operations::operations;
