#![no_main]
//! Connection ids of QUIC.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringway_proxy::fuzzing::quic(bytes));
