#![no_main]
//! Forwarding fields, trace context.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringway_proxy::fuzzing::forwarded(bytes));
