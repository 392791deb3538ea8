//! Sessions of TCP and flows of UDP: layer 4.

pub(crate) mod tcp;
pub(crate) mod udp;
