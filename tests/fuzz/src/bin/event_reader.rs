//! Fuzzes `event_reader`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzzing::event_reader::target(data);
});
