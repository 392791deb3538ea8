//! Messages of `grpc.health.v1.Health/Check`, in their frames.

use bytes::{BufMut, Bytes, BytesMut};
use ringway_health::CheckFailure;

/// `grpc.health.v1.HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: u32 = 1;

/// What a response's message says of the backend.
pub(super) fn judge(frame: &[u8]) -> Result<(), CheckFailure> {
    match serving_status(frame) {
        Some(SERVING) => Ok(()),
        Some(status) => Err(CheckFailure::NotServing(status)),
        None => Err(CheckFailure::Garbage),
    }
}

/// `HealthCheckRequest { string service = 1; }` in its frame: a flag, the length, the message.
pub(super) fn health_request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8(length as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(&message);
    frame.freeze()
}

/// `HealthCheckResponse { ServingStatus status = 1; }` out of its frame. An absent field is 0, UNKNOWN.
pub(crate) fn serving_status(frame: &[u8]) -> Option<u32> {
    let (&0, rest) = frame.split_first()? else { return None };
    let (length, mut message) = rest.split_at_checked(4)?;
    if u32::from_be_bytes(length.try_into().ok()?) as usize != message.len() {
        return None;
    }
    let mut status = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        match tag & 7 {
            0 => {
                let value = varint(&mut message)?;
                if tag >> 3 == 1 {
                    status = u32::try_from(value).ok()?;
                }
            }
            1 => message = message.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_messages_are_written_and_read() {
        assert_eq!(&health_request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&health_request("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(health_request(&"x".repeat(200)).len(), 5 + 3 + 200);
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 0x08, 1]), Some(SERVING));
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 0x08, 2]), Some(2));
        assert_eq!(serving_status(&[0, 0, 0, 0, 0]), Some(0));
        // Fields that are not known are skipped.
        assert_eq!(serving_status(&[0, 0, 0, 0, 6, 0x12, 2, b'h', b'i', 0x08, 1]), Some(SERVING));
        for bad in [&[][..], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 9, 8], &[0, 0, 0, 0, 1, 0x08], &[0, 0, 0, 0, 2, 0x12, 9]] {
            assert_eq!(serving_status(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn only_serving_is_well() {
        assert_eq!(judge(&[0, 0, 0, 0, 2, 0x08, 1]), Ok(()));
        assert_eq!(judge(&[0, 0, 0, 0, 2, 0x08, 2]), Err(CheckFailure::NotServing(2)));
        assert_eq!(judge(&[0, 0, 0, 0, 0]), Err(CheckFailure::NotServing(0)));
        assert_eq!(judge(b"what"), Err(CheckFailure::Garbage));
    }
}
