//! The control plane of Ringway: a small replicated store of topology, and what proxies read it with.
#![warn(missing_docs)]

pub mod api;
pub mod authority;
pub mod backup;
pub mod cache;
pub mod client;
mod code;
pub mod consensus;
mod discovery;
pub mod etcd;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod http;
pub mod hub;
mod judge;
pub mod keeper;
pub mod latency;
pub mod member;
mod parsed;
mod places;
pub mod plane;
pub mod recover;
pub mod replica;
#[cfg(test)]
mod simulation;
pub mod state;
pub mod store;
pub mod tls;
pub mod transport;
pub mod view;
pub mod wire;

pub use code::Code;
