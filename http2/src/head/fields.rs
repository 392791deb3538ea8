//! A field section while it is decoded: each field is judged by itself, and kept.
//!
//! Fields are kept as lines of text, `name: value` CR LF, that follow each other without gaps: who writes them for the next hop copies
//! whole runs of them, in whatever version they go on.

use super::Fault;
use crate::hpack::DecodedField;
use ringway_message::{
    Authority, FIELDS_CEILING, Field, FieldName, Limits, ParseError, Span, content_length, default_port, is_authority,
    is_lower_token, is_target, is_value,
};

/// What a field counts besides its name and value (RFC 9113, 6.5.2).
const FIELD_OVERHEAD: usize = 32;

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

/// All of them, by their number.
const PSEUDOS: [Pseudo; 6] =
    [Pseudo::Method, Pseudo::Scheme, Pseudo::Authority, Pseudo::Path, Pseudo::Protocol, Pseudo::Status];

impl Pseudo {
    pub(super) fn of(field: &DecodedField<'_>) -> Option<Self> {
        // Where the static table has them.
        match (field.static_name, field.name) {
            (1, _) | (0, b":authority") => Some(Self::Authority),
            (2, _) | (0, b":method") => Some(Self::Method),
            (4, _) | (0, b":path") => Some(Self::Path),
            (6, _) | (0, b":scheme") => Some(Self::Scheme),
            (8, _) | (0, b":status") => Some(Self::Status),
            (0, b":protocol") => Some(Self::Protocol),
            _ => None,
        }
    }

    fn may_stand_in(self, shape: Shape) -> bool {
        match (shape, self) {
            (Shape::Request { extended_connect }, Self::Protocol) => extended_connect,
            (Shape::Request { .. }, Self::Method | Self::Scheme | Self::Authority | Self::Path)
            | (Shape::Response, Self::Status) => true,
            (Shape::Request { .. } | Shape::Response | Shape::Trailers, _) => false,
        }
    }
}

/// What a name of the static table means; others are looked at.
pub(super) fn kind_of(field: &DecodedField<'_>) -> FieldName {
    match field.static_name {
        0 => FieldName::classify(field.name),
        28 => FieldName::ContentLength,
        32 => FieldName::Cookie,
        35 => FieldName::Expect,
        38 => FieldName::Host,
        48 => FieldName::ProxyAuthenticate,
        57 => FieldName::TransferEncoding,
        _ => FieldName::Other,
    }
}

const BAD_FIELD: Fault = Fault::Malformed(ParseError::FieldLine);
const BAD_START: Fault = Fault::Malformed(ParseError::StartLine);

/// What a field is, once name and value have been looked at: whatever section it stands in. Kept with what the peer's encoder has
/// told to remember, so that each of these is looked at once in a connection's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// `vetted`: a path or an authority by its own rules too.
    Pseudo {
        pseudo: Pseudo,
        vetted: bool,
    },
    Regular(FieldName),
}

const MARKED: u8 = 0x80;
const PSEUDO: u8 = 0x40;
const VETTED: u8 = 0x20;
const NUMBER: u8 = 0x1f;

/// All names, by their number.
pub(super) const NAMES: [FieldName; 22] = [
    FieldName::Other,
    FieldName::Host,
    FieldName::Connection,
    FieldName::ContentLength,
    FieldName::TransferEncoding,
    FieldName::KeepAlive,
    FieldName::ProxyConnection,
    FieldName::ProxyAuthenticate,
    FieldName::Te,
    FieldName::Trailer,
    FieldName::Upgrade,
    FieldName::Http2Settings,
    FieldName::Expect,
    FieldName::Cookie,
    FieldName::XForwardedFor,
    FieldName::XForwardedProto,
    FieldName::XForwardedHost,
    FieldName::XForwardedPort,
    FieldName::Forwarded,
    FieldName::Ringway,
    FieldName::Disguised,
    FieldName::Nominated,
];

impl Finding {
    pub(super) fn mark(self) -> u8 {
        match self {
            Self::Pseudo { pseudo, vetted } => MARKED | PSEUDO | if vetted { VETTED } else { 0 } | pseudo as u8,
            Self::Regular(kind) => MARKED | kind as u8,
        }
    }

    pub(super) fn from_mark(mark: u8) -> Option<Self> {
        let number = usize::from(mark & NUMBER);
        match (mark & MARKED != 0, mark & PSEUDO != 0) {
            (false, _) => None,
            (true, true) => Some(Self::Pseudo { pseudo: *PSEUDOS.get(number)?, vetted: mark & VETTED != 0 }),
            (true, false) => Some(Self::Regular(*NAMES.get(number)?)),
        }
    }

    /// Looks at a field.
    fn of(field: &DecodedField<'_>) -> Result<Self, Fault> {
        if !is_value(field.value) {
            return Err(BAD_FIELD);
        }
        if field.name.first() == Some(&b':') {
            let pseudo = Pseudo::of(field).ok_or(BAD_START)?;
            let vetted = match pseudo {
                Pseudo::Path => is_target(field.value),
                Pseudo::Authority => is_authority(field.value),
                Pseudo::Method | Pseudo::Scheme | Pseudo::Protocol | Pseudo::Status => false,
            };
            return Ok(Self::Pseudo { pseudo, vetted });
        }
        // Names of the static table are good ones.
        if field.static_name == 0 && !is_lower_token(field.name) {
            return Err(BAD_FIELD);
        }
        Ok(Self::Regular(kind_of(field)))
    }
}

