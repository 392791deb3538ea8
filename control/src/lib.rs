//! The control plane: a small replicated store of topology, and what proxies read it with.
pub mod state;
