//! Connections of the admin listener and of its Unix socket.

use super::access::{Denial, Peer};
use super::live::Live;
use super::patient::Patient;
use super::{access, dispatch};
use crate::apply::handle::ControlHandle;
use crate::net::shortage::{Operation, is_of_one_connection};
use crate::net::tls::names_shown;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

/// Admin connections at once: a reserve of its own, which client connections cannot use up. The Unix socket has as many.
const CONNECTIONS_MAX: usize = 64;
/// Until a TLS handshake is done, until a request's head is there, and for a client that reads nothing of a response.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest head of a request.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Where requests come from.
pub(crate) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl Socket {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(socket) => socket.accept().await.map(|(stream, from)| Accepted::Tcp(stream, from)),
            Self::Unix(socket) => socket.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
        }
    }
}

/// Serves one of the admin listener's sockets for as long as the process lives.
pub(crate) async fn serve(control: ControlHandle, live: Arc<Live>, socket: Socket) {
    access::declare_metrics();
    let permits = Arc::new(Semaphore::new(control.shortage().admin_connections_max(CONNECTIONS_MAX)));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        match socket.accept().await {
            Ok(accepted) => {
                let (control, live) = (control.clone(), Arc::clone(&live));
                drop(tokio::spawn(async move {
                    match accepted {
                        Accepted::Tcp(stream, from) => serve_tcp(control, live, stream, from).await,
                        Accepted::Unix(stream) => serve_local(control, live, stream).await,
                    }
                    drop(permit);
                }));
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                control.shortage().note(Operation::AdminAccept, &error, "admin");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve_tcp(control: ControlHandle, live: Arc<Live>, stream: TcpStream, from: SocketAddr) {
    // As the version in force has it: a certificate that is replaced is shown to the next client.
    let tls = tls_in_force(&control);
    let stream = Patient::new(stream, PATIENCE);
    let Some(tls) = tls else {
        return serve_connection(control, live, stream, Peer::Tcp { from, tls: false, names: Vec::new() }, None).await;
    };
    match tokio::time::timeout(PATIENCE, TlsAcceptor::from(Arc::clone(&tls)).accept(stream)).await {
        Ok(Ok(stream)) => {
            let chain = stream.get_ref().1.peer_certificates();
            let names = chain.and_then(<[_]>::first).map(names_shown).unwrap_or_default();
            serve_connection(control, live, stream, Peer::Tcp { from, tls: true, names }, Some(tls)).await;
        }
        Ok(Err(_)) | Err(_) => {
            Denial::Handshake.note(&control, &Peer::Tcp { from, tls: true, names: Vec::new() });
        }
    }
}

async fn serve_local(control: ControlHandle, live: Arc<Live>, stream: UnixStream) {
    let Ok(user) = stream.peer_cred().map(|who| who.uid()) else { return };
    serve_connection(control, live, Patient::new(stream, PATIENCE), Peer::Socket { user }, None).await;
}

fn tls_in_force(control: &ControlHandle) -> Option<Arc<ServerConfig>> {
    control.snapshot().admin.as_ref().and_then(|access| access.tls.clone())
}

/// Who asks on a connection. The names of a certificate hold for as long as what they were checked by: afterwards somebody may have taken
/// them back. `None`: they held.
fn without_names(control: &ControlHandle, peer: &Peer, checked_by: Option<&Arc<ServerConfig>>) -> Option<Peer> {
    let (Peer::Tcp { from, tls, .. }, Some(checked_by)) = (peer, checked_by) else { return None };
    let holds = tls_in_force(control).is_some_and(|tls| Arc::ptr_eq(&tls, checked_by));
    (!holds).then(|| Peer::Tcp { from: *from, tls: *tls, names: Vec::new() })
}

/// `checked_by`: what a client's certificate was checked by.
async fn serve_connection<S>(
    control: ControlHandle,
    live: Arc<Live>,
    stream: S,
    peer: Peer,
    checked_by: Option<Arc<ServerConfig>>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let peer = Arc::new(peer);
    let service = hyper::service::service_fn(|request: Request<Incoming>| {
        let (control, live, peer) = (control.clone(), Arc::clone(&live), Arc::clone(&peer));
        let nameless = without_names(&control, &peer, checked_by.as_ref());
        async move {
            let mut reply = dispatch::respond(&control, &live, nameless.as_ref().unwrap_or(&peer), request).await;
            if nameless.is_some() {
                // The next connection shows a certificate anew.
                reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(reply)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // What goes wrong on an admin connection is its client's to see.
    let _ = connection.await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::live::live;
    use crate::apply::source::Source;
    use crate::apply::testing;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_a_response_holds_a_place_for_ten_seconds() {
        let (control, _receivers) = testing::control(Source::Memory);
        let control = ControlHandle::new(Arc::new(control));
        // Less room than any response takes.
        let (mut client, served) = tokio::io::duplex(64);
        let peer = Peer::Tcp { from: ([127, 0, 0, 1], 1).into(), tls: false, names: Vec::new() };
        let served = Patient::new(served, PATIENCE);
        let connection = tokio::spawn(serve_connection(control.clone(), live(control), served, peer, None));
        let began = crate::ambient::now();
        client.write_all(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        connection.await.unwrap();
        let waited = crate::ambient::since(began);
        assert!((PATIENCE..PATIENCE * 2).contains(&waited), "{waited:?}");
    }

    #[tokio::test]
    async fn names_of_a_certificate_hold_as_long_as_what_they_were_checked_by() {
        let directory = tempfile::tempdir().unwrap();
        let [certificate, key] = ["a.pem", "a.key"].map(|name| directory.path().join(name));
        let write = || {
            let pair = rcgen::KeyPair::generate().unwrap();
            let signed =
                rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&pair).unwrap();
            std::fs::write(&certificate, signed.pem()).unwrap();
            std::fs::write(&key, pair.serialize_pem()).unwrap();
        };
        let file = format!(
            "admin: {{ address: \"127.0.0.1:1\", tls: {{ certificate: {certificate:?}, key: {key:?} }} }}\n\
             listeners: [ {{ name: l, address: \"127.0.0.1:0\", service: s }} ]\n\
             services: [ {{ name: s, backends: [ {{ id: a, address: \"127.0.0.1:9\" }} ] }} ]\n"
        );
        let (control, _receivers) = testing::control(Source::Memory);
        let control = Arc::new(control);
        write();
        control.apply(testing::config(&file)).unwrap();
        let handle = ControlHandle::new(Arc::clone(&control));
        let checked_by = tls_in_force(&handle).unwrap();
        let peer = Peer::Tcp { from: ([127, 0, 0, 1], 1).into(), tls: true, names: vec!["ops".into()] };
        control.apply(testing::config(&file)).unwrap();
        assert!(without_names(&handle, &peer, Some(&checked_by)).is_none(), "nothing has changed");
        write();
        control.apply(testing::config(&file)).unwrap();
        let nameless = without_names(&handle, &peer, Some(&checked_by));
        assert!(matches!(nameless, Some(Peer::Tcp { tls: true, names, .. }) if names.is_empty()));
        assert!(without_names(&handle, &Peer::Socket { user: 0 }, None).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_slow_to_say_what_they_want_is_waited_for_ten_seconds() {
        let (control, _receivers) = testing::control(Source::Memory);
        let control = ControlHandle::new(Arc::new(control));
        for sent in [&b""[..], b"GET /healthz HTTP/1.1\r\nHost: local"] {
            let (mut client, served) = tokio::io::duplex(1024);
            let peer = Peer::Tcp { from: ([127, 0, 0, 1], 1).into(), tls: false, names: Vec::new() };
            let served = serve_connection(control.clone(), live(control.clone()), served, peer, None);
            let (began, connection) = (crate::ambient::now(), served);
            client.write_all(sent).await.unwrap();
            connection.await;
            let waited = crate::ambient::since(began);
            assert!((PATIENCE..PATIENCE * 2).contains(&waited), "{waited:?}");
            let mut said = Vec::new();
            client.read_to_end(&mut said).await.unwrap();
            assert!(!said.starts_with(b"HTTP/1.1 200"));
        }
    }
}
