//! TLS towards clients and backends: configurations of the library, and why one cannot be made.

mod admin;
mod certificate;
mod client;
mod digest;
mod error;
mod handshake_failure;
mod no_verification;
mod resolver;
mod server;
mod sessions;
#[cfg(test)]
mod testing;
mod tickets;

pub(crate) use admin::{AdminServer, admin_tls};
pub(crate) use certificate::{fingerprint, names_shown};
pub(crate) use client::{ClientTls, client};
pub(crate) use digest::digest;
pub use error::TlsError;
pub(crate) use handshake_failure::handshake_failure;
pub(crate) use server::ServerTls;
pub(crate) use tickets::Tickets;
