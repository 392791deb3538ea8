//! Integers with a prefix (RFC 7541, 5.1).

use super::HpackError;

/// Bytes after the prefix, at most: four carry 28 bits, and nothing here is as long.
const CONTINUATION_BYTES_MAX: u32 = 4;

/// Takes an integer off the front, whose first byte's last `prefix` bits begin it.
///
/// # Errors
/// It is longer than five bytes, even if those only add nothing, or the block ends within it.
#[inline]
pub(crate) fn decode(block: &mut &[u8], prefix: u32) -> Result<u32, HpackError> {
    let (&first, rest) = block.split_first().ok_or(HpackError::Truncated)?;
    let full = (1 << prefix) - 1;
    let value = u32::from(first) & full;
    *block = rest;
    if value < full { Ok(value) } else { decode_long(block, value) }
}

fn decode_long(block: &mut &[u8], mut value: u32) -> Result<u32, HpackError> {
    for count in 0..CONTINUATION_BYTES_MAX {
        let (&byte, rest) = block.split_first().ok_or(HpackError::Truncated)?;
        *block = rest;
        // At most 2^28 - 1 + 2^8 - 1.
        value += u32::from(byte & 0x7f) << (7 * count);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(HpackError::Integer)
}

/// Appends an integer whose first byte has `pattern` above its prefix.
#[inline]
pub(crate) fn encode(out: &mut Vec<u8>, pattern: u8, prefix: u32, value: usize) {
    let full = (1_usize << prefix) - 1;
    if value < full { out.push(pattern | value as u8) } else { encode_long(out, pattern | full as u8, value - full) }
}

fn encode_long(out: &mut Vec<u8>, first: u8, mut rest: usize) {
    out.push(first);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn examples_of_appendix_c_1() {
        for (value, prefix, pattern, bytes) in [
            (10, 5, 0b1110_0000, &[0b1110_1010][..]),
            (1337, 5, 0, &[0b0001_1111, 0b1001_1010, 0b0000_1010]),
            (42, 8, 0, &[0b0010_1010]),
        ] {
            let mut out = Vec::new();
            encode(&mut out, pattern, prefix, value);
            assert_eq!(out, bytes);
            let mut block = bytes;
            assert_eq!(decode(&mut block, prefix), Ok(value as u32));
            assert!(block.is_empty());
        }
    }

    #[test]
    fn integers_have_an_end() {
        let decode = |bytes: &[u8]| decode(&mut &*bytes, 7);
        assert_eq!(decode(&[0xff, 0xff, 0xff, 0xff, 0x7f]), Ok(127 + (1 << 28) - 1));
        assert_eq!(decode(&[0xff, 0x80, 0x80, 0x80, 0x00]), Ok(127));
        // Five bytes after the prefix: too large, or only too long.
        assert_eq!(decode(&[0xff, 0xff, 0xff, 0xff, 0xff, 0x01]), Err(HpackError::Integer));
        assert_eq!(decode(&[0xff, 0x80, 0x80, 0x80, 0x80, 0x00]), Err(HpackError::Integer));
        assert_eq!(decode(&[&[0xff][..], &[0x80; 1000]].concat()), Err(HpackError::Integer));
        for bytes in [&[][..], &[0xff], &[0xff, 0x80], &[0xff, 0x80, 0x80, 0x80]] {
            assert_eq!(decode(bytes), Err(HpackError::Truncated), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_again(value in 0_usize..1 << 28, prefix in 1_u32..=8, more in any::<u8>()) {
            let mut out = Vec::new();
            encode(&mut out, 0, prefix, value);
            out.push(more);
            let mut block = &out[..];
            prop_assert_eq!(decode(&mut block, prefix), Ok(value as u32));
            prop_assert_eq!(block, [more]);
        }
    }
}
