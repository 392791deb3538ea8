//! Upstream connections: a pool per worker and backend, last in, first out.

use crate::buffers::Buffer;
use crate::error::ProxyError;
use crate::http::Peer;
use crate::proxyproto;
use crate::snapshot::{BackendState, Service};
use crate::stream::Stream;
use crate::timer::{Deadline, Timer};
use ringway_telemetry::cells::WorkerCells;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// A connection to a backend, in use.
pub(crate) struct Connection {
    pub(crate) stream: Stream,
    /// Counts it among the backend's; one that is shared is counted elsewhere.
    pub(crate) slot: Option<ConnectionSlot>,
    /// Bytes of the backend that are not dealt with yet.
    pub(crate) input: Buffer,
    /// It has carried a request before: the backend may close it at any time.
    pub(crate) reused: bool,
}

/// One of a backend's connections, counted as long as this lives.
pub(crate) struct ConnectionSlot(Arc<BackendState>);

impl ConnectionSlot {
    /// Counts one more, if there are fewer than `most`. Reserved first, then tested: racing workers never pass the limit.
    pub(crate) fn take(state: &Arc<BackendState>, most: u32) -> Option<Self> {
        let slot = Self(Arc::clone(state));
        (state.connections.fetch_add(1, Relaxed) < most).then_some(slot)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

/// Idle connections of one worker to one backend.
#[derive(Default)]
pub(crate) struct Pool {
    idle: RefCell<Vec<Idle>>,
    closed: Cell<bool>,
}

struct Idle {
    stream: Stream,
    slot: ConnectionSlot,
    since: Deadline,
}

impl Pool {
    /// The connection used last that is still good.
    ///
    /// `certain`: ask the kernel too, not only what the runtime has been told, because the request must not be sent to
    /// a connection that is being closed: it could not be repeated.
    pub(crate) fn take(&self, certain: bool, cells: &WorkerCells) -> Option<(Stream, ConnectionSlot)> {
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { mut stream, slot, .. }) = idle.pop() {
            cells.upstream_idle.subtract(1);
            if stream.is_quiet(certain) {
                return Some((stream, slot));
            }
        }
        None
    }

    /// Keeps a connection whose exchange has ended cleanly.
    pub(crate) fn put(
        &self,
        stream: Stream,
        slot: ConnectionSlot,
        idle_max: usize,
        now: Deadline,
        cells: &WorkerCells,
    ) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < idle_max && !self.closed.get() {
            idle.push(Idle { stream, slot, since: now });
            cells.upstream_idle.increment();
        }
    }

    /// Closes what has been idle since before `oldest`, and what the backend has closed.
    pub(crate) fn expire(&self, oldest: Deadline, cells: &WorkerCells) {
        let mut idle = self.idle.borrow_mut();
        let before = idle.len();
        idle.retain_mut(|idle| idle.since >= oldest && idle.stream.is_quiet(false));
        cells.upstream_idle.subtract((before - idle.len()) as u64);
    }

    /// Closes all, and keeps none from now on: the backend has gone from the configuration.
    pub(crate) fn close(&self, cells: &WorkerCells) {
        self.closed.set(true);
        cells.upstream_idle.subtract(self.idle.borrow().len() as u64);
        self.idle.borrow_mut().clear();
    }
}

/// Opens a connection to a backend: TCP, then what the service puts on it (PROXY header, TLS).
pub(crate) async fn connect(
    service: &Service,
    address: SocketAddr,
    peer: Option<&Peer>,
    limit: Deadline,
    timer: &Timer,
) -> Result<Stream, ProxyError> {
    timer.set_before(service.config.timeouts.connect, limit);
    let mut tcp = within(timer, ProxyError::ConnectFailed, TcpStream::connect(address)).await?;
    // Heads and small bodies go out whole.
    tcp.set_nodelay(true).map_err(|_| ProxyError::ConnectFailed)?;
    if let Some(version) = service.config.proxy_protocol {
        let mut header = Vec::new();
        proxyproto::write(version, &told(peer, &tcp), None, &mut header);
        within(timer, ProxyError::ConnectFailed, tcp.write_all(&header)).await?;
    }
    let Some(tls) = &service.tls else { return Ok(Stream::Plain(tcp)) };
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(&tls.config));
    let connecting = connector.connect(tls.name(address.ip()), tcp);
    let stream = within(timer, ProxyError::TlsFailed, connecting).await?;
    Ok(Stream::Client(Box::new(stream)))
}

/// What a PROXY header says of a client.
fn told(peer: Option<&Peer>, tcp: &TcpStream) -> proxyproto::Told {
    let Some(peer) = peer else { return proxyproto::Told::default() };
    // Where he has reached the proxy, as far as that is known.
    let destination = peer.destination.or_else(|| tcp.local_addr().ok());
    proxyproto::Told {
        addresses: destination.map(|destination| (peer.address, destination)),
        authority: peer.server_name.clone(),
        secure: peer.secure,
    }
}

/// Runs something to its end, or to the timer's.
async fn within<T>(
    timer: &Timer,
    otherwise: ProxyError,
    doing: impl Future<Output = std::io::Result<T>>,
) -> Result<T, ProxyError> {
    let mut doing = pin!(doing);
    poll_fn(|context| {
        if let Poll::Ready(result) = doing.as_mut().poll(context) {
            return Poll::Ready(result.map_err(|_| otherwise));
        }
        if timer.poll_fired(context) {
            return Poll::Ready(Err(ProxyError::ConnectTimeout));
        }
        Poll::Pending
    })
    .await
}
