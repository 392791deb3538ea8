//! A client's connection before its first request: PROXY header, TLS, and detection of the protocol.

use super::connection::Connection;
use super::frontend::Frontend;
use super::turn_away::{TurnedAway, speech, turn_away};
use super::{http1, http2};
use crate::codec::end::ClientEnd;
use crate::codec::http1::Http1;
use crate::dispatcher::{ConnectionPermit, TlsSession};
use crate::exchange::client::Client;
use crate::l4::tcp;
use crate::net::buffers::Buffer;
use crate::net::client_hello::TLS_HANDSHAKE;
use crate::net::proxy_protocol;
use crate::net::stream::Stream;
use crate::net::timer::Timer;
use crate::net::tls::{self, ServerTls};
use crate::net::transport::Transport;
use crate::worker::{ActiveListener, OpenConnection, View};
use ringway_config::model::Protocol;
use rustls::{HandshakeKind, ProtocolVersion, ServerConnection};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::ReadBuf;

/// How long a TCP client may take for PROXY header, handshake and server name.
const HELLO_TIME: Duration = Duration::from_secs(10);

/// A client's connection whose protocol is not known yet.
struct Accepted {
    open: OpenConnection,
    view: Rc<View>,
    listener: usize,
}

/// Starts the task that serves one client connection.
pub(crate) fn serve(
    frontend: &Rc<Frontend>,
    active_listener: &Rc<ActiveListener>,
    permit: ConnectionPermit,
    stream: Transport,
    address: SocketAddr,
) {
    let worker = &frontend.worker;
    let Some((view, listener)) = worker.listener(active_listener) else { return };
    let config = &view.snapshot.config.listeners[listener];
    let mut open = OpenConnection::begin(worker, active_listener, Some(permit), address);
    // A peer that sends a PROXY header stands for another client, which is counted once it is known.
    let stands_in = config.proxy_protocol.contains(address.ip());
    if !stands_in && !open.enter(config) {
        worker.shared.counters.error("", TurnedAway::PerIp.reason());
        turn_away(frontend, Some(open), stream, TurnedAway::PerIp, speech(&view, listener));
        return;
    }
    // The local address: on a listener with one address, the kernel need not be asked.
    let is_one = !config.address.ip().is_unspecified() && config.address.port() != 0;
    open.peer.set_destination(if is_one { Some(config.address) } else { stream.local_addr().ok() });
    let has_tls = view.snapshot.tls[listener].is_some();
    let accepted = Accepted { open, view, listener };
    if stands_in || has_tls {
        let begun = begin(Rc::clone(frontend), accepted, stream, stands_in);
        worker.spawn("a connection that begins", begun);
    } else {
        serve_protocol(frontend, accepted, Stream::Plain(stream));
    }
}

/// PROXY header and TLS handshake. What follows is a task of its own: an idle connection holds nothing of what beginning takes.
async fn begin(frontend: Rc<Frontend>, mut accepted: Accepted, mut tcp: Transport, says_who: bool) {
    let Accepted { open, view, listener } = &mut accepted;
    let config = &view.snapshot.config.listeners[*listener];
    let timer = open.worker.timer();
    let hello_time = match &config.protocol {
        Protocol::Http(http) => http.timeouts.head,
        Protocol::Tcp(_) | Protocol::Udp(_) => HELLO_TIME,
    };
    timer.set(hello_time);
    if says_who {
        let Some(told) = proxy_protocol::receive(&tcp, &timer).await else {
            return refuse(open, &mut tcp, "proxy_header", None);
        };
        let stands_in = told.addresses.is_some();
        open.peer.take(told);
        if stands_in && !open.enter(config) {
            frontend.worker.shared.counters.error("", TurnedAway::PerIp.reason());
            let Accepted { open, view, listener, .. } = accepted;
            return turn_away(&frontend, Some(open), tcp, TurnedAway::PerIp, speech(&view, listener));
        }
    }
    let stream = match view.snapshot.tls[*listener].as_deref() {
        None => Stream::Plain(tcp),
        Some(tls) => match handshake(open, tcp, tls, (&timer, hello_time), &config.protocol).await {
            Some(secured) => {
                open.peer.take_session(&secured, tls);
                Stream::Server(Box::new(secured))
            }
            None => return,
        },
    };
    serve_protocol(&frontend, accepted, stream);
}

/// The client's protocol is known, except for the version of HTTP where there is no TLS to say so: starts the task that speaks it.
fn serve_protocol(frontend: &Rc<Frontend>, accepted: Accepted, stream: Stream) {
    let Accepted { open, view, listener } = accepted;
    let worker = &frontend.worker;
    let open = Rc::new(open);
    match &view.snapshot.config.listeners[listener].protocol {
        Protocol::Http(http) => {
            let is_h2 =
                matches!(&stream, Stream::Server(session) if session.get_ref().1.alpn_protocol() == Some(b"h2"));
            if is_h2 && http.h2.enabled {
                let serving = http2::Serving::new(frontend, open, stream, Buffer::default(), (&view, listener));
                worker.spawn("a connection of HTTP/2", serving.serve());
            } else {
                let client = Client::new(open, ClientEnd::Http1(Http1::new(stream)));
                let connection = Box::new(Connection::new(client, &view, listener));
                worker.spawn("a connection of HTTP/1", http1::serve(Rc::clone(frontend), connection));
            }
        }
        Protocol::Tcp(_) => worker.spawn("a session", tcp::serve(open, stream, view, listener)),
        Protocol::Udp(_) => unreachable!("invariant: datagrams have no connections"),
    }
}

/// The TLS handshake. A client that speaks HTTP to a TLS port gets a response that says so.
async fn handshake(
    open: &OpenConnection,
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
        // The handshake has begun: it may take its time.
        timer.set(time);
    }
    if first != TLS_HANDSHAKE {
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
        Ok(stream) => {
            count_handshake(open, stream.get_ref().1);
            Some(stream)
        }
        Err(error) => {
            handshake_failed(open, &error);
            None
        }
    }
}

/// Counts a handshake, by version and whether it has resumed a session; who lists connections sees both.
fn count_handshake(open: &OpenConnection, session: &ServerConnection) {
    let is_1_3 = session.protocol_version() == Some(ProtocolVersion::TLSv1_3);
    let is_resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    open.active_listener.counters.handshakes[usize::from(is_1_3)][usize::from(is_resumed)].increment();
    open.entry.set_tls(TlsSession { is_1_3, is_resumed });
}

/// Counts a handshake that has failed, by reason. The log names the client, for an operator who looks into one client's trouble.
fn handshake_failed(open: &OpenConnection, error: &std::io::Error) {
    let timed_out = error.kind() == std::io::ErrorKind::TimedOut && error.get_ref().is_none();
    let reason = if timed_out { "timeout" } else { tls::handshake_failure(error) };
    open.worker.shared.counters.error("", "tls_handshake");
    open.active_listener.permits.numbers.handshake_error(reason);
    tracing::debug!(client = %open.peer.address(), listener = %open.active_listener.name(), reason, %error, "TLS handshake failed");
}

/// Ends a connection that cannot be served, with what can be written without waiting.
fn refuse(open: &OpenConnection, tcp: &mut Transport, reason: &'static str, answer: Option<&[u8]>) {
    open.worker.shared.counters.error("", reason);
    if let Some(answer) = answer {
        let _ = tcp.try_write(answer);
        // Unread bytes would turn the close into a reset, and the response would be lost with it.
        let mut sink = [0; 4096];
        while matches!(tcp.try_read(&mut sink), Ok(1..)) {}
    }
}
