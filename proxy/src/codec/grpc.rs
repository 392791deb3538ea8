//! gRPC over HTTP/2: how a call is recognized, its deadline, and its statuses.

use ringway_message::RequestHead;
use std::time::Duration;

/// The field that says what has become of a call.
pub(crate) const GRPC_STATUS: &[u8] = b"grpc-status";

/// Whether it is a gRPC call.
pub(crate) fn is_grpc(bytes: &[u8], head: &RequestHead) -> bool {
    head.value_of(bytes, b"content-type").is_some_and(|value| value.starts_with(b"application/grpc"))
}

/// `grpc-timeout`: up to eight digits and a unit. Source: "gRPC over HTTP2".
pub(crate) fn grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let amount = digits.iter().fold(0, |amount: u64, digit| amount * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(amount * 3600),
        b'M' => Duration::from_secs(amount * 60),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// The HTTP status that a code of gRPC means: by it a call counts as a failure, or not, whatever status its response began with. Source:
/// google/rpc/code.proto, "HTTP Mapping", which Envoy goes by too.
pub(crate) fn http_status(code: u32) -> u16 {
    match code {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        // Unknown (2), internal (13), data loss (15), and codes that nobody knows.
        _ => 500,
    }
}

/// Whether a code is an error of the server's, and not of who calls. Source: OpenTelemetry's conventions for gRPC.
pub(crate) fn is_server_error(code: u32) -> bool {
    http_status(code) >= 500
}

/// gRPC codes for HTTP statuses. Source: "HTTP to gRPC Status Code Mapping"; deadlines and limits of Ringway have codes of their own.
pub(crate) fn grpc_status(status: u16) -> &'static str {
    match status {
        400 | 413 | 431 => "13",
        401 => "16",
        403 => "7",
        404 => "12",
        408 | 504 => "4",
        429 => "8",
        502 | 503 => "14",
        _ => "2",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_errors_of_the_server_as_the_conventions_say() {
        let errors: Vec<u32> = (0..18).filter(|code| is_server_error(*code)).collect();
        assert_eq!(errors, [2, 4, 12, 13, 14, 15, 17]);
        // What Ringway says itself comes back as what it was.
        for status in [401, 403, 429, 503, 504] {
            assert_eq!(http_status(grpc_status(status).parse().unwrap()), status);
        }
    }

    #[test]
    fn grpc_timeouts_are_read_strictly() {
        assert_eq!(grpc_timeout(b"100m"), Some(Duration::from_millis(100)));
        assert_eq!(grpc_timeout(b"2S"), Some(Duration::from_secs(2)));
        assert_eq!(grpc_timeout(b"99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for bad in [&b""[..], b"m", b"1", b"1s", b"123456789S", b"-1S", b"1.5S", b" 1S"] {
            assert_eq!(grpc_timeout(bad), None, "{bad:?}");
        }
    }
}
