//! The HTTP/2 codec (RFC 9113), sans-io: bytes in, events out, frames to be written.
//!
//! The driver of a [`Connection`] owns its socket. It hands over what it reads, then asks for events until there are none, lets those go
//! on whom they concern, and writes what waits in [`Connection::output`]. Nothing here waits, wakes a task, or knows what time it is.
#![warn(missing_docs)]

mod body;
mod connection;
mod error;
mod flood;
mod flow;
mod frame;
pub mod head;
pub mod hpack;
mod output;
mod pool;
mod settings;
mod streams;

pub use connection::{Config, Connection, Event, HeadKind, PREFACE};
pub use error::{Closed, ConnectionError, OpenError, Reason};
pub use flood::FloodLimits;
pub use pool::{Memory, MemoryLimits};
pub use streams::{By, StreamKey};

/// Which end of a connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes requests.
    Server,
    /// Sends them.
    Client,
}
