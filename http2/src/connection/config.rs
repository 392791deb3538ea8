//! What a connection is to be like.

use crate::Role;
use crate::flood::FloodLimits;
use ringway_message::Limits;

/// What a connection is to be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Which end this is.
    pub role: Role,
    /// Limits of the heads and trailers that come.
    pub head: Limits,
    /// Streams at once: what a server takes, what a client opens even if the peer would take more.
    pub streams_max: u32,
    /// Window that a stream begins with: what the peer may send on it before any of it was taken.
    pub stream_window: u32,
    /// What that may grow to while it is drained.
    pub stream_window_max: u32,
    /// Window of all streams together, and what that may grow to.
    pub connection_window: u32,
    /// See [`Config::connection_window`]: the stalled ones are to take nothing from the others.
    pub connection_window_max: u32,
    /// A server takes extended CONNECT (RFC 8441).
    pub extended_connect: bool,
    /// What the peer may send of what costs more to take than to send.
    pub floods: FloodLimits,
}

impl Config {
    /// For this end, with limits that suit most.
    #[must_use]
    pub fn new(role: Role) -> Self {
        Self {
            role,
            head: Limits { head_bytes_max: 64 * 1024, fields_max: 128 },
            streams_max: 100,
            stream_window: 64 * 1024,
            stream_window_max: 1024 * 1024,
            connection_window: 1024 * 1024,
            connection_window_max: 100 * 32 * 1024,
            extended_connect: false,
            floods: FloodLimits::new(role),
        }
    }
}
