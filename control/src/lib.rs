//! The control plane of Ringway: a small replicated store of topology, and what proxies read it with.
#![warn(missing_docs)]

pub mod consensus;
pub mod store;
pub mod transport;
