//! TLS towards clients and backends: configurations of the library, and why one cannot be made.

mod certificate;
mod client;
mod error;
mod files;
mod handshake_failure;
mod resolver;
mod server;
#[cfg(test)]
mod testing;
mod tickets;

pub(crate) use certificate::fingerprint;
pub(crate) use client::ClientTls;
pub use error::TlsError;
pub(crate) use files::{certified, chain, digest, roots, staple};
pub(crate) use handshake_failure::handshake_failure;
pub(crate) use server::ServerTls;
pub(crate) use tickets::Tickets;
