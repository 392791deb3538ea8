//! Which backend a key belongs to, and which one may take the next request.
//!
//! Pure: no clock, no sockets, no randomness, no logging. See `ARCHITECTURE.md`, invariants 2, 3, 7 and 8.
#![warn(missing_docs)]

mod params;

pub use params::{AllFull, BoundParams, PolicyParams, RingParams};
