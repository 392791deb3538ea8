//! The called side: accepts, checks which member is meant, parses, hands over, answers.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;

use super::wire::{self, Call, Reply};
use super::{CLUSTER_HEADER, PING_INTERVAL, PROTOCOL, PROTOCOL_HEADER, Rpc, SMALL_BYTES_MAX, TO_NODE_HEADER};
use crate::store::record::Identity;
use crate::transport::tls::Renewed;
use ringway_places::{Ended, Limits, Place, Places, Rarely};

/// A cluster has some ten members with four connections each; members that are known from their addresses have half of these for
/// themselves. Who has proven nothing yet has places of its own, of which known addresses have some that strangers cannot take.
const LIMITS: Limits = Limits {
    proven_max: 256,
    proven_strangers_max: 128,
    unproven_max: 1024,
    unproven_per_address_max: 256,
    silent_grace: Duration::ZERO,
    spoken_grace: Duration::from_secs(1),
    // A first packet that is lost is sent again after a second.
    first_byte: Duration::from_secs(2),
    proof: Some(Duration::from_secs(10)),
};
/// Of a hundred descriptors, those that other members may have.
const DESCRIPTORS_SHARE: u64 = 10;
/// Bodies past [`SMALL_BYTES_MAX`] that are in memory at a time.
const LARGE_BODIES_MAX: usize = 8;
const STREAMS_MAX: u32 = 32;
/// A handshake that takes longer is not a member's.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// A whole body has to arrive within this; a snapshot of 80 MiB does at 11 Mbit/s.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Longer than the caller's: a loaded follower is the leader's to judge.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// What serves the calls.
pub trait Handler: Send + Sync + 'static {
    /// Answers a call with the reply of the same name; `None` where the member has stopped.
    fn handle(&self, call: Call) -> impl Future<Output = Option<Reply>> + Send;
}

/// The listener and its connections; ends with [`Server::stop`], or with its drop.
pub struct Server {
    task: JoinHandle<()>,
    places: Arc<Places>,
}

struct Shared<H> {
    identity: Identity,
    handler: H,
    large: Semaphore,
    /// What strangers can cause is not told each time.
    failed: Rarely,
    evicted: Rarely,
    not_meant: Rarely,
}

