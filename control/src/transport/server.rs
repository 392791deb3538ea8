//! The called side: accepts, checks who is meant, parses, hands over, answers.

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
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::wire::{self, Call, Reply};
use super::{CLUSTER_HEADER, PING_INTERVAL, PROTOCOL, PROTOCOL_HEADER, Rpc, SMALL_BYTES_MAX, TO_NODE_HEADER};
use crate::store::record::Identity;
use crate::tls::Renewed;

/// A cluster has some ten members with four connections each.
const CONNECTIONS_MAX: usize = 256;
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
}

struct Shared<H> {
    identity: Identity,
    handler: H,
    large: Semaphore,
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
        let shared = Arc::new(Shared { identity, handler, large: Semaphore::new(LARGE_BODIES_MAX) });
        Ok(Self { task: tokio::spawn(accept(listener, tls, shared)) })
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

async fn accept<H: Handler>(listener: TcpListener, tls: Option<Renewed<rustls::ServerConfig>>, shared: Arc<Shared<H>>) {
    // Aborts its tasks when this one is aborted.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
            continue;
        }
        match listener.accept().await {
            Ok((stream, from)) => {
                let tls = tls.as_ref().map(|tls| TlsAcceptor::from(tls.current()));
                connections.spawn(serve(stream, from, tls, Arc::clone(&shared)));
            }
            Err(error) => {
                // Out of descriptors, most likely: it passes, and a loop without a pause would not help it to.
                tracing::warn!(%error, "accept a peer");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve<H: Handler>(stream: TcpStream, from: SocketAddr, tls: Option<TlsAcceptor>, shared: Arc<Shared<H>>) {
    // Only a hint to the kernel.
    let _ = stream.set_nodelay(true);
    match tls {
        None => serve_http(stream, from, shared).await,
        Some(tls) => match timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => serve_http(stream, from, shared).await,
            Ok(Err(error)) => tracing::warn!(%from, %error, "a peer's TLS handshake failed"),
            Err(_) => tracing::warn!(%from, "a peer's TLS handshake took too long"),
        },
    }
}

async fn serve_http<H: Handler, S>(stream: S, from: SocketAddr, shared: Arc<Shared<H>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request: Request<Incoming>| {
        let shared = Arc::clone(&shared);
        async move {
            let answer = shared.answer(request, from).await;
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
    async fn answer(&self, request: Request<Incoming>, from: SocketAddr) -> Result<Vec<u8>, StatusCode> {
        let rpc = Rpc::of_path(request.uri().path()).ok_or(StatusCode::NOT_FOUND)?;
        if request.method() != Method::POST {
            return Err(StatusCode::METHOD_NOT_ALLOWED);
        }
        self.is_meant(request.headers(), from)?;
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
                tracing::warn!(%from, header = name, expected, ?found, "a call is not meant for this member");
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
