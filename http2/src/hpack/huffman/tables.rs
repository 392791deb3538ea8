//! The tables of the code, made from its lengths when this is compiled.

/// The end of a string, which is never sent.
pub(super) const EOS: usize = 256;
/// Longest code, in bits.
pub(super) const CODE_BITS_MAX: usize = 30;

/// Bits of each symbol's code.
#[rustfmt::skip]
pub(super) const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// A symbol's code: its last `bits` bits.
#[derive(Clone, Copy)]
pub(super) struct Code {
    pub(super) code: u32,
    pub(super) bits: u8,
}

pub(super) const CODES: [Code; 257] = {
    let mut codes = [Code { code: 0, bits: 0 }; 257];
    let mut code = 0;
    let mut bits = 1;
    while bits <= CODE_BITS_MAX {
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == bits {
                codes[symbol] = Code { code, bits: bits as u8 };
                code += 1;
            }
            symbol += 1;
        }
        code <<= 1;
        bits += 1;
    }
    codes
};

/// The same in one word each: the code, and in the last byte its length.
pub(super) const PACKED: [u64; 256] = {
    let mut packed = [0; 256];
    let mut symbol = 0;
    while symbol < 256 {
        packed[symbol] = (CODES[symbol].code as u64) << 8 | CODES[symbol].bits as u64;
        symbol += 1;
    }
    packed
};

/// Codes up to this length are found by one look.
pub(super) const SHORT_BITS: u32 = 8;

/// What a string goes on with, by its next 8 bits: a symbol and its code's length, which is 0 for longer codes.
pub(super) const SHORT: [(u8, u8); 1 << SHORT_BITS] = {
    let mut table = [(0, 0); 1 << SHORT_BITS];
    let mut symbol = 0;
    while symbol < EOS {
        let Code { code, bits } = CODES[symbol];
        if bits as u32 <= SHORT_BITS {
            let free = SHORT_BITS - bits as u32;
            let mut index = (code << free) as usize;
            let end = index + (1 << free);
            while index < end {
                table[index] = (symbol as u8, bits);
                index += 1;
            }
        }
        symbol += 1;
    }
    table
};

/// All longer codes of one length.
#[derive(Clone, Copy)]
pub(super) struct Long {
    /// Below this, the next 32 bits begin with a code of this length, if they do not with a shorter one.
    pub(super) end: u64,
    /// The first of these codes, and the place of its symbol in [`SORTED`].
    pub(super) first: u32,
    pub(super) at: u16,
    pub(super) bits: u8,
}

const LONG_CLASSES: usize = CODE_BITS_MAX - SHORT_BITS as usize;

pub(super) const LONG: [Long; LONG_CLASSES] = {
    let mut table = [Long { end: 0, first: 0, at: 0, bits: 0 }; LONG_CLASSES];
    let (mut end, mut at) = (0_u64, 0_u16);
    let mut bits = 1;
    while bits <= CODE_BITS_MAX {
        let begin = end;
        let mut count = 0;
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == bits {
                count += 1;
            }
            symbol += 1;
        }
        end += count << (32 - bits);
        if bits > SHORT_BITS as usize {
            let first = (begin >> (32 - bits)) as u32;
            table[bits - SHORT_BITS as usize - 1] = Long { end, first, at, bits: bits as u8 };
        }
        at += count as u16;
        bits += 1;
    }
    assert!(end == 1 << 32, "the code leaves no bits without a meaning");
    table
};

/// Symbols in the order of their codes.
pub(super) const SORTED: [u16; 257] = {
    let mut sorted = [0; 257];
    let mut at = 0;
    let mut bits = 1;
    while bits <= CODE_BITS_MAX {
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == bits {
                sorted[at] = symbol as u16;
                at += 1;
            }
            symbol += 1;
        }
        bits += 1;
    }
    sorted
};
