//! Request heads.

use crate::framing::{self, Noted};
use crate::walk::{Resume, Stop, Walk, method_end, span};
use ringway_message::scan::{self, Target};
use ringway_message::{
    Authority, BodyLength, Limits, Method, ParseError, RequestHead, Span, TargetForm, Version, default_port,
    is_authority, is_host_and_port,
};

/// Parses a request's head out of the first bytes of `buffer` into `head`.
///
/// `Ok(false)`: the head is not complete yet; read more. `Ok(true)`: it is, and `head.head_len` says where the body
/// begins.
///
/// # Errors
/// Any [`ParseError`]: answer 400, or 431 if [`ParseError::is_size`], and close.
pub fn parse_request(buffer: &[u8], limits: &Limits, head: &mut RequestHead) -> Result<bool, ParseError> {
    parse_request_on(buffer, limits, &mut Resume::default(), head)
}

/// The same, of a head that comes in pieces: `resume` remembers what has been looked at. What is wrong in a line is told when the line
/// has ended.
///
/// # Errors
/// As [`parse_request`].
pub fn parse_request_on(
    buffer: &[u8],
    limits: &Limits,
    resume: &mut Resume,
    head: &mut RequestHead,
) -> Result<bool, ParseError> {
    if !resume.is_worth_it(buffer, limits, |walk| start_line(walk).map(|_| ())) {
        return Ok(false);
    }
    let (mut walk, mut noted) = (Walk::new(buffer), Noted::default());
    let mut query_at = None;
    // Of an earlier head, until this one's own are collected.
    head.fields.clear();
    let result = start_line(&mut walk).and_then(|line| {
        (head.method, head.version) = (line.method, line.version);
        (head.method_span, head.target) = (line.method_span, line.target);
        query_at = line.query_at;
        walk.collect(limits, &mut head.fields, &mut noted)
    });
    if let Err(stop) = result {
        let result = walk.stopped(stop, limits).map_err(|error| locate_error(error, buffer));
        resume.remember(&walk, head.fields.len(), result.is_ok());
        return result;
    }
    resume.reset();
    walk.check(limits)?;
    head.head_len = walk.at;
    // What only other versions say.
    (head.scheme, head.protocol, head.target_sensitive) = (Span::default(), None, false);

    let framing = noted.judge(buffer, head.version, &mut head.fields)?;
    head.body = match (framing.chunked, framing.length) {
        (true, _) => BodyLength::Chunked,
        (false, Some(length)) => BodyLength::Sized(length),
        (false, None) => BodyLength::None,
    };
    head.keep_alive = framing.persists(head.version);
    let modern = head.version == Version::Http11;
    head.expect_continue = noted.expect_continue && modern;
    head.expect_unknown = noted.expect_unknown;
    head.upgrade = noted.upgrade.filter(|_| framing.upgrade_option && modern);
    head.te_trailers = noted.te_trailers;
    if noted.host_repeated {
        return Err(ParseError::HostRepeated);
    }
    judge_target(buffer, head, query_at, noted.host)?;
    Ok(true)
}

/// A request line.
struct Line {
    method: Method,
    method_span: Span,
    target: Span,
    /// Where its query begins, as [`scan::target`] says.
    query_at: Option<usize>,
    version: Version,
}

const GET: u32 = u32::from_le_bytes(*b"GET ");
const POST: u32 = u32::from_le_bytes(*b"POST");

#[inline]
fn start_line(walk: &mut Walk<'_>) -> Result<Line, Stop> {
    walk.empty_lines()?;
    let start = walk.at;
    let rest = &walk.buffer[start..];
    let (method, method_len) = match rest.first_chunk().map(|word| u32::from_le_bytes(*word)) {
        Some(GET) => (Method::Get, 3),
        Some(POST) if rest.get(4) == Some(&b' ') => (Method::Post, 4),
        _ => {
            let length = method_end(walk)? - start;
            (Method::parse(&rest[..length]), length)
        }
    };
    let target = start + method_len + 1;
    let Target { len, query: query_at } = scan::target(&walk.buffer[target..]);
    let target_end = target + len;
    // It ends with nothing but a space, and is text at least, whatever else it is.
    if walk.byte(target_end)? != b' ' || len == 0 {
        return Err(Stop::Error(ParseError::StartLine));
    }
    if query_at.is_none() && std::str::from_utf8(&walk.buffer[target..target_end]).is_err() {
        return Err(Stop::Error(ParseError::StartLine));
    }
    walk.at = target_end + 1;
    let version = if walk.version()? == b'0' { Version::Http10 } else { Version::Http11 };
    walk.end_line(walk.at, ParseError::LineEnd)?;
    let method_span = span(start, start + method_len);
    Ok(Line { method, method_span, target: span(target, target_end), query_at, version })
}

