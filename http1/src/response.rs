//! Response heads.

use crate::framing::{Framing, Noted};
use crate::walk::{Resume, Stop, Walk, span};
use ringway_message::scan::behind_value;
use ringway_message::{BodyLength, FieldName, Limits, Method, ParseError, ResponseHead, Span, Version};

/// Whether bytes begin with a status line of HTTP/1, whatever follows it: what tells a response that breaks a rule or a limit
/// from what is no HTTP at all.
#[must_use]
pub fn is_response(bytes: &[u8]) -> bool {
    bytes.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(..6)).is_some_and(|rest| {
        rest[0].is_ascii_digit()
            && rest[1] == b' '
            && rest[2..5].iter().all(u8::is_ascii_digit)
            && matches!(rest[5], b' ' | b'\r' | b'\n')
    })
}

/// Parses a response's head out of the first bytes of `buffer` into `head`.
///
/// `request` is the method it answers, `upgrade_asked` whether that request asked for another protocol. `Ok(false)`:
/// read more.
///
/// # Errors
/// Any [`ParseError`]: the upstream connection is good for nothing more; answer 502.
pub fn parse_response(
    buffer: &[u8],
    limits: &Limits,
    request: Method,
    upgrade_asked: bool,
    head: &mut ResponseHead,
) -> Result<bool, ParseError> {
    parse_response_on(buffer, limits, (request, upgrade_asked), &mut Resume::default(), head)
}

/// The same, of a head that comes in pieces: `resume` remembers what has been looked at. What is wrong in a line is told when the line
/// has ended. `asked`: the method, and whether another protocol was asked for.
///
/// # Errors
/// As [`parse_response`].
pub fn parse_response_on(
    buffer: &[u8],
    limits: &Limits,
    (request, upgrade_asked): (Method, bool),
    resume: &mut Resume,
    head: &mut ResponseHead,
) -> Result<bool, ParseError> {
    if !resume.is_worth_it(buffer, limits, |walk| start_line(walk).map(|_| ())) {
        return Ok(false);
    }
    let (mut walk, mut noted) = (Walk::new(buffer), Noted::default());
    // Of an earlier head, until this one's own are collected.
    head.fields.clear();
    let result = start_line(&mut walk).and_then(|line| {
        (head.version, head.status, head.reason) = (line.version, line.status, line.reason);
        walk.collect(limits, &mut head.fields, &mut noted)
    });
    if let Err(stop) = result {
        let result = walk.stopped(stop, limits);
        resume.remember(&walk, head.fields.len(), result.is_ok());
        return result;
    }
    resume.reset();
    walk.check(limits)?;
    head.head_len = walk.at;
    // RFC 9112 knows no empty line before a status line.
    if buffer.first() != Some(&b'H') {
        return Err(ParseError::StartLine);
    }
    let code = head.status;
    if !(100..=599).contains(&code) {
        return Err(ParseError::Status);
    }

    let framing = noted.judge(buffer, head.version, &mut head.fields)?;
    head.keep_alive = framing.persists(head.version);
    head.upgrade = None;
    head.announced_length = None;
    if code == 101 {
        if !upgrade_asked || head.version == Version::Http10 {
            return Err(ParseError::UnexpectedUpgrade);
        }
        head.upgrade = head.fields.iter().find(|field| field.kind == FieldName::Upgrade).map(|field| field.value);
    }

    head.body = body_length(head, &framing, request)?;
    Ok(true)
}

/// Where the body ends (RFC 9112, 6.3): what never has one, whatever the fields say, first.
fn body_length(head: &mut ResponseHead, framing: &Framing, request: Method) -> Result<BodyLength, ParseError> {
    let announces = framing.chunked || framing.length.is_some_and(|length| length > 0);
    match head.status {
        // RFC 9110, 8.6 and RFC 9112, 6.1 forbid both; a party that believes them waits for a body, and another response
        // is to come.
        ..200 if announces => return Err(ParseError::LengthInvalid),
        ..200 => return Ok(BodyLength::None),
        204 => {
            // Forbidden too, but it ends here for every reader, if nothing comes after it on that connection.
            head.keep_alive &= !announces;
            return Ok(BodyLength::None);
        }
        _ => {}
    }
    if head.status == 304 || request == Method::Head {
        head.announced_length = framing.length;
        return Ok(BodyLength::None);
    }
    Ok(match framing.length {
        _ if framing.chunked => BodyLength::Chunked,
        Some(length) => BodyLength::Sized(length),
        None => {
            head.keep_alive = false;
            BodyLength::UntilClose
        }
    })
}

/// A status line.
struct Line {
    version: Version,
    status: u16,
    reason: Span,
}

