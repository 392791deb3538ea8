#![no_main]
//! Calls between members.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringway_control::fuzzing::transport(bytes));
