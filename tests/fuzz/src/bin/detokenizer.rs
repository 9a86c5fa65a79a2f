//! Fuzzes `detokenizer`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzzing::detokenizer::target(data);
});
