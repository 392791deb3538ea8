#![no_main]
//! Records of a member's log.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringway_control::fuzzing::records(bytes));