/// A bare CR or LF is called by the name of the place where it stands; whether there is a bare LF says which rule was broken.
#[cold]
fn locate_error(error: ParseError, buffer: &[u8]) -> ParseError {
    let end = memchr::memmem::find(buffer, b"\r\n\r\n").unwrap_or(buffer.len());
    match error {
        ParseError::FieldLine | ParseError::StartLine if framing::check_line_ends(&buffer[..end]).is_err() => {
            ParseError::LineEnd
        }
        other => other,
    }
}

fn judge_target(
    buffer: &[u8],
    head: &mut RequestHead,
    query_at: Option<usize>,
    host: Option<Span>,
) -> Result<(), ParseError> {
    let target = head.target.of(buffer);
    let query_at = query_at.ok_or(ParseError::Target)?;
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
            if !is_host_and_port(target) {
                return Err(ParseError::Target);
            }
            head.form = TargetForm::Authority;
            (head.forward_target, head.path, head.query) = (head.target, head.target, Span::default());
            return Ok(());
        }
        _ => {
            let authority = absolute_authority(target, host_value)?;
            head.form = TargetForm::Absolute;
            head.authority = Span::locate(buffer, &target[authority.clone()]);
            authority.end
        }
    };
    let start = head.target.start + path_start as u32;
    let end = head.target.end;
    head.forward_target = Span { start, end };
    let path_end = head.target.start + query_at as u32;
    head.path = Span { start, end: path_end };
    head.query = Span { start: end.min(path_end + 1), end };
    // An absolute target whose path is empty but has a query has no unambiguous origin form as it stands.
    if path_end == start && path_end < end {
        return Err(ParseError::Target);
    }
    Ok(())
}

