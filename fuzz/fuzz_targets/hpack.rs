#![no_main]
//! Compressed blocks: no panic, memory bounded, and what is decoded and encoded again is decoded to the same.
use libfuzzer_sys::fuzz_target;
use ringway_http2::head::{self, RequestRules};
use ringway_http2::hpack::{Decoder, encode};
use ringway_message::{Limits, Method, RequestHead, ResponseHead};

fuzz_target!(|bytes: &[u8]| {
    let mut decoder = Decoder::new(4096);
    let mut fields: Vec<(Vec<u8>, Vec<u8>, bool)> = Vec::new();
    // Several blocks of one connection.
    for block in bytes.split(|byte| *byte == 0xfe) {
        let mut size = 0;
        let decoded = decoder.decode(block, |field| {
            size += field.name.len() + field.value.len();
            if fields.len() < 100 && size < 100_000 {
                fields.push((field.name.to_vec(), field.value.to_vec(), field.sensitive));
            }
        });
        assert!(decoder.memory_bytes() <= 16 * 1024 + 4 * bytes.len());
        if decoded.is_err() {
            break;
        }
    }
    decoder.shrink();
    assert!(decoder.memory_bytes() <= 8 * 1024);

    let mut block = Vec::new();
    encode::size_update_to_zero(&mut block);
    for (name, value, sensitive) in &fields {
        encode::field(&mut block, name, value, *sensitive);
    }
    let mut left = fields.iter();
    let again = Decoder::new(4096).decode(&block, |field| {
        let (name, value, sensitive) = left.next().expect("no more than there were");
        assert_eq!((field.name, field.value), (&name.to_ascii_lowercase()[..], &value[..]));
        assert!(field.sensitive || !sensitive);
    });
    assert_eq!(again, Ok(()));
    assert!(left.next().is_none());

    let limits = Limits { head_bytes_max: 2048, fields_max: 20 };
    let rules = RequestRules { limits, extended_connect: true };
    let (mut request, mut response, mut arena) = (RequestHead::default(), ResponseHead::default(), Vec::new());
    if let Ok(Ok(())) = head::request(&mut Decoder::new(4096), bytes, false, &rules, &mut request, &mut arena) {
        assert!(!request.authority.is_empty() && !request.target.is_empty());
        assert!(arena.len() <= 2 * limits.head_bytes_max);
    }
    let _ = head::response(&mut Decoder::new(4096), bytes, false, &limits, Method::Get, &mut response, &mut arena);
    let _ = head::trailers(&mut Decoder::new(4096), bytes, &limits, &mut request.fields, &mut arena);
});
