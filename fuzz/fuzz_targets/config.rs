#![no_main]
//! Configuration files: any text is either valid or refused with findings that can be printed.
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(findings) = ringway_config::load_str("fuzz", text, &|_| None) {
        assert!(!findings.0.is_empty());
        assert!(!findings.to_string().is_empty());
    }
});
