//! Compressed field sections (RFC 7541).
//!
//! The decoder keeps what the peer's encoder tells it to. The encoder keeps nothing: it writes what every decoder knows, so that an
//! encoded block belongs to no connection.

mod decode;
pub mod encode;
mod huffman;
mod integer;
mod table;

pub(crate) use decode::Sink;
pub use decode::{DecodedField, Decoder};
use thiserror::Error;

/// Why a block cannot be decoded. Whatever it is, the state that both ends share is lost: the connection's error is
/// COMPRESSION_ERROR (RFC 9113, 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HpackError {
    /// An index of neither table.
    #[error("index of no entry")]
    Index,
    /// An integer longer or larger than any that means something here.
    #[error("integer past the limit")]
    Integer,
    /// The block ends in the middle of a field.
    #[error("block ends within a field")]
    Truncated,
    /// A string that is none of the Huffman code: EOS in it, or a wrong padding.
    #[error("string is not of the Huffman code")]
    Huffman,
    /// The table's size is changed elsewhere than at a block's start.
    #[error("table size update within a block")]
    SizeUpdatePlace,
    /// The table's size is set past what SETTINGS allow.
    #[error("table size update past the limit")]
    SizeUpdateLimit,
    /// The block means far more than any peer takes: this is no error of the compression, but a flood.
    #[error("block means far more than any peer takes")]
    ListTooLong,
    /// SETTINGS have made the table smaller, and the block does not begin with that.
    #[error("table size update is missing")]
    SizeUpdateMissing,
}
