//! Sockets of the data path, TLS, buffers, timers, and what this host is short of.

pub(crate) mod buffers;
pub(crate) mod client_hello;
pub(crate) mod happy_eyeballs;
pub(crate) mod pipe;
pub(crate) mod pktinfo;
pub(crate) mod proxy_protocol;
pub(crate) mod quic_ids;
pub(crate) mod shortage;
pub(crate) mod stream;
pub(crate) mod timer;
pub(crate) mod tls;
pub(crate) mod token;
pub(crate) mod transport;
pub(crate) mod unix_socket;
