//! Bytes between two connections, both ways, unparsed: TCP listeners and upgraded HTTP connections.

use crate::dispatcher::{BULK_BYTES, BulkTurn, Dispatcher};
use crate::net::buffers::{Buffer, SMALL_BYTES};
use crate::net::pipe::{Pipe, is_unsupported};
use crate::net::stream::Stream;
use crate::net::timer::{Deadline, Timer};
use crate::net::transport::Transport;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::AsyncWrite;

/// One side of a tunnel: bytes in, bytes out, over any transport.
pub(crate) trait Duplex {
    /// Reads once into the buffer, which has room; 0 is the end.
    fn poll_fill(&mut self, buffer: &mut Buffer, context: &mut Context<'_>) -> Poll<io::Result<usize>>;
    /// Ready once a read would give bytes, an end or an error.
    fn poll_read_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Takes some of the bytes. Returns how many.
    fn poll_write(&mut self, bytes: &[u8], context: &mut Context<'_>) -> Poll<io::Result<usize>>;
    /// Signals that nothing more is written.
    fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Flushes what a layer below has taken and not yet written.
    fn poll_drive(&mut self, context: &mut Context<'_>);
    /// Ready once it has broken off, where that shows although nothing is read from it and nothing written to it.
    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
    /// The socket, where its bytes are the tunnel's as they are.
    fn plain(&self) -> Option<&Transport> {
        None
    }
}

impl Duplex for Stream {
    fn poll_fill(&mut self, buffer: &mut Buffer, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let space = buffer.capacity();
        buffer.poll_read(self, space, context)
    }

    fn poll_read_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_read_ready(self, context)
    }

    fn poll_write(&mut self, bytes: &[u8], context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(self), context, bytes)
    }

    fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(self), context)
    }

    fn poll_drive(&mut self, context: &mut Context<'_>) {
        Self::poll_drive(self, context);
    }

    fn plain(&self) -> Option<&Transport> {
        Self::plain(self)
    }
}

/// Time limits of a tunnel.
pub(crate) struct Limits {
    /// Longest time without a byte either way; zero is no limit.
    pub(crate) idle: Duration,
    /// Longest lifetime.
    pub(crate) session: Deadline,
}

/// How a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Both sides closed.
    Closed,
    /// One side reset the connection.
    Reset,
    /// No byte for too long, or its lifetime is over.
    TimedOut,
    /// The backend is down, and its sessions are to end.
    BackendDown,
}

/// One direction of a tunnel.
pub(crate) struct Direction {
    pub(crate) buffer: Buffer,
    pub(crate) moved: u64,
    /// In place of the buffer, where much goes from socket to socket.
    pipe: Option<Pipe>,
    /// What the last read has brought.
    last_read: usize,
    turn: BulkTurn,
    state: State,
}

#[derive(PartialEq, Eq)]
enum State {
    Open,
    /// The reader's end has come; buffered bytes go first, then the writer's end.
    Ending,
    Ended,
}

impl Direction {
    /// A direction that starts with bytes already read.
    pub(crate) fn new(buffer: Buffer) -> Self {
        Self { buffer, moved: 0, pipe: None, last_read: 0, turn: BulkTurn::default(), state: State::Open }
    }

    /// Moves what can be moved. `Ok(true)`: something was. `last`: nothing comes the other way any more.
    fn poll(
        &mut self,
        (from, to): (&mut impl Duplex, &mut impl Duplex),
        last: bool,
        dispatcher: &Dispatcher,
        context: &mut Context<'_>,
    ) -> io::Result<bool> {
        let mut progress = false;
        loop {
            if self.holds_bytes() {
                match self.poll_send(to, dispatcher, context) {
                    Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(Ok(count)) => {
                        self.moved += count as u64;
                        progress = true;
                    }
                    Poll::Ready(Err(error)) => return Err(error),
                    Poll::Pending => return Ok(progress),
                }
                continue;
            }
            match self.state {
                State::Ended => return Ok(progress),
                // A socket that has nothing to read and nothing more to write is closed by whoever has it, which says the end as well.
                State::Ending => {
                    match if last && to.plain().is_some() { Poll::Ready(Ok(())) } else { to.poll_shutdown(context) } {
                        Poll::Ready(_) => {
                            self.state = State::Ended;
                            self.release(dispatcher);
                            return Ok(true);
                        }
                        Poll::Pending => return Ok(progress),
                    }
                }
                State::Open => {}
            }
            match self.poll_fill(from, to, dispatcher, context) {
                Poll::Ready(Ok(0)) => {
                    self.state = State::Ending;
                    progress = true;
                }
                Poll::Ready(Ok(count)) => {
                    self.last_read = count;
                    progress = true;
                }
                Poll::Ready(Err(error)) => return Err(error),
                // A waiting tunnel holds no buffer.
                Poll::Pending => {
                    self.release(dispatcher);
                    return Ok(progress);
                }
            }
        }
    }

