//! Why bytes are not a message that Ringway passes on.

use thiserror::Error;

/// Why a head or a body was refused. The `Display` text is for people, [`ParseError::reason`] for machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The head is longer than the limit.
    #[error("head is longer than the limit")]
    HeadTooLarge,
    /// The head has more fields than the limit.
    #[error("head has more fields than the limit")]
    TooManyFields,
    /// The request or status line does not follow the grammar.
    #[error("malformed start line")]
    StartLine,
    /// The version is neither HTTP/1.0 nor HTTP/1.1.
    #[error("version is neither HTTP/1.0 nor HTTP/1.1")]
    Version,
    /// A field line does not follow the grammar: name, colon, folding, control characters.
    #[error("malformed field line")]
    FieldLine,
    /// A line ends with a bare LF, or holds a bare CR.
    #[error("line does not end with CR LF")]
    LineEnd,
    /// The target is not one of the four forms, or has bytes no URI may have.
    #[error("malformed request target")]
    Target,
    /// There is no Host.
    #[error("no Host field")]
    HostMissing,
    /// There are two Host fields.
    #[error("more than one Host field")]
    HostRepeated,
    /// The Host is not an authority.
    #[error("Host is not an authority")]
    HostInvalid,
    /// The target's authority and Host differ.
    #[error("target and Host name different authorities")]
    HostDisagrees,
    /// There are two lengths.
    #[error("more than one Content-Length")]
    LengthRepeated,
    /// The length is not a plain decimal number.
    #[error("Content-Length is not a decimal number")]
    LengthInvalid,
    /// There are a length and a transfer coding.
    #[error("Content-Length together with Transfer-Encoding")]
    LengthAndCoding,
    /// The transfer coding is not exactly one `chunked` in HTTP/1.1.
    #[error("Transfer-Encoding is not exactly chunked")]
    TransferCoding,
    /// The chunk size line does not follow the grammar.
    #[error("malformed chunk size")]
    ChunkSize,
    /// The bytes after a chunk's data are not CR LF.
    #[error("malformed chunk end")]
    ChunkEnd,
    /// Chunk extensions or trailers are longer than the limit.
    #[error("chunk extensions or trailers are longer than the limit")]
    ChunkOverhead,
    /// The trailer section does not follow the grammar.
    #[error("malformed trailer field")]
    Trailer,
    /// The status is outside 100 to 599.
    #[error("status is outside 100 to 599")]
    Status,
    /// 101 to a request that did not ask for it.
    #[error("switching protocols without having been asked")]
    UnexpectedUpgrade,
}

impl ParseError {
    /// Stable machine-readable name, as in `x-ringway-reason` and the access log.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::HeadTooLarge => "head_too_large",
            Self::TooManyFields => "too_many_fields",
            Self::StartLine => "bad_start_line",
            Self::Version => "bad_version",
            Self::FieldLine => "bad_field_line",
            Self::LineEnd => "bad_line_end",
            Self::Target => "bad_target",
            Self::HostMissing => "host_missing",
            Self::HostRepeated => "host_repeated",
            Self::HostInvalid => "host_invalid",
            Self::HostDisagrees => "host_disagrees",
            Self::LengthRepeated => "length_repeated",
            Self::LengthInvalid => "length_invalid",
            Self::LengthAndCoding => "length_and_coding",
            Self::TransferCoding => "bad_transfer_coding",
            Self::ChunkSize => "bad_chunk_size",
            Self::ChunkEnd => "bad_chunk_end",
            Self::ChunkOverhead => "chunk_overhead",
            Self::Trailer => "bad_trailer",
            Self::Status => "bad_status",
            Self::UnexpectedUpgrade => "unexpected_upgrade",
        }
    }

    /// Whether a limit was passed (431 for a request) rather than the grammar broken (400).
    #[must_use]
    pub fn is_size(self) -> bool {
        matches!(self, Self::HeadTooLarge | Self::TooManyFields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_name_of_its_own_and_two_are_of_size() {
        let all = [
            ParseError::HeadTooLarge,
            ParseError::TooManyFields,
            ParseError::StartLine,
            ParseError::Version,
            ParseError::FieldLine,
            ParseError::LineEnd,
            ParseError::Target,
            ParseError::HostMissing,
            ParseError::HostRepeated,
            ParseError::HostInvalid,
            ParseError::HostDisagrees,
            ParseError::LengthRepeated,
            ParseError::LengthInvalid,
            ParseError::LengthAndCoding,
            ParseError::TransferCoding,
            ParseError::ChunkSize,
            ParseError::ChunkEnd,
            ParseError::ChunkOverhead,
            ParseError::Trailer,
            ParseError::Status,
            ParseError::UnexpectedUpgrade,
        ];
        let names: std::collections::BTreeSet<&str> = all.into_iter().map(ParseError::reason).collect();
        assert_eq!(names.len(), all.len());
        assert!(
            names
                .iter()
                .all(|name| name.len() > 5 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
        );
        let of_size: Vec<ParseError> = all.into_iter().filter(|error| error.is_size()).collect();
        assert_eq!(of_size, [ParseError::HeadTooLarge, ParseError::TooManyFields]);
    }
}
