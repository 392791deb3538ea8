//! What carries a connection's bytes: TCP of the kernel, or, in tests, memory.
//!
//! What the data path asks of it is eight things: to be opened and to be accepted, to read, to write, to end
//! writing, readiness both ways, a look at what has arrived, the end by a reset. TLS and HTTP/2 run on either kind. In a build
//! without tests there is one kind, and this costs nothing.

use crate::net::pipe::Pipe;
use crate::net::shortage::{Rank, Resource, Shortage};
use socket2::{SockFilter, SockRef};
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

#[cfg(test)]
pub(crate) mod memory;

/// A connection's bytes, both ways.
#[derive(Debug)]
pub(crate) enum Transport {
    Tcp(TcpStream),
    #[cfg(test)]
    Memory(memory::Socket),
}

/// One that no runtime drives, on its way to another worker.
#[derive(Debug)]
pub(crate) enum Detached {
    Tcp(std::net::TcpStream),
    #[cfg(test)]
    Memory(memory::Socket),
}

/// Runs the same expression on whichever it is.
macro_rules! each {
    ($transport:expr, $inner:ident => $run:expr) => {
        match $transport {
            Transport::Tcp($inner) => $run,
            #[cfg(test)]
            Transport::Memory($inner) => $run,
        }
    };
}

impl Transport {
    /// The address at our end.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        each!(self, inner => inner.local_addr())
    }

    /// Its descriptor, where it has one.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tcp(tcp) => Some(tcp.as_fd()),
            #[cfg(test)]
            Self::Memory(_) => None,
        }
    }

    /// Ready once a read would give bytes, an end or an error, as far as the runtime knows.
    #[inline]
    pub(crate) fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => inner.poll_read_ready(context))
    }

    /// Ready once a write would take something, or fail.
    #[inline]
    pub(crate) fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => inner.poll_write_ready(context))
    }

    /// A look at what has arrived, which stays there.
    pub(crate) fn poll_peek(&self, context: &mut Context<'_>, space: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        each!(self, inner => inner.poll_peek(context, space))
    }

    /// Reads what is there; asks the kernel only if the runtime has heard of something.
    #[inline]
    pub(crate) fn try_read(&self, space: &mut [u8]) -> io::Result<usize> {
        each!(self, inner => inner.try_read(space))
    }

    /// Writes what is taken at once.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        each!(self, inner => inner.try_write(bytes))
    }

    /// Moves what has come into a pipe; 0 is the end.
    pub(crate) fn poll_fill_pipe(&self, pipe: &mut Pipe, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => loop {
                ready!(tcp.poll_read_ready(context))?;
                match tcp.try_io(Interest::READABLE, || self.fill_pipe(pipe, tcp)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return Poll::Ready(result),
                }
            },
            #[cfg(test)]
            Self::Memory(_) => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
        }
    }

    /// Linux's splice stops for ever at TCP's urgent bytes, as if nothing or the end had come: where a look finds bytes all the same, these two
    /// are not spliced, and the readiness stays.
    fn fill_pipe(&self, pipe: &mut Pipe, tcp: &TcpStream) -> io::Result<usize> {
        let filled = pipe.fill(tcp);
        let is_dry = match &filled {
            Ok(count) => *count == 0,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        if is_dry && self.look().is_ok_and(|count| count > 0) {
            return Err(rustix::io::Errno::OPNOTSUPP.into());
        }
        filled
    }

    /// Moves what is taken out of a pipe.
    pub(crate) fn poll_drain_pipe(&self, pipe: &mut Pipe, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => loop {
                ready!(tcp.poll_write_ready(context))?;
                match tcp.try_io(Interest::WRITABLE, || pipe.drain(tcp)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return Poll::Ready(result),
                }
            },
            #[cfg(test)]
            Self::Memory(_) => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
        }
    }

    /// What a look into the kernel's own queue gives, whatever the runtime has heard: bytes, an end, an error, or nothing.
    pub(crate) fn look(&self) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => SockRef::from(tcp).peek(&mut [MaybeUninit::uninit()]),
            #[cfg(test)]
            Self::Memory(socket) => socket.look(),
        }
    }

    /// Its end will be a reset, whatever is written before.
    pub(crate) fn end_by_reset(&self) {
        match self {
            // If it cannot be set, a plain end is what is left.
            Self::Tcp(tcp) => drop(SockRef::from(tcp).set_linger(Some(Duration::ZERO))),
            #[cfg(test)]
            Self::Memory(socket) => socket.end_by_reset(),
        }
    }

    /// Takes it from this worker's runtime.
    pub(crate) fn detach(self) -> io::Result<Detached> {
        match self {
            Self::Tcp(tcp) => tcp.into_std().map(Detached::Tcp),
            #[cfg(test)]
            Self::Memory(socket) => Ok(Detached::Memory(socket)),
        }
    }
}

impl Detached {
    /// Gives it to this worker's runtime.
    pub(crate) fn attach(self) -> io::Result<Transport> {
        match self {
            Self::Tcp(tcp) => TcpStream::from_std(tcp).map(Transport::Tcp),
            #[cfg(test)]
            Self::Memory(socket) => Ok(Transport::Memory(socket)),
        }
    }
}

