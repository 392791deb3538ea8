#![no_main]
//! What agents and gRPC health checks answer.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringway_proxy::fuzzing::checks(bytes));
