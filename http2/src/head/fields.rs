//! A field section while it is decoded: each field is judged by itself, and kept.
//!
//! Fields are kept as lines of text, `name: value` CR LF, that follow each other without gaps: code that writes them for the next hop copies
//! whole runs of them, in whatever version they go on.

use super::fault::Fault;
use crate::hpack::{DecodedField, Sink};
use ringway_message::{
    Authority, FIELDS_CEILING, Field, FieldName, Limits, ParseError, Span, content_length, default_port, may_trail,
};

/// What a field counts besides its name and value (RFC 9113, 6.5.2).
const FIELD_OVERHEAD: usize = 32;
/// And what a line has besides those.
const LINE_OVERHEAD: usize = b": \r\n".len();

/// Whose section it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Request { extended_connect: bool },
    Response,
    Trailers,
}

/// Fields that begin with a colon (RFC 9113, 8.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pseudo {
    Method,
    Scheme,
    Authority,
    Path,
    Protocol,
    Status,
}

const PSEUDO_COUNT: usize = 6;

impl Pseudo {
    pub(super) fn of(field: &DecodedField<'_>) -> Option<Self> {
        // Where the static table has them, however they came.
        const BY_NUMBER: [Option<Pseudo>; 9] = [
            None,
            Some(Pseudo::Authority),
            Some(Pseudo::Method),
            None,
            Some(Pseudo::Path),
            None,
            Some(Pseudo::Scheme),
            None,
            Some(Pseudo::Status),
        ];
        match BY_NUMBER.get(usize::from(field.static_name)) {
            Some(Some(pseudo)) => Some(*pseudo),
            _ => match field.name {
                b":authority" => Some(Self::Authority),
                b":method" => Some(Self::Method),
                b":path" => Some(Self::Path),
                b":scheme" => Some(Self::Scheme),
                b":status" => Some(Self::Status),
                b":protocol" => Some(Self::Protocol),
                _ => None,
            },
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }

    /// A bit for each that may stand in such a section.
    fn allowed_in(shape: Shape) -> u8 {
        const OF_REQUESTS: u8 =
            Pseudo::Method.bit() | Pseudo::Scheme.bit() | Pseudo::Authority.bit() | Pseudo::Path.bit();
        match shape {
            Shape::Request { extended_connect: true } => OF_REQUESTS | Self::Protocol.bit(),
            Shape::Request { extended_connect: false } => OF_REQUESTS,
            Shape::Response => Self::Status.bit(),
            Shape::Trailers => 0,
        }
    }
}

const BAD_FIELD: Fault = Fault::Malformed(ParseError::FieldLine);
const BAD_START: Fault = Fault::Malformed(ParseError::StartLine);

/// What has come of a section.
#[derive(Debug)]
pub(super) struct Section<'a> {
    shape: Shape,
    pub(super) arena: &'a mut Vec<u8>,
    fields: Vec<Field>,
    pseudo: [Option<Span>; PSEUDO_COUNT],
    head_bytes_left: usize,
    fields_left: usize,
    /// The first thing that is wrong: what comes after it is not looked at.
    fault: Option<Fault>,
    /// The pseudo-fields that may still come: [`Pseudo::bit`].
    allowed: u8,
    /// None may come any more.
    regular: bool,
    host_came: bool,
    /// Where the one Cookie stands among the fields.
    cookie: Option<usize>,
    /// Crumbs that did not come right behind it.
    late_crumbs: Vec<u8>,
    pub(super) pseudo_sensitive: bool,
    pub(super) length: Option<u64>,
    /// The Host, if it stands for an authority that did not come.
    pub(super) host: Option<Span>,
    pub(super) expect_continue: bool,
    pub(super) expect_unknown: bool,
    pub(super) te_trailers: bool,
}

impl<'a> Section<'a> {
    /// Into a table and an arena that are cleared first.
    pub(super) fn new(shape: Shape, limits: &Limits, mut fields: Vec<Field>, arena: &'a mut Vec<u8>) -> Self {
        fields.clear();
        arena.clear();
        Self {
            shape,
            arena,
            fields,
            pseudo: [None; PSEUDO_COUNT],
            head_bytes_left: limits.head_bytes_max,
            fields_left: limits.fields_max.min(FIELDS_CEILING),
            fault: None,
            allowed: Pseudo::allowed_in(shape),
            regular: false,
            host_came: false,
            cookie: None,
            late_crumbs: Vec::new(),
            pseudo_sensitive: false,
            length: None,
            host: None,
            expect_continue: false,
            expect_unknown: false,
            te_trailers: false,
        }
    }

    pub(super) fn bytes(&self, span: Span) -> &[u8] {
        span.of(self.arena)
    }

    pub(super) fn pseudo(&self, pseudo: Pseudo) -> Option<Span> {
        self.pseudo[pseudo as usize]
    }

    pub(super) fn into_fields(self) -> Vec<Field> {
        self.fields
    }

