//! Certificates, keys and authorities out of their files: the same for the data path, the control plane and the client of either, with
//! errors that name the file and what is wrong with it.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

mod error;
mod pem;

pub use error::{FileError, PairError};
pub use pem::{authorities, authorities_or_public, certified, chain, leaf, pair, provider, staple};
