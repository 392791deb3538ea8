//! Values as bytes, for the log, for disks and for members.

use serde::Serialize;

/// Why a value has no bytes. Nothing of it may go anywhere: half a value is another one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it cannot be written down: {0}")]
pub struct EncodeError(String);

impl EncodeError {
    pub(crate) fn new(error: &dyn std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// A value as bytes, for the log, for disks and for members.
///
/// # Errors
/// The value has no form in this encoding.
pub(crate) fn to_bytes<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, EncodeError> {
    postcard::to_allocvec(value).map_err(|error| EncodeError(error.to_string()))
}
