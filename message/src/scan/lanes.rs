//! Eight bytes in a word.

/// Each byte 1, and the highest bit of each.
pub(super) const ONES: u64 = u64::from_le_bytes([1; 8]);
pub(super) const HIGHS: u64 = ONES << 7;

pub(super) const fn all(byte: u8) -> u64 {
    ONES * byte as u64
}
