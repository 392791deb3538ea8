//! A request's head.

use crate::{BodyLength, Field, FieldName, Method, Span, Version};

/// A request's head, as offsets into the buffer it was parsed from. Reused from request to request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestHead {
    /// HTTP/1: length of the head in bytes, its empty line included: the body begins here.
    pub head_len: usize,
    /// The method, as far as a proxy cares.
    pub method: Method,
    /// The method's bytes.
    pub method_span: Span,
    /// The target, as sent.
    pub target: Span,
    /// Which form the target has.
    pub form: TargetForm,
    /// What goes on to the next hop as the target: the path and query of an absolute target, else the target. Empty
    /// for an absolute target without a path: then `/` is meant (`*` for OPTIONS).
    pub forward_target: Span,
    /// The path, without the query.
    pub path: Span,
    /// The query without its `?`; empty if there is none.
    pub query: Span,
    /// The authority: of an absolute target, else of `Host`. Empty only in HTTP/1.0.
    pub authority: Span,
    /// The version it came in.
    pub version: Version,
    /// Where the body ends.
    pub body: BodyLength,
    /// Whether the connection may be used again.
    pub keep_alive: bool,
    /// The scheme as the client wrote it (HTTP/2's `:scheme`); empty where the version does not say it.
    pub scheme: Span,
    /// Authority or path came as never to be compressed against what others send (RFC 7541, 6.2.3): said again further on.
    pub target_sensitive: bool,
    /// The protocol of an extended CONNECT (RFC 8441, 4).
    pub protocol: Option<Span>,
    /// `Expect: 100-continue`.
    pub expect_continue: bool,
    /// An unknown expectation: 417.
    pub expect_unknown: bool,
    /// The protocols asked for, if `Connection` lists `upgrade` and they are not HTTP/2.
    pub upgrade: Option<Span>,
    /// Whether `TE` lists `trailers`.
    pub te_trailers: bool,
    /// All fields, in order.
    pub fields: Vec<Field>,
}

/// The forms of a request target (RFC 9112, 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TargetForm {
    /// `/path?query`
    #[default]
    Origin,
    /// `http://authority/path?query`
    Absolute,
    /// `host:port`, for CONNECT only
    Authority,
    /// `*`, for OPTIONS only
    Asterisk,
}

impl RequestHead {
    /// The value of the first field of that name (lower case).
    #[must_use]
    pub fn value_of<'b>(&self, buffer: &'b [u8], name: &[u8]) -> Option<&'b [u8]> {
        self.values_of(buffer, name).next()
    }

    /// The values of all fields of that name (lower case), in order.
    pub fn values_of<'b>(&self, buffer: &'b [u8], name: &[u8]) -> impl Iterator<Item = &'b [u8]> {
        self.fields
            .iter()
            .filter(move |field| field.name.len() == name.len() && field.name.of(buffer).eq_ignore_ascii_case(name))
            .map(|field| field.value.of(buffer))
    }

    /// The values of all fields of one known name.
    pub fn values_of_kind<'b>(&self, buffer: &'b [u8], kind: FieldName) -> impl Iterator<Item = &'b [u8]> {
        self.fields.iter().filter(move |field| field.kind == kind).map(|field| field.value.of(buffer))
    }

    /// Names and values of all cookies, in the order of all `Cookie` fields. A name may come more than once: a browser sends
    /// one for each path and domain that it was set for (RFC 6265, 5.4).
    pub fn cookies<'b>(&self, buffer: &'b [u8]) -> impl Iterator<Item = (&'b [u8], &'b [u8])> {
        self.values_of_kind(buffer, FieldName::Cookie).flat_map(|value| value.split(|&byte| byte == b';')).filter_map(
            |pair| {
                let pair = pair.trim_ascii();
                let (name, value) = pair.split_at(memchr::memchr(b'=', pair)?);
                let value = &value[1..];
                Some((name, value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)))
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A head whose fields lie one after another in the bytes that are given with it.
    fn head(fields: &[(&str, &str)]) -> (RequestHead, Vec<u8>) {
        let (mut head, mut buffer) = (RequestHead::default(), Vec::new());
        let mut place = |text: &str| {
            let start = buffer.len() as u32;
            buffer.extend_from_slice(text.as_bytes());
            Span { start, end: buffer.len() as u32 }
        };
        for (name, value) in fields {
            let kind = FieldName::classify(name.as_bytes());
            head.fields.push(Field { name: place(name), value: place(value), kind, sensitive: false });
        }
        (head, buffer)
    }

    #[test]
    fn values_are_those_of_the_name_alone_in_order() {
        let (head, buffer) = head(&[("X-A", "1"), ("x-b", "2"), ("x-a", "3"), ("x-aa", "4")]);
        assert_eq!(head.values_of(&buffer, b"x-a").collect::<Vec<_>>(), [b"1", b"3"]);
        assert_eq!(head.value_of(&buffer, b"x-a"), Some(&b"1"[..]));
        assert_eq!(head.value_of(&buffer, b"x-c"), None);
        assert_eq!(head.values_of_kind(&buffer, FieldName::Cookie).count(), 0);
    }

    #[test]
    fn cookies_come_in_order_with_all_that_have_one_name() {
        let (head, buffer) = head(&[("cookie", "a=1;b=\"2\"; c"), ("x", "d=4"), ("Cookie", " a = 3=x ;=5;e=\"")]);
        let pairs: Vec<_> = head.cookies(&buffer).map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        let expected: [(&[u8], &[u8]); 5] = [(b"a", b"1"), (b"b", b"2"), (b"a ", b" 3=x"), (b"", b"5"), (b"e", b"\"")];
        assert_eq!(pairs, expected.map(|(name, value)| (name.to_vec(), value.to_vec())));
    }
}
