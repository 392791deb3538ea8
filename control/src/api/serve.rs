//! Connections of the API, and what comes on them.

use super::auth::{self};
use super::member::Api;
use super::page;
use super::request::{Call, bounded, unescape};
use super::response::{Body, problem, problem_answer};
use super::routes;
use crate::Code;
use crate::http::Problem;
use crate::plane::unix_ms;
use crate::transport::tls::Renewed;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use ringway_places::{Ended, Place};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

/// Until a TLS handshake is done.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Until a request's head is there.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Until its body is.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest body but a backup: a transaction must fit an entry of the log.
const BODY_BYTES_MAX: usize = crate::consensus::COMMAND_BYTES_MAX;
/// What is read of a request that is refused for who sends it.
const REFUSED_BYTES_MAX: usize = 64 * 1024;
const REFUSED_TIMEOUT: Duration = Duration::from_secs(1);
/// Largest backup that is taken in.
const RESTORE_BYTES_MAX: usize = 96 << 20;

impl Api {
    /// Serves for as long as it is polled.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, tls: Option<Renewed<rustls::ServerConfig>>) {
        // Connections end with this future.
        let mut connections = tokio::task::JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            match listener.accept().await {
                Ok((stream, from)) => {
                    // Only a hint to the kernel.
                    let _ = stream.set_nodelay(true);
                    let (api, tls) = (Arc::clone(&self), tls.as_ref().map(|tls| TlsAcceptor::from(tls.current())));
                    // Without a place it is closed at once: another member may have one.
                    let Some(place) = self.places.enter(from.ip(), Instant::now()) else { continue };
                    connections.spawn(async move {
                        let served = Box::pin(Arc::clone(&api).serve_place(stream, from, tls, Arc::clone(&place)));
                        if place.hold(served).await == Ended::Evicted
                            && let Some(others) = api.evicted.due(Instant::now())
                        {
                            tracing::warn!(%from, others, "the API: too many connections without credentials, the oldest are closed");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accept on the control plane's API failed");
                    self.places.shed(Instant::now());
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn serve_place(
        self: Arc<Self>,
        stream: TcpStream,
        from: SocketAddr,
        tls: Option<TlsAcceptor>,
        place: Arc<Place>,
    ) {
        // A byte itself: that a socket is readable, a runtime may say without one.
        if !stream.peek(&mut [0]).await.is_ok_and(|count| count > 0) {
            return;
        }
        place.spoke();
        // Each part in a box of its own: ten thousand watchers wait in the last one, and should not hold the memory of a
        // handshake for as long.
        let served = match tls {
            None => Box::pin(self.connection(stream, from, Vec::new(), place)) as BoxFuture<'_, ()>,
            Some(tls) => match Box::pin(handshake(tls, stream, from)).await {
                Some((stream, names)) => Box::pin(self.connection(stream, from, names, place)),
                None => return,
            },
        };
        served.await;
    }

    /// Serves a connection until it ends; one that has asked for nothing in good time is closed, whatever it has begun with.
    async fn connection<S>(self: Arc<Self>, stream: S, from: SocketAddr, names: Vec<String>, place: Arc<Place>)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let asked = Arc::new(AtomicBool::new(false));
        let served = self.serve_one(stream, from, names, Arc::clone(&asked), place);
        tokio::pin!(served);
        let first = tokio::time::timeout(HEAD_TIMEOUT, &mut served).await;
        if first.is_err() && asked.load(Relaxed) {
            served.await;
        }
    }

    /// Not an `async fn`: its future is that of the connection, and no larger.
    fn serve_one<S>(
        self: Arc<Self>,
        stream: S,
        from: SocketAddr,
        names: Vec<String>,
        asked: Arc<AtomicBool>,
        place: Arc<Place>,
    ) -> impl Future<Output = ()> + Send
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let names = Arc::new(names);
        let service = hyper::service::service_fn(move |request| {
            asked.store(true, Relaxed);
            let (api, names, place) = (Arc::clone(&self), Arc::clone(&names), Arc::clone(&place));
            async move { Ok::<_, Infallible>(Box::pin(api.answer(request, from, &names, &place)).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(64 * 1024);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(128)
            .max_header_list_size(32 * 1024)
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(20));
        // What goes wrong on a connection is its client's to see.
        builder.serve_connection(TokioIo::new(stream), service).into_owned().map(drop)
    }

    async fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
        from: SocketAddr,
        names: &[String],
        place: &Place,
    ) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let path: Vec<String> = parts.uri.path().split('/').filter(|part| !part.is_empty()).map(unescape).collect();
        let open = page::respond(&parts).or_else(|| routes::open(self, &parts.method, &path));
        let answer = match open {
            Some(response) => Ok(response),
            None if self.gate.is_foreign(&parts) => Err(problem(
                403,
                Code::ForeignPage,
                "a page of another origin in a browser must not read or change anything here: ask by an IP address, as \
                 localhost, or with a token",
            )),
            None => self.known(&parts, path, body, from, names, place).await,
        };
        answer.unwrap_or_else(|problem| problem_answer(&problem))
    }

    async fn known(
        self: &Arc<Self>,
        parts: &http::request::Parts,
        path: Vec<String>,
        body: Incoming,
        from: SocketAddr,
        names: &[String],
        place: &Place,
    ) -> Result<Response<Body>, Problem> {
        let state = self.plane.state();
        let caller = match self.gate.caller(&state, &parts.headers, names, from, unix_ms()) {
            Ok(caller) if place.prove() => caller,
            Ok(_) => return Err(problem(503, Code::Busy, "this member has as many clients as it takes: ask another")),
            Err(problem) => {
                // A body that is left unread resets its stream, and some clients then do not look at the answer.
                let rest = Limited::new(body, REFUSED_BYTES_MAX).collect();
                let _ = tokio::time::timeout(REFUSED_TIMEOUT, rest).await;
                return Err(problem);
            }
        };
        // Its metrics tell an operator what it does all the same.
        if self.plane.is_removed() && path.iter().map(String::as_str).ne(["metrics"]) {
            return Err(problem(410, Code::Removed, "this member was removed from the control plane: ask another"));
        }
        let query = parts.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let query = query.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let query = query.map(|(name, value)| (unescape(name), unescape(value))).collect();
        let restore = parts.method == hyper::Method::POST
            && path.iter().map(String::as_str).eq(["v1", "restore"])
            && caller.role >= crate::state::Role::Admin;
        // One at a time: it is held in memory whole.
        let _alone = match restore {
            true => Some(self.restoring.lock().await),
            false => None,
        };
        let limit = if restore { RESTORE_BYTES_MAX } else { BODY_BYTES_MAX };
        let body = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, limit).collect()).await;
        let body = body.map_err(|_| problem(408, Code::Slow, "the request's body did not come"))?;
        let body = body.map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                problem(413, Code::TooLarge, format!("the request has more than {} KiB", limit >> 10))
            } else {
                problem(400, Code::BadBody, "the request's body broke off")
            }
        })?;
        let ask = Call { method: &parts.method, path, query, headers: &parts.headers, caller, from, names };
        let answer = match bounded("note", ask.parameter("note").unwrap_or_default()) {
            Ok(()) => routes::route(self, &ask, body.to_bytes()).await,
            Err(problem) => Err(problem),
        };
        let answer = answer.map_err(|problem| self.with_members(problem));
        self.audit(&ask, &answer);
        answer
    }
}

/// TLS, and the names of the client's certificate.
async fn handshake(
    tls: TlsAcceptor,
    stream: TcpStream,
    from: SocketAddr,
) -> Option<(tokio_rustls::server::TlsStream<TcpStream>, Vec<String>)> {
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            let chain = stream.get_ref().1.peer_certificates();
            let names = chain.and_then(<[_]>::first).map(auth::names).unwrap_or_default();
            return Some((stream, names));
        }
        Ok(Err(error)) => tracing::debug!(%from, %error, "a client's TLS handshake failed"),
        Err(_) => tracing::debug!(%from, "a client's TLS handshake took too long"),
    }
    None
}
