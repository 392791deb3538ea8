//! Connections in memory, which behave as those of the kernel do where the data path can tell: what has been read, written, ended and
//! reset, who is woken for it, and in which order an end, bytes before it and a reset are seen.
//!
//! As with the runtime's sockets, one reader and one writer are woken for each end: the one that asked last.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is drawn of a connection, so that no two are alike.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Bytes that may be under way in either direction.
    pub(crate) room: usize,
    /// Bytes that one read gives at most, and one write takes.
    pub(crate) stride: usize,
    /// A reset overtakes what has not been read.
    pub(crate) reset_overtakes: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self { room: 64 * 1024, stride: usize::MAX, reset_overtakes: false }
    }
}

/// Bytes on their way to one end.
#[derive(Debug, Default)]
struct Way {
    bytes: VecDeque<u8>,
    /// Nothing more comes.
    ended: bool,
    /// The other end, or somebody between, has reset the connection; and whether that was told.
    reset: bool,
    told: bool,
    /// The end that reads is closed.
    closed: bool,
    /// The last read has filled its space: the runtime takes that for more to come.
    filled: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Debug)]
struct Line {
    shape: Shape,
    /// By the end that reads: 0 has connected, 1 has accepted.
    ways: [Way; 2],
    /// Nothing gets through any more, and nobody is told.
    silent: bool,
}

/// A connection as the network sees it, whoever holds its ends.
#[derive(Debug, Clone)]
pub(crate) struct Wire(Arc<Ends>);

#[derive(Debug)]
struct Ends {
    line: Mutex<Line>,
    addresses: [SocketAddr; 2],
    by_reset: [AtomicBool; 2],
}

impl Wire {
    fn lock(&self) -> MutexGuard<'_, Line> {
        lock(&self.0.line)
    }

    /// Tells it from others that are held.
    pub(crate) fn number(&self) -> u16 {
        self.0.addresses[0].port()
    }

    /// From here on nothing gets through.
    pub(crate) fn silence(&self) {
        self.lock().silent = true;
    }

    /// When this end is closed, the other sees a reset.
    pub(crate) fn end_by_reset(&self, end: usize) {
        self.0.by_reset[end].store(true, Relaxed);
    }

    /// Both ends are reset, as by a router that has lost its state, or a host that has come back without.
    pub(crate) fn reset(&self) {
        let mut line = self.lock();
        line.silent = false;
        for end in 0..2 {
            line.reset(end);
        }
    }

    /// Whether the end that has connected is open.
    pub(crate) fn is_held_by_connector(&self) -> bool {
        !self.lock().ways[0].closed
    }

    /// Whether the end that has accepted is open.
    pub(crate) fn is_held_by_acceptor(&self) -> bool {
        !self.lock().ways[1].closed
    }
}

impl Line {
    fn reset(&mut self, end: usize) {
        let overtakes = self.shape.reset_overtakes;
        let way = &mut self.ways[end];
        if way.closed || way.reset {
            return;
        }
        // Who has seen the end is told of a reset only where it writes.
        (way.reset, way.told) = (true, way.ended);
        if overtakes {
            way.bytes.clear();
        }
        way.wake_reader();
        self.ways[1 - end].wake_writer();
    }

    fn close(&mut self, end: usize, by_reset: bool) {
        let unread = !self.ways[end].bytes.is_empty();
        let way = &mut self.ways[end];
        (way.closed, way.reader) = (true, None);
        way.bytes.clear();
        self.ways[1 - end].writer = None;
        if self.silent {
            // Noticed once the line is back, if it ever is.
            return;
        }
        if by_reset || unread {
            self.reset(1 - end);
        } else {
            self.ways[1 - end].ended = true;
            self.ways[1 - end].wake_reader();
        }
        self.ways[end].wake_writer();
    }
}

impl Way {
    fn wake_reader(&mut self) {
        self.reader.take().into_iter().for_each(Waker::wake);
    }

    fn wake_writer(&mut self) {
        self.writer.take().into_iter().for_each(Waker::wake);
    }
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Socket {
    wire: Wire,
    end: usize,
}

/// Both ends of a connection from one address to another.
pub(crate) fn pair(shape: Shape, from: SocketAddr, to: SocketAddr) -> (Socket, Socket) {
    let line = Mutex::new(Line { shape, ways: Default::default(), silent: false });
    let wire = Wire(Arc::new(Ends { line, addresses: [from, to], by_reset: Default::default() }));
    let end = |end| Socket { wire: wire.clone(), end };
    (end(0), end(1))
}

impl Socket {
    pub(crate) fn wire(&self) -> Wire {
        self.wire.clone()
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.wire.0.addresses[self.end])
    }

    pub(crate) fn peer_addr(&self) -> SocketAddr {
        self.wire.0.addresses[1 - self.end]
    }

    pub(crate) fn end_by_reset(&self) {
        self.wire.end_by_reset(self.end);
    }

