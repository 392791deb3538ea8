//! What `httparse` finds wrong, in our words.

use ringway_message::ParseError;

/// Which rule that is.
pub(crate) fn of_httparse(error: httparse::Error) -> ParseError {
    match error {
        httparse::Error::TooManyHeaders => ParseError::TooManyFields,
        httparse::Error::Version => ParseError::Version,
        httparse::Error::Status | httparse::Error::Token => ParseError::StartLine,
        httparse::Error::NewLine => ParseError::LineEnd,
        httparse::Error::HeaderName | httparse::Error::HeaderValue => ParseError::FieldLine,
    }
}
