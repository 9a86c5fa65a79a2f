//! Fuzzes `safetensors_header`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzzing::safetensors_header::target(data);
});
