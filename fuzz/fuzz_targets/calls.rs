//! Fuzzes [`verdigris_fuzz::calls`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = verdigris_fuzz::calls(bytes);
});
