//! The Huffman code of RFC 7541, appendix B: both tables are made from its lengths when this is compiled.
//!
//! The code is canonical: codes of one length follow each other in the order of their symbols, and begin where those of the length before
//! end. So lengths are all there is to know.

use super::HpackError;

mod tables;

use tables::{CODE_BITS_MAX, CODES, Code, EOS, LENGTHS, LONG, PACKED, SHORT, SHORT_BITS, SORTED};

/// The symbol of a longer code that these bits begin with, and how long that is.
#[cold]
fn long(bits: u64) -> (u16, u32) {
    let next = bits >> 32;
    for class in &LONG {
        if next < class.end {
            let code = (next >> (32 - u32::from(class.bits))) as u32;
            return (SORTED[usize::from(class.at) + (code - class.first) as usize], u32::from(class.bits));
        }
    }
    // Not reached: the last class ends where 32 bits do.
    (EOS as u16, CODE_BITS_MAX as u32)
}

/// Appends what a string stands for. At most 8/5 of its length.
///
/// # Errors
/// EOS within it, or a padding that is longer than 7 bits or not of EOS's first bits (RFC 7541, 5.2).
pub(crate) fn decode(string: &[u8], out: &mut Vec<u8>) -> Result<(), HpackError> {
    let start = out.len();
    // No code is shorter than five bits; and a whole batch fits in to the end.
    out.resize(start + string.len() * 8 / 5 + BATCH, 0);
    let decoded = decode_into(string, &mut out[start..]);
    out.truncate(start + decoded.as_ref().copied().unwrap_or_default());
    decoded.map(|_| ())
}

/// Codes of at most 8 bits that are certain to be whole in the bits that a refill leaves.
const BATCH: usize = 7;
const BATCH_BITS: u32 = 56;

/// A string's bits, from the top.
struct Bits<'s> {
    string: &'s [u8],
    /// How many of its bytes have been taken.
    at: usize,
    /// Its last eight bytes, the last one lowest.
    last: u64,
    /// The next bits, and how many of them count. Those past them are the right ones too, and come again.
    bits: u64,
    have: u32,
}

impl<'s> Bits<'s> {
    fn new(string: &'s [u8]) -> Self {
        let last = match string.last_chunk() {
            Some(eight) => u64::from_be_bytes(*eight),
            None => string.iter().fold(0, |bits, byte| bits << 8 | u64::from(*byte)),
        };
        Self { string, at: 0, last, bits: 0, have: 0 }
    }

    /// Takes as many bytes as fit in.
    #[inline(always)]
    fn refill(&mut self) {
        let rest = &self.string[self.at..];
        let next = match (rest.first_chunk::<8>(), rest.len()) {
            (Some(eight), _) => u64::from_be_bytes(*eight),
            (None, 0) => return,
            (None, length) => self.last << (64 - 8 * length),
        };
        self.bits |= next >> self.have;
        let taken = ((63 - self.have) / 8).min(rest.len() as u32);
        self.at += taken as usize;
        self.have += taken * 8;
    }

    #[inline(always)]
    fn short(&self) -> (u8, u8) {
        SHORT[(self.bits >> (64 - SHORT_BITS)) as usize]
    }

    #[inline(always)]
    fn drop(&mut self, bits: u32) {
        (self.bits, self.have) = (self.bits << bits, self.have - bits);
    }

    /// Writes the symbol of a longer code, which is whole.
    #[cold]
    fn write_long(&mut self, space: &mut [u8], at: usize) -> Result<usize, HpackError> {
        let (symbol, used) = long(self.bits);
        let place = space.get_mut(at).filter(|_| usize::from(symbol) != EOS).ok_or(HpackError::Huffman)?;
        *place = symbol as u8;
        self.drop(used);
        Ok(at + 1)
    }
}

