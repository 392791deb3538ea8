//! The parser that stood here before: heads by `httparse`, judged afterwards in several walks. What it takes and refuses, and why, is
//! what the parser of one walk must take and refuse. It is kept as it was, its own
//! table of names included, but for what has been made stricter since.

use ringway_http1::{
    Authority, BodyLength, Field, FieldName, Limits, Method, ParseError, RequestHead, ResponseHead, Span, TargetForm,
    Version, default_port,
};
use ringway_message::{FIELDS_CEILING, is_authority, is_host_and_port, may_trail, tokens};
use std::mem::MaybeUninit;

/// Parses a request's head out of the first bytes of `buffer` into `head`.
///
/// `Ok(false)`: the head is not complete yet; read more. `Ok(true)`: it is, and `head.head_len` says where the body
/// begins.
///
/// # Errors
/// Any [`ParseError`]: answer 400, or 431 if [`ParseError::is_size`], and close.
pub(crate) fn parse_request(buffer: &[u8], limits: &Limits, head: &mut RequestHead) -> Result<bool, ParseError> {
    let mut table = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; FIELDS_CEILING];
    let table = &mut table[..limits.fields_max.min(FIELDS_CEILING)];
    let mut parsed = httparse::Request::new(&mut []);
    let status = httparse::ParserConfig::default().parse_request_with_uninit_headers(&mut parsed, buffer, table);
    let head_len = match status {
        Ok(httparse::Status::Complete(head_len)) => head_len,
        Ok(httparse::Status::Partial) => {
            if buffer.len() >= limits.head_bytes_max {
                return Err(ParseError::HeadTooLarge);
            }
            // A line that is wrong already is told at once, not when the head ends.
            check_line_ends(buffer)?;
            return Ok(false);
        }
        Err(error) => return Err(locate_error(error, buffer)),
    };
    if head_len > limits.head_bytes_max {
        return Err(ParseError::HeadTooLarge);
    }
    check_line_ends(&buffer[..head_len])?;

    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(ParseError::StartLine);
    };
    head.head_len = head_len;
    head.version = if version == 0 { Version::Http10 } else { Version::Http11 };
    head.method = Method::parse(method.as_bytes());
    head.method_span = Span::locate(buffer, method.as_bytes());
    head.target = Span::locate(buffer, target.as_bytes());

    let framing = collect_fields(buffer, parsed.headers, &mut head.fields)?;
    framing.check(head.version)?;
    head.body = match (framing.chunked, framing.length) {
        (true, _) => BodyLength::Chunked,
        (false, Some(length)) => BodyLength::Sized(length),
        (false, None) => BodyLength::None,
    };
    head.keep_alive = framing.persists(head.version);

    let host = read_fields(buffer, head, framing.upgrade_option)?;
    judge_target(buffer, head, host)?;
    Ok(true)
}

/// `httparse` calls a bare CR or LF by several names; the place says which rule was broken.
fn locate_error(error: httparse::Error, buffer: &[u8]) -> ParseError {
    let end = memchr::memmem::find(buffer, b"\r\n\r\n").unwrap_or(buffer.len());
    match of_httparse(error) {
        ParseError::FieldLine | ParseError::StartLine if check_line_ends(&buffer[..end]).is_err() => {
            ParseError::LineEnd
        }
        other => other,
    }
}

