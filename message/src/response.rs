//! A response's head, and where bodies end.

use crate::{Field, Span, Version};

/// Where a message's body ends, as its head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BodyLength {
    /// There is none.
    #[default]
    None,
    /// After so many bytes.
    Sized(u64),
    /// With the last chunk.
    Chunked,
    /// With the connection (responses only).
    UntilClose,
}

/// A response's head, as offsets into the buffer it was parsed from. Reused from response to response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResponseHead {
    /// HTTP/1: length of the head in bytes, its empty line included: the body begins here.
    pub head_len: usize,
    /// The version it came in.
    pub version: Version,
    /// 100 to 599.
    pub status: u16,
    /// The reason phrase's bytes; may be empty.
    pub reason: Span,
    /// Where the body ends.
    pub body: BodyLength,
    /// The length announced where no body follows (HEAD, 304): passed on, counts nothing.
    pub announced_length: Option<u64>,
    /// Whether the connection may be used again after the body.
    pub keep_alive: bool,
    /// The protocol switched to (101).
    pub upgrade: Option<Span>,
    /// All fields, in order.
    pub fields: Vec<Field>,
}

impl ResponseHead {
    /// Whether another head follows (1xx, but for 101).
    #[must_use]
    pub fn is_informational(&self) -> bool {
        self.status < 200 && self.status != 101
    }

    /// Whether the connection is now a tunnel.
    #[must_use]
    pub fn is_switch(&self) -> bool {
        self.status == 101
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_head_follows_an_informational_one_but_not_a_switch() {
        for (status, interim, switch) in
            [(100, true, false), (101, false, true), (103, true, false), (199, true, false), (200, false, false)]
        {
            let head = ResponseHead { status, ..ResponseHead::default() };
            assert_eq!((head.is_informational(), head.is_switch()), (interim, switch), "{status}");
        }
    }
}
