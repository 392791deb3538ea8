//! Fields that are for one hop only because the sender says so.

use crate::{Field, FieldName, tokens};

/// Marks what `Connection` names (RFC 9110, 7.6.1): for this hop only, but for what frames and routes a message, which is not the
/// sender's to remove.
pub fn nominate(buffer: &[u8], fields: &mut [Field]) {
    for index in 0..fields.len() {
        if fields[index].kind != FieldName::Connection {
            continue;
        }
        for option in tokens(fields[index].value.of(buffer)) {
            for field in fields.iter_mut() {
                if field.kind.may_be_nominated() && field.name.of(buffer).eq_ignore_ascii_case(option) {
                    field.kind = FieldName::Nominated;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Span;
    use proptest::prelude::*;

    /// A head of these fields, and its bytes.
    fn head(lines: &[(&str, &str)]) -> (Vec<u8>, Vec<Field>) {
        let (mut buffer, mut fields) = (Vec::new(), Vec::new());
        let mut add = |text: &str| {
            let start = buffer.len() as u32;
            buffer.extend_from_slice(text.as_bytes());
            Span { start, end: buffer.len() as u32 }
        };
        for (name, value) in lines {
            let kind = FieldName::classify(name.as_bytes());
            fields.push(Field { name: add(name), value: add(value), kind, sensitive: false });
        }
        (buffer, fields)
    }

    #[test]
    fn what_frames_or_routes_is_not_the_senders_to_remove() {
        let (buffer, mut fields) = head(&[
            ("Host", "a"),
            ("Content-Length", "0"),
            ("X-A", "1"),
            ("Connection", "x-a,, CONTENT-LENGTH ,host, x-forwarded-for\t"),
            ("X-Forwarded-For", "1.2.3.4"),
            ("Cookie", "a=b"),
            ("connection", "COOKIE"),
        ]);
        nominate(&buffer, &mut fields);
        let kinds: Vec<FieldName> = fields.iter().map(|field| field.kind).collect();
        let expected = [
            FieldName::Host,
            FieldName::ContentLength,
            FieldName::Nominated,
            FieldName::Connection,
            FieldName::XForwardedFor,
            FieldName::Nominated,
            FieldName::Connection,
        ];
        assert_eq!(kinds, expected);
    }

    proptest! {
        #[test]
        fn a_field_is_nominated_if_and_only_if_some_connection_names_it(
            names in prop::collection::vec(prop::sample::select(vec!["X-A", "x-b", "Te", "Cookie", "Host", "Trailer"]), 0..8),
            options in prop::collection::vec(prop::sample::select(vec!["x-a", "X-B", "te", "cookie", "host", "close", ""]), 0..5),
        ) {
            let list = options.join(" , ");
            let lines: Vec<(&str, &str)> = names.iter().map(|name| (*name, "1")).chain([("Connection", &*list)]).collect();
            let (buffer, mut fields) = head(&lines);
            nominate(&buffer, &mut fields);
            for (field, (name, _)) in fields.iter().zip(&lines) {
                let named = options.iter().any(|option| option.eq_ignore_ascii_case(name));
                let may = FieldName::classify(name.as_bytes()).may_be_nominated();
                prop_assert_eq!(field.kind == FieldName::Nominated, named && may, "{}", name);
            }
            let once = fields.clone();
            nominate(&buffer, &mut fields);
            prop_assert_eq!(once, fields);
        }
    }
}
