//! The control plane of Ringway: a small replicated store of topology, and what proxies read it with.
#![warn(missing_docs)]

pub mod api;
pub mod client;
pub mod consensus;
mod discovery;
pub mod etcd;
pub mod http;
pub mod lessor;
pub mod member;
pub mod plane;
#[cfg(test)]
mod simulation;
pub mod state;
pub mod store;
pub mod transport;
pub mod watch;

pub use state::Code;
