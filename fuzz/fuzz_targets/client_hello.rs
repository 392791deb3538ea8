#![no_main]
//! First messages of clients that speak TLS.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringway_proxy::fuzzing::client_hello(bytes));
