//! Commands that the control side, and the other workers, send to a worker.

use super::doors::Known;
use super::listener_id::{ListenerId, Listening};
use super::permits::{ConnectionPermit, ListenerPermits};
use super::session_query::{SessionPage, SessionQuery};
use super::tap::Tap;
use super::worker_report::WorkerReport;
use crate::net::transport::Detached;
use crate::snapshot::connection_slot::Wanted;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use tokio::sync::oneshot;

/// What a worker is to do.
pub(crate) enum Command {
    /// Serve this listening socket, whose permits are `permits`; drop `known` before it is closed, and `open` once it is.
    Listen { key: ListenerId, socket: Listening, permits: Arc<ListenerPermits>, open: Arc<()>, known: Option<Known> },
    /// Accept from a socket of another worker, which is stuck, as from one's own; until the sender of `over` goes.
    StandIn { key: ListenerId, socket: TcpListener, over: oneshot::Receiver<()> },
    /// Go on with the sockets of a listener under another key: its protocol changes from now on.
    HandOver { from: ListenerId, to: ListenerId, permits: Arc<ListenerPermits> },
    /// Serve this connection, which a busier worker has accepted.
    Adopt { key: ListenerId, permit: ConnectionPermit, stream: Detached, peer: SocketAddr },
    /// Accept what its queue holds, close it, end its connections after their current request.
    Unlisten { key: ListenerId },
    /// The snapshot has changed: idle workers drop what it no longer names.
    Refresh,
    /// Close an idle connection to a backend, if there is one: it is needed elsewhere.
    GiveWay(Arc<Wanted>),
    /// As Unlisten for all; replies when the last connection has ended.
    Drain { done: oneshot::Sender<()> },
    /// List what is under way.
    List(Arc<SessionQuery>, oneshot::Sender<SessionPage>),
    /// Tell what there is, and of backends so many at most.
    Inspect(usize, oneshot::Sender<WorkerReport>),
    /// Follow the requests that somebody wants to see; replies once it does.
    Tap(Arc<Tap>, oneshot::Sender<()>),
    /// Tell what is known of what a tap follows and has not ended; replies once that is told.
    TellSoFar(Arc<Tap>, oneshot::Sender<()>),
    /// End now.
    Stop,
}
