//! Fuzzes `index_json`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzzing::index_json::target(data);
});
