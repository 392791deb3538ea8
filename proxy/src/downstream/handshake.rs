//! A client's connection before its first request: PROXY header, TLS, and which protocol it turns out to speak.

use crate::codec::end::{ClientEnd, Http1};
use crate::codec::http2;
use crate::downstream::http1::{self, Client, Peer};
use crate::l4::tcp;
use crate::net::buffers::Buffer;
use crate::net::proxy_protocol;
use crate::net::stream::Stream;
use crate::net::timer::Timer;
use crate::net::tls::{self, ServerTls};
use crate::net::transport::Transport;
use crate::worker::{OpenConnection, View, Worker};
use ringway_config::model::Protocol;
use ringway_telemetry::catalogue;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};

/// How long a TCP client may take for PROXY header, handshake and the name it asks for.
const HELLO_TIME: Duration = Duration::from_secs(10);
/// How long a client that is turned away may take to ask, and to read why.
const FAREWELL_TIME: Duration = Duration::from_secs(1);
/// Bytes that are read of what it says meanwhile.
const FAREWELL_BYTES_MAX: usize = 64 * 1024;
/// Clients of a worker that are told so at once; more are closed without a word.
const FAREWELLS_MAX: u32 = 64;

/// Why a client's connection is one too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TurnedAway {
    /// Its address has as many as it may.
    PerIp,
    /// The listener, or the process, has.
    Full,
}

/// What a listener's clients speak from their first byte on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speech {
    Http {
        h2: bool,
    },
    /// TLS, or the service's own protocol: nothing that they would understand can be said.
    Other,
}

/// See [`Speech`].
pub(crate) fn speech(view: &View, listener: usize) -> Speech {
    match (&view.snapshot.config.listeners[listener].protocol, &view.snapshot.tls[listener]) {
        (Protocol::Http(http), None) => Speech::Http { h2: http.h2.enabled },
        (Protocol::Http(_) | Protocol::Tcp(_) | Protocol::Udp(_), _) => Speech::Other,
    }
}

impl TurnedAway {
    /// As in `x-ringway-reason` and the metrics.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::PerIp => "connections_per_ip",
            Self::Full => "listener_full",
        }
    }

    fn answer(self, is_h2: bool) -> &'static [u8] {
        match (self, is_h2) {
            // SETTINGS, and GOAWAY with ENHANCE_YOUR_CALM: no stream was looked at (RFC 9113, 6.8).
            (Self::PerIp | Self::Full, true) => b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0b",
            (Self::PerIp, false) => {
                b"HTTP/1.1 429 Too Many Requests\r\nx-ringway-reason: connections_per_ip\r\nretry-after: 1\r\n\
                  content-length: 0\r\nconnection: close\r\n\r\n"
            }
            (Self::Full, false) => {
                b"HTTP/1.1 503 Service Unavailable\r\nx-ringway-reason: listener_full\r\nretry-after: 1\r\n\
                  content-length: 0\r\nconnection: close\r\n\r\n"
            }
        }
    }
}

/// Ends a connection that is one too many: with an answer, where the client speaks HTTP from the first byte on and not too many
/// are being answered; at once otherwise. What it has taken, it keeps until then.
pub(crate) fn turn_away(
    worker: &Rc<Worker>,
    open: Option<OpenConnection>,
    stream: Transport,
    why: TurnedAway,
    speech: Speech,
) {
    let Speech::Http { h2 } = speech else { return };
    let Some(farewell) = Farewell::begin(worker) else { return };
    worker.spawn("a connection that is turned away", async move {
        // Past that, it is closed as it is.
        let _ = tokio::time::timeout(FAREWELL_TIME, say_farewell(stream, why, h2)).await;
        drop((open, farewell));
    });
}

/// Answers once the client has said something: it is answered in what it speaks, and an answer that comes before the question is lost
/// to many clients.
async fn say_farewell(mut stream: Transport, why: TurnedAway, h2: bool) {
    let mut bytes = [0; 4096];
    let Ok(mut read @ 1..) = stream.read(&mut bytes).await else { return };
    let is_h2 = h2 && bytes.starts_with(b"PRI");
    if stream.write_all(why.answer(is_h2)).await.is_err() || stream.shutdown().await.is_err() {
        return;
    }
    // Bytes that nobody reads would turn the end into a reset, and the answer with it.
    while read < FAREWELL_BYTES_MAX {
        match stream.read(&mut bytes).await {
            Ok(count @ 1..) => read += count,
            Ok(_) | Err(_) => return,
        }
    }
}

/// One of the clients that are told why they are turned away.
struct Farewell(Rc<Worker>);

impl Farewell {
    fn begin(worker: &Rc<Worker>) -> Option<Self> {
        let running = worker.farewells.get();
        (running < FAREWELLS_MAX).then(|| {
            worker.farewells.set(running + 1);
            Self(Rc::clone(worker))
        })
    }
}

impl Drop for Farewell {
    fn drop(&mut self) {
        self.0.farewells.set(self.0.farewells.get() - 1);
    }
}

