//! One end of a connection.

use super::wire::{Ends, Link, Shape, Wire};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Socket {
    wire: Wire,
    end: usize,
}

/// Both ends of a connection from one address to another.
pub(crate) fn pair(shape: Shape, from: SocketAddr, to: SocketAddr) -> (Socket, Socket) {
    let link = Mutex::new(Link { shape, directions: Default::default(), silent: false });
    let wire = Wire(Arc::new(Ends { link, addresses: [from, to], by_reset: Default::default() }));
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
        let mut link = self.wire.lock();
        let stride = link.shape.stride;
        let silent = link.silent;
        let direction = &mut link.directions[self.end];
        if silent || direction.bytes.is_empty() && !direction.ended && !direction.reset {
            direction.filled = false;
            return Err(ErrorKind::WouldBlock.into());
        }
        if !direction.bytes.is_empty() {
            let count = direction.bytes.len().min(space.len()).min(stride);
            for (to, from) in space.iter_mut().zip(direction.bytes.iter().take(count)) {
                *to = *from;
            }
            if takes {
                direction.bytes.drain(..count);
                direction.filled = count == space.len();
                direction.wake_writer();
            }
            return Ok(count);
        }
        if direction.reset && !direction.reported {
            direction.reported = takes;
            return Err(ErrorKind::ConnectionReset.into());
        }
        Ok(0)
    }

    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut link = self.wire.lock();
        let Shape { room, stride, .. } = link.shape;
        if link.directions[self.end].reset && !link.silent {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let silent = link.silent;
        let direction = &mut link.directions[1 - self.end];
        if direction.ended {
            return Err(ErrorKind::BrokenPipe.into());
        }
        if direction.closed && !silent {
            // It is taken, and a reset comes back.
            link.reset(self.end);
            return Ok(bytes.len());
        }
        let count = bytes.len().min(room.saturating_sub(direction.bytes.len())).min(stride);
        if count == 0 && !bytes.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        direction.bytes.extend(&bytes[..count]);
        if !silent {
            direction.wake_reader();
        }
        Ok(count)
    }

    /// As an attempt that would block waits.
    fn poll<T>(
        &self,
        context: &Context<'_>,
        reads: bool,
        attempt: impl FnOnce() -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        match attempt() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let mut link = self.wire.lock();
                if reads {
                    link.directions[self.end].reader = Some(context.waker().clone());
                } else {
                    link.directions[1 - self.end].writer = Some(context.waker().clone());
                }
                Poll::Pending
            }
            result => Poll::Ready(result),
        }
    }

    pub(crate) fn poll_read_ready(&self, context: &Context<'_>) -> Poll<io::Result<()>> {
        if self.wire.lock().directions[self.end].filled {
            return Poll::Ready(Ok(()));
        }
        match ready!(self.poll(context, true, || self.look())) {
            // What is wrong shows when it is read.
            Ok(_) | Err(_) => Poll::Ready(Ok(())),
        }
    }

    pub(crate) fn poll_write_ready(&self, context: &Context<'_>) -> Poll<io::Result<()>> {
        self.poll(context, false, || {
            let link = self.wire.lock();
            let (own, direction) = (&link.directions[self.end], &link.directions[1 - self.end]);
            let may = own.reset || direction.ended || direction.closed || direction.bytes.len() < link.shape.room;
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
        let mut link = self.wire.lock();
        let silent = link.silent;
        let direction = &mut link.directions[1 - self.end];
        direction.ended = true;
        if !silent {
            direction.wake_reader();
        }
        Poll::Ready(Ok(()))
    }
}
