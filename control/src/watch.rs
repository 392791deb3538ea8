//! What is told of the state as it changes: lines for many watchers, and the topology that their readers have.

pub mod hub;
pub mod tables_hub;
pub mod view;
pub mod wire;
