//! The two ends of an exchange, in either version of HTTP, and bytes between two connections.

pub(crate) mod encoded_reply;
pub(crate) mod end;
pub(crate) mod grpc;
pub(crate) mod http1;
pub(crate) mod http2;
pub(crate) mod presence;
pub(crate) mod source;
pub(crate) mod tunnel;
pub(crate) mod websocket;
