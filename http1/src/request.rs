//! Request heads: parsed by `httparse`, judged here.

use crate::error::of_httparse;
use crate::head;
use ringway_message::{
    Authority, BodyLength, FIELDS_CEILING, FieldName, Limits, Method, ParseError, RequestHead, Span, TargetForm,
    Version, default_port, is_authority, is_host_and_port, is_target, split_target, tokens,
};
use std::mem::MaybeUninit;

/// Parses a request's head out of the first bytes of `buffer` into `head`.
///
/// `Ok(false)`: the head is not complete yet; read more. `Ok(true)`: it is, and `head.head_len` says where the body
/// begins.
///
/// # Errors
/// Any [`ParseError`]: answer 400, or 431 if [`ParseError::is_size`], and close.
pub fn parse_request(buffer: &[u8], limits: &Limits, head: &mut RequestHead) -> Result<bool, ParseError> {
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
            head::check_line_ends(buffer)?;
            return Ok(false);
        }
        Err(error) => return Err(locate_error(error, buffer)),
    };
    if head_len > limits.head_bytes_max {
        return Err(ParseError::HeadTooLarge);
    }
    head::check_line_ends(&buffer[..head_len])?;

    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(ParseError::StartLine);
    };
    head.head_len = head_len;
    // What only other versions say.
    (head.scheme, head.protocol, head.target_sensitive) = (Span::default(), None, false);
    head.version = if version == 0 { Version::Http10 } else { Version::Http11 };
    head.method = Method::parse(method.as_bytes());
    head.method_span = Span::locate(buffer, method.as_bytes());
    head.target = Span::locate(buffer, target.as_bytes());

    let framing = head::collect_fields(buffer, parsed.headers, &mut head.fields)?;
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
        ParseError::FieldLine | ParseError::StartLine if head::check_line_ends(&buffer[..end]).is_err() => {
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
    if !is_target(target) {
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
    head.forward_target = Span { start, end: head.target.end };
    (head.path, head.query) = split_target(buffer, head.forward_target);
    // An absolute target whose path is empty but has a query has no unambiguous origin form as it stands.
    if head.path.is_empty() && !head.forward_target.is_empty() {
        return Err(ParseError::Target);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("GET / HTTP/1.1\nHost: a\r\n\r\n".into(), LineEnd),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n".into(), LineEnd),
            ("GET / HTTP/1.1\r\nHost: a\r\n\n".into(), LineEnd),
            ("GET / HTTP/1.10\r\nHost: a\r\n\r\n".into(), Version),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".into(), Version),
            ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".into(), TransferCoding),
        ] {
            match parse(&text) {
                Err(found) if found == error => {}
                // The place of the error, not its being one, is httparse's to choose.
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
