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

/// gRPC codes for HTTP statuses. Source: "HTTP to gRPC Status Code Mapping"; deadlines and limits of Ringway have codes of their own.
pub(super) fn grpc_status(status: u16) -> &'static str {
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
    fn grpc_timeouts_are_read_strictly() {
        assert_eq!(grpc_timeout(b"100m"), Some(Duration::from_millis(100)));
        assert_eq!(grpc_timeout(b"2S"), Some(Duration::from_secs(2)));
        assert_eq!(grpc_timeout(b"99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for bad in [&b""[..], b"m", b"1", b"1s", b"123456789S", b"-1S", b"1.5S", b" 1S"] {
            assert_eq!(grpc_timeout(bad), None, "{bad:?}");
        }
    }
}