/// Where the authority stands in a target of absolute form. A `Host` beside it must say the same.
fn absolute_authority(target: &[u8], host: Option<&[u8]>) -> Result<std::ops::Range<usize>, ParseError> {
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|scheme| target.len() >= scheme.len() && target[..scheme.len()].eq_ignore_ascii_case(scheme))
        .ok_or(ParseError::Target)?
        .len();
    let end =
        target[scheme..].iter().position(|byte| matches!(byte, b'/' | b'?')).map_or(target.len(), |at| scheme + at);
    let authority = &target[scheme..end];
    if !is_authority(authority) {
        return Err(ParseError::Target);
    }
    let port = default_port(scheme == b"https://".len());
    if host.is_some_and(|value| !Authority::new(value).is_same(Authority::new(authority), port)) {
        return Err(ParseError::HostDisagrees);
    }
    Ok(scheme..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_message::FieldName;

    fn parse(text: &str) -> Result<(RequestHead, bool), ParseError> {
        let mut head = RequestHead::default();
        let done = parse_request(text.as_bytes(), &Limits::default(), &mut head)?;
        Ok((head, done))
    }

    #[test]
    fn plain_get_is_taken_apart() {
        let text = "GET /a/b?x=1 HTTP/1.1\r\nHost: Example.com:80\r\nCookie: a=1; sid=\"42\"\r\n\r\nrest";
        let (head, done) = parse(text).unwrap();
        let bytes = text.as_bytes();
        assert!(done && head.keep_alive);
        assert_eq!(head.head_len, text.len() - 4);
        assert_eq!(head.path.of(bytes), b"/a/b");
        assert_eq!(head.query.of(bytes), b"x=1");
        assert_eq!(head.authority.of(bytes), b"Example.com:80");
        assert_eq!(head.cookies(bytes).collect::<Vec<_>>(), [(&b"a"[..], &b"1"[..]), (b"sid", b"42")]);
        assert_eq!(head.body, BodyLength::None);
    }

    #[test]
    fn what_two_parties_could_read_differently_is_refused() {
        use ParseError::*;
        let with = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        for (text, error) in [
            (with("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), LengthAndCoding),
            (with("Content-Length: 1\r\nContent-Length: 1\r\n"), LengthRepeated),
            (with("Content-Length: 1, 1\r\n"), LengthRepeated),
            (with("Content-Length: +1\r\n"), LengthInvalid),
            (with("Content-Length: \r\n"), LengthInvalid),
            (with("Content-Length: 1 2\r\n"), LengthInvalid),
            (with("Content-Length: 0x1\r\n"), LengthInvalid),
            (with("Content-Length: 99999999999999999999\r\n"), LengthInvalid),
            (with("Transfer-Encoding: gzip, chunked\r\n"), TransferCoding),
            (with("Transfer-Encoding: chunked, chunked\r\n"), TransferCoding),
            (with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), TransferCoding),
            (with("Transfer-Encoding: \u{b}chunked\r\n"), FieldLine),
            (with("Transfer-Encoding : chunked\r\n"), FieldLine),
            (with("X: a\r\n b\r\n"), FieldLine),
            (with(": a\r\n"), FieldLine),
            (with("Host: a\r\n"), HostRepeated),
            ("GET / HTTP/1.1\r\n\r\n".into(), HostMissing),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n".into(), HostInvalid),
            ("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n".into(), HostInvalid),
            ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n".into(), HostInvalid),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n".into(), HostInvalid),
            ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n".into(), HostDisagrees),
            ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n".into(), Target),
            ("GET a HTTP/1.1\r\nHost: a\r\n\r\n".into(), Target),
            ("GET * HTTP/1.1\r\nHost: a\r\n\r\n".into(), Target),
            ("CONNECT [::1] HTTP/1.1\r\nHost: [::1]\r\n\r\n".into(), Target),
            ("CONNECT a: HTTP/1.1\r\nHost: a\r\n\r\n".into(), Target),
            ("CONNECT a:0 HTTP/1.1\r\nHost: a\r\n\r\n".into(), Target),
            ("GET / HTTP/1.1\nHost: a\r\n\r\n".into(), LineEnd),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n".into(), LineEnd),
            ("GET / HTTP/1.1\r\nHost: a\r\n\n".into(), LineEnd),
            ("GET / HTTP/1.10\r\nHost: a\r\n\r\n".into(), Version),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".into(), Version),
            ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".into(), TransferCoding),
        ] {
            match parse(&text) {
                Err(found) if found == error => {}
                // One thing may be called by several names.
                Err(LineEnd | FieldLine | StartLine | Version) if matches!(error, LineEnd | FieldLine | Version) => {}
                other => panic!("{text:?}: expected {error:?}, got {other:?}"),
            }
        }
    }

    #[test]
    fn an_absolute_target_agrees_with_any_name_of_its_host_and_with_no_other() {
        let parse = |target: &str, host: &str| parse(&format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        for (target, host) in [
            ("http://a.example/", "A.Example"),
            ("http://a.example:80/", "a.example"),
            ("http://a.example", "a.example.:80"),
            ("http://a.example:/x", "a.example:0080"),
            ("HTTPS://a.example:443/", "a.example."),
            ("http://[::AB]:80/", "[::ab]"),
        ] {
            let (head, _) = parse(target, host).unwrap_or_else(|error| panic!("{target} {host}: {error}"));
            assert_eq!(head.form, TargetForm::Absolute);
        }
        for (target, host) in [
            ("http://a.example/", "a.example:443"),
            ("https://a.example/", "a.example:80"),
            ("http://a.example:8080/", "a.example"),
            ("http://a.example/", "b.example"),
            ("http://a.example/", "a.example.."),
            ("http://a.example/", "www.a.example"),
        ] {
            assert_eq!(parse(target, host).unwrap_err(), ParseError::HostDisagrees, "{target} {host}");
        }
    }

    #[test]
    fn absolute_target_names_the_host() {
        let text = "GET http://A:80/x?y HTTP/1.1\r\nHost: a:80\r\n\r\n";
        let (head, _) = parse(text).unwrap();
        assert_eq!(head.form, TargetForm::Absolute);
        assert_eq!(head.forward_target.of(text.as_bytes()), b"/x?y");
        assert_eq!(head.authority.of(text.as_bytes()), b"A:80");
    }

    #[test]
    fn connection_names_fields_of_this_hop_but_never_framing() {
        let text = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nX-A: 1\r\nConnection: x-a, content-length, host\r\n\r\n";
        let (head, _) = parse(text).unwrap();
        let kinds: Vec<_> = head.fields.iter().map(|field| field.kind).collect();
        assert_eq!(kinds, [FieldName::Host, FieldName::ContentLength, FieldName::Nominated, FieldName::Connection]);
    }

    #[test]
    fn upgrade_to_http2_is_not_passed_on() {
        let head = |protocol: &str| {
            parse(&format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n"))
                .unwrap()
                .0
        };
        assert!(head("websocket").upgrade.is_some());
        assert!(head("h2c").upgrade.is_none());
        assert!(head("websocket, H2C").upgrade.is_none());
    }
}
