//! Fuzzes `server_fn_body`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzzing::server_fn_body::target(data);
});
