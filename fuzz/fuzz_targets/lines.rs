#![no_main]
//! The watch stream.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringway_control::fuzzing::lines(bytes));
