//! Connections of the admin listener and of its Unix socket.

use super::access::{Caller, Denial, Names, Peer};
use super::live::Live;
use super::patient::Patient;
use super::reply::EndsBy;
use super::{access, dispatch};
use crate::ambient;
use crate::apply::handle::ControlHandle;
use crate::net::shortage::{Operation, is_of_one_connection};
use crate::net::tls::names_shown;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper_util::rt::{TokioIo, TokioTimer};
use ringway_places::{Ended, Limits, Place, Places, Rarely};
use ringway_telemetry::catalogue;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// Admin connections at once: a reserve of its own, which client connections cannot use up. The Unix socket has as many.
const CONNECTIONS_MAX: usize = 64;
/// Until a TLS handshake is done, until a request's head is there, and for a client that reads nothing of a response.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where all places are taken, newcomers wait in the kernel's queue, this long for each that says nothing, and for each that has begun: enough for
/// who means to ask something, and little enough for hundreds of others to be gone through within a probe's time.
const SILENT_GRACE: Duration = Duration::from_millis(20);
const SPOKEN_GRACE: Duration = Duration::from_millis(250);
/// Between two looks whether there is a place.
const LOOK: Duration = Duration::from_millis(1);
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

impl Accepted {
    /// Whose it is: all users of the socket are one.
    fn address(&self) -> IpAddr {
        match self {
            Self::Tcp(_, from) => from.ip(),
            Self::Unix(_) => Ipv4Addr::UNSPECIFIED.into(),
        }
    }
}

impl Socket {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(socket) => socket.accept().await.map(|(stream, from)| Accepted::Tcp(stream, from)),
            Self::Unix(socket) => socket.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
        }
    }
}

/// Who may be there at once: as many as `most`, half of them without having shown who they are, and of these not all from one address, so that
/// whoever says nothing, or asks for what does not end, keeps no probe out.
fn limits(most: usize) -> Limits {
    let unproven_max = most.div_ceil(2).max(2);
    Limits {
        proven_max: (most / 2).max(1),
        proven_strangers_max: (most / 2).max(1),
        unproven_max,
        unproven_per_address_max: unproven_max - unproven_max.div_ceil(4),
        silent_grace: SILENT_GRACE,
        spoken_grace: SPOKEN_GRACE,
        first_byte: PATIENCE,
        // Heads, bodies and responses have their times.
        proof: None,
    }
}

