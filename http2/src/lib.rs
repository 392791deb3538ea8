//! The HTTP/2 codec (RFC 9113), sans-io: bytes in, events out, frames to be written.
#![warn(missing_docs)]

pub mod head;
pub mod hpack;
