//! Upstream connections: a pool per worker and backend, last in, first out.

use crate::buffers::Buffer;
use crate::error::ProxyError;
use crate::snapshot::BackendState;
use crate::timer::{Deadline, Timer};
use ringway_telemetry::cells::WorkerCells;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;
use tokio::net::TcpStream;

/// A connection to a backend, in use.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    /// Counts it among the backend's.
    pub(crate) slot: ConnectionSlot,
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
    stream: TcpStream,
    slot: ConnectionSlot,
    since: Deadline,
}

impl Pool {
    /// The connection used last that is still good.
    ///
    /// `certain`: ask the kernel too, not only what the runtime has been told, because the request must not be sent to
    /// a connection that is being closed: it could not be repeated.
    pub(crate) fn take(&self, certain: bool, cells: &WorkerCells) -> Option<(TcpStream, ConnectionSlot)> {
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { stream, slot, .. }) = idle.pop() {
            cells.upstream_idle.subtract(1);
            // Costs no system call while nothing has arrived. An end, or bytes that nobody asked for: no good.
            if is_quiet(&stream, certain) {
                return Some((stream, slot));
            }
        }
        None
    }

    /// Keeps a connection whose exchange has ended cleanly.
    pub(crate) fn put(
        &self,
        stream: TcpStream,
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
        idle.retain(|idle| idle.since >= oldest && is_quiet(&idle.stream, false));
        cells.upstream_idle.subtract((before - idle.len()) as u64);
    }

    /// Closes all, and keeps none from now on: the backend has gone from the configuration.
    pub(crate) fn close(&self, cells: &WorkerCells) {
        self.closed.set(true);
        cells.upstream_idle.subtract(self.idle.borrow().len() as u64);
        self.idle.borrow_mut().clear();
    }
}

fn is_quiet(stream: &TcpStream, certain: bool) -> bool {
    let nothing = |error: std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
    if !stream.try_read(&mut [0]).is_err_and(nothing) {
        return false;
    }
    if !certain {
        return true;
    }
    let mut byte = [std::mem::MaybeUninit::uninit()];
    socket2::SockRef::from(stream).peek(&mut byte).is_err_and(nothing)
}

/// Opens a connection.
pub(crate) async fn connect(
    address: SocketAddr,
    timeout: Duration,
    limit: Deadline,
    timer: &Timer,
) -> Result<TcpStream, ProxyError> {
    timer.set_before(timeout, limit);
    let mut connecting = pin!(TcpStream::connect(address));
    let stream = poll_fn(|context| {
        if let Poll::Ready(result) = connecting.as_mut().poll(context) {
            return Poll::Ready(result.map_err(|_| ProxyError::ConnectFailed));
        }
        if timer.poll_fired(context) {
            return Poll::Ready(Err(ProxyError::ConnectTimeout));
        }
        Poll::Pending
    })
    .await?;
    // Heads and small bodies go out whole.
    stream.set_nodelay(true).map_err(|_| ProxyError::ConnectFailed)?;
    Ok(stream)
}