#[inline]
fn start_line(walk: &mut Walk<'_>) -> Result<Line, Stop> {
    walk.empty_lines()?;
    let version = if walk.version()? == b'0' { Version::Http10 } else { Version::Http11 };
    // As it nearly always is, with whatever reason.
    if let [b' ', a @ b'0'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b' ', text @ ..] = &walk.buffer[walk.at..] {
        let status = u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0');
        return end_start_line(walk, version, status, text);
    }
    if walk.byte(walk.at)? != b' ' {
        return Err(Stop::Error(ParseError::Version));
    }
    let mut status = 0;
    for at in walk.at + 1..walk.at + 4 {
        let digit = walk.byte(at)?;
        if !digit.is_ascii_digit() {
            return Err(Stop::Error(ParseError::StartLine));
        }
        status = status * 10 + u16::from(digit - b'0');
    }
    walk.at += 4;
    // The space before a reason that is empty may be missing: that misleads no reader.
    walk.end_line(walk.at, ParseError::StartLine)?;
    Ok(Line { version, status, reason: Span::default() })
}

/// The reason, which `text` begins with, and the line's end.
#[inline]
fn end_start_line(walk: &mut Walk<'_>, version: Version, status: u16, text: &[u8]) -> Result<Line, Stop> {
    let start = walk.buffer.len() - text.len();
    if let [b'O', b'K', b'\r', b'\n', ..] = text {
        walk.at = start + 4;
        walk.line = walk.at;
        return Ok(Line { version, status, reason: span(start, start + 2) });
    }
    let text = &text[..text.len() - behind_value(text).len()];
    walk.at = start + text.len();
    // What is not ASCII has no meaning that is known.
    let reason = if !text.is_empty() && text.is_ascii() { span(start, walk.at) } else { Span::default() };
    walk.end_line(walk.at, ParseError::StartLine)?;
    Ok(Line { version, status, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, method: Method) -> Result<ResponseHead, ParseError> {
        let mut head = ResponseHead::default();
        assert!(parse_response(text.as_bytes(), &Limits::default(), method, false, &mut head)?);
        Ok(head)
    }

    #[test]
    fn body_ends_where_the_rfc_says() {
        let sized = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(parse(sized, Method::Get).unwrap().body, BodyLength::Sized(5));
        let head = parse(sized, Method::Head).unwrap();
        assert_eq!((head.body, head.announced_length), (BodyLength::None, Some(5)));
        let chunked = parse("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Method::Get).unwrap();
        assert!(chunked.keep_alive && chunked.body == BodyLength::Chunked);
        let until_close = parse("HTTP/1.1 200 OK\r\n\r\n", Method::Get).unwrap();
        assert!(!until_close.keep_alive && until_close.body == BodyLength::UntilClose);
        assert_eq!(
            parse("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", Method::Get).unwrap().body,
            BodyLength::None
        );
    }

    #[test]
    fn a_204_has_no_body_and_nothing_follows_one_that_announces_it() {
        for (field, keep_alive) in [
            ("", true),
            ("Content-Length: 0\r\n", true),
            ("Content-Length: 5\r\n", false),
            ("Transfer-Encoding: chunked\r\n", false),
        ] {
            let head = parse(&format!("HTTP/1.1 204 X\r\n{field}\r\n"), Method::Get).unwrap();
            assert_eq!((head.body, head.keep_alive), (BodyLength::None, keep_alive), "{field}");
        }
    }

    #[test]
    fn a_status_line_tells_http_from_what_is_none() {
        for good in ["HTTP/1.1 200 OK\r\n", "HTTP/1.0 999\r\n", "HTTP/1.1 200 \r\nX: y", "HTTP/1.1 200\n"] {
            assert!(is_response(good.as_bytes()), "{good:?}");
        }
        for bad in
            ["", "HTTP/1.1 200", "HTTP/2.0 200 OK\r\n", "SSH-2.0-x\r\n", "HTTP/1.1 2000\r\n", "\r\nHTTP/1.1 200 OK\r\n"]
        {
            assert!(!is_response(bad.as_bytes()), "{bad:?}");
        }
    }

    #[test]
    fn lying_answers_are_refused() {
        for (text, error) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", ParseError::LengthRepeated),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", ParseError::LengthAndCoding),
            ("HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n", ParseError::UnexpectedUpgrade),
            ("HTTP/1.1 600 X\r\n\r\n", ParseError::Status),
            ("HTTP/1.1 099 X\r\n\r\n", ParseError::Status),
            ("HTTP/1.1 103 X\r\nContent-Length: 5\r\n\r\n", ParseError::LengthInvalid),
            ("\r\nHTTP/1.1 200 X\r\nContent-Length: 0\r\n\r\n", ParseError::StartLine),
            ("HTTP/1.1 200 X\nContent-Length: 0\r\n\r\n", ParseError::LineEnd),
            ("garbage garbage\r\n\r\n", ParseError::Version),
        ] {
            assert_eq!(parse(text, Method::Get), Err(error), "{text:?}");
        }
    }
}
