//! The HTTP/2 codec (RFC 9113), sans-io: bytes in, events out, frames to be written.
#![warn(missing_docs)]

mod error;
mod frame;
pub mod head;
pub mod hpack;
mod settings;

pub use error::{Closed, ConnectionError, OpenError, Reason};

/// Which end of a connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes requests.
    Server,
    /// Sends them.
    Client,
}
