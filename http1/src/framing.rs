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

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(fields: &[(FieldName, &str)]) -> Result<Framing, ParseError> {
        let mut framing = Framing::default();
        fields.iter().try_for_each(|(kind, value)| framing.field(*kind, value.as_bytes()))?;
        Ok(framing)
    }

    #[test]
    fn a_second_length_is_refused_even_if_it_says_the_same() {
        let length = |text| (FieldName::ContentLength, text);
        assert_eq!(framing(&[length("5")]).unwrap().length, Some(5));
        assert_eq!(framing(&[length("5"), length("5")]).unwrap_err(), ParseError::LengthRepeated);
        assert_eq!(framing(&[length("5, 5")]).unwrap_err(), ParseError::LengthRepeated);
        assert_eq!(framing(&[length("5x")]).unwrap_err(), ParseError::LengthInvalid);
    }

    #[test]
    fn chunked_is_the_only_coding_and_comes_once() {
        let coding = |text| (FieldName::TransferEncoding, text);
        assert!(framing(&[coding("Chunked")]).unwrap().chunked);
        for fields in [&[coding("gzip")][..], &[coding("gzip, chunked")], &[coding("chunked"), coding("chunked")]] {
            assert_eq!(framing(fields).unwrap_err(), ParseError::TransferCoding, "{fields:?}");
        }
    }

    #[test]
    fn length_beside_a_coding_and_a_coding_in_http_1_0_are_refused() {
        let (length, coding) = ((FieldName::ContentLength, "5"), (FieldName::TransferEncoding, "chunked"));
        let check = |fields: &[_], version| framing(fields).unwrap().check(version);
        assert_eq!(check(&[length, coding], Version::Http11), Err(ParseError::LengthAndCoding));
        assert_eq!(check(&[coding], Version::Http10), Err(ParseError::TransferCoding));
        assert_eq!(check(&[coding], Version::Http11), Ok(()));
        assert_eq!(check(&[length], Version::Http10), Ok(()));
        assert_eq!(check(&[], Version::Http10), Ok(()));
    }

    #[test]
    fn connections_persist_as_version_and_options_say() {
        let persists = |value, version| framing(&[(FieldName::Connection, value)]).unwrap().persists(version);
        let cases = [
            ("", true, false),
            ("close", false, false),
            ("Close", false, false),
            ("keep-alive", true, true),
            ("Keep-Alive", true, true),
            ("keep-alive, close", false, false),
            ("upgrade", true, false),
        ];
        for (value, http11, http10) in cases {
            assert_eq!(
                (persists(value, Version::Http11), persists(value, Version::Http10)),
                (http11, http10),
                "{value}"
            );
        }
    }

    #[test]
    fn options_are_told_from_names_of_fields() {
        let of = |value| framing(&[(FieldName::Connection, value)]).unwrap();
        assert!(of("Upgrade").upgrade_option && !of("Upgrade").nominations);
        assert!(of("upgrade, x-a").upgrade_option && of("upgrade, x-a").nominations);
        assert!(!of("close, , keep-alive").nominations);
        assert!(!of("keep-alive").close && !of("close").keep_alive);
    }

    #[test]
    fn only_an_lf_behind_a_cr_ends_a_line() {
        assert_eq!(check_line_ends(b"GET / HTTP/1.1\r\nHost: a\r\n"), Ok(()));
        for head in [&b"\nGET"[..], b"GET / HTTP/1.1\nHost: a\r\n", b"GET / HTTP/1.1\r\nHost: a\n"] {
            assert_eq!(check_line_ends(head), Err(ParseError::LineEnd));
        }
    }

    #[test]
    fn what_is_noted_of_fields_is_what_they_say() {
        let place = |start| Span { start, end: start + 1 };
        let mut noted = Noted::default();
        noted.field(FieldName::Host, place(1), b"a");
        assert!(noted.host == Some(place(1)) && !noted.host_repeated);
        noted.field(FieldName::Host, place(2), b"a");
        assert!(noted.host_repeated, "two hosts, alike or not");
        noted.field(FieldName::Expect, place(3), b"100-Continue");
        assert!(noted.expect_continue && !noted.expect_unknown);
        noted.field(FieldName::Expect, place(4), b"200-ok");
        assert!(noted.expect_unknown);
        noted.field(FieldName::Te, place(5), b"gzip;q=0.5");
        assert!(!noted.te_trailers);
        noted.field(FieldName::Te, place(6), b"gzip, Trailers");
        assert!(noted.te_trailers);
        // HTTP/2 by Upgrade is never passed on, however it is written, alone or among others.
        for value in [&b"h2c"[..], b"H2C", b"websocket, h2c", b"h2c-14"] {
            noted.field(FieldName::Upgrade, place(7), value);
            assert_eq!(noted.upgrade, None);
        }
        noted.field(FieldName::Upgrade, place(8), b"websocket");
        assert_eq!(noted.upgrade, Some(place(8)));
    }

    #[test]
    fn the_first_framing_fault_is_told_once_the_head_is_whole() {
        let mut noted = Noted::default();
        noted.field(FieldName::TransferEncoding, Span::default(), b"gzip");
        noted.field(FieldName::ContentLength, Span::default(), b"x");
        assert_eq!(noted.judge(b"", Version::Http11, &mut []).unwrap_err(), ParseError::TransferCoding);
    }
}
