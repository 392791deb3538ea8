//! A request's head, as it goes over HTTP/2.

use ringway_message::{Line, Method, Span};

/// A request's head, as it goes over HTTP/2.
pub(crate) struct Outgoing<'a> {
    pub(crate) method: Method,
    /// The bytes that all spans below point into.
    pub(crate) text: &'a [u8],
    pub(crate) method_name: Span,
    pub(crate) target: Span,
    pub(crate) authority: Span,
    /// Target and authority came marked as never to be indexed.
    pub(crate) sensitive: bool,
    /// The fields; `host` is not among them.
    pub(crate) lines: &'a [Line],
    /// The protocol that the connection is to be upgraded to, where it is: an extended CONNECT (RFC 8441).
    pub(crate) protocol: Option<&'a [u8]>,
}

impl<'a> Outgoing<'a> {
    /// The head of a request whose text begins with `method target`, of these lengths.
    #[inline]
    pub(crate) fn new(
        method: Method,
        text: &'a [u8],
        (method_len, target_len): (usize, usize),
        (authority, sensitive): (Span, bool),
        lines: &'a [Line],
        protocol: Option<&'a [u8]>,
    ) -> Self {
        let span = |start: usize, len: usize| Span { start: start as u32, end: (start + len) as u32 };
        let (method_name, target) = (span(0, method_len), span(method_len + 1, target_len));
        Self { method, text, method_name, target, authority, sensitive, lines, protocol }
    }
}
