//! Addresses that are listened on, and what comes of connecting to them.

use super::socket::{Socket, pair};
use super::wire::{Shape, Wire};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

/// What comes of connecting to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectOutcome {
    Open,
    /// After a while.
    Slow(Duration),
    Refused,
    /// There is no response at all.
    Silent,
    /// The process that connects has no descriptor left.
    NoDescriptors,
}

/// The addresses that can be connected to, and the connections there are.
#[derive(Debug, Default)]
pub(crate) struct Network(Mutex<Addresses>);

#[derive(Debug, Default)]
struct Addresses {
    listening: BTreeMap<SocketAddr, Vec<Arc<Mutex<Backlog>>>>,
    outcomes: BTreeMap<SocketAddr, ConnectOutcome>,
    shapes: Vec<Shape>,
    /// Of all connections that were made, to where.
    wires: Vec<(SocketAddr, Wire)>,
    /// Attempts under direction, by where to.
    connecting: BTreeMap<SocketAddr, usize>,
    count: u64,
}

#[derive(Debug, Default)]
struct Backlog {
    queue: VecDeque<Socket>,
    /// So often, the process that accepts has no descriptor left.
    short: u32,
    refuses: bool,
    closed: bool,
    waker: Option<Waker>,
}

impl Network {
    fn lock(&self) -> MutexGuard<'_, Addresses> {
        lock(&self.0)
    }

    /// The shapes that connections have, in turn.
    pub(crate) fn set_shapes(&self, shapes: Vec<Shape>) {
        self.lock().shapes = shapes;
    }

    /// What comes of connecting to an address from here on.
    pub(crate) fn set_outcome(&self, address: SocketAddr, outcome: ConnectOutcome) {
        self.lock().outcomes.insert(address, outcome);
    }

    /// One more listener for an address; connections are spread over all of them.
    pub(crate) fn listen(&self, address: SocketAddr) -> Listener {
        let backlog = Arc::<Mutex<Backlog>>::default();
        self.lock().listening.entry(address).or_default().push(Arc::clone(&backlog));
        Listener { backlog, address }
    }

    /// For so often, no listener for an address has a descriptor.
    pub(crate) fn starve(&self, address: SocketAddr, times: u32) {
        for backlog in self.lock().listening.get(&address).into_iter().flatten() {
            let mut backlog = lock(backlog);
            backlog.short = times;
            backlog.waker.take().into_iter().for_each(Waker::wake);
        }
    }

    /// All connections to an address that are held at either end.
    pub(crate) fn wires_to(&self, address: SocketAddr) -> Vec<Wire> {
        let mut addresses = self.lock();
        addresses.wires.retain(|(_, wire)| wire.is_held_by_connector() || wire.is_held_by_acceptor());
        addresses.wires.iter().filter(|(to, _)| *to == address).map(|(_, wire)| wire.clone()).collect()
    }

    /// Attempts to connect to an address that are under direction.
    pub(crate) fn connecting_to(&self, address: SocketAddr) -> usize {
        self.lock().connecting.get(&address).copied().unwrap_or(0)
    }

    /// Connections to an address that are not accepted yet.
    pub(crate) fn queued_at(&self, address: SocketAddr) -> usize {
        self.lock().listening.get(&address).into_iter().flatten().map(|backlog| lock(backlog).queue.len()).sum()
    }

    /// All of them.
    pub(crate) fn wires(&self) -> Vec<Wire> {
        self.lock().wires.iter().map(|(_, wire)| wire.clone()).collect()
    }

    pub(crate) async fn connect(&self, address: SocketAddr) -> io::Result<Socket> {
        let from = SocketAddr::from(([10, 0, 0, 1], 1024 + (self.lock().count % 60_000) as u16));
        self.connect_from(from, address).await
    }

    pub(crate) async fn connect_from(&self, from: SocketAddr, address: SocketAddr) -> io::Result<Socket> {
        *self.lock().connecting.entry(address).or_default() += 1;
        let _connecting = Connecting(self, address);
        let outcome = self.lock().outcomes.get(&address).copied().unwrap_or(ConnectOutcome::Open);
        match outcome {
            ConnectOutcome::Open => {}
            ConnectOutcome::Slow(time) => tokio::time::sleep(time).await,
            ConnectOutcome::Refused => return Err(ErrorKind::ConnectionRefused.into()),
            ConnectOutcome::Silent => std::future::pending().await,
            ConnectOutcome::NoDescriptors => {
                return Err(io::Error::from_raw_os_error(nix::errno::Errno::EMFILE as i32));
            }
        }
        let mut addresses = self.lock();
        let count = addresses.count as usize;
        addresses.count += 1;
        let shape = if addresses.shapes.is_empty() {
            Shape::default()
        } else {
            addresses.shapes[count % addresses.shapes.len()]
        };
        let open: Vec<_> = addresses.listening.get(&address).into_iter().flatten().cloned().collect();
        let open: Vec<_> = open
            .into_iter()
            .filter(|backlog| {
                let backlog = lock(backlog);
                !backlog.closed && !backlog.refuses
            })
            .collect();
        if open.is_empty() {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        let (ours, theirs) = pair(shape, from, address);
        addresses.wires.push((address, ours.wire()));
        // As the kernel spreads them: by a hash.
        let mut backlog = lock(&open[(count.wrapping_mul(0x9e37_79b9) >> 7) % open.len()]);
        backlog.queue.push_back(theirs);
        backlog.waker.take().into_iter().for_each(Waker::wake);
        Ok(ours)
    }
}

/// An attempt under direction.
struct Connecting<'a>(&'a Network, SocketAddr);

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        if let Some(count) = self.0.lock().connecting.get_mut(&self.1) {
            *count -= 1;
        }
    }
}

/// Accepts what comes to an address.
#[derive(Debug)]
pub(crate) struct Listener {
    backlog: Arc<Mutex<Backlog>>,
    address: SocketAddr,
}

impl Listener {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) async fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        poll_fn(|context| match self.try_accept() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                lock(&self.backlog).waker = Some(context.waker().clone());
                Poll::Pending
            }
            result => Poll::Ready(result),
        })
        .await
    }

    pub(crate) fn try_accept(&self) -> io::Result<(Socket, SocketAddr)> {
        let mut backlog = lock(&self.backlog);
        if backlog.short > 0 {
            backlog.short -= 1;
            return Err(io::Error::from_raw_os_error(nix::errno::Errno::EMFILE as i32));
        }
        let socket = backlog.queue.pop_front().ok_or(ErrorKind::WouldBlock)?;
        let peer = socket.peer_addr();
        Ok((socket, peer))
    }

    /// New connections are refused from here on.
    pub(crate) fn refuse_new(&self) {
        lock(&self.backlog).refuses = true;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let left = {
            let mut backlog = lock(&self.backlog);
            backlog.closed = true;
            std::mem::take(&mut backlog.queue)
        };
        left.iter().for_each(Socket::end_by_reset);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
