//! What is told of the state as it changes: lines for many watchers, and the topology that who reads them has.

pub mod hub;
pub mod view;
pub mod wire;