impl AsyncRead for Transport {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, space: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), inner => Pin::new(inner).poll_read(context, space))
    }
}

impl AsyncWrite for Transport {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), inner => Pin::new(inner).poll_write(context, bytes))
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), inner => Pin::new(inner).poll_write_vectored(context, parts))
    }

    #[inline]
    fn is_write_vectored(&self) -> bool {
        each!(self, inner => inner.is_write_vectored())
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), inner => Pin::new(inner).poll_flush(context))
    }

    #[inline]
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), inner => Pin::new(inner).poll_shutdown(context))
    }
}

/// Where connections to backends are opened.
#[derive(Debug, Clone)]
pub(crate) enum Network {
    Kernel,
    #[cfg(test)]
    Memory(std::sync::Arc<memory::Network>),
}

impl Network {
    /// Opens a connection to a backend, within what descriptors the data path may take; what is not acknowledged for `user_timeout`
    /// (zero leaves that to the system) ends it, which would notice only in a quarter of an hour that the other end has gone.
    pub(crate) async fn connect(
        &self,
        address: SocketAddr,
        user_timeout: Duration,
        shortage: &Shortage,
    ) -> io::Result<Transport> {
        match self {
            Self::Kernel => {
                let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
                shortage.admit(&socket, Rank::Upstream)?;
                let connected = socket.connect(address).await;
                let tcp = connected.map_err(|error| Resource::judge_connect(error, address))?;
                prepare(&tcp, user_timeout)?;
                Ok(Transport::Tcp(tcp))
            }
            #[cfg(test)]
            Self::Memory(network) => network.connect(address).await.map(Transport::Memory),
        }
    }
}

/// Sets a fresh connection to a backend up.
pub(crate) fn prepare(tcp: &TcpStream, user_timeout: Duration) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    if !user_timeout.is_zero() {
        SockRef::from(tcp).set_tcp_user_timeout(Some(user_timeout))?;
    }
    Ok(())
}

/// Where clients' connections come in.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    #[cfg(test)]
    Memory(memory::Listener),
}

impl Listener {
    /// Gives a listening socket to this worker's runtime.
    pub(crate) fn attach(socket: std::net::TcpListener) -> io::Result<Self> {
        TcpListener::from_std(socket).map(Self::Tcp)
    }

    pub(crate) async fn accept(&self) -> io::Result<(Transport, SocketAddr)> {
        match self {
            // There is one accept loop a socket: no list of those who wait is needed.
            Self::Tcp(socket) => {
                let (tcp, peer) = poll_fn(|context| socket.poll_accept(context)).await?;
                Ok((Transport::Tcp(tcp), peer))
            }
            #[cfg(test)]
            Self::Memory(socket) => socket.accept().await.map(|(socket, peer)| (Transport::Memory(socket), peer)),
        }
    }

    /// Drops every SYN from here on. A client sends it again after a second, and finds the next process, or none that listens.
    /// Handshakes that have begun complete: their last ACK passes.
    pub(crate) fn refuse_new(&self) -> io::Result<()> {
        // Instructions and their operands: Linux, `include/uapi/linux/filter.h` and `bpf_common.h`. What the filter of a TCP socket
        // sees begins with the TCP header (RFC 9293, 3.1): its flags are byte 13, SYN is 2 and ACK is 16.
        const LOAD_BYTE: u16 = 0x30;
        const AND: u16 = 0x54;
        const JUMP_IF_EQUAL: u16 = 0x15;
        const RETURN: u16 = 0x06;
        let syn_alone = [
            SockFilter::new(LOAD_BYTE, 0, 0, 13),
            SockFilter::new(AND, 0, 0, 0x12),
            SockFilter::new(JUMP_IF_EQUAL, 0, 1, 0x02),
            SockFilter::new(RETURN, 0, 0, 0),
            SockFilter::new(RETURN, 0, 0, u32::MAX),
        ];
        match self {
            Self::Tcp(socket) => SockRef::from(socket).attach_filter(&syn_alone),
            #[cfg(test)]
            Self::Memory(socket) => {
                socket.refuse_new();
                Ok(())
            }
        }
    }

    /// Takes it from this worker's runtime, for a last look at the queue itself.
    pub(crate) fn into_queue(self) -> io::Result<Queue> {
        match self {
            Self::Tcp(socket) => socket.into_std().map(Queue::Tcp),
            #[cfg(test)]
            Self::Memory(socket) => Ok(Queue::Memory(socket)),
        }
    }
}

/// What the kernel has queued for a listener that is about to be closed.
#[derive(Debug)]
pub(crate) enum Queue {
    Tcp(std::net::TcpListener),
    #[cfg(test)]
    Memory(memory::Listener),
}

impl Queue {
    /// The next, without waiting.
    pub(crate) fn accept(&self) -> io::Result<(Detached, SocketAddr)> {
        match self {
            Self::Tcp(socket) => {
                let (tcp, peer) = socket.accept()?;
                tcp.set_nonblocking(true)?;
                Ok((Detached::Tcp(tcp), peer))
            }
            #[cfg(test)]
            Self::Memory(socket) => socket.try_accept().map(|(socket, peer)| (Detached::Memory(socket), peer)),
        }
    }
}

#[cfg(test)]
mod tests;
