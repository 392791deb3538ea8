//! Why a head is not passed on.

use ringway_message::ParseError;

/// Why a head is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is malformed: a stream error of type PROTOCOL_ERROR (RFC 9113, 8.1.1).
    Malformed(ParseError),
    /// It is not known which resource is meant: a server answers 400, as in HTTP/1.1.
    Refused(ParseError),
    /// It is past the limits: a server answers 431, a client resets the stream.
    TooLarge(ParseError),
}

impl Fault {
    /// What is wrong.
    #[must_use]
    pub fn error(self) -> ParseError {
        match self {
            Self::Malformed(error) | Self::Refused(error) | Self::TooLarge(error) => error,
        }
    }
}
