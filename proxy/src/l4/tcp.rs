//! A TCP listener's clients: the service of each, by the server name that it asks for.

use super::session;
use crate::net::buffers::Buffer;
use crate::net::client_hello::{HelloReader, NoHello, TLS_HANDSHAKE};
use crate::net::stream::Stream;
use crate::net::timer::Timer;
use crate::routes::NameTable;
use crate::worker::{OpenConnection, View};
use ringway_config::model::{KeySource, Protocol, TcpListener};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// How long a client may take to send its server name.
const HELLO_TIME: Duration = Duration::from_secs(10);
/// Longest first message of a client.
const HELLO_BYTES_MAX: usize = 64 * 1024;
/// A fatal alert: unrecognized_name.
const UNRECOGNIZED_NAME: &[u8] = &[0x15, 3, 3, 0, 2, 2, 112];

/// Serves a session to its end.
pub(crate) async fn serve(open: Rc<OpenConnection>, mut stream: Stream, view: Rc<View>, listener: usize) {
    let Protocol::Tcp(tcp) = &view.snapshot.config.listeners[listener].protocol else { return };
    let (worker, peer) = (Rc::clone(&open.worker), &open.peer);
    let timer = worker.timer();
    let mut hello = Buffer::default();
    let mut named = None;
    if peer.server_name.is_none() && matches!(stream, Stream::Plain(_)) && wants_name(tcp, &view) {
        hello = worker.buffers.take();
        timer.set(HELLO_TIME);
        // Where names only choose among backends, a client without TLS has none: its key is another one, or missing. Boxed: what reads it is
        // larger than the session that follows.
        match Box::pin(client_hello(&mut stream, &mut hello, &timer, tcp.names.is_empty())).await {
            Some(name) => named = name,
            None => {
                worker.shared.counters.error("", "client_hello");
                worker.buffers.give(hello);
                return;
            }
        }
    }
    let server_name = peer.server_name.as_deref().or(named.as_deref());
    let Some(service) = service_of(tcp, view.names(listener), server_name) else {
        // RFC 6066, 3: the name is not known here.
        let _ = stream.write_all(UNRECOGNIZED_NAME).await;
        worker.shared.counters.error("", "unknown_server_name");
        worker.buffers.give(hello);
        return;
    };
    session::serve(&open, stream, hello, (peer, server_name), (view.clone(), service), &timer).await;
}

/// Whether the name that a TLS client asks for matters.
fn wants_name(tcp: &TcpListener, view: &View) -> bool {
    !tcp.names.is_empty()
        || tcp.service.is_some_and(|service| {
            let service = &view.services[service].service;
            let limited = service.config.rate_limit.iter().flat_map(|limit| &limit.key);
            let hashed = service.config.hash_key.iter().filter(|_| service.hashes());
            hashed.chain(limited).any(is_of_name)
        })
}

fn is_of_name(source: &KeySource) -> bool {
    match source {
        KeySource::Sni => true,
        KeySource::All(parts) => parts.iter().any(is_of_name),
        KeySource::Regex(source, _) => is_of_name(source),
        KeySource::Header(_)
        | KeySource::Cookie(_)
        | KeySource::SourceIp { .. }
        | KeySource::Path { .. }
        | KeySource::Uri
        | KeySource::Query(_)
        | KeySource::Host
        | KeySource::Method => false,
    }
}

/// The service of a connection whose client asks for this name.
pub(crate) fn service_of(tcp: &TcpListener, names: &NameTable, server_name: Option<&str>) -> Option<usize> {
    let found = server_name.and_then(|name| names.find(name));
    found.map(|index| tcp.names[index].1).or(tcp.service)
}

/// Reads a client's first TLS message, which stays in the buffer to be forwarded; returns the server name in it. `None`: it is no such
/// message, or does not come in time. `plain`: bytes that are no TLS carry no name.
async fn client_hello(stream: &mut Stream, hello: &mut Buffer, timer: &Timer, plain: bool) -> Option<Option<String>> {
    let mut reader = HelloReader::default();
    poll_fn(|context| {
        loop {
            let before = hello.len();
            match hello.poll_read(stream, HELLO_BYTES_MAX, context) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(None),
                Poll::Pending if timer.poll_fired(context) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
            if plain && hello.bytes().first().is_some_and(|first| *first != TLS_HANDSHAKE) {
                return Poll::Ready(Some(None));
            }
            match reader.read(&hello.bytes()[before..]) {
                Ok(None) => {}
                Ok(name) => return Poll::Ready(name),
                Err(NoHello) => return Poll::Ready(None),
            }
        }
    })
    .await
}
