//! Connections in memory, which behave as those of the kernel do where the data path can tell: what has been read, written, ended and
//! reset, which task is woken for it, and in which order an end, bytes before it and a reset are seen.
//!
//! As with the runtime's sockets, one reader and one writer are woken for each end: the one that asked last.

mod network;
mod socket;
mod wire;

pub(crate) use network::{ConnectOutcome, Listener, Network};
pub(crate) use socket::{Socket, pair};
pub(crate) use wire::{Shape, Wire};