/// What has come of a section.
#[derive(Debug)]
pub(super) struct Section<'a> {
    shape: Shape,
    pub(super) arena: &'a mut Vec<u8>,
    fields: Vec<Field>,
    pseudo: [Option<Span>; PSEUDOS.len()],
    head_bytes_left: usize,
    fields_left: usize,
    /// The first thing that is wrong: what comes after it is not looked at.
    fault: Option<Fault>,
    /// No pseudo-field may come any more.
    regular: bool,
    /// The path, the authority follow their own rules.
    pub(super) path_vetted: bool,
    pub(super) authority_vetted: bool,
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
            pseudo: [None; PSEUDOS.len()],
            head_bytes_left: limits.head_bytes_max,
            fields_left: limits.fields_max.min(FIELDS_CEILING),
            fault: None,
            regular: false,
            path_vetted: false,
            authority_vetted: false,
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

    /// Takes in a field, unless something is wrong already. Gives the mark by which it is known the next time.
    #[inline]
    pub(super) fn take(&mut self, field: DecodedField<'_>) -> u8 {
        if self.fault.is_some() {
            return 0;
        }
        match self.judge(&field) {
            Ok(finding) => finding.mark(),
            Err(fault) => {
                self.fault = Some(fault);
                0
            }
        }
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

    fn judge(&mut self, field: &DecodedField<'_>) -> Result<Finding, Fault> {
        let size = field.name.len() + field.value.len() + FIELD_OVERHEAD;
        self.head_bytes_left =
            self.head_bytes_left.checked_sub(size).ok_or(Fault::TooLarge(ParseError::HeadTooLarge))?;
        let finding = match Finding::from_mark(field.mark) {
            Some(finding) => finding,
            None => Finding::of(field)?,
        };
        match finding {
            Finding::Pseudo { pseudo, vetted } => self.take_pseudo(field, pseudo, vetted)?,
            Finding::Regular(kind) => self.take_regular(field, kind)?,
        }
        Ok(finding)
    }

    fn take_pseudo(&mut self, field: &DecodedField<'_>, pseudo: Pseudo, vetted: bool) -> Result<(), Fault> {
        if self.regular || self.pseudo(pseudo).is_some() || !pseudo.may_stand_in(self.shape) {
            return Err(BAD_START);
        }
        match pseudo {
            Pseudo::Path => self.path_vetted = vetted,
            Pseudo::Authority => self.authority_vetted = vetted,
            Pseudo::Method | Pseudo::Scheme | Pseudo::Protocol | Pseudo::Status => {}
        }
        self.pseudo_sensitive |= field.sensitive;
        self.pseudo[pseudo as usize] = Some(self.keep(field.value));
        Ok(())
    }

    fn take_regular(&mut self, field: &DecodedField<'_>, kind: FieldName) -> Result<(), Fault> {
        self.begin_regular();
        if kind.is_connection_specific() {
            return Err(BAD_FIELD);
        }
        if kind == FieldName::Cookie && matches!(self.shape, Shape::Request { .. }) && self.cookie.is_some() {
            // How many crumbs there are is a matter of bytes: they are one field.
            self.add_crumb(field);
            return Ok(());
        }
        self.fields_left = self.fields_left.checked_sub(1).ok_or(Fault::TooLarge(ParseError::TooManyFields))?;
        self.note(kind, field.value)?;
        match (self.shape, kind) {
            (Shape::Trailers, kind) if !kind.may_trail() => {}
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

    /// No pseudo-field follows. `:authority` is the first field, as Host is for who asks for it.
    fn begin_regular(&mut self) {
        if std::mem::replace(&mut self.regular, true) {
            return;
        }
        if let Some(authority) = self.pseudo(Pseudo::Authority) {
            let name = self.keep(b"host");
            self.arena.extend_from_slice(b": ");
            let start = self.arena.len() as u32;
            self.arena.extend_from_within(authority.start as usize..authority.end as usize);
            let value = Span { start, end: self.arena.len() as u32 };
            self.arena.extend_from_slice(b"\r\n");
            self.fields.push(Field { name, value, kind: FieldName::Host, sensitive: self.pseudo_sensitive });
        }
    }

    /// Keeps a field as the next line. Gives where its value stands.
    fn push(&mut self, field: &DecodedField<'_>, kind: FieldName) -> Span {
        let start = self.arena.len();
        if field.line.is_empty() {
            self.arena.reserve(field.name.len() + field.value.len() + 4);
            for part in [field.name, b": ", field.value, b"\r\n"] {
                self.arena.extend_from_slice(part);
            }
        } else {
            self.arena.extend_from_slice(field.line);
        }
        let name = Span { start: start as u32, end: (start + field.name.len()) as u32 };
        let value = Span { start: name.end + 2, end: self.arena.len() as u32 - 2 };
        self.fields.push(Field { name, value, kind, sensitive: field.sensitive });
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