/// Gives how many bytes were written.
fn decode_into(string: &[u8], space: &mut [u8]) -> Result<usize, HpackError> {
    let mut bits = Bits::new(string);
    let mut written = 0;
    bits.refill();
    // Without a look at how many bits are left, for as long as that is certain to go well.
    while bits.have >= BATCH_BITS
        && let Some(places) = space.get_mut(written..).and_then(|rest| rest.first_chunk_mut::<BATCH>())
    {
        let mut count = 0;
        for place in places {
            let (symbol, used) = bits.short();
            if used == 0 {
                break;
            }
            *place = symbol;
            bits.drop(u32::from(used));
            count += 1;
        }
        written += count;
        if count < BATCH && bits.have >= CODE_BITS_MAX as u32 {
            written = bits.write_long(space, written)?;
        }
        bits.refill();
    }
    // All bytes have been taken.
    loop {
        let (symbol, used) = bits.short();
        if used == 0 {
            if long(bits.bits).1 > bits.have {
                break;
            }
            written = bits.write_long(space, written)?;
            continue;
        }
        if u32::from(used) > bits.have {
            break;
        }
        // There is room: no code is shorter than what room was made for.
        *space.get_mut(written).ok_or(HpackError::Huffman)? = symbol;
        written += 1;
        bits.drop(u32::from(used));
    }
    finish(bits.bits, bits.have, written)
}

/// Judges what is left at the end.
fn finish(bits: u64, have: u32, written: usize) -> Result<usize, HpackError> {
    // Less than a byte, and all of it ones.
    let is_padding = have < 8 && (have == 0 || !bits >> (64 - have) == 0);
    if is_padding { Ok(written) } else { Err(HpackError::Huffman) }
}

/// Length of these bytes in this code, in bytes; names are taken in lower case.
pub(crate) fn encoded_len(bytes: &[u8], lower: bool) -> usize {
    let case = if lower { u8::to_ascii_lowercase } else { u8::clone };
    let bits: usize = bytes.iter().map(|byte| usize::from(LENGTHS[usize::from(case(byte))])).sum();
    bits.div_ceil(8)
}

/// Appends these bytes in this code; names in lower case.
pub(crate) fn encode(bytes: &[u8], lower: bool, out: &mut Vec<u8>) {
    let case = if lower { u8::to_ascii_lowercase } else { u8::clone };
    // The last `have` bits are to be written.
    let (mut bits, mut have) = (0_u64, 0_u32);
    for byte in bytes {
        let code = CODES[usize::from(case(byte))];
        bits = bits << code.bits | u64::from(code.code);
        have += u32::from(code.bits);
        if have >= 32 {
            have -= 32;
            out.extend_from_slice(&((bits >> have) as u32).to_be_bytes());
        }
    }
    if have > 0 {
        // Filled with the first bits of EOS.
        let padded = bits << (32 - have) | ((1 << (32 - have)) - 1);
        out.extend_from_slice(&(padded as u32).to_be_bytes()[..have.div_ceil(8) as usize]);
    }
}

/// Room for the longest of the strings that are encoded when this is compiled.
pub(crate) const READY_BYTES: usize = 24;

/// A string of lower case as it is sent, behind its length: in this code, if that is shorter.
pub(crate) const fn ready(text: &[u8]) -> ([u8; READY_BYTES], u8) {
    let mut bytes = [0; READY_BYTES];
    // The last `have` bits are to be written.
    let (mut bits, mut have, mut length, mut at) = (0_u64, 0, 1, 0);
    while at < text.len() {
        let Code { code, bits: count } = CODES[text[at] as usize];
        (bits, have) = (bits << count | code as u64, have + count as u32);
        while have >= 8 {
            have -= 8;
            bytes[length] = (bits >> have) as u8;
            length += 1;
        }
        at += 1;
    }
    if have > 0 {
        // Filled with the first bits of EOS.
        bytes[length] = (bits << (8 - have)) as u8 | 0xff >> have;
        length += 1;
    }
    if length > text.len() {
        bytes[0] = text.len() as u8;
        at = 0;
        while at < text.len() {
            bytes[at + 1] = text[at];
            at += 1;
        }
        return (bytes, 1 + text.len() as u8);
    }
    bytes[0] = 0x80 | (length - 1) as u8;
    (bytes, length as u8)
}