/// Serves a connection to its end.
pub(crate) async fn serve(
    mut open: OpenConnection,
    stream: Transport,
    address: SocketAddr,
    view: Rc<View>,
    listener: usize,
) {
    let config = &view.snapshot.config.listeners[listener];
    let mut peer = Peer::new(address);
    // Where it arrived: nobody has to ask the kernel for that of a listener on one address.
    let is_one = !config.address.ip().is_unspecified() && config.address.port() != 0;
    peer.destination = if is_one { Some(config.address) } else { stream.local_addr().ok() };
    let has_tls = view.snapshot.tls[listener].as_deref();
    let says_who = crate::net::trusted::is_trusted(&config.proxy_protocol, address.ip().to_canonical());
    let mut stream = Stream::Plain(stream);
    if says_who || has_tls.is_some() {
        let timer = open.worker.timer();
        let hello_time = match &config.protocol {
            Protocol::Http(http) => http.timeouts.head,
            Protocol::Tcp(_) | Protocol::Udp(_) => HELLO_TIME,
        };
        timer.set(hello_time);
        let Stream::Plain(mut tcp) = stream else { return };
        if says_who {
            let Some(told) = proxy_protocol::receive(&tcp, &timer).await else {
                return refuse(&open, &mut tcp, "proxy_header", None);
            };
            let client = told.addresses.map(|(client, _)| client);
            peer.take(told);
            if client.is_some_and(|client| !open.enter(config, client)) {
                let worker = Rc::clone(&open.worker);
                worker.shared.cells.error("", TurnedAway::PerIp.reason());
                return turn_away(&worker, Some(open), tcp, TurnedAway::PerIp, speech(&view, listener));
            }
        }
        stream = match has_tls {
            None => Stream::Plain(tcp),
            Some(tls) => match handshake((&open, peer.address), tcp, tls, (&timer, hello_time), &config.protocol).await
            {
                Some(secured) => {
                    peer.take_session(&secured, tls);
                    Stream::Server(Box::new(secured))
                }
                None => return,
            },
        };
    }
    let (open, peer) = (Rc::new(open), Rc::new(peer));
    match &config.protocol {
        Protocol::Http(http) => {
            let is_h2 =
                matches!(&stream, Stream::Server(session) if session.get_ref().1.alpn_protocol() == Some(b"h2"));
            if is_h2 && http.h2.enabled {
                return http2::serve(open, stream, Buffer::default(), peer, &view, listener).await;
            }
            let end = ClientEnd::Http1(Http1::new(stream));
            let client = Client::new(Rc::clone(&open), end, Rc::clone(&peer), &view, listener);
            if let Some((stream, read)) = client.serve_connection().await {
                // The client has turned out to speak HTTP/2 without being asked: prior knowledge.
                let view = http1::view_of(&open, view);
                http2::serve(open, stream, read, peer, &view, listener).await;
            }
        }
        Protocol::Tcp(_) => tcp::serve(open, stream, &peer, view, listener).await,
        Protocol::Udp(_) => unreachable!("invariant: datagrams have no connections"),
    }
}

/// The TLS handshake. A client that speaks HTTP to a TLS port is told so.
async fn handshake(
    (open, client): (&OpenConnection, SocketAddr),
    mut tcp: Transport,
    tls: &ServerTls,
    (timer, time): (&Timer, Duration),
    protocol: &Protocol,
) -> Option<tokio_rustls::server::TlsStream<Transport>> {
    let mut leaving = false;
    let first = poll_fn(|context| {
        let mut byte = [0];
        match tcp.poll_peek(context, &mut ReadBuf::new(&mut byte)) {
            Poll::Ready(Ok(1..)) => Poll::Ready(Some(byte[0])),
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => {
                if open.is_closing() && !std::mem::replace(&mut leaving, true) {
                    timer.shorten(open.leave_after(false));
                }
                if timer.poll_fired(context) { Poll::Ready(None) } else { Poll::Pending }
            }
        }
    });
    let first = first.await?;
    if leaving {
        // It has begun: it may take its time.
        timer.set(time);
    }
    if first != crate::net::client_hello::TLS_HANDSHAKE {
        let speaks_http = first.is_ascii_uppercase() && matches!(protocol, Protocol::Http(_));
        let answer =
            &b"HTTP/1.1 400 Bad Request\r\nx-ringway-reason: plain_http_on_tls_port\r\ncontent-type: text/plain\r\n\
            content-length: 56\r\nconnection: close\r\n\r\nThis port speaks TLS: write https:// instead of http://.\n"
                [..];
        refuse(open, &mut tcp, "plain_http_on_tls_port", speaks_http.then_some(answer));
        return None;
    }
    let mut accepting = pin!(tokio_rustls::TlsAcceptor::from(tls.config.clone()).accept(tcp));
    let result = poll_fn(|context| match accepting.as_mut().poll(context) {
        Poll::Ready(result) => Poll::Ready(result),
        Poll::Pending if timer.poll_fired(context) => Poll::Ready(Err(std::io::ErrorKind::TimedOut.into())),
        Poll::Pending => Poll::Pending,
    })
    .await;
    match result {
        Ok(stream) => Some(stream),
        Err(error) => {
            handshake_failed(open, client, &error);
            None
        }
    }
}

/// Counts a handshake that has failed, by reason. Who has failed is told in the log, for who looks for one client's trouble.
fn handshake_failed(open: &OpenConnection, client: SocketAddr, error: &std::io::Error) {
    let timed_out = error.kind() == std::io::ErrorKind::TimedOut && error.get_ref().is_none();
    let reason = if timed_out { "timeout" } else { tls::handshake_failure(error) };
    open.worker.shared.cells.error("", "tls_handshake");
    metrics::counter!(catalogue::TLS_HANDSHAKE_ERRORS.name, "reason" => reason).increment(1);
    tracing::debug!(%client, listener = %open.gate.name(), reason, %error, "TLS handshake failed");
}

/// Ends a connection that nothing can be made of, with what can be written without waiting.
fn refuse(open: &OpenConnection, tcp: &mut Transport, reason: &'static str, answer: Option<&[u8]>) {
    open.worker.shared.cells.error("", reason);
    if let Some(answer) = answer {
        let _ = tcp.try_write(answer);
        // Bytes that nobody reads would turn the end into a reset, and the answer with it.
        let mut sink = [0; 4096];
        while matches!(tcp.try_read(&mut sink), Ok(1..)) {}
    }
}
