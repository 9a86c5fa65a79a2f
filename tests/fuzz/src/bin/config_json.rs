//! Fuzzes `config_json`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzzing::config_json::target(data);
});
