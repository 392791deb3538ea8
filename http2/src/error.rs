//! Why a stream or a connection ends, in the words of RFC 9113, section 7.

use thiserror::Error;

/// An error code of RST_STREAM and GOAWAY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is the code's own name")]
pub enum Reason {
    NoError,
    ProtocolError,
    InternalError,
    FlowControlError,
    SettingsTimeout,
    StreamClosed,
    FrameSizeError,
    RefusedStream,
    Cancel,
    CompressionError,
    ConnectError,
    EnhanceYourCalm,
    InadequateSecurity,
    Http11Required,
    /// One that no specification knows: as `InternalError` (RFC 9113, 7).
    Other(u32),
}

impl Reason {
    /// Of a code as it stands in a frame.
    #[must_use]
    pub fn from_code(code: u32) -> Self {
        match code {
            0x0 => Self::NoError,
            0x1 => Self::ProtocolError,
            0x2 => Self::InternalError,
            0x3 => Self::FlowControlError,
            0x4 => Self::SettingsTimeout,
            0x5 => Self::StreamClosed,
            0x6 => Self::FrameSizeError,
            0x7 => Self::RefusedStream,
            0x8 => Self::Cancel,
            0x9 => Self::CompressionError,
            0xa => Self::ConnectError,
            0xb => Self::EnhanceYourCalm,
            0xc => Self::InadequateSecurity,
            0xd => Self::Http11Required,
            other => Self::Other(other),
        }
    }

    /// As it stands in a frame.
    #[must_use]
    pub fn code(self) -> u32 {
        match self {
            Self::NoError => 0x0,
            Self::ProtocolError => 0x1,
            Self::InternalError => 0x2,
            Self::FlowControlError => 0x3,
            Self::SettingsTimeout => 0x4,
            Self::StreamClosed => 0x5,
            Self::FrameSizeError => 0x6,
            Self::RefusedStream => 0x7,
            Self::Cancel => 0x8,
            Self::CompressionError => 0x9,
            Self::ConnectError => 0xa,
            Self::EnhanceYourCalm => 0xb,
            Self::InadequateSecurity => 0xc,
            Self::Http11Required => 0xd,
            Self::Other(code) => code,
        }
    }
}

/// Why a connection is over: GOAWAY says so to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{reason:?}: {debug}")]
pub struct ConnectionError {
    /// The code that the RFC names.
    pub reason: Reason,
    /// For people; it goes with GOAWAY.
    pub debug: &'static str,
    /// If the peer has sent more of something than any client needs: a name for metrics.
    pub flood: Option<&'static str>,
}

impl ConnectionError {
    pub(crate) const fn new(reason: Reason, debug: &'static str) -> Self {
        Self { reason, debug, flood: None }
    }

    pub(crate) const fn protocol(debug: &'static str) -> Self {
        Self::new(Reason::ProtocolError, debug)
    }

    /// More than any client needs.
    pub(crate) const fn flood(name: &'static str) -> Self {
        Self { reason: Reason::EnhanceYourCalm, debug: name, flood: Some(name) }
    }
}

/// What is wrong with a frame ends its stream, or the whole connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameError {
    Connection(ConnectionError),
    /// The frame's own stream is reset, and no other notices.
    Stream(Reason),
}

impl FrameError {
    pub(crate) const fn size(debug: &'static str) -> Self {
        Self::Connection(ConnectionError::new(Reason::FrameSizeError, debug))
    }

    pub(crate) const fn protocol(debug: &'static str) -> Self {
        Self::Connection(ConnectionError::protocol(debug))
    }
}

impl From<ConnectionError> for FrameError {
    fn from(error: ConnectionError) -> Self {
        Self::Connection(error)
    }
}

/// The stream is over, was reset, or may not send any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the stream is closed")]
pub struct Closed;

/// Why no stream can be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OpenError {
    /// The peer takes no more at the moment: [`crate::Event::Capacity`] tells when one may be tried again.
    #[error("the peer takes no more streams at the moment")]
    Full,
    /// The connection is on its way out.
    #[error("the connection takes no more streams")]
    GoingAway,
    /// All stream identifiers have been used.
    #[error("all stream identifiers have been used")]
    Exhausted,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_rfc_and_unknown_ones_stay_what_they_are() {
        for code in 0..=0x20 {
            assert_eq!(Reason::from_code(code).code(), code);
        }
        assert_eq!(Reason::from_code(0xb), Reason::EnhanceYourCalm);
        assert_eq!(Reason::from_code(u32::MAX), Reason::Other(u32::MAX));
    }
}
