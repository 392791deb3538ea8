#![no_main]
//! Response heads: no panic, statuses in range, bodies only where there may be one.
use libfuzzer_sys::fuzz_target;
use ringway_http1::{BodyLength, Limits, Method, ResponseHead, parse_response};

fuzz_target!(|bytes: &[u8]| {
    let mut head = ResponseHead::default();
    for method in [Method::Get, Method::Head] {
        if let Ok(true) = parse_response(bytes, &Limits::default(), method, false, &mut head) {
            assert!((100..=599).contains(&head.status) && head.status != 101);
            assert!(bytes[..head.head_len].ends_with(b"\r\n\r\n"));
            if method == Method::Head || head.status < 200 || matches!(head.status, 204 | 304) {
                assert_eq!(head.body, BodyLength::None);
            }
        }
    }
});
