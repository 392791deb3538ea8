//! Beside the types of the `http` crate, which hyper and h2 are built on: the same names, values and methods.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use http::{HeaderName, HeaderValue};
use proptest::prelude::*;
use ringway_message::{FieldName, content_length, is_lower_token, is_token, is_value};

/// Bytes of which names and values are made, and some that they must not have.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        8 => prop::sample::select(b"abcxyzABCXYZ019-_.~!#$%&'*+^`|".to_vec()),
        2 => prop::sample::select(b" \t\r\n\0:;,/\"\x7f\x80\xff".to_vec()),
        1 => any::<u8>(),
    ];
    prop::collection::vec(byte, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn names_are_the_same(name in text()) {
        prop_assert_eq!(is_token(&name), HeaderName::from_bytes(&name).is_ok());
        prop_assert_eq!(is_token(&name), http::Method::from_bytes(&name).is_ok());
        // In HTTP/2 as they stand, in HTTP/1.1 in any case: both mean the same.
        let lower = name.to_ascii_lowercase();
        prop_assert_eq!(is_lower_token(&name), is_token(&name) && lower == name);
        prop_assert_eq!(FieldName::classify(&name), FieldName::classify(&lower));
    }

    #[test]
    fn values_are_the_same_but_for_white_space_around_them(value in text()) {
        let padded = |byte: Option<&u8>| byte.is_some_and(|byte| matches!(byte, b' ' | b'\t'));
        let trimmed = !padded(value.first()) && !padded(value.last());
        prop_assert_eq!(is_value(&value), HeaderValue::from_bytes(&value).is_ok() && trimmed);
    }

    #[test]
    fn a_length_is_what_parses_as_one_without_a_sign(text in "[0-9+ ,-]{0,22}") {
        let plain = !text.starts_with('+') && text.len() <= 19;
        prop_assert_eq!(content_length(text.as_bytes()).ok(), text.parse::<u64>().ok().filter(|_| plain));
    }
}