    pub(crate) fn look(&self) -> io::Result<usize> {
        let mut byte = [0];
        self.read(&mut byte, false)
    }

    pub(crate) fn try_read(&self, space: &mut [u8]) -> io::Result<usize> {
        self.read(space, true)
    }

    fn read(&self, space: &mut [u8], takes: bool) -> io::Result<usize> {
        let mut line = self.wire.lock();
        let stride = line.shape.stride;
        let silent = line.silent;
        let way = &mut line.ways[self.end];
        if silent || way.bytes.is_empty() && !way.ended && !way.reset {
            way.filled = false;
            return Err(ErrorKind::WouldBlock.into());
        }
        if !way.bytes.is_empty() {
            let count = way.bytes.len().min(space.len()).min(stride);
            for (to, from) in space.iter_mut().zip(way.bytes.iter().take(count)) {
                *to = *from;
            }
            if takes {
                way.bytes.drain(..count);
                way.filled = count == space.len();
                way.wake_writer();
            }
            return Ok(count);
        }
        if way.reset && !way.told {
            way.told = takes;
            return Err(ErrorKind::ConnectionReset.into());
        }
        Ok(0)
    }

    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut line = self.wire.lock();
        let Shape { room, stride, .. } = line.shape;
        if line.ways[self.end].reset && !line.silent {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let silent = line.silent;
        let way = &mut line.ways[1 - self.end];
        if way.ended {
            return Err(ErrorKind::BrokenPipe.into());
        }
        if way.closed && !silent {
            // It is taken, and what comes back is a reset.
            line.reset(self.end);
            return Ok(bytes.len());
        }
        let count = bytes.len().min(room.saturating_sub(way.bytes.len())).min(stride);
        if count == 0 && !bytes.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        way.bytes.extend(&bytes[..count]);
        if !silent {
            way.wake_reader();
        }
        Ok(count)
    }

    /// As an attempt that says "would block" waits.
    fn poll<T>(
        &self,
        context: &Context<'_>,
        reads: bool,
        attempt: impl FnOnce() -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        match attempt() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let mut line = self.wire.lock();
                if reads {
                    line.ways[self.end].reader = Some(context.waker().clone());
                } else {
                    line.ways[1 - self.end].writer = Some(context.waker().clone());
                }
                Poll::Pending
            }
            result => Poll::Ready(result),
        }
    }

    pub(crate) fn poll_read_ready(&self, context: &Context<'_>) -> Poll<io::Result<()>> {
        if self.wire.lock().ways[self.end].filled {
            return Poll::Ready(Ok(()));
        }
        match ready!(self.poll(context, true, || self.look())) {
            // What is wrong shows when it is read.
            Ok(_) | Err(_) => Poll::Ready(Ok(())),
        }
    }

    pub(crate) fn poll_write_ready(&self, context: &Context<'_>) -> Poll<io::Result<()>> {
        self.poll(context, false, || {
            let line = self.wire.lock();
            let (own, way) = (&line.ways[self.end], &line.ways[1 - self.end]);
            let may = own.reset || way.ended || way.closed || way.bytes.len() < line.shape.room;
            if may { Ok(()) } else { Err(ErrorKind::WouldBlock.into()) }
        })
    }

    pub(crate) fn poll_peek(&self, context: &Context<'_>, space: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        let unfilled = space.initialize_unfilled();
        let count = ready!(self.poll(context, true, || self.read(unfilled, false)))?;
        space.advance(count);
        Poll::Ready(Ok(count))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let by_reset = self.wire.0.by_reset[self.end].load(Relaxed);
        self.wire.lock().close(self.end, by_reset);
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, space: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let unfilled = space.initialize_unfilled();
        let count = ready!(self.poll(context, true, || self.read(unfilled, true)))?;
        space.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(context, false, || self.try_write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut line = self.wire.lock();
        let silent = line.silent;
        let way = &mut line.ways[1 - self.end];
        way.ended = true;
        if !silent {
            way.wake_reader();
        }
        Poll::Ready(Ok(()))
    }
}

/// What comes of connecting to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    Open,
    /// After a while.
    Slow(Duration),
    Refused,
    /// Nobody answers.
    Silent,
    /// The process that connects has no descriptor left.
    NoDescriptors,
}

/// Who can be connected to, and what connections there are.
#[derive(Debug, Default)]
pub(crate) struct Network(Mutex<Places>);

#[derive(Debug, Default)]
struct Places {
    listening: BTreeMap<SocketAddr, Vec<Arc<Mutex<Waiting>>>>,
    reaches: BTreeMap<SocketAddr, Reach>,
    shapes: Vec<Shape>,
    /// Of all connections that were made, to where.
    wires: Vec<(SocketAddr, Wire)>,
    /// Attempts under way, by where to.
    connecting: BTreeMap<SocketAddr, usize>,
    count: u64,
}

#[derive(Debug, Default)]
struct Waiting {
    queue: VecDeque<Socket>,
    /// So often, the process that accepts has no descriptor left.
    short: u32,
    refuses: bool,
    closed: bool,
    waker: Option<Waker>,
}

