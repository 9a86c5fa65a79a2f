//! Fuzzes `prompt_builder`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzzing::prompt_builder::target(data);
});
