#![no_main]
//! What etcd answers.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringway_control::fuzzing::etcd(bytes));
