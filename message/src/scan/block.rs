//! Sixteen bytes that are judged at once. A bit of what is told stands for each, the lowest for the first.

#[cfg(target_arch = "x86_64")]
pub(super) use sse2::Block;
#[cfg(not(target_arch = "x86_64"))]
pub(super) use words::Block;

/// Bytes of a block.
pub(super) const BLOCK_BYTES: usize = 16;

/// By what every processor of this kind has: nothing is asked for at run time.
#[cfg(target_arch = "x86_64")]
mod sse2 {
    use super::BLOCK_BYTES;
    use safe_arch::{
        cmp_eq_mask_i8_m128i, load_unaligned_m128i, m128i, min_u8_m128i, move_mask_i8_m128i, set_splat_i8_m128i,
        sub_i8_m128i,
    };

    #[derive(Clone, Copy)]
    pub(in super::super) struct Block(m128i);

    #[inline(always)]
    fn all(byte: u8) -> m128i {
        set_splat_i8_m128i(byte as i8)
    }

    #[inline(always)]
    fn bits(marks: m128i) -> u16 {
        move_mask_i8_m128i(marks) as u16
    }

    #[inline(always)]
    fn at_most(bytes: m128i, limit: u8) -> m128i {
        cmp_eq_mask_i8_m128i(min_u8_m128i(bytes, all(limit)), bytes)
    }

    #[inline(always)]
    fn is(bytes: m128i, byte: u8) -> m128i {
        cmp_eq_mask_i8_m128i(bytes, all(byte))
    }

    impl Block {
        #[inline(always)]
        pub(in super::super) fn new(bytes: &[u8; BLOCK_BYTES]) -> Self {
            Self(load_unaligned_m128i(bytes))
        }

        /// Controls, the tab among them.
        #[inline(always)]
        pub(in super::super) fn controls(self) -> u16 {
            bits(at_most(self.0, b' ' - 1) | is(self.0, 0x7f))
        }

        /// What ends a target, or means something in it, or has no place in it: controls, space, `?`, `#`, all from DEL on.
        #[inline(always)]
        pub(in super::super) fn not_plain_in_target(self) -> u16 {
            let plain = at_most(sub_i8_m128i(self.0, all(b'!')), b'~' - b'!');
            !bits(plain) | bits(is(self.0, b'?') | is(self.0, b'#'))
        }

        /// All but letters and dashes.
        #[inline(always)]
        pub(in super::super) fn not_letters(self) -> u16 {
            let folded = self.0 | all(0x20);
            !bits(at_most(sub_i8_m128i(folded, all(b'a')), b'z' - b'a') | is(self.0, b'-'))
        }
    }
}

/// By plain arithmetic on words, for all others.
#[cfg(any(test, not(target_arch = "x86_64")))]
mod words {
    use super::BLOCK_BYTES;
    use crate::scan::lanes::{HIGHS, all};

    #[derive(Clone, Copy)]
    pub(in super::super) struct Block([u64; 2]);

    /// The highest bits of bytes below `limit`, which is at most 0x80. Without their highest bits no sum leaves its byte.
    fn below(word: u64, limit: u8) -> u64 {
        !(word | ((word & !HIGHS) + all(0x80 - limit))) & HIGHS
    }

    fn is(word: u64, byte: u8) -> u64 {
        below(word ^ all(byte), 1)
    }

    impl Block {
        pub(in super::super) fn new(bytes: &[u8; BLOCK_BYTES]) -> Self {
            let both = u128::from_le_bytes(*bytes);
            Self([both as u64, (both >> 64) as u64])
        }

        /// From the highest bit of each byte to a bit for each.
        fn bits(self, marks: impl Fn(u64) -> u64) -> u16 {
            let [low, high] = self.0.map(|word| (marks(word) >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56);
            (low | high << 8) as u16
        }

        pub(in super::super) fn controls(self) -> u16 {
            self.bits(|word| below(word, b' ') | is(word, 0x7f))
        }

        pub(in super::super) fn not_plain_in_target(self) -> u16 {
            self.bits(|word| below(word, b'!') | !below(word, 0x7f) & HIGHS | is(word, b'?') | is(word, b'#'))
        }

        pub(in super::super) fn not_letters(self) -> u16 {
            !self.bits(|word| {
                let folded = word | all(0x20);
                below(folded, b'z' + 1) & !below(folded, b'a') | is(word, b'-')
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What both kinds of blocks tell of the same bytes, beside what is so.
    #[test]
    fn every_byte_is_told_in_every_place_by_either_kind() {
        for byte in 0..=255_u8 {
            for place in 0..BLOCK_BYTES {
                for other in [0, b'\t', b' ', b'-', b'?', b'a', b'Z', 0x7f, 0x80, 0xff] {
                    let mut bytes = [other; BLOCK_BYTES];
                    bytes[place] = byte;
                    let expected = |is: fn(u8) -> bool| {
                        bytes.iter().enumerate().fold(0_u16, |bits, (at, byte)| bits | u16::from(is(*byte)) << at)
                    };
                    let expected = [
                        expected(|byte| byte.is_ascii_control()),
                        expected(|byte| !byte.is_ascii_graphic() || matches!(byte, b'?' | b'#')),
                        expected(|byte| !byte.is_ascii_alphabetic() && byte != b'-'),
                    ];
                    let block = Block::new(&bytes);
                    let told = [block.controls(), block.not_plain_in_target(), block.not_letters()];
                    assert_eq!(told, expected, "{byte} {place} {other}");
                    let block = words::Block::new(&bytes);
                    let told = [block.controls(), block.not_plain_in_target(), block.not_letters()];
                    assert_eq!(told, expected, "{byte} {place} {other} in words");
                }
            }
        }
    }
}
