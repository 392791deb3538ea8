//! Simulation of balancing policies over the real `ringway-ring`: traffic, caches, loads, in virtual time.

pub(crate) mod cache;
pub mod fleet;
pub mod placement;
pub mod proxies;
pub mod queues;
pub mod table;
pub mod workload;