/// Writes what fills four bytes, of the last `have` bits.
#[inline]
fn flush(bits: u64, have: &mut u32, space: &mut [u8; SHORT_BYTES + 2], at: &mut usize) -> Option<()> {
    while *have >= 32 {
        *have -= 32;
        *space.get_mut(*at..)?.first_chunk_mut()? = ((bits >> *have) as u32).to_be_bytes();
        *at += 4;
    }
    Some(())
}

/// Longest string that [`encode_short`] takes.
pub(crate) const SHORT_BYTES: usize = 126;

/// Encodes a short string behind the first byte of `space`, names in lower case. Gives its length in this code; `None`: that is no less
/// than its own.
pub(crate) fn encode_short<const LOWER: bool>(bytes: &[u8], space: &mut [u8; SHORT_BYTES + 2]) -> Option<usize> {
    // The last `have` bits are to be written.
    let (mut bits, mut have, mut at) = (0_u64, 0_u32, 1_usize);
    let packed = |byte: u8| PACKED[usize::from(if LOWER { byte.to_ascii_lowercase() } else { byte })];
    let (fours, rest) = bytes.as_chunks::<4>();
    for four in fours {
        let codes = four.map(packed);
        // Lengths stand in the last bytes, and four of them do not fill one.
        let count = codes.iter().sum::<u64>() as u32 & 0xff;
        if have + count > u64::BITS {
            for code in codes {
                (bits, have) = (bits << (code & 0xff) | code >> 8, have + (code & 0xff) as u32);
                flush(bits, &mut have, space, &mut at)?;
            }
            continue;
        }
        bits = codes.iter().fold(bits, |bits, code| bits << (code & 0xff) | code >> 8);
        have += count;
        flush(bits, &mut have, space, &mut at)?;
    }
    for byte in rest {
        let code = packed(*byte);
        (bits, have) = (bits << (code & 0xff) | code >> 8, have + (code & 0xff) as u32);
        flush(bits, &mut have, space, &mut at)?;
    }
    let length = at - 1 + have.div_ceil(8) as usize;
    if length >= bytes.len() {
        return None;
    }
    // Filled with the first bits of EOS.
    let padded = (bits << (32 - have) | ((1 << (32 - have)) - 1)) as u32;
    for (place, byte) in space.get_mut(at..=length)?.iter_mut().zip(padded.to_be_bytes()) {
        *place = byte;
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(string: &[u8]) -> Result<Vec<u8>, HpackError> {
        let mut out = b"before".to_vec();
        decode(string, &mut out)?;
        Ok(out.split_off(6))
    }

    /// As the RFC says it: bit by bit, over all codes.
    fn decoded_slowly(string: &[u8]) -> Option<Vec<u8>> {
        let bits: Vec<u32> =
            string.iter().flat_map(|byte| (0..8).rev().map(move |bit| u32::from(byte >> bit & 1))).collect();
        let (mut out, mut code, mut length) = (Vec::new(), 0, 0);
        for bit in &bits {
            (code, length) = (code << 1 | bit, length + 1);
            if let Some(symbol) = CODES.iter().position(|known| usize::from(known.bits) == length && known.code == code)
            {
                if symbol == EOS {
                    return None;
                }
                out.push(symbol as u8);
                (code, length) = (0, 0);
            }
        }
        (length < 8 && code == (1 << length) - 1).then_some(out)
    }

    #[test]
    fn codes_are_those_of_appendix_b() {
        let code = |symbol: usize| (CODES[symbol].code, CODES[symbol].bits);
        for (symbol, expected) in [
            (0, (0x1ff8, 13)),
            (usize::from(b'0'), (0, 5)),
            (usize::from(b' '), (0x14, 6)),
            (usize::from(b'~'), (0x1ffd, 13)),
            (usize::from(b'\\'), (0x7fff0, 19)),
            (22, (0x3fff_fffe, 30)),
            (128, (0xfffe6, 20)),
            (255, (0x03ff_ffee, 26)),
            (EOS, (0x3fff_ffff, 30)),
        ] {
            assert_eq!(code(symbol), expected, "{symbol}");
        }
    }

    #[test]
    fn every_symbol_comes_back_alone_and_between_others() {
        for symbol in 0..=255_u8 {
            for text in [vec![symbol], vec![b'a', symbol, b'0', symbol, symbol], vec![symbol; 50]] {
                let mut string = Vec::new();
                encode(&text, false, &mut string);
                assert_eq!(string.len(), encoded_len(&text, false));
                assert_eq!(decoded(&string), Ok(text));
            }
        }
    }

    #[test]
    fn padding_is_short_and_of_ones() {
        assert_eq!(decoded(&[]), Ok(vec![]));
        // "0" is 00000, and three bits of padding.
        assert_eq!(decoded(&[0b0000_0111]), Ok(vec![b'0']));
        for bad in [0b0000_0000, 0b0000_0110, 0b0000_0011] {
            assert_eq!(decoded(&[bad]), Err(HpackError::Huffman), "{bad:b}");
        }
        // A byte that is nothing but padding, alone and after a symbol that ends with its byte.
        assert_eq!(decoded(&[0xff]), Err(HpackError::Huffman));
        assert_eq!(decoded(&[0b0000_0111, 0xff]), Err(HpackError::Huffman));
        // EOS, whole, and whole with what would be padding.
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xff]), Err(HpackError::Huffman));
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xfc]), Err(HpackError::Huffman));
        // And in the midst of many.
        assert_eq!(decoded(&[&[0x07; 20][..], &[0xff; 4], &[0x07; 20]].concat()), Err(HpackError::Huffman));
    }

    proptest! {
        #[test]
        fn short_strings_are_encoded_as_long_ones(text in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..=SHORT_BYTES), prop::collection::vec(b'0'..b'z', 0..=SHORT_BYTES),
        ]) {
            let (mut plain, mut lower) = (Vec::new(), Vec::new());
            encode(&text, false, &mut plain);
            encode(&text, true, &mut lower);
            let mut space = [0xaa; SHORT_BYTES + 2];
            let length = encode_short::<false>(&text, &mut space);
            prop_assert_eq!(length, Some(plain.len()).filter(|length| *length < text.len()));
            length.into_iter().for_each(|length| assert_eq!(space[1..=length], plain));
            let length = encode_short::<true>(&text, &mut space);
            prop_assert_eq!(length, Some(lower.len()).filter(|length| *length < text.len()));
            length.into_iter().for_each(|length| assert_eq!(space[1..=length], lower));
        }

        #[test]
        fn what_is_encoded_is_decoded_again(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut string = Vec::new();
            encode(&text, false, &mut string);
            prop_assert_eq!(decoded(&string), Ok(text.clone()));
            let mut string = Vec::new();
            encode(&text, true, &mut string);
            prop_assert_eq!(string.len(), encoded_len(&text, true));
            prop_assert_eq!(decoded(&string), Ok(text.to_ascii_lowercase()));
        }

        #[test]
        fn any_bytes_are_decoded_as_bit_by_bit(
            string in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xff), Just(0xfe)], 0..60)
        ) {
            prop_assert_eq!(decoded(&string).ok(), decoded_slowly(&string));
        }

        #[test]
        fn a_string_with_its_end_changed_is_judged_as_bit_by_bit(
            text in "[a-zA-Z0-9/:. ]{0,40}", last in any::<u8>(), more in prop::collection::vec(any::<u8>(), 0..3)
        ) {
            let mut string = Vec::new();
            encode(text.as_bytes(), false, &mut string);
            if let Some(byte) = string.last_mut() {
                *byte ^= last;
            }
            string.extend(more);
            prop_assert_eq!(decoded(&string).ok(), decoded_slowly(&string));
        }
    }
}
