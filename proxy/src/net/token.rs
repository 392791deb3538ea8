//! Bearer tokens: kept and compared as hashes, in constant time.

use std::path::Path;
use thiserror::Error;

/// Below this, a token can be guessed.
const TOKEN_BYTES_MIN: usize = 16;
/// Above this, it fits into no field that a client would send.
const TOKEN_BYTES_MAX: usize = 4096;

/// The hash of a token: comparing two takes as long wherever they differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) hash: blake3::Hash,
}

/// Why a file has no token.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It cannot be read.
    #[error("cannot read the token: {0}")]
    Read(#[from] std::io::Error),
    /// There is nothing in it.
    #[error("the token is empty")]
    Empty,
    /// It could be guessed.
    #[error("the token has {0} characters, and could be guessed")]
    Short(usize),
    /// No field of a request takes it.
    #[error("the token has more than {TOKEN_BYTES_MAX} characters")]
    Long,
    /// It is more than one word, or not made of what a field may have.
    #[error("the token has blanks or other characters than letters, digits and punctuation in it")]
    Strange,
}

impl Token {
    /// Of a text as a client shows it.
    pub(crate) fn of(text: &[u8]) -> Self {
        Self { hash: blake3::hash(text) }
    }

    /// Out of a file, whose last line may end.
    pub(crate) fn read(path: &Path) -> Result<Self, TokenError> {
        let bytes = ringway_config::read_bytes(path)?;
        let text = bytes.trim_ascii();
        match text.len() {
            0 => Err(TokenError::Empty),
            _ if !text.iter().all(u8::is_ascii_graphic) => Err(TokenError::Strange),
            len @ ..TOKEN_BYTES_MIN => Err(TokenError::Short(len)),
            ..=TOKEN_BYTES_MAX => Ok(Self::of(text)),
            _ => Err(TokenError::Long),
        }
    }
}
