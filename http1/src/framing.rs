//! What HTTP/1.1's framing fields say, and the other fields that mean something to a codec: noted one by one, judged together.

use crate::ParseError;
use ringway_message::{Field, FieldName, Span, Version, content_length, nominate, tokens};

/// Framing on the side that is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Bytes as they are: the head has announced the length, or the connection's end ends them.
    Identity,
    /// Chunks.
    Chunked,
}

/// What the framing fields of a head say together.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Framing {
    pub(crate) length: Option<u64>,
    pub(crate) chunked: bool,
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    pub(crate) upgrade_option: bool,
    nominations: bool,
}

impl Framing {
    /// Takes in one field; the rules of RFC 9112, 6, without their leniencies.
    fn field(&mut self, kind: FieldName, value: &[u8]) -> Result<(), ParseError> {
        match kind {
            FieldName::ContentLength => {
                if self.length.is_some() {
                    return Err(ParseError::LengthRepeated);
                }
                self.length = Some(content_length(value)?);
            }
            FieldName::TransferEncoding => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(ParseError::TransferCoding);
                }
                self.chunked = true;
            }
            FieldName::Connection if value == b"keep-alive" => self.keep_alive = true,
            FieldName::Connection if value == b"close" => self.close = true,
            FieldName::Connection => {
                for option in tokens(value) {
                    if option.eq_ignore_ascii_case(b"close") {
                        self.close = true;
                    } else if option.eq_ignore_ascii_case(b"keep-alive") {
                        self.keep_alive = true;
                    } else if option.eq_ignore_ascii_case(b"upgrade") {
                        self.upgrade_option = true;
                    } else if !option.is_empty() {
                        self.nominations = true;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Length and coding together, and a coding in HTTP/1.0, are how messages are smuggled.
    fn check(&self, version: Version) -> Result<(), ParseError> {
        if self.chunked && self.length.is_some() {
            return Err(ParseError::LengthAndCoding);
        }
        if self.chunked && version == Version::Http10 {
            return Err(ParseError::TransferCoding);
        }
        Ok(())
    }

    /// Whether the connection may be used again, as far as this head says.
    pub(crate) fn persists(&self, version: Version) -> bool {
        match version {
            Version::Http11 | Version::Http2 => !self.close,
            Version::Http10 => self.keep_alive && !self.close,
        }
    }
}

/// Every LF must end a CR LF: one party takes a bare LF for a line's end, another does not, and the two disagree about lines.
pub(crate) fn check_line_ends(head: &[u8]) -> Result<(), ParseError> {
    for at in memchr::memchr_iter(b'\n', head) {
        if at == 0 || head[at - 1] != b'\r' {
            return Err(ParseError::LineEnd);
        }
    }
    Ok(())
}

/// What a walk has noted of the fields that mean something.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    framing: Framing,
    /// What is wrong with the framing fields, first. The head is not known to be whole yet.
    wrong: Option<ParseError>,
    pub(crate) host: Option<Span>,
    pub(crate) host_repeated: bool,
    /// `Expect: 100-continue`, and any other expectation.
    pub(crate) expect_continue: bool,
    pub(crate) expect_unknown: bool,
    /// The last protocol asked for that is not HTTP/2: h2c by Upgrade is how requests bypass a proxy's rules, and is never passed on.
    pub(crate) upgrade: Option<Span>,
    pub(crate) te_trailers: bool,
}

impl Noted {
    /// Takes in a field with a name that is known. Most have none: the walk over them keeps its registers.
    #[inline(never)]
    pub(crate) fn field(&mut self, kind: FieldName, place: Span, value: &[u8]) {
        match kind {
            FieldName::Host => self.host_repeated |= self.host.replace(place).is_some(),
            FieldName::ContentLength | FieldName::TransferEncoding | FieldName::Connection => {
                if self.wrong.is_none() {
                    self.wrong = self.framing.field(kind, value).err();
                }
            }
            FieldName::Expect if value.eq_ignore_ascii_case(b"100-continue") => self.expect_continue = true,
            FieldName::Expect => self.expect_unknown = true,
            FieldName::Upgrade => {
                if !tokens(value).any(|token| token.len() >= 3 && token[..3].eq_ignore_ascii_case(b"h2c")) {
                    self.upgrade = Some(place);
                }
            }
            FieldName::Te => {
                self.te_trailers |= tokens(value).any(|token| token.eq_ignore_ascii_case(b"trailers"));
            }
            FieldName::Other
            | FieldName::Cookie
            | FieldName::Forwarded
            | FieldName::Http2Settings
            | FieldName::KeepAlive
            | FieldName::Nominated
            | FieldName::ProxyAuthenticate
            | FieldName::ProxyConnection
            | FieldName::Ringway
            | FieldName::Disguised
            | FieldName::Trailer
            | FieldName::XForwardedFor
            | FieldName::XForwardedHost
            | FieldName::XForwardedPort
            | FieldName::XForwardedProto => {}
        }
    }

    /// What the framing fields say together, now that the head is whole; marks what `Connection` names.
    #[inline]
    pub(crate) fn judge(
        &mut self,
        buffer: &[u8],
        version: Version,
        fields: &mut [Field],
    ) -> Result<Framing, ParseError> {
        if let Some(error) = self.wrong {
            return Err(error);
        }
        self.framing.check(version)?;
        if self.framing.nominations {
            self.nominate(buffer, fields);
        }
        Ok(self.framing)
    }

    /// What is for this hop only is no expectation of ours.
    #[cold]
    fn nominate(&mut self, buffer: &[u8], fields: &mut [Field]) {
        nominate(buffer, fields);
        if !fields.iter().any(|field| field.kind == FieldName::Expect) {
            (self.expect_continue, self.expect_unknown) = (false, false);
        }
    }
}
