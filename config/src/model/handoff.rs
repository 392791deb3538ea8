//! Hand-off of keys from one backend to another.

use std::time::Duration;

/// How keys that a change moves are handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handoff {
    /// How long it takes. Not zero.
    pub window: Duration,
    /// What is copied to the next owners.
    pub copy: HandoffCopy,
    /// The field that names the owner of before; lower case.
    pub header: String,
}

/// What is copied to the next owners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandoffCopy {
    /// Methods of requests of which copies are made.
    pub methods: Vec<SafeMethod>,
    /// Share of the keys of which copies are made.
    pub percent: u32,
    /// Copies under way at once.
    pub in_flight_max: u32,
    /// Whether they have what says who the client is.
    pub credentials: bool,
}

/// A method that changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SafeMethod {
    /// `GET`.
    Get,
    /// `HEAD`.
    Head,
    /// `OPTIONS`.
    Options,
}
