//! Fuzzes `markdown_blocks`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzzing::markdown_blocks::target(data);
});
