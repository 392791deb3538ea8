//! What the control side, and workers of each other, ask of a worker.

use super::listener_id::{ListenerId, Listening};
use super::permits::{ConnectionPermit, ListenerPermits};
use crate::net::transport::Detached;
use crate::snapshot::connection_slot::Wanted;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::oneshot;

/// What the control side asks of a worker.
pub(crate) enum Command {
    /// Serve this listening socket, whose places are `permits`; let go of `open` once it is closed.
    Listen { key: ListenerId, socket: Listening, permits: Arc<ListenerPermits>, open: Arc<()> },
    /// Go on with the sockets of a listener under another key: it speaks something else from now on.
    HandOver { from: ListenerId, to: ListenerId, permits: Arc<ListenerPermits> },
    /// Serve this connection, which another worker has accepted and has no time for.
    Adopt { key: ListenerId, permit: ConnectionPermit, stream: Detached, peer: SocketAddr },
    /// Take what its queue holds, close it, let its connections end after their current request.
    Unlisten { key: ListenerId },
    /// The snapshot has changed: idle workers drop what it no longer names.
    Refresh,
    /// Close an idle connection to a backend, if there is one: it is wanted elsewhere.
    GiveWay(Arc<Wanted>),
    /// As Unlisten for all; answers when the last connection has ended.
    Drain { done: oneshot::Sender<()> },
    /// End now.
    Stop,
}
