//! A client's connection, from accept to the start of its exchanges.

pub(crate) mod accept;
mod connection;
mod exchange_pool;
mod frontend;
mod handshake;
mod http1;
mod http2;
mod stream_tasks;
mod turn_away;

pub(crate) use frontend::Frontend;
pub(crate) use handshake::serve;