/// The fields that mean something besides framing. Gives the Host.
fn read_fields(buffer: &[u8], head: &mut RequestHead, upgrade_option: bool) -> Result<Option<Span>, ParseError> {
    let mut host = None;
    head.expect_continue = false;
    head.expect_unknown = false;
    head.upgrade = None;
    head.te_trailers = false;
    for field in &head.fields {
        let value = field.value.of(buffer);
        match field.kind {
            FieldName::Host if host.replace(field.value).is_some() => return Err(ParseError::HostRepeated),
            FieldName::Expect if value.eq_ignore_ascii_case(b"100-continue") => {
                head.expect_continue = head.version == Version::Http11;
            }
            FieldName::Expect => head.expect_unknown = true,
            // h2c by Upgrade is how requests bypass a proxy's rules: never passed on.
            FieldName::Upgrade
                if upgrade_option
                    && head.version == Version::Http11
                    && !tokens(value).any(|token| token.len() >= 3 && token[..3].eq_ignore_ascii_case(b"h2c")) =>
            {
                head.upgrade = Some(field.value);
            }
            FieldName::Te => {
                head.te_trailers |= tokens(value).any(|token| token.eq_ignore_ascii_case(b"trailers"));
            }
            _ => {}
        }
    }
    Ok(host)
}

fn judge_target(buffer: &[u8], head: &mut RequestHead, host: Option<Span>) -> Result<(), ParseError> {
    let target = head.target.of(buffer);
    // RFC 3986: printable ASCII only, and a fragment is never sent.
    if target.iter().any(|&byte| !byte.is_ascii_graphic() || byte == b'#') {
        return Err(ParseError::Target);
    }
    let host_value = host.map(|span| span.of(buffer));
    if host_value.is_none() && head.version == Version::Http11 {
        return Err(ParseError::HostMissing);
    }
    if host_value.is_some_and(|value| !is_authority(value)) {
        return Err(ParseError::HostInvalid);
    }
    head.authority = host.unwrap_or_default();

    let path_start = match target {
        [b'/', ..] if head.method != Method::Connect => {
            head.form = TargetForm::Origin;
            0
        }
        b"*" if head.method == Method::Options => {
            head.form = TargetForm::Asterisk;
            head.forward_target = head.target;
            head.path = head.target;
            head.query = Span { start: head.target.end, end: head.target.end };
            return Ok(());
        }
        _ if head.method == Method::Connect => {
            // Stricter than it was: with a port that there is.
            if !is_host_and_port(target) {
                return Err(ParseError::Target);
            }
            head.form = TargetForm::Authority;
            (head.forward_target, head.path, head.query) = (head.target, head.target, Span::default());
            return Ok(());
        }
        _ => {
            let scheme = [&b"http://"[..], b"https://"]
                .into_iter()
                .find(|scheme| target.len() >= scheme.len() && target[..scheme.len()].eq_ignore_ascii_case(scheme))
                .ok_or(ParseError::Target)?
                .len();
            let end = target[scheme..]
                .iter()
                .position(|byte| matches!(byte, b'/' | b'?'))
                .map_or(target.len(), |at| scheme + at);
            let authority = &target[scheme..end];
            if !is_authority(authority) {
                return Err(ParseError::Target);
            }
            let port = default_port(scheme == b"https://".len());
            if host_value.is_some_and(|value| !Authority::new(value).is_same(Authority::new(authority), port)) {
                return Err(ParseError::HostDisagrees);
            }
            head.form = TargetForm::Absolute;
            head.authority = Span::locate(buffer, authority);
            end
        }
    };
    let start = head.target.start + path_start as u32;
    let end = head.target.end;
    head.forward_target = Span { start, end };
    let path_len = memchr::memchr(b'?', &target[path_start..]);
    let path_end = path_len.map_or(end, |len| start + len as u32);
    head.path = Span { start, end: path_end };
    head.query = Span { start: path_len.map_or(end, |_| path_end + 1), end };
    // An absolute target whose path is empty but has a query has no unambiguous origin form as it stands.
    if path_end == start && path_len.is_some() {
        return Err(ParseError::Target);
    }
    Ok(())
}