    fn holds_bytes(&self) -> bool {
        !self.buffer.is_empty() || self.pipe.as_ref().is_some_and(|pipe| pipe.len() > 0)
    }

    /// Returns what it has of the worker's.
    fn release(&mut self, dispatcher: &Dispatcher) {
        dispatcher.buffers.give(std::mem::take(&mut self.buffer));
        self.pipe.take().into_iter().for_each(|pipe| dispatcher.pipes.give(pipe));
    }

    /// Sends some of what was read.
    fn poll_send(
        &mut self,
        to: &mut impl Duplex,
        dispatcher: &Dispatcher,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if let (true, Some(pipe), Some(socket)) = (self.buffer.is_empty(), &mut self.pipe, to.plain()) {
            match ready!(socket.poll_drain_pipe(pipe, context)) {
                Err(error) if is_unsupported(&error) => {
                    // What is in the pipe goes by way of the buffer.
                    dispatcher.pipes.refuse();
                    if !self.buffer.is_allocated() {
                        self.buffer = dispatcher.buffers.take();
                    }
                    self.buffer.read_by(|space| pipe.read(space))?;
                }
                drained => {
                    let count = drained?;
                    dispatcher.counters.spliced_bytes.add(count as u64);
                    return Poll::Ready(Ok(count));
                }
            }
        }
        let count = ready!(to.poll_write(self.buffer.bytes(), context))?;
        self.buffer.consume(count);
        Poll::Ready(Ok(count))
    }

    /// Reads once, at its turn; 0 is the end.
    fn poll_fill(
        &mut self,
        from: &mut impl Duplex,
        to: &impl Duplex,
        dispatcher: &Dispatcher,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if !self.turn.poll(self.moved, &dispatcher.bulk, context) {
            return Poll::Pending;
        }
        if self.moved > BULK_BYTES
            && self.last_read >= SMALL_BYTES
            && let (Some(from), Some(_)) = (from.plain(), to.plain())
            && let Some(filled) = self.poll_fill_pipe(from, dispatcher, context)
        {
            return filled;
        }
        // It is empty: little comes at a time now.
        self.pipe.take().into_iter().for_each(|pipe| dispatcher.pipes.give(pipe));
        if !self.buffer.is_allocated() {
            ready!(from.poll_read_ready(context))?;
            self.buffer = dispatcher.buffers.take();
        }
        if self.moved > BULK_BYTES {
            dispatcher.buffers.grow(&mut self.buffer);
        }
        from.poll_fill(&mut self.buffer, context)
    }

    /// Reads into a pipe; `None`: there is none to be had, or it is of no use.
    fn poll_fill_pipe(
        &mut self,
        from: &Transport,
        dispatcher: &Dispatcher,
        context: &mut Context<'_>,
    ) -> Option<Poll<io::Result<usize>>> {
        if dispatcher.pipes.are_refused() {
            return None;
        }
        if self.pipe.is_none() {
            match from.poll_read_ready(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Some(Poll::Ready(Err(error))),
                Poll::Pending => return Some(Poll::Pending),
            }
            self.pipe = Some(dispatcher.pipes.take(|| dispatcher.shared.shortage.bears_more())?);
            dispatcher.buffers.give(std::mem::take(&mut self.buffer));
        }
        match from.poll_fill_pipe(self.pipe.as_mut()?, context) {
            Poll::Ready(Err(error)) if is_unsupported(&error) => {
                dispatcher.pipes.refuse();
                None
            }
            filled => Some(filled),
        }
    }
}

/// Relays until both sides have ended. A side that half-closes can still receive. `tell` gets how many bytes have moved up and down, as
/// they do.
pub(crate) async fn relay(
    client: &mut impl Duplex,
    upstream: &mut impl Duplex,
    (up, down): (&mut Direction, &mut Direction),
    dispatcher: &Dispatcher,
    timer: &Timer,
    limits: &Limits,
    tell: impl Fn(u64, u64),
) -> End {
    timer.set_before(limits.idle, limits.session);
    let end = poll_fn(|context| {
        let last = down.state == State::Ended;
        let moved = up.poll((client, upstream), last, dispatcher, context).and_then(|moved_up| {
            let last = up.state == State::Ended;
            let moved_down = down.poll((upstream, client), last, dispatcher, context)?;
            Ok(moved_up || moved_down)
        });
        match moved {
            Err(_) => return Poll::Ready(End::Reset),
            Ok(true) => {
                timer.set_before(limits.idle, limits.session);
                tell(up.moved, down.moved);
            }
            Ok(false) => {}
        }
        client.poll_drive(context);
        upstream.poll_drive(context);
        if client.poll_gone(context).is_ready() || upstream.poll_gone(context).is_ready() {
            return Poll::Ready(End::Reset);
        }
        if up.state == State::Ended && down.state == State::Ended {
            return Poll::Ready(End::Closed);
        }
        if timer.poll_fired(context) {
            return Poll::Ready(End::TimedOut);
        }
        Poll::Pending
    })
    .await;
    for way in [up, down] {
        way.release(dispatcher);
    }
    end
}
