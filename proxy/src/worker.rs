//! A worker: one thread's view of the version in force, its pools, its listeners and its clients' connections. On the hot path, threads
//! share only the in-flight counts and the snapshot pointer. `run/` runs it.

mod active_listener;
mod ahead;
mod booked;
mod context;
mod listening;
mod open_connection;
mod peer;
mod pool;
mod report;
mod sessions;
mod succession;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
pub(crate) mod testing;
mod view;

pub(crate) use active_listener::ActiveListener;
pub(crate) use ahead::{Seen, part_of};
pub(crate) use booked::{KeyInFlight, LASTING};
pub(crate) use context::Worker;
pub(crate) use open_connection::OpenConnection;
pub(crate) use peer::Peer;
pub(crate) use sessions::SessionEntry;
pub(crate) use view::{Upstream, View, WorkerService};