/// Parses a response's head out of the first bytes of `buffer` into `head`.
///
/// `request` is the method it answers, `upgrade_asked` whether that request asked for another protocol. `Ok(false)`:
/// read more.
///
/// # Errors
/// Any [`ParseError`]: the upstream connection is good for nothing more; answer 502.
pub(crate) fn parse_response(
    buffer: &[u8],
    limits: &Limits,
    request: Method,
    upgrade_asked: bool,
    head: &mut ResponseHead,
) -> Result<bool, ParseError> {
    let mut table = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; FIELDS_CEILING];
    let table = &mut table[..limits.fields_max.min(FIELDS_CEILING)];
    let mut parsed = httparse::Response::new(&mut []);
    let status = httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, buffer, table);
    let head_len = match status.map_err(of_httparse)? {
        httparse::Status::Complete(head_len) => head_len,
        httparse::Status::Partial => {
            if buffer.len() >= limits.head_bytes_max {
                return Err(ParseError::HeadTooLarge);
            }
            check_line_ends(buffer)?;
            return Ok(false);
        }
    };
    if head_len > limits.head_bytes_max {
        return Err(ParseError::HeadTooLarge);
    }
    check_line_ends(&buffer[..head_len])?;
    // RFC 9112 knows no empty line before a status line; `httparse` skips them.
    if !buffer.starts_with(b"HTTP/") {
        return Err(ParseError::StartLine);
    }

    let (Some(version), Some(code)) = (parsed.version, parsed.code) else {
        return Err(ParseError::StartLine);
    };
    head.head_len = head_len;
    head.version = if version == 0 { Version::Http10 } else { Version::Http11 };
    head.status = code;
    head.reason = match parsed.reason {
        Some(reason) if !reason.is_empty() => Span::locate(buffer, reason.as_bytes()),
        _ => Span::default(),
    };
    if !(100..=599).contains(&code) {
        return Err(ParseError::Status);
    }

    let framing = collect_fields(buffer, parsed.headers, &mut head.fields)?;
    framing.check(head.version)?;
    head.keep_alive = framing.persists(head.version);
    head.upgrade = None;
    head.announced_length = None;
    if code == 101 {
        if !upgrade_asked || head.version == Version::Http10 {
            return Err(ParseError::UnexpectedUpgrade);
        }
        head.upgrade = head.fields.iter().find(|field| field.kind == FieldName::Upgrade).map(|field| field.value);
    }

    // RFC 9112, 6.3: what never has a body, whatever the fields say, first.
    let announces = framing.chunked || framing.length.is_some_and(|length| length > 0);
    head.body = if code < 200 {
        if announces {
            // RFC 9110, 8.6 and RFC 9112, 6.1 forbid both; a party that believes them waits for a body, and another response
            // is to come.
            return Err(ParseError::LengthInvalid);
        }
        BodyLength::None
    } else if code == 204 {
        // Forbidden too, but it ends here for everybody, if nothing comes after it on that connection.
        head.keep_alive &= !announces;
        BodyLength::None
    } else if code == 304 || request == Method::Head {
        head.announced_length = framing.length;
        BodyLength::None
    } else if framing.chunked {
        BodyLength::Chunked
    } else if let Some(length) = framing.length {
        BodyLength::Sized(length)
    } else {
        head.keep_alive = false;
        BodyLength::UntilClose
    };
    Ok(true)
}

/// What the framing fields of a head say together.
#[derive(Debug, Default, Clone, Copy)]
struct Framing {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    upgrade_option: bool,
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
    fn persists(&self, version: Version) -> bool {
        match version {
            Version::Http11 | Version::Http2 => !self.close,
            Version::Http10 => self.keep_alive && !self.close,
        }
    }

