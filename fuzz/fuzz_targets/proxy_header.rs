#![no_main]
//! PROXY headers of whoever connects.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringway_proxy::fuzzing::proxy_header(bytes));
