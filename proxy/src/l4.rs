//! Sessions of TCP and flows of UDP: layer 4.

mod flows;
mod session;
mod tapped;
pub(crate) mod tcp;
pub(crate) mod udp;
