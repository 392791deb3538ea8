//! A local reply, encoded once and ready to be sent in the version of HTTP that its client speaks.

/// A local reply in the text of a [`HeadWriter`](ringway_message::HeadWriter): its head, with status line and empty line as in
/// HTTP/1.1, and its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EncodedReply {
    pub(crate) status: u16,
    /// Where in the text the body begins.
    pub(crate) body_from: usize,
}