impl Network {
    fn lock(&self) -> MutexGuard<'_, Places> {
        lock(&self.0)
    }

    /// The shapes that connections have, in turn.
    pub(crate) fn set_shapes(&self, shapes: Vec<Shape>) {
        self.lock().shapes = shapes;
    }

    /// What comes of connecting to an address from here on.
    pub(crate) fn set_reach(&self, address: SocketAddr, reach: Reach) {
        self.lock().reaches.insert(address, reach);
    }

    /// One more who takes what comes to an address; connections are spread over all of them.
    pub(crate) fn listen(&self, address: SocketAddr) -> Listener {
        let waiting = Arc::<Mutex<Waiting>>::default();
        self.lock().listening.entry(address).or_default().push(Arc::clone(&waiting));
        Listener { waiting, address }
    }

    /// For so often, none of those who take what comes to an address has a descriptor.
    pub(crate) fn starve(&self, address: SocketAddr, times: u32) {
        for waiting in self.lock().listening.get(&address).into_iter().flatten() {
            let mut waiting = lock(waiting);
            waiting.short = times;
            waiting.waker.take().into_iter().for_each(Waker::wake);
        }
    }

    /// All connections to an address that are held at either end.
    pub(crate) fn wires_to(&self, address: SocketAddr) -> Vec<Wire> {
        let mut places = self.lock();
        places.wires.retain(|(_, wire)| wire.is_held_by_connector() || wire.is_held_by_acceptor());
        places.wires.iter().filter(|(to, _)| *to == address).map(|(_, wire)| wire.clone()).collect()
    }

    /// Attempts to connect to an address that are under way.
    pub(crate) fn connecting_to(&self, address: SocketAddr) -> usize {
        self.lock().connecting.get(&address).copied().unwrap_or(0)
    }

    /// Connections to an address that nobody has accepted yet.
    pub(crate) fn queued_at(&self, address: SocketAddr) -> usize {
        self.lock().listening.get(&address).into_iter().flatten().map(|waiting| lock(waiting).queue.len()).sum()
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
        let reach = self.lock().reaches.get(&address).copied().unwrap_or(Reach::Open);
        match reach {
            Reach::Open => {}
            Reach::Slow(time) => tokio::time::sleep(time).await,
            Reach::Refused => return Err(ErrorKind::ConnectionRefused.into()),
            Reach::Silent => std::future::pending().await,
            Reach::NoDescriptors => return Err(io::Error::from_raw_os_error(nix::errno::Errno::EMFILE as i32)),
        }
        let mut places = self.lock();
        let count = places.count as usize;
        places.count += 1;
        let shape =
            if places.shapes.is_empty() { Shape::default() } else { places.shapes[count % places.shapes.len()] };
        let open: Vec<_> = places.listening.get(&address).into_iter().flatten().cloned().collect();
        let open: Vec<_> = open
            .into_iter()
            .filter(|waiting| {
                let waiting = lock(waiting);
                !waiting.closed && !waiting.refuses
            })
            .collect();
        if open.is_empty() {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        let (ours, theirs) = pair(shape, from, address);
        places.wires.push((address, ours.wire()));
        // As the kernel spreads them: by a hash.
        let mut waiting = lock(&open[(count.wrapping_mul(0x9e37_79b9) >> 7) % open.len()]);
        waiting.queue.push_back(theirs);
        waiting.waker.take().into_iter().for_each(Waker::wake);
        Ok(ours)
    }
}

/// An attempt under way.
struct Connecting<'a>(&'a Network, SocketAddr);

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        if let Some(count) = self.0.lock().connecting.get_mut(&self.1) {
            *count -= 1;
        }
    }
}

/// Takes what comes to an address.
#[derive(Debug)]
pub(crate) struct Listener {
    waiting: Arc<Mutex<Waiting>>,
    address: SocketAddr,
}

impl Listener {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) async fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        poll_fn(|context| match self.try_accept() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                lock(&self.waiting).waker = Some(context.waker().clone());
                Poll::Pending
            }
            result => Poll::Ready(result),
        })
        .await
    }

    pub(crate) fn try_accept(&self) -> io::Result<(Socket, SocketAddr)> {
        let mut waiting = lock(&self.waiting);
        if waiting.short > 0 {
            waiting.short -= 1;
            return Err(io::Error::from_raw_os_error(nix::errno::Errno::EMFILE as i32));
        }
        let socket = waiting.queue.pop_front().ok_or(ErrorKind::WouldBlock)?;
        let peer = socket.peer_addr();
        Ok((socket, peer))
    }

    /// Whoever connects from here on finds nobody.
    pub(crate) fn refuse_new(&self) {
        lock(&self.waiting).refuses = true;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let left = {
            let mut waiting = lock(&self.waiting);
            waiting.closed = true;
            std::mem::take(&mut waiting.queue)
        };
        left.iter().for_each(Socket::end_by_reset);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
