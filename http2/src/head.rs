//! From a field section to a message's head: the rules of RFC 9113, 8.2 and 8.3, and those that hold in any version.
//!
//! Whatever is wrong with a head, its block is decoded to the end: what both ends know of the compression stays in step, and only that
//! stream has an error. Once something is wrong nothing more is kept, so that a block that says much costs little.

mod fault;
mod fields;
#[cfg(test)]
mod tests;

use crate::hpack::{Decoder, HpackError};
pub use fault::Fault;
use fields::{Pseudo, Section, Shape};
use ringway_message::{
    BodyLength, Field, Limits, Method, ParseError, RequestHead, ResponseHead, Span, TargetForm, Version, is_authority,
    is_host_and_port, is_protocol, is_target, is_token, scan, split_target,
};

/// What a server takes.
#[derive(Debug, Clone, Copy)]
pub struct RequestRules {
    /// Largest head.
    pub limits: Limits,
    /// SETTINGS_ENABLE_CONNECT_PROTOCOL has been announced (RFC 8441, 3).
    pub extended_connect: bool,
}

/// Decodes a request's head. `ends`: nothing follows it.
///
/// `arena` is cleared first, and then holds what the head's spans mean: the fields as lines, `name: value` CR LF, without gaps. There is
/// one Host among them, which says what `authority` does, whichever of the two came; and at most one Cookie (RFC 9113, 8.2.3).
///
/// # Errors
/// The connection's state of compression is lost.
pub fn request(
    decoder: &mut Decoder,
    block: &[u8],
    ends: bool,
    rules: &RequestRules,
    head: &mut RequestHead,
    arena: &mut Vec<u8>,
) -> Result<Result<(), Fault>, HpackError> {
    let fields = std::mem::take(&mut head.fields);
    // Whatever becomes of this one, nothing of the one before is left in it.
    *head = RequestHead { version: Version::Http2, keep_alive: true, ..RequestHead::default() };
    let shape = Shape::Request { extended_connect: rules.extended_connect };
    let mut section = Section::new(shape, &rules.limits, fields, arena);
    decoder.decode_into(block, &mut section)?;
    let judged = section.finish().and_then(|()| judge_request(&section, ends, head));
    if judged.is_err() {
        tell_what_came(&section, head);
    }
    head.fields = section.into_fields();
    Ok(judged)
}

/// Decodes a response's head, to a request with this method. `ends`: nothing follows it.
///
/// `arena` is cleared first, and then holds what the head's spans mean: the fields as lines, `name: value` CR LF, without gaps.
///
/// # Errors
/// The connection's state of compression is lost.
pub fn response(
    decoder: &mut Decoder,
    block: &[u8],
    ends: bool,
    limits: &Limits,
    request_method: Method,
    head: &mut ResponseHead,
    arena: &mut Vec<u8>,
) -> Result<Result<(), Fault>, HpackError> {
    let fields = std::mem::take(&mut head.fields);
    *head = ResponseHead { version: Version::Http2, keep_alive: true, ..ResponseHead::default() };
    let mut section = Section::new(Shape::Response, limits, fields, arena);
    decoder.decode_into(block, &mut section)?;
    let judged = section.finish().and_then(|()| judge_response(&section, ends, request_method, head));
    head.fields = section.into_fields();
    Ok(judged)
}

/// Decodes what follows a body. Fields that may not stand there are dropped (RFC 9110, 6.5.1).
///
/// `fields` and `arena` are cleared first; then the fields stand there as lines, `name: value` CR LF, without gaps.
///
/// # Errors
/// The connection's state of compression is lost.
pub fn trailers(
    decoder: &mut Decoder,
    block: &[u8],
    limits: &Limits,
    fields: &mut Vec<Field>,
    arena: &mut Vec<u8>,
) -> Result<Result<(), Fault>, HpackError> {
    let mut section = Section::new(Shape::Trailers, limits, std::mem::take(fields), arena);
    decoder.decode_into(block, &mut section)?;
    let judged = section.finish();
    *fields = section.into_fields();
    Ok(judged)
}

const NO_START: Fault = Fault::Malformed(ParseError::StartLine);
const BAD_TARGET: Fault = Fault::Malformed(ParseError::Target);
const BAD_LENGTH: Fault = Fault::Malformed(ParseError::LengthInvalid);

fn judge_request(section: &Section<'_>, ends: bool, head: &mut RequestHead) -> Result<(), Fault> {
    let method = section.pseudo(Pseudo::Method).ok_or(NO_START)?;
    head.method = Method::parse(section.bytes(method));
    if head.method == Method::Other && !is_token(section.bytes(method)) {
        return Err(NO_START);
    }
    head.method_span = method;
    head.target_sensitive = section.pseudo_sensitive;
    head.expect_continue = section.expect_continue;
    head.expect_unknown = section.expect_unknown;
    head.te_trailers = section.te_trailers;
    head.protocol = section.pseudo(Pseudo::Protocol);
    let is_connect = head.method == Method::Connect;
    if head.protocol.is_some_and(|protocol| !is_connect || !is_protocol(section.bytes(protocol))) {
        return Err(NO_START);
    }
    if is_connect && head.protocol.is_none() {
        judge_connect(section, head)?;
    } else {
        judge_target(section, head)?;
    }
    head.body = match section.length {
        Some(length) if length > 0 && (ends || is_connect) => return Err(BAD_LENGTH),
        None | Some(0) if is_connect && !ends => BodyLength::Chunked,
        Some(length) => BodyLength::Sized(length),
        None if ends => BodyLength::None,
        None => BodyLength::Chunked,
    };
    judge_authority(section, head)
}