/// Serves one of the admin listener's sockets for as long as the process lives.
pub(crate) async fn serve(control: ControlHandle, live: Arc<Live>, socket: Socket) {
    access::declare_metrics();
    let places = Places::new(limits(control.shortage().admin_connections_max(CONNECTIONS_MAX)));
    let evicted = Arc::new(Rarely::default());
    let count = move |places: &Places| {
        metrics::counter!(catalogue::ADMIN_EVICTED.name).increment(1);
        if let Some(others) = evicted.due(ambient::now().into()) {
            let unproven = places.unproven().0;
            tracing::warn!(
                unproven,
                others,
                "the admin listener is full: the oldest connections without credentials are closed"
            );
        }
    };
    loop {
        match socket.accept().await {
            Ok(accepted) => {
                let address = accepted.address();
                let place = loop {
                    match places.enter(address, ambient::now().into()) {
                        Some(place) => break place,
                        None => tokio::time::sleep(LOOK).await,
                    }
                };
                let (control, live, count, places) =
                    (control.clone(), Arc::clone(&live), count.clone(), Arc::clone(&places));
                drop(tokio::spawn(async move {
                    let held = Arc::clone(&place);
                    let served: Pin<Box<dyn Future<Output = ()> + Send>> = match accepted {
                        Accepted::Tcp(stream, from) => Box::pin(serve_tcp(control, live, stream, from, held)),
                        Accepted::Unix(stream) => Box::pin(serve_local(control, live, stream, held)),
                    };
                    if place.hold(served).await == Ended::Evicted {
                        count(&places);
                    }
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

async fn serve_tcp(control: ControlHandle, live: Arc<Live>, stream: TcpStream, from: SocketAddr, place: Arc<Place>) {
    // A byte itself: that a socket is readable, a runtime may say without one.
    if !stream.peek(&mut [0]).await.is_ok_and(|count| count > 0) {
        return;
    }
    place.spoke();
    // As the version in force has it: a certificate that is replaced is shown to the next client.
    let tls = control.snapshot().admin_tls().map(Arc::clone);
    let stream = Patient::new(stream, PATIENCE);
    let Some(tls) = tls else {
        let peer = Peer::Tcp { from, tls: false, names: Names::default() };
        return serve_connection(control, live, stream, peer, Some(place)).await;
    };
    match tokio::time::timeout(PATIENCE, TlsAcceptor::from(Arc::clone(&tls.config)).accept(stream)).await {
        Ok(Ok(stream)) => {
            let chain = stream.get_ref().1.peer_certificates();
            let names = chain.and_then(<[_]>::first).map(names_shown).unwrap_or_default();
            let names = Names::new(names, tls);
            serve_connection(control, live, stream, Peer::Tcp { from, tls: true, names }, Some(place)).await;
        }
        Ok(Err(error)) => {
            let peer = Peer::Tcp { from, tls: true, names: Names::default() };
            Denial::Handshake.note_why(&control, &peer, &error.to_string());
        }
        Err(_) => {
            let peer = Peer::Tcp { from, tls: true, names: Names::default() };
            Denial::Handshake.note_why(&control, &peer, "it is not done in time");
        }
    }
}

async fn serve_local(control: ControlHandle, live: Arc<Live>, stream: UnixStream, place: Arc<Place>) {
    let Ok(user) = stream.peer_cred().map(|who| who.uid()) else { return };
    if stream.readable().await.is_err() {
        return;
    }
    place.spoke();
    serve_connection(control, live, Patient::new(stream, PATIENCE), Peer::Socket { user }, Some(place)).await;
}

/// `place`: made sure of once a request has shown who asks.
async fn serve_connection<S>(control: ControlHandle, live: Arc<Live>, stream: S, peer: Peer, place: Option<Arc<Place>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let peer = Arc::new(peer);
    let (end, ends) = watch::channel(None);
    let (end, closing) = (&end, HeaderValue::from_static("close"));
    let service = hyper::service::service_fn(|request: Request<Incoming>| {
        let (control, live, peer, closing) = (control.clone(), Arc::clone(&live), Arc::clone(&peer), closing.clone());
        if let Some(place) = &place
            && Caller::of(&control, &peer, request.headers()).is_ok_and(|caller| caller.is_known())
        {
            // One that finds no room among those that are known keeps the place that it has.
            let _ = place.prove();
        }
        async move {
            let has_lapsed = matches!(&*peer, Peer::Tcp { names, .. } if names.have_lapsed(&control.snapshot()));
            let mut reply = dispatch::respond(&control, &live, &peer, request).await;
            if has_lapsed {
                // The next connection shows a certificate anew.
                reply.headers_mut().insert(CONNECTION, closing.clone());
            }
            if let Some(EndsBy(at)) = reply.extensions().get().copied() {
                reply.headers_mut().insert(CONNECTION, closing);
                end.send_replace(Some(at));
            }
            Ok::<_, Infallible>(reply)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // What goes wrong on an admin connection is its client's to see.
        _ = connection => {}
        // Who reads slowly keeps the place that a response has no longer than that.
        () = over(ends) => {}
    }
}

/// Waits until a connection is to end, if it ever is.
async fn over(mut ends: watch::Receiver<Option<Instant>>) {
    let at = ends.wait_for(Option::is_some).await.ok().and_then(|at| *at);
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::live::live;
    use crate::apply::source::Source;
    use crate::apply::testing;
    use std::path::Path;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_a_response_holds_a_place_for_ten_seconds() {
        let (control, _receivers) = testing::control(Source::Memory);
        let control = ControlHandle::new(Arc::new(control));
        // Less room than any response takes.
        let (mut client, served) = tokio::io::duplex(64);
        let peer = Peer::Tcp { from: ([127, 0, 0, 1], 1).into(), tls: false, names: Names::default() };
        let served = Patient::new(served, PATIENCE);
        let connection = tokio::spawn(serve_connection(control.clone(), live(control), served, peer, None));
        let began = ambient::now();
        client.write_all(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        connection.await.unwrap();
        let waited = ambient::since(began);
        assert!((PATIENCE..PATIENCE * 2).contains(&waited), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_a_tap_byte_by_byte_has_its_place_no_longer_than_it_lasts() {
        let (control, _receivers) = testing::control(Source::Memory);
        let control = ControlHandle::new(Arc::new(control));
        let places = control.tap_places().available_permits();
        let (mut client, served) = tokio::io::duplex(64);
        let (served, peer) = (Patient::new(served, PATIENCE), Peer::Socket { user: 0 });
        let connection = tokio::spawn(serve_connection(control.clone(), live(control.clone()), served, peer, None));
        let began = ambient::now();
        let body = "{\"for_seconds\": 5}";
        let request = format!("POST /tap HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        client.write_all(request.as_bytes()).await.unwrap();
        let reader = tokio::spawn(async move {
            let mut said = String::new();
            loop {
                // Often enough for a connection's patience.
                tokio::time::sleep(PATIENCE / 2).await;
                match client.read_u8().await {
                    Ok(byte) => said.push(char::from(byte)),
                    Err(_) => return said,
                }
            }
        });
        connection.await.unwrap();
        let lasted = ambient::since(began);
        assert!((PATIENCE..PATIENCE * 2).contains(&lasted), "{lasted:?}");
        assert_eq!(control.tap_places().available_permits(), places);
        assert!(reader.await.unwrap().starts_with("HTTP/1.1 200 OK"));
    }

    #[tokio::test]
    async fn names_of_a_certificate_hold_as_long_as_the_authorities_that_they_were_checked_by() {
        let directory = tempfile::tempdir().unwrap();
        let [certificate, key, authority] = ["a.pem", "a.key", "ca.pem"].map(|name| directory.path().join(name));
        let write = |certificate: &Path| {
            let pair = rcgen::KeyPair::generate().unwrap();
            let signed =
                rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&pair).unwrap();
            std::fs::write(certificate, signed.pem()).unwrap();
            std::fs::write(&key, pair.serialize_pem()).unwrap();
        };
        let file = |weight: u32| {
            format!(
                "admin: {{ address: \"127.0.0.1:1\", tls: {{ certificate: {certificate:?}, key: {key:?}, client_ca: {authority:?} }} }}\n\
                 listeners: [ {{ name: l, address: \"127.0.0.1:0\", service: s }} ]\n\
                 services: [ {{ name: s, backends: [ {{ id: a, address: \"127.0.0.1:9\", weight: {weight} }} ] }} ]\n"
            )
        };
        let (control, _receivers) = testing::control(Source::Memory);
        let control = Arc::new(control);
        write(&authority);
        write(&certificate);
        control.apply(testing::config(&file(1))).unwrap();
        let handle = ControlHandle::new(Arc::clone(&control));
        let names = Names::new(vec!["ops".into()], Arc::clone(handle.snapshot().admin_tls().unwrap()));
        // Another version, and another certificate of its own.
        control.apply(testing::config(&file(2))).unwrap();
        write(&certificate);
        control.apply(testing::config(&file(2))).unwrap();
        assert_eq!(handle.snapshot().generation, 3);
        assert!(!names.have_lapsed(&handle.snapshot()));
        std::fs::copy(&certificate, &authority).unwrap();
        control.apply(testing::config(&file(2))).unwrap();
        assert!(names.have_lapsed(&handle.snapshot()));
        assert!(!Names::default().have_lapsed(&handle.snapshot()));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_slow_to_say_what_they_want_is_waited_for_ten_seconds() {
        let (control, _receivers) = testing::control(Source::Memory);
        let control = ControlHandle::new(Arc::new(control));
        for sent in [&b""[..], b"GET /healthz HTTP/1.1\r\nHost: local"] {
            let (mut client, served) = tokio::io::duplex(1024);
            let peer = Peer::Tcp { from: ([127, 0, 0, 1], 1).into(), tls: false, names: Names::default() };
            let served = serve_connection(control.clone(), live(control.clone()), served, peer, None);
            let (began, connection) = (ambient::now(), served);
            client.write_all(sent).await.unwrap();
            connection.await;
            let waited = ambient::since(began);
            assert!((PATIENCE..PATIENCE * 2).contains(&waited), "{waited:?}");
            let mut said = Vec::new();
            client.read_to_end(&mut said).await.unwrap();
            assert!(!said.starts_with(b"HTTP/1.1 200"));
        }
    }
}
