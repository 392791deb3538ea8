//! What HTTP/1.1's framing fields say, and the table of fields.

use crate::ParseError;
use ringway_message::{Field, FieldName, Span, Version, tokens};

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
    pub(crate) fn field(&mut self, kind: FieldName, value: &[u8]) -> Result<(), ParseError> {
        match kind {
            FieldName::ContentLength => {
                if self.length.is_some() {
                    return Err(ParseError::LengthRepeated);
                }
                self.length = Some(parse_length(value)?);
            }
            FieldName::TransferEncoding => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(ParseError::TransferCoding);
                }
                self.chunked = true;
            }
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
    pub(crate) fn check(&self, version: Version) -> Result<(), ParseError> {
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

    /// Marks what `Connection` names.
    pub(crate) fn nominate(&self, buffer: &[u8], fields: &mut [Field]) {
        if !self.nominations {
            return;
        }
        for index in 0..fields.len() {
            if fields[index].kind != FieldName::Connection {
                continue;
            }
            for option in tokens(fields[index].value.of(buffer)) {
                for field in fields.iter_mut() {
                    if field.kind.may_be_nominated() && field.name.of(buffer).eq_ignore_ascii_case(option) {
                        field.kind = FieldName::Nominated;
                    }
                }
            }
        }
    }
}

fn parse_length(value: &[u8]) -> Result<u64, ParseError> {
    // 19 digits always fit in 64 bits; more are no real length.
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return Err(if value.contains(&b',') { ParseError::LengthRepeated } else { ParseError::LengthInvalid });
    }
    Ok(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// Every LF must end a CR LF. `httparse` takes a bare LF for a line's end; two parties then disagree about lines.
pub(crate) fn check_line_ends(head: &[u8]) -> Result<(), ParseError> {
    for at in memchr::memchr_iter(b'\n', head) {
        if at == 0 || head[at - 1] != b'\r' {
            return Err(ParseError::LineEnd);
        }
    }
    Ok(())
}

/// Copies `httparse`'s view into the reused table of spans and judges the framing.
pub(crate) fn collect_fields(
    buffer: &[u8],
    parsed: &[httparse::Header<'_>],
    fields: &mut Vec<Field>,
) -> Result<Framing, ParseError> {
    let mut framing = Framing::default();
    fields.clear();
    for header in parsed {
        let kind = FieldName::classify(header.name.as_bytes());
        framing.field(kind, header.value)?;
        fields.push(Field {
            name: Span::locate(buffer, header.name.as_bytes()),
            value: Span::locate(buffer, header.value),
            kind,
            sensitive: false,
        });
    }
    framing.nominate(buffer, fields);
    Ok(framing)
}
