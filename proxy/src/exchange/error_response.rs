//! The one place where errors become responses.

use crate::codec::encoded_reply::EncodedReply;
use crate::error::ProxyError;
use crate::exchange::actions::DirectResponse;
use ringway_config::model::ErrorPage;
use ringway_message::{HeadWriter, Version};

/// Writes the whole response: status, `x-ringway-reason`, a line of text. `extra` are more fields, each line with its end.
pub(crate) fn write(
    error: ProxyError,
    version: Version,
    keep_alive: bool,
    is_head: bool,
    extra: &[u8],
    pages: &[ErrorPage],
    out: &mut HeadWriter,
) -> EncodedReply {
    let mut number = itoa::Buffer::new();
    let status = error.status();
    write_status(status, error.phrase().as_bytes(), out.text_mut());
    let page = pages.iter().find(|page| page.statuses.iter().any(|(low, high)| (*low..=*high).contains(&status)));
    out.field("content-type", page.map_or(&b"text/plain"[..], |page| page.content_type.as_bytes()));
    out.field("x-ringway-reason", error.reason().as_bytes());
    if status == 405 {
        // RFC 9110, 15.5.6: a 405 says what is allowed.
        out.field("allow", b"GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS");
    }
    if let ProxyError::RateLimited { seconds } = error {
        out.field("retry-after", number.format(seconds).as_bytes());
    } else if status == 503 {
        out.field("retry-after", b"1");
    }
    out.append(extra);
    write_connection(keep_alive, version, out);
    let text_len = 3 + 1 + error.phrase().len() + 2 + error.reason().len() + 1;
    out.field("content-length", number.format(page.map_or(text_len, |page| page.body.len())).as_bytes());
    let text = out.text_mut();
    text.extend_from_slice(b"\r\n");
    let body_from = text.len();
    if is_head {
        return EncodedReply { status, body_from };
    }
    match page {
        Some(page) => text.extend_from_slice(&page.body),
        None => {
            text.extend_from_slice(number.format(status).as_bytes());
            text.push(b' ');
            text.extend_from_slice(error.phrase().as_bytes());
            text.extend_from_slice(b": ");
            text.extend_from_slice(error.reason().as_bytes());
            text.push(b'\n');
        }
    }
    EncodedReply { status, body_from }
}

/// Writes a direct response of a route. `extra` are more fields, each line with its end.
pub(crate) fn write_direct(
    direct_response: &DirectResponse,
    version: Version,
    keep_alive: bool,
    extra: &[u8],
    out: &mut HeadWriter,
) -> EncodedReply {
    write_status(direct_response.status, direct_response.phrase().as_bytes(), out.text_mut());
    out.append(&direct_response.fields);
    out.append(extra);
    // RFC 9110, 8.6: 204 has no length.
    match direct_response.status {
        204 => out.field("cache-control", b"no-cache"),
        _ => out.field("content-length", b"0"),
    }
    write_connection(keep_alive, version, out);
    out.text_mut().extend_from_slice(b"\r\n");
    EncodedReply { status: direct_response.status, body_from: out.text().len() }
}

/// Appends a status line.
pub(crate) fn write_status(status: u16, reason: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
}

/// States whether the connection is kept, where the version does not imply it.
fn write_connection(keep_alive: bool, version: Version, out: &mut HeadWriter) {
    match (keep_alive, version) {
        // Each stream ends by itself.
        (_, Version::Http2) | (true, Version::Http11) => {}
        (false, _) => out.field("connection", b"close"),
        (true, Version::Http10) => out.field("connection", b"keep-alive"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_is_that_of_the_text() {
        for error in [ProxyError::NoRoute, ProxyError::ConnectRefused, ProxyError::AllFull] {
            let mut out = HeadWriter::default();
            let answer = write(error, Version::Http11, true, false, b"x-extra: 1\r\n", &[], &mut out);
            let text = std::str::from_utf8(out.text()).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.ends_with(&format!("content-length: {}", body.len())), "{text}");
            assert_eq!(answer.body_from, head.len() + 4);
        }
    }
}