    /// Says what is wrong with what has come.
    pub(super) fn finish(&mut self) -> Result<(), Fault> {
        match self.fault {
            Some(fault) => Err(fault),
            None => {
                self.begin_regular();
                self.gather_crumbs();
                Ok(())
            }
        }
    }

    fn judge(&mut self, field: &DecodedField<'_>) -> Result<(), Fault> {
        let size = field.name.len() + field.value.len() + FIELD_OVERHEAD;
        self.head_bytes_left =
            self.head_bytes_left.checked_sub(size).ok_or(Fault::TooLarge(ParseError::HeadTooLarge))?;
        if !field.well_formed {
            return Err(BAD_FIELD);
        }
        if field.name.first() == Some(&b':') { self.judge_pseudo(field) } else { self.judge_regular(field) }
    }

    fn judge_pseudo(&mut self, field: &DecodedField<'_>) -> Result<(), Fault> {
        let pseudo = Pseudo::of(field).filter(|pseudo| self.allowed & pseudo.bit() != 0).ok_or(BAD_START)?;
        // Once.
        self.allowed &= !pseudo.bit();
        self.pseudo_sensitive |= field.sensitive;
        self.pseudo[pseudo as usize] = Some(self.keep(field.value));
        Ok(())
    }

    fn judge_regular(&mut self, field: &DecodedField<'_>) -> Result<(), Fault> {
        if !self.regular {
            self.begin_regular();
        }
        let kind = field.kind;
        if kind == FieldName::Other {
            self.count()?;
            if !matches!(self.shape, Shape::Trailers) || may_trail(field.name) {
                self.push(field, kind);
            }
            return Ok(());
        }
        if kind.is_connection_specific() {
            return Err(BAD_FIELD);
        }
        if kind == FieldName::Cookie && matches!(self.shape, Shape::Request { .. }) && self.cookie.is_some() {
            // How many crumbs there are is a matter of bytes: they are one field.
            self.add_crumb(field);
            return Ok(());
        }
        self.count()?;
        self.note(kind, field.value)?;
        match (self.shape, kind) {
            (Shape::Trailers, _) => {}
            (Shape::Request { .. }, FieldName::Host) => self.take_host(field)?,
            (Shape::Request { .. }, FieldName::Cookie) => {
                self.cookie = Some(self.fields.len());
                self.push(field, kind);
            }
            _ => {
                self.push(field, kind);
            }
        }
        Ok(())
    }

    fn count(&mut self) -> Result<(), Fault> {
        self.fields_left = self.fields_left.checked_sub(1).ok_or(Fault::TooLarge(ParseError::TooManyFields))?;
        Ok(())
    }

    /// What a field says about the message.
    fn note(&mut self, kind: FieldName, value: &[u8]) -> Result<(), Fault> {
        match kind {
            FieldName::ContentLength if self.shape != Shape::Trailers => {
                let length = content_length(value).map_err(Fault::Malformed)?;
                if self.length.replace(length).is_some() {
                    return Err(Fault::Malformed(ParseError::LengthRepeated));
                }
            }
            FieldName::Te if !value.eq_ignore_ascii_case(b"trailers") => return Err(BAD_FIELD),
            FieldName::Te => self.te_trailers = true,
            FieldName::Expect if value.eq_ignore_ascii_case(b"100-continue") => self.expect_continue = true,
            FieldName::Expect => self.expect_unknown = true,
            _ => {}
        }
        Ok(())
    }

    /// `:authority` stands for Host; where both came, they name the same server (RFC 9113, 8.3.1).
    fn take_host(&mut self, field: &DecodedField<'_>) -> Result<(), Fault> {
        if std::mem::replace(&mut self.host_came, true) {
            return Err(Fault::Malformed(ParseError::HostRepeated));
        }
        let Some(authority) = self.pseudo(Pseudo::Authority) else {
            self.host = Some(self.push(field, FieldName::Host));
            return Ok(());
        };
        let is_secure = self.pseudo(Pseudo::Scheme).is_some_and(|it| self.bytes(it).eq_ignore_ascii_case(b"https"));
        let authority = Authority::new(self.bytes(authority));
        if Authority::new(field.value).is_same(authority, default_port(is_secure)) {
            Ok(())
        } else {
            Err(Fault::Malformed(ParseError::HostDisagrees))
        }
    }

    /// No pseudo-field follows. `:authority` is the first field, as Host is for code that asks for it.
    fn begin_regular(&mut self) {
        if std::mem::replace(&mut self.regular, true) {
            return;
        }
        self.allowed = 0;
        if let Some(authority) = self.pseudo(Pseudo::Authority) {
            let start = self.arena.len() as u32;
            let name = Span { start, end: start + 4 };
            self.arena.extend_from_slice(b"host: ");
            let start = self.arena.len() as u32;
            self.arena.extend_from_within(authority.start as usize..authority.end as usize);
            let value = Span { start, end: self.arena.len() as u32 };
            self.arena.extend_from_slice(b"\r\n");
            self.fields.push(Field { name, value, kind: FieldName::Host, sensitive: self.pseudo_sensitive });
        }
    }