/// Of a head that is refused, what can be told of it: for logs, and for the code that refuses it.
fn tell_what_came(section: &Section<'_>, head: &mut RequestHead) {
    *head = RequestHead { version: Version::Http2, keep_alive: true, ..RequestHead::default() };
    let good = |pseudo, is_good: fn(&[u8]) -> bool| section.pseudo(pseudo).filter(|&span| is_good(section.bytes(span)));
    if let Some(method) = good(Pseudo::Method, is_token) {
        (head.method, head.method_span) = (Method::parse(section.bytes(method)), method);
    }
    if let Some(target) = good(Pseudo::Path, is_target) {
        (head.target, head.forward_target) = (target, target);
        (head.path, head.query) = split_target(section.arena, target);
    }
    head.authority = good(Pseudo::Authority, is_authority).unwrap_or_default();
}

/// A tunnel has an authority, which is its target, and neither scheme nor path (RFC 9113, 8.5).
fn judge_connect(section: &Section<'_>, head: &mut RequestHead) -> Result<(), Fault> {
    if section.pseudo(Pseudo::Scheme).is_some() || section.pseudo(Pseudo::Path).is_some() {
        return Err(NO_START);
    }
    let target = section.pseudo(Pseudo::Authority).ok_or(NO_START)?;
    if !is_host_and_port(section.bytes(target)) {
        return Err(BAD_TARGET);
    }
    head.form = TargetForm::Authority;
    (head.target, head.forward_target, head.path) = (target, target, target);
    Ok(())
}

fn judge_target(section: &Section<'_>, head: &mut RequestHead) -> Result<(), Fault> {
    let scheme = section.pseudo(Pseudo::Scheme).filter(|&scheme| is_scheme(section.bytes(scheme))).ok_or(NO_START)?;
    let target = section.pseudo(Pseudo::Path).ok_or(NO_START)?;
    let bytes = section.bytes(target);
    let query = match (bytes, scan::target(bytes)) {
        (b"*", _) if head.method == Method::Options => {
            head.form = TargetForm::Asterisk;
            bytes.len()
        }
        ([b'/', ..], scan::Target { len, query: Some(query) }) if len == bytes.len() => {
            head.form = TargetForm::Origin;
            query
        }
        _ => return Err(BAD_TARGET),
    };
    (head.target, head.forward_target, head.scheme) = (target, target, scheme);
    let Span { start, end } = target;
    let mark = start + query as u32;
    (head.path, head.query) = (Span { start, end: mark }, Span { start: end.min(mark + 1), end });
    Ok(())
}

/// RFC 3986, 3.1.
fn is_scheme(scheme: &[u8]) -> bool {
    matches!(scheme, b"http" | b"https")
        || scheme.first().is_some_and(u8::is_ascii_alphabetic)
            && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

/// Whose request it is: by `:authority`, or by Host where that did not come.
fn judge_authority(section: &Section<'_>, head: &mut RequestHead) -> Result<(), Fault> {
    let authority = section.pseudo(Pseudo::Authority).or(section.host);
    head.authority = authority.ok_or(Fault::Refused(ParseError::HostMissing))?;
    if is_authority(section.bytes(head.authority)) { Ok(()) } else { Err(Fault::Refused(ParseError::HostInvalid)) }
}

fn judge_response(
    section: &Section<'_>,
    ends: bool,
    request_method: Method,
    head: &mut ResponseHead,
) -> Result<(), Fault> {
    let status = section.pseudo(Pseudo::Status).ok_or(NO_START)?;
    head.status = match section.bytes(status) {
        [hundreds @ b'1'..=b'5', tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => {
            u16::from(hundreds - b'0') * 100 + u16::from(tens - b'0') * 10 + u16::from(ones - b'0')
        }
        _ => return Err(Fault::Malformed(ParseError::Status)),
    };
    let length = section.length;
    head.body = match head.status {
        // RFC 9113, 8.6: there is no switching here.
        101 => return Err(Fault::Malformed(ParseError::UnexpectedUpgrade)),
        // RFC 9113, 8.1: another head is to come. And it has no body, whatever length it announces.
        100..=199 if ends => return Err(NO_START),
        100..=199 if length.is_some_and(|length| length > 0) => return Err(BAD_LENGTH),
        100..=199 | 204 => BodyLength::None,
        _ if request_method == Method::Head || head.status == 304 => {
            head.announced_length = length;
            BodyLength::None
        }
        // RFC 9110, 9.3.6: a tunnel, which has no length.
        200..=299 if request_method == Method::Connect => BodyLength::Chunked,
        _ => match length {
            Some(length) if length > 0 && ends => return Err(BAD_LENGTH),
            Some(length) => BodyLength::Sized(length),
            None if ends => BodyLength::Sized(0),
            None => BodyLength::Chunked,
        },
    };
    Ok(())
}
