//! A client's connection, from accept to its exchanges.

pub(crate) mod accept;
pub(crate) mod handshake;
pub(crate) mod http1;