    /// Keeps a field as the next line. Gives where its value stands.
    fn push(&mut self, field: &DecodedField<'_>, kind: FieldName) -> Span {
        let name_len = field.name.len();
        let Some(line) = field.line else {
            let start = self.arena.len();
            [field.name, b": ", field.value, b"\r\n"].iter().for_each(|part| self.arena.extend_from_slice(part));
            return self.add(start, self.arena.len() - start, name_len, kind, field.sensitive);
        };
        self.push_line(line, name_len, kind, field.sensitive)
    }

    #[inline]
    fn push_line(&mut self, line: &[u8], name_len: usize, kind: FieldName, sensitive: bool) -> Span {
        let start = self.arena.len();
        self.arena.extend_from_slice(line);
        self.add(start, line.len(), name_len, kind, sensitive)
    }

    /// Of a line that has been kept.
    #[inline(always)]
    fn add(&mut self, start: usize, line_len: usize, name_len: usize, kind: FieldName, sensitive: bool) -> Span {
        let start = start as u32;
        let name = Span { start, end: start + name_len as u32 };
        let value = Span { start: name.end + 2, end: start + line_len as u32 - 2 };
        self.fields.push(Field { name, value, kind, sensitive });
        value
    }

    fn keep(&mut self, bytes: &[u8]) -> Span {
        let start = self.arena.len() as u32;
        self.arena.extend_from_slice(bytes);
        Span { start, end: self.arena.len() as u32 }
    }

    /// Another piece of the one Cookie (RFC 9113, 8.2.3): behind it if that is the last line, as it nearly always is.
    fn add_crumb(&mut self, crumb: &DecodedField<'_>) {
        let Some(index) = self.cookie else { return };
        let is_last = index + 1 == self.fields.len();
        let Some(cookie) = self.fields.get_mut(index) else { return };
        // What one of them has asked for holds for all.
        cookie.sensitive |= crumb.sensitive;
        if is_last {
            self.arena.truncate(cookie.value.end as usize);
            self.arena.extend_from_slice(b"; ");
            self.arena.extend_from_slice(crumb.value);
            cookie.value.end = self.arena.len() as u32;
            self.arena.extend_from_slice(b"\r\n");
        } else {
            self.late_crumbs.extend_from_slice(b"; ");
            self.late_crumbs.extend_from_slice(crumb.value);
        }
    }

    /// Brings the Cookie to the end, and what came late of it behind it.
    fn gather_crumbs(&mut self) {
        let Some(index) = self.cookie.filter(|_| !self.late_crumbs.is_empty()) else { return };
        let mut cookie = self.fields.remove(index);
        let start = cookie.name.start;
        let line_len = cookie.value.end + 2 - start;
        self.arena[start as usize..].rotate_left(line_len as usize);
        let moved = |span: Span| Span { start: span.start - line_len, end: span.end - line_len };
        for field in &mut self.fields[index..] {
            (field.name, field.value) = (moved(field.name), moved(field.value));
        }
        self.host = self.host.map(|host| if host.start > start { moved(host) } else { host });
        let by = self.arena.len() as u32 - line_len - start;
        let lift = |span: Span| Span { start: span.start + by, end: span.end + by };
        (cookie.name, cookie.value) = (lift(cookie.name), lift(cookie.value));
        self.arena.truncate(cookie.value.end as usize);
        self.arena.extend_from_slice(&self.late_crumbs);
        cookie.value.end = self.arena.len() as u32;
        self.arena.extend_from_slice(b"\r\n");
        self.fields.push(cookie);
    }
}

impl Sink for Section<'_> {
    /// Takes in a field, unless something is wrong already.
    #[inline(always)]
    fn take(&mut self, field: DecodedField<'_>) {
        // As most are behind the pseudo-fields: it lies there as a line, means nothing to us, and may stand anywhere.
        if let Some(line) = field.line
            && field.kind == FieldName::Other
            && field.well_formed
            && self.regular
            && self.fault.is_none()
            && !matches!(field.name, [b':', ..])
            && self.fields_left > 0
            && let Some(left) = self.head_bytes_left.checked_sub(line.len() - LINE_OVERHEAD + FIELD_OVERHEAD)
        {
            (self.head_bytes_left, self.fields_left) = (left, self.fields_left - 1);
            self.push_line(line, field.name.len(), field.kind, field.sensitive);
            return;
        }
        self.take_spelled(&field);
    }

    #[inline(never)]
    fn take_spelled(&mut self, field: &DecodedField<'_>) {
        if self.fault.is_none()
            && let Err(fault) = self.judge(field)
        {
            self.fault = Some(fault);
        }
    }
}
