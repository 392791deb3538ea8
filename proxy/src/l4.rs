//! Sessions of TCP and flows of UDP: layer 4.

mod flows;
mod session;
pub(crate) mod tcp;
pub(crate) mod udp;
