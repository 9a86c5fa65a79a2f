//! Fuzzes `tokenizer_round_trip`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzzing::tokenizer_round_trip::target(data);
});
