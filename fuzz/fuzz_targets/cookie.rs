#![no_main]
//! Affinity cookies among others.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringway_proxy::fuzzing::cookie(bytes));
