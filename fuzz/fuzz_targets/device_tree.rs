//! Fuzzes [`verdigris_fuzz::device_tree`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = verdigris_fuzz::device_tree(bytes);
});
