//! The one place where errors become answers.

use crate::actions::Canned;
use crate::error::ProxyError;
use ringway_config::model::ErrorAnswer;
use ringway_http1::Version;

/// Appends the whole answer: status, `x-ringway-reason`, a line of text.
/// `extra` are more fields, each line with its end.
pub(crate) fn write(
    error: ProxyError,
    version: Version,
    keep_alive: bool,
    is_head: bool,
    extra: &[u8],
    pages: &[ErrorAnswer],
    out: &mut Vec<u8>,
) {
    let mut number = itoa::Buffer::new();
    let status = error.status();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(number.format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(error.phrase().as_bytes());
    let page = pages.iter().find(|page| page.statuses.iter().any(|(low, high)| (*low..=*high).contains(&status)));
    out.extend_from_slice(b"\r\ncontent-type: ");
    out.extend_from_slice(page.map_or(&b"text/plain"[..], |page| page.content_type.as_bytes()));
    out.extend_from_slice(b"\r\nx-ringway-reason: ");
    out.extend_from_slice(error.reason().as_bytes());
    if status == 405 {
        // RFC 9110, 15.5.6: a 405 says what is allowed.
        out.extend_from_slice(b"\r\nallow: GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS");
    }
    if let ProxyError::RateLimited { seconds } = error {
        out.extend_from_slice(b"\r\nretry-after: ");
        out.extend_from_slice(number.format(seconds).as_bytes());
    } else if status == 503 {
        out.extend_from_slice(b"\r\nretry-after: 1");
    }
    // Whole lines, each with its end.
    if let Some(extra) = extra.strip_suffix(b"\r\n") {
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(extra);
    }
    write_connection(keep_alive, version, out);
    if let Some(page) = page {
        out.extend_from_slice(b"\r\ncontent-length: ");
        out.extend_from_slice(number.format(page.body.len()).as_bytes());
        out.extend_from_slice(b"\r\n\r\n");
        if !is_head {
            out.extend_from_slice(&page.body);
        }
        return;
    }
    let text_len = 3 + 1 + error.phrase().len() + 2 + error.reason().len() + 1;
    out.extend_from_slice(b"\r\ncontent-length: ");
    out.extend_from_slice(number.format(text_len).as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
    if !is_head {
        out.extend_from_slice(number.format(status).as_bytes());
        out.push(b' ');
        out.extend_from_slice(error.phrase().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(error.reason().as_bytes());
        out.push(b'\n');
    }
}

/// Appends an answer of a route.
pub(crate) fn write_canned(canned: &Canned, version: Version, keep_alive: bool, out: &mut Vec<u8>) {
    let mut number = itoa::Buffer::new();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(number.format(canned.status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(canned.phrase().as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&canned.fields);
    // RFC 9110, 8.6: 204 has no length.
    out.extend_from_slice(if canned.status == 204 { b"cache-control: no-cache" } else { b"content-length: 0" });
    write_connection(keep_alive, version, out);
    out.extend_from_slice(b"\r\n\r\n");
}

fn write_connection(keep_alive: bool, version: Version, out: &mut Vec<u8>) {
    match (keep_alive, version) {
        // Each stream ends by itself.
        (_, Version::Http2) | (true, Version::Http11) => {}
        (false, _) => out.extend_from_slice(b"\r\nconnection: close"),
        (true, Version::Http10) => out.extend_from_slice(b"\r\nconnection: keep-alive"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_is_that_of_the_text() {
        for error in [ProxyError::NoRoute, ProxyError::ConnectRefused, ProxyError::AllFull] {
            let mut out = Vec::new();
            write(error, Version::Http11, true, false, b"x-extra: 1\r\n", &[], &mut out);
            let text = String::from_utf8(out).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.ends_with(&format!("content-length: {}", body.len())), "{text}");
        }
    }
}
