//! A response of our own, ready to be sent in whatever version its client speaks.

/// A response of our own in a [`HeadWriter`](ringway_message::HeadWriter)'s text: its head, with status line and empty line as HTTP/1.1 has them, and its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EncodedReply {
    pub(crate) status: u16,
    /// Where in the text the body begins.
    pub(crate) body_from: usize,
}