impl Server {
    /// Serves `handler` on a listener.
    pub fn start<H: Handler>(
        listener: std::net::TcpListener,
        tls: Option<Renewed<rustls::ServerConfig>>,
        identity: Identity,
        handler: H,
    ) -> std::io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let shared = Arc::new(Shared {
            identity,
            handler,
            large: Semaphore::new(LARGE_BODIES_MAX),
            failed: Rarely::default(),
            evicted: Rarely::default(),
            not_meant: Rarely::default(),
        });
        let places = Places::new(LIMITS.within_descriptors(DESCRIPTORS_SHARE));
        Ok(Self { task: tokio::spawn(accept(listener, tls, shared, Arc::clone(&places))), places })
    }

    /// Where connections have their places.
    pub(crate) fn places(&self) -> &Arc<Places> {
        &self.places
    }

    /// Closes the listener and every connection.
    pub async fn stop(mut self) {
        self.task.abort();
        // Aborted: the error says just that.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept<H: Handler>(
    listener: TcpListener,
    tls: Option<Renewed<rustls::ServerConfig>>,
    shared: Arc<Shared<H>>,
    places: Arc<Places>,
) {
    // Aborts its tasks when this one is aborted.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, from)) => {
                // Without a place it is closed at once: a member that is meant to call calls again.
                let Some(place) = places.enter(from.ip(), Instant::now()) else { continue };
                let tls = tls.as_ref().map(|tls| TlsAcceptor::from(tls.current()));
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    let served = Box::pin(serve(stream, from, tls, Arc::clone(&shared), Arc::clone(&place)));
                    let ended = place.hold(served).await;
                    if ended != Ended::Served
                        && let Some(others) = shared.evicted.due(Instant::now())
                    {
                        tracing::warn!(%from, ?ended, others, "a connection that has not shown whose it is was closed");
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: it passes, and a loop without a pause would not help it to.
                tracing::warn!(%error, "accept a peer");
                places.shed(Instant::now());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve<H: Handler>(
    stream: TcpStream,
    from: SocketAddr,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared<H>>,
    place: Arc<Place>,
) {
    // Only a hint to the kernel.
    let _ = stream.set_nodelay(true);
    // A byte itself: that a socket is readable, a runtime may say without one.
    if !stream.peek(&mut [0]).await.is_ok_and(|count| count > 0) {
        return;
    }
    place.spoke();
    let Some(tls) = tls else { return serve_http(stream, from, shared, place).await };
    let failed = match timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
        // It has a certificate of a member's: that is what the handshake asks for.
        Ok(Ok(stream)) if place.prove() => return serve_http(stream, from, shared, place).await,
        Ok(Ok(_)) => "all places are taken".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it took too long".to_owned(),
    };
    if let Some(others) = shared.failed.due(Instant::now()) {
        tracing::warn!(%from, error = failed, others, "a peer's TLS handshake failed");
    }
}

async fn serve_http<H: Handler, S>(stream: S, from: SocketAddr, shared: Arc<Shared<H>>, place: Arc<Place>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request: Request<Incoming>| {
        let (shared, place) = (Arc::clone(&shared), Arc::clone(&place));
        async move {
            let answer = shared.answer(request, from, &place).await;
            let response = match answer {
                Ok(body) => Response::new(Full::new(Bytes::from(body))),
                Err(status) => {
                    let mut response = Response::new(Full::default());
                    *response.status_mut() = status;
                    response
                }
            };
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(8 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%from, %error, "a peer's connection ended");
    }
}

impl<H: Handler> Shared<H> {
    async fn answer(&self, request: Request<Incoming>, from: SocketAddr, place: &Place) -> Result<Vec<u8>, StatusCode> {
        let rpc = Rpc::of_path(request.uri().path()).ok_or(StatusCode::NOT_FOUND)?;
        if request.method() != Method::POST {
            return Err(StatusCode::METHOD_NOT_ALLOWED);
        }
        self.is_meant(request.headers(), from)?;
        // Without TLS, to know whom one calls is all the proof there is.
        if !place.prove() {
            return Err(StatusCode::SERVICE_UNAVAILABLE);
        }
        let length = length(request.headers()).ok_or(StatusCode::LENGTH_REQUIRED)?;
        if length > rpc.bytes_max() {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        // Held until the call is answered: until then its content is in memory.
        let _permit = if length > SMALL_BYTES_MAX {
            Some(self.large.acquire().await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?)
        } else {
            None
        };
        let body = Limited::new(request.into_body(), usize::try_from(length).unwrap_or(usize::MAX)).collect();
        let body = timeout(BODY_TIMEOUT, body).await.map_err(|_| StatusCode::REQUEST_TIMEOUT)?;
        let body = body.map_err(|_| StatusCode::BAD_REQUEST)?.to_bytes();
        handle(&self.handler, rpc, body, from).await
    }

    /// 409 unless cluster, member and protocol are ours.
    fn is_meant(&self, headers: &HeaderMap, from: SocketAddr) -> Result<(), StatusCode> {
        let node = self.identity.node.to_string();
        let expected = [
            (CLUSTER_HEADER, self.identity.cluster.as_str()),
            (TO_NODE_HEADER, node.as_str()),
            (PROTOCOL_HEADER, PROTOCOL),
        ];
        for (name, expected) in expected {
            let found = headers.get(name);
            if found.is_none_or(|found| found.as_bytes() != expected.as_bytes()) {
                if let Some(others) = self.not_meant.due(Instant::now()) {
                    tracing::warn!(%from, header = name, expected, ?found, others, "a call is not meant for this member");
                }
                return Err(StatusCode::CONFLICT);
            }
        }
        Ok(())
    }
}

/// A call's body in, its answer's body out.
pub(super) async fn handle<H: Handler>(
    handler: &H,
    rpc: Rpc,
    body: Bytes,
    from: impl fmt::Display,
) -> Result<Vec<u8>, StatusCode> {
    let call = wire::parse(rpc, body).map_err(|error| {
        tracing::warn!(%from, path = rpc.path(), %error, "a peer's call does not parse");
        StatusCode::BAD_REQUEST
    })?;
    let reply = handler.handle(call).await.ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
    wire::answer(rpc, &reply).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
