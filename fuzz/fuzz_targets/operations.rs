//! Fuzzes [`verdigris_fuzz::operations`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = verdigris_fuzz::operations(bytes);
});
