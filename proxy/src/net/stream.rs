//! A connection as the data path sees it: bytes in, bytes out, over any transport.

use crate::net::transport::Transport;
use crate::planted::{self, Fault};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes in, bytes out.
pub(crate) enum Stream {
    /// TCP as it is.
    Plain(Transport),
    /// TLS towards a client.
    Server(Box<tokio_rustls::server::TlsStream<Transport>>),
    /// TLS towards a backend.
    Client(Box<tokio_rustls::client::TlsStream<Transport>>),
    /// A connection that has been returned: every read and write sees its end.
    Returned(tokio::io::Empty),
}

/// Runs the same expression on each kind.
macro_rules! each {
    ($stream:expr, $inner:ident => $run:expr) => {
        match $stream {
            Stream::Plain($inner) => $run,
            Stream::Server($inner) => $run,
            Stream::Client($inner) => $run,
            Stream::Returned($inner) => $run,
        }
    };
}

impl Stream {
    /// The connection below, unless that has been returned.
    fn transport(&self) -> Option<&Transport> {
        match self {
            Self::Plain(stream) => Some(stream),
            Self::Server(stream) => Some(stream.get_ref().0),
            Self::Client(stream) => Some(stream.get_ref().0),
            Self::Returned(_) => None,
        }
    }

    /// The connection itself, where what it carries is what its peer sends: no layer is between.
    pub(crate) fn plain(&self) -> Option<&Transport> {
        match self {
            Self::Plain(transport) => transport.descriptor().map(|_| transport),
            Self::Server(_) | Self::Client(_) | Self::Returned(_) => None,
        }
    }

    /// Whether the end of the output must be signalled by more than closing TCP.
    pub(crate) fn needs_close_notify(&self) -> bool {
        matches!(self, Self::Server(_) | Self::Client(_))
    }

    /// What follows must look cut off to the other side: a reset instead of an end.
    pub(crate) fn abort(&mut self) {
        if planted::is_planted(Fault::TruncationHidden) {
            return;
        }
        self.transport().into_iter().for_each(Transport::end_by_reset);
    }

    /// Whether an end that has come was declared by the backend: TLS has close_notify, without which any machine on the way may
    /// have cut the connection (RFC 8446, 6.1). TCP has nothing like it.
    pub(crate) fn has_closed_cleanly(&mut self) -> bool {
        match self {
            Self::Client(stream) => {
                let (_, session) = stream.get_mut();
                session.process_new_packets().is_ok_and(|state| state.peer_has_closed())
            }
            Self::Plain(_) | Self::Server(_) | Self::Returned(_) => true,
        }
    }

    /// Whether the kernel holds bytes that the runtime has not reported yet: it will.
    pub(crate) fn has_unread(&self) -> bool {
        self.transport().is_some_and(|transport| transport.look().is_ok_and(|count| count > 0))
    }

    /// Whether bytes have come that nobody will read, as far as the runtime knows: one of them is read. Costs no system call while nothing has
    /// arrived.
    pub(crate) fn has_sent_more(&mut self) -> bool {
        self.transport().is_some_and(|transport| transport.try_read(&mut [0]).is_ok_and(|count| count > 0))
    }

    /// Whether an idle connection is still good: no end, and no unsolicited bytes.
    ///
    /// `certain`: ask the kernel too, not only the runtime's readiness.
    pub(crate) fn is_reusable(&mut self, certain: bool) -> bool {
        self.has_been_silent(certain) || planted::is_planted(Fault::StaleConnectionUsed)
    }

    fn has_been_silent(&mut self, certain: bool) -> bool {
        let nothing = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        match self {
            Self::Plain(stream) => {
                // Costs no system call while nothing has arrived.
                if !stream.try_read(&mut [0]).is_err_and(|error| nothing(&error)) {
                    return false;
                }
                !certain || stream.look().is_err_and(|error| nothing(&error))
            }
            Self::Client(stream) => {
                // Session tickets may come at any time: they are read, and are no response.
                let mut byte = [0];
                let mut context = Context::from_waker(Waker::noop());
                Pin::new(stream).poll_read(&mut context, &mut ReadBuf::new(&mut byte)).is_pending()
            }
            Self::Server(_) | Self::Returned(_) => false,
        }
    }

    /// Ready once a write would take bytes, or fail.
    pub(crate) fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport().map_or(Poll::Ready(Ok(())), |transport| transport.poll_write_ready(context))
    }

    /// Ready once a read would give bytes, an end or an error; with TLS it may turn out to have been neither.
    pub(crate) fn poll_read_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => stream.poll_read_ready(context),
            Self::Server(stream) => {
                let (tcp, session) = stream.get_mut();
                if has_plaintext(session) {
                    return Poll::Ready(Ok(()));
                }
                tcp.poll_read_ready(context)
            }
            Self::Client(stream) => {
                let (tcp, session) = stream.get_mut();
                if has_plaintext(session) {
                    return Poll::Ready(Ok(()));
                }
                tcp.poll_read_ready(context)
            }
            Self::Returned(_) => Poll::Ready(Ok(())),
        }
    }

    /// Flushes what a layer below has taken and not yet written.
    #[inline]
    pub(crate) fn poll_drive(&mut self, context: &mut Context<'_>) {
        match self {
            Self::Plain(_) | Self::Returned(_) => {}
            // The rest goes when it can; an error shows at the next read or write.
            Self::Server(stream) => drop(Pin::new(stream).poll_flush(context)),
            Self::Client(stream) => drop(Pin::new(stream).poll_flush(context)),
        }
    }
}

/// Whether decrypted bytes, or the end, wait to be read.
fn has_plaintext<D>(session: &mut rustls::ConnectionCommon<D>) -> bool {
    session.process_new_packets().map_or(true, |state| state.plaintext_bytes_to_read() > 0 || state.peer_has_closed())
}

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, space: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, space),
            other => {
                other.poll_drive(context);
                match ready!(each!(other, stream => Pin::new(stream).poll_read(context, space))) {
                    // A peer that closes TCP without close_notify has still ended.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
                    result => Poll::Ready(result),
                }
            }
        }
    }
}

impl AsyncWrite for Stream {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if planted::is_planted(Fault::BodyTruncated) && bytes.len() > 4096 {
            let all = bytes.len();
            let written =
                ready!(each!(self.get_mut(), stream => Pin::new(stream).poll_write(context, &bytes[..all - 1])))?;
            return Poll::Ready(Ok(if written == all - 1 { all } else { written }));
        }
        each!(self.get_mut(), stream => Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(context))
    }
}
