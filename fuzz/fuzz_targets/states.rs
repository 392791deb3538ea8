#![no_main]
//! Snapshots and backups.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringway_control::fuzzing::states(bytes));
