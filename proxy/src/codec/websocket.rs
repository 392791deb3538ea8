//! The WebSocket handshake where Ringway translates between HTTP/1.1 (RFC 6455, 4) and HTTP/2 (RFC 8441), which has none.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Name of the protocol in HTTP/1.1's `Upgrade`.
pub(crate) const PROTOCOL: &[u8] = b"websocket";
/// The key of a handshake that came over HTTP/2, where it has no meaning (RFC 8441, 5), and HTTP/1.1 needs one.
pub(crate) const KEY: &[u8] = b"cmluZ3dheS1yZmM4NDQxIQ==";
/// RFC 6455, 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Whether a client's key is valid: 16 bytes in base64 (RFC 6455, 4.2.1).
pub(crate) fn is_key(key: &[u8]) -> bool {
    let mut bytes = [0; 18];
    key.len() == 24 && STANDARD.decode_slice(key, &mut bytes) == Ok(16)
}

/// `Sec-WebSocket-Accept` for a key (RFC 6455, 4.2.2).
pub(crate) fn accept(key: &[u8]) -> [u8; 28] {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(GUID);
    let mut text = [0; 28];
    let written = STANDARD.encode_slice(hash.finish().as_ref(), &mut text);
    debug_assert_eq!(written, Ok(28), "20 bytes are 28 digits");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc() {
        assert_eq!(&accept(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn keys_are_sixteen_bytes() {
        assert!(is_key(b"dGhlIHNhbXBsZSBub25jZQ==") && is_key(KEY));
        for bad in [&b""[..], b"x", b"dGhlIHNhbXBsZSBub25jZQ", b"dGhlIHNhbXBsZSBub25jZSE=", b"dGhlIHNhbXBsZSBub25j!Q=="]
        {
            assert!(!is_key(bad), "{bad:?}");
        }
    }
}
