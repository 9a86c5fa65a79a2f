//! Fuzzes `leptos_toml`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzzing::leptos_toml::target(data);
});
