//! A field section while it is decoded: each field is judged by itself, and kept.

use super::Fault;
use crate::hpack::DecodedField;
use ringway_message::{
    FIELDS_CEILING, Field, FieldName, Limits, ParseError, Span, content_length, is_lower_token, is_value,
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

const PSEUDO_COUNT: usize = 6;

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
    /// No pseudo-field may come any more.
    regular: bool,
    cookies: usize,
    pub(super) pseudo_sensitive: bool,
    pub(super) length: Option<u64>,
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
            regular: false,
            cookies: 0,
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

    /// Takes in a field, unless something is wrong already.
    pub(super) fn take(&mut self, field: DecodedField<'_>) {
        if self.fault.is_none() {
            self.fault = self.judge(&field).err();
        }
    }

    /// Says what is wrong with what has come.
    pub(super) fn finish(&mut self) -> Result<(), Fault> {
        match self.fault {
            Some(fault) => Err(fault),
            None => {
                self.begin_regular();
                Ok(())
            }
        }
    }

    fn judge(&mut self, field: &DecodedField<'_>) -> Result<(), Fault> {
        let size = field.name.len() + field.value.len() + FIELD_OVERHEAD;
        self.head_bytes_left =
            self.head_bytes_left.checked_sub(size).ok_or(Fault::TooLarge(ParseError::HeadTooLarge))?;
        if !is_value(field.value) {
            return Err(BAD_FIELD);
        }
        if field.name.first() == Some(&b':') { self.judge_pseudo(field) } else { self.judge_regular(field) }
    }

    fn judge_pseudo(&mut self, field: &DecodedField<'_>) -> Result<(), Fault> {
        let pseudo = Pseudo::of(field).filter(|pseudo| pseudo.may_stand_in(self.shape)).ok_or(BAD_START)?;
        if self.regular || self.pseudo(pseudo).is_some() {
            return Err(BAD_START);
        }
        self.pseudo_sensitive |= field.sensitive;
        self.pseudo[pseudo as usize] = Some(self.keep(field.value));
        Ok(())
    }

    fn judge_regular(&mut self, field: &DecodedField<'_>) -> Result<(), Fault> {
        // Names of the static table are good ones.
        if field.static_name == 0 && !is_lower_token(field.name) {
            return Err(BAD_FIELD);
        }
        self.begin_regular();
        let kind = kind_of(field);
        if kind.is_connection_specific() {
            return Err(BAD_FIELD);
        }
        let is_crumb = kind == FieldName::Cookie && self.cookies > 0;
        if !is_crumb {
            // Crumbs are one field (RFC 9113, 8.2.3); how many there are is a matter of bytes.
            self.fields_left = self.fields_left.checked_sub(1).ok_or(Fault::TooLarge(ParseError::TooManyFields))?;
        }
        self.note(kind, field.value)?;
        match (self.shape, kind) {
            (Shape::Trailers, kind) if !kind.may_trail() => {}
            (Shape::Request { .. }, FieldName::Host) => self.note_host(field)?,
            _ => self.push(field, kind),
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
            FieldName::Cookie => self.cookies += 1,
            _ => {}
        }
        Ok(())
    }

    /// Host is kept as a field if there is no `:authority`, which is one otherwise.
    fn note_host(&mut self, field: &DecodedField<'_>) -> Result<(), Fault> {
        if self.host.is_some() {
            return Err(Fault::Malformed(ParseError::HostRepeated));
        }
        self.host = Some(if self.pseudo(Pseudo::Authority).is_some() {
            self.keep(field.value)
        } else {
            self.push(field, FieldName::Host);
            self.fields.last().map(|field| field.value).unwrap_or_default()
        });
        Ok(())
    }

    /// No pseudo-field follows. `:authority` is the first field, as Host is for who asks for it.
    fn begin_regular(&mut self) {
        if std::mem::replace(&mut self.regular, true) {
            return;
        }
        if let Some(value) = self.pseudo(Pseudo::Authority) {
            let name = self.keep(b"host");
            self.fields.push(Field { name, value, kind: FieldName::Host, sensitive: self.pseudo_sensitive });
        }
    }

    fn push(&mut self, field: &DecodedField<'_>, kind: FieldName) {
        let (name, value) = (self.keep(field.name), self.keep(field.value));
        self.fields.push(Field { name, value, kind, sensitive: field.sensitive });
    }

    fn keep(&mut self, bytes: &[u8]) -> Span {
        let start = self.arena.len() as u32;
        self.arena.extend_from_slice(bytes);
        Span { start, end: self.arena.len() as u32 }
    }

    /// Crumbs become one field again, where the first of them stands.
    pub(super) fn join_cookies(&mut self) {
        if self.cookies < 2 {
            return;
        }
        let start = self.arena.len() as u32;
        let mut sensitive = false;
        let crumbs = self.fields.iter().filter(|field| field.kind == FieldName::Cookie);
        for crumb in crumbs {
            if self.arena.len() > start as usize {
                self.arena.extend_from_slice(b"; ");
            }
            self.arena.extend_from_within(crumb.value.start as usize..crumb.value.end as usize);
            sensitive |= crumb.sensitive;
        }
        let value = Span { start, end: self.arena.len() as u32 };
        let mut is_first = true;
        self.fields.retain_mut(|field| {
            if field.kind != FieldName::Cookie {
                return true;
            }
            (field.value, field.sensitive) = (value, sensitive);
            std::mem::replace(&mut is_first, false)
        });
    }
}
