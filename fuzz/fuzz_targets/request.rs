#![no_main]
//! Request heads: no panic, and what is taken lies inside the input.
use libfuzzer_sys::fuzz_target;
use ringway_http1::{Limits, RequestHead, parse_request};

fuzz_target!(|bytes: &[u8]| {
    let mut head = RequestHead::default();
    if let Ok(true) = parse_request(bytes, &Limits::default(), &mut head) {
        assert!(bytes[..head.head_len].ends_with(b"\r\n\r\n"));
        assert!(!head.method_span.of(bytes).is_empty());
        assert!(head.fields.iter().all(|field| !field.name.of(bytes).is_empty()));
        // The same head at the start of more bytes is the same head.
        let mut again = RequestHead::default();
        assert_eq!(parse_request(&[bytes, b"\0\r\n\n"].concat(), &Limits::default(), &mut again), Ok(true));
        assert_eq!(head, again);
    }
});
