//! The committed seeds, through the functions that fuzzers call.

use std::fs;
use std::path::Path;

/// Runs each file of a folder; at least one has to be a good input.
fn each_seed(folder: &str, run: impl Fn(&[u8]) -> bool) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut good = 0;
    for seed in fs::read_dir(folder).expect("a folder of seeds") {
        let seed = seed.expect("a file").path();
        println!("{}", seed.display());
        good += u32::from(run(&fs::read(&seed).expect("a seed")));
    }
    assert_ne!(good, 0, "no seed is a good input");
}

#[test]
fn operations() {
    each_seed("corpus/operations", verdigris_fuzz::operations);
}

#[test]
fn calls() {
    each_seed("corpus/calls", verdigris_fuzz::calls);
}

#[test]
fn device_tree() {
    each_seed("corpus/device_tree", verdigris_fuzz::device_tree);
    each_seed("../platform/testdata", verdigris_fuzz::device_tree);
}
