//! Response heads: parsed by `httparse`, judged here.

use crate::error::of_httparse;
use crate::head;
use ringway_message::{BodyLength, FIELDS_CEILING, FieldName, Limits, Method, ParseError, ResponseHead, Span, Version};
use std::mem::MaybeUninit;

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
            head::check_line_ends(buffer)?;
            return Ok(false);
        }
    };
    if head_len > limits.head_bytes_max {
        return Err(ParseError::HeadTooLarge);
    }
    head::check_line_ends(&buffer[..head_len])?;
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

    let framing = head::collect_fields(buffer, parsed.headers, &mut head.fields)?;
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