    /// Marks what `Connection` names.
    fn nominate(&self, buffer: &[u8], fields: &mut [Field]) {
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
fn check_line_ends(head: &[u8]) -> Result<(), ParseError> {
    for at in memchr::memchr_iter(b'\n', head) {
        if at == 0 || head[at - 1] != b'\r' {
            return Err(ParseError::LineEnd);
        }
    }
    Ok(())
}

/// Copies `httparse`'s view into the reused table of spans and judges the framing.
fn collect_fields(
    buffer: &[u8],
    parsed: &[httparse::Header<'_>],
    fields: &mut Vec<Field>,
) -> Result<Framing, ParseError> {
    let mut framing = Framing::default();
    fields.clear();
    for header in parsed {
        let kind = classify(header.name.as_bytes());
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

/// Which rule that is.
fn of_httparse(error: httparse::Error) -> ParseError {
    match error {
        httparse::Error::TooManyHeaders => ParseError::TooManyFields,
        httparse::Error::Version => ParseError::Version,
        httparse::Error::Status | httparse::Error::Token => ParseError::StartLine,
        httparse::Error::NewLine => ParseError::LineEnd,
        httparse::Error::HeaderName | httparse::Error::HeaderValue => ParseError::FieldLine,
    }
}

/// How names of ours begin.
const RINGWAY: &[u8] = b"x-ringway-";
/// Longest name that [`classify`] knows whole.
const KNOWN_BYTES_MAX: usize = 18;

/// What a name means, however it is spelled.
fn classify(name: &[u8]) -> FieldName {
    let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
    // By length first: most names are told from all of these by it alone.
    match name.len() {
        2 if is(b"te") => FieldName::Te,
        4 if is(b"host") => FieldName::Host,
        6 if is(b"cookie") => FieldName::Cookie,
        6 if is(b"expect") => FieldName::Expect,
        7 if is(b"upgrade") => FieldName::Upgrade,
        7 if is(b"trailer") => FieldName::Trailer,
        9 if is(b"forwarded") => FieldName::Forwarded,
        10 if is(b"connection") => FieldName::Connection,
        10 if is(b"keep-alive") => FieldName::KeepAlive,
        14 if is(b"content-length") => FieldName::ContentLength,
        14 if is(b"http2-settings") => FieldName::Http2Settings,
        15 if is(b"x-forwarded-for") => FieldName::XForwardedFor,
        16 if is(b"proxy-connection") => FieldName::ProxyConnection,
        16 if is(b"x-forwarded-host") => FieldName::XForwardedHost,
        16 if is(b"x-forwarded-port") => FieldName::XForwardedPort,
        17 if is(b"transfer-encoding") => FieldName::TransferEncoding,
        17 if is(b"x-forwarded-proto") => FieldName::XForwardedProto,
        18 if is(b"proxy-authenticate") => FieldName::ProxyAuthenticate,
        len if len > 10 && name[..10].eq_ignore_ascii_case(RINGWAY) => FieldName::Ringway,
        _ if memchr::memchr(b'_', name).is_some() => unmask(name),
        _ => FieldName::Other,
    }
}

/// Whether a name with `_` is one of these with `-`.
fn unmask(name: &[u8]) -> FieldName {
    let mut dashed = [0; KNOWN_BYTES_MAX];
    for (to, from) in dashed.iter_mut().zip(name) {
        *to = if *from == b'_' { b'-' } else { *from };
    }
    let known = match dashed.get(..name.len()) {
        Some(dashed) => classify(dashed) != FieldName::Other,
        None => dashed[..RINGWAY.len()].eq_ignore_ascii_case(RINGWAY),
    };
    if known { FieldName::Disguised } else { FieldName::Other }
}

/// Appends the trailer fields that may be passed on and for whose names `keep` holds; `section` ends with its empty line.
pub(crate) fn trailers(section: &[u8], out: &mut Vec<u8>, keep: impl Fn(&[u8]) -> bool) -> Result<(), ParseError> {
    if section == b"\r\n" || section.is_empty() {
        return Ok(());
    }
    let mut table = [httparse::EMPTY_HEADER; FIELDS_CEILING / 4];
    match httparse::parse_headers(section, &mut table) {
        Ok(httparse::Status::Complete((len, fields))) if len == section.len() => {
            for header in fields {
                let name = header.name.as_bytes();
                if may_trail(name) && keep(name) {
                    out.extend_from_slice(name);
                    out.extend_from_slice(b": ");
                    out.extend_from_slice(header.value);
                    out.extend_from_slice(b"\r\n");
                }
            }
            Ok(())
        }
        _ => Err(ParseError::Trailer),
    }
}
