//! The control plane of Ringway: a small replicated store of topology, and what proxies read it with.
//!
//! Rooms, each using only those below it (`tests/edges.rs` holds this):
//!
//! ```text
//! member      a member as a process has it: directory, founding, recovery     client    a proxy's end
//! api         HTTP, roles, audit          discovery   sources that the leader looks at
//! plane       finds the leader; what a leader does
//! lessor      what only the leader knows: heartbeats, votes                   etcd      as a store and a source
//! watch       lines for watchers, and the topology that they make up
//! loads       reports of loads, and tables of them as they are told (pure)
//! consensus   the engine's only door; the replica behind its log              http      asks the API
//! transport   calls between members, TLS
//! store       log, vote and snapshots on a disk
//! state       what the fleet agrees on, and what is judged before (pure)
//! ```
#![warn(missing_docs)]

pub mod api;
pub mod client;
pub mod consensus;
mod discovery;
pub mod etcd;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod http;
pub mod lessor;
pub mod loads;
pub mod member;
pub mod plane;
#[cfg(test)]
mod simulation;
pub mod state;
pub mod store;
pub mod transport;
pub mod watch;

pub use state::Code;
