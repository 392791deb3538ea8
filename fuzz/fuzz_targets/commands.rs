#![no_main]
//! Commands of the log.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringway_control::fuzzing::commands(bytes));
