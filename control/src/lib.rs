//! The control plane: a small replicated store of topology, and what proxies read it with.
pub mod cache;
pub mod client;
pub mod http;
pub mod state;
pub mod tls;
pub mod view;
pub mod wire;
