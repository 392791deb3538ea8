//! Which backend a key belongs to, and which one may take the next request.
//!
//! Pure: no clock, no sockets, no randomness, no logging. Three layers:
//!
//! * [`Ring`] is a function of (ids, weights, points, seed) and nothing else. Every key has one sequence of distinct
//!   members on it, its [`Walk`]; spill, skip and retry all follow it.
//! * [`Load`] is what is known of a member right now: requests in flight, and the share of its keys that it accepts.
//!   Health, drain, slow start and shedding move that share; the ring is never rebuilt for them.
//! * [`Group`] puts them together: it takes a request's [`Selection`] to the next member that accepts the key and is
//!   below its cap, and reserves a place there.
#![warn(missing_docs)]

mod group;
mod hash;
mod load;
mod movement;
mod params;
mod ring;
mod round_robin;
mod walk;

pub use group::{Group, GroupMember, Pick, Selection};
pub use hash::{Hash, hash_key};
pub use load::{FULL_SHARE, Load, Total};
pub use movement::{Move, Movement, movement};
pub use params::{AllFull, BoundParams, PolicyParams, RingParams};
pub use ring::{BuildError, Member, Ring, Slot, WEIGHT_MAX};
pub use round_robin::RoundRobin;
pub use walk::Walk;
