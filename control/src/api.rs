//! The API: HTTP/1.1 and HTTP/2, JSON. Described by `GET /openapi.json`; errors are RFC 9457 problems with a stable `code`.

mod audit;
mod auth;
mod metrics;
mod objects;
mod openapi;
mod owner;
mod routes;
mod stream;

use crate::Code;
use crate::consensus::MemberInfo;
use crate::http::Problem;
use crate::plane::{Plane, PlaneError, unix_ms};
use crate::state::Refusal;
use crate::transport::places::{Ended, Limits, Place, Places, Rarely};
use crate::transport::tls::Renewed;
pub use audit::AuditLog;
pub use auth::TokenError;
use auth::{Caller, Gate};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
#[cfg(test)]
pub(crate) use stream::feed;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

/// Connections at once: a fleet's watchers, and as many again. Those that have shown no credentials yet have places of their own; a fleet of
/// some thousand proxies may come from one address, behind a NAT, and all at once when another member goes.
const LIMITS: Limits = Limits {
    proven_max: 25_000,
    proven_strangers_max: 25_000,
    unproven_max: 8192,
    unproven_per_address_max: 4096,
    // A first packet that is lost is sent again after a second.
    first_byte: Duration::from_secs(2),
    proof: None,
};
/// Of a hundred descriptors, those that clients may have.
const DESCRIPTORS_SHARE: u64 = 80;
/// Until a TLS handshake is done.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Until a request's head is there.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Until its body is.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest body but a backup: a transaction must fit an entry of the log.
const BODY_BYTES_MAX: usize = crate::consensus::COMMAND_BYTES_MAX;
/// Longest text of an answer that refuses.
const DETAIL_BYTES_MAX: usize = 8 * 1024;
/// What is read of a request that is refused for who sends it.
const REFUSED_BYTES_MAX: usize = 64 * 1024;
const REFUSED_TIMEOUT: Duration = Duration::from_secs(1);
/// Largest backup that is taken in.
const RESTORE_BYTES_MAX: usize = 96 << 20;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What every request needs.
pub struct Api {
    plane: Arc<Plane>,
    gate: Gate,
    audit: Option<Mutex<AuditLog>>,
    /// This member's name and addresses.
    me: MemberInfo,
    /// What members call their cluster among themselves: a restore may have given it another name.
    identity: String,
    /// Files of this member's own certificates.
    certificates: Vec<PathBuf>,
    restoring: tokio::sync::Mutex<()>,
    places: Arc<Places>,
    evicted: Rarely,
}

/// One request, its caller known.
struct Ask<'a> {
    method: &'a hyper::Method,
    /// The path's segments, percent-decoded.
    path: Vec<String>,
    query: Vec<(String, String)>,
    headers: &'a hyper::HeaderMap,
    caller: Caller,
    from: SocketAddr,
}

impl Ask<'_> {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A parameter that is there alone, or says so.
    fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.parameter(name) {
            Some("" | "true" | "1") => Ok(true),
            None | Some("false" | "0") => Ok(false),
            Some(other) => Err(problem(400, Code::BadFlag, format!("{name}={other:?} is neither `true` nor `false`"))),
        }
    }

    fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl Api {
    /// For a member.
    ///
    /// # Errors
    /// Tokens that cannot be read.
    pub fn new(
        plane: Arc<Plane>,
        member: &ringway_config::model::Member,
        audit: Option<AuditLog>,
        me: MemberInfo,
        identity: String,
    ) -> Result<Self, TokenError> {
        let files = [&member.tls, &member.peer_tls].into_iter().flatten();
        let certificates = files.map(|files| files.certificate.clone()).collect();
        Ok(Self {
            plane,
            gate: Gate::new(member)?,
            audit: audit.map(Mutex::new),
            me,
            identity,
            certificates,
            restoring: Default::default(),
            places: Places::new(LIMITS.within_descriptors(DESCRIPTORS_SHARE)),
            evicted: Rarely::default(),
        })
    }

    /// Follows the files of the member's tokens for as long as it is polled.
    pub(crate) fn follow_tokens(
        &self,
        member: &ringway_config::model::Member,
    ) -> impl Future<Output = ()> + Send + use<> {
        self.gate.follow(member)
    }

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
        if stream.readable().await.is_err() {
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
        let open = routes::open(self, &parts.method, &path);
        let answer = match open {
            Some(response) => Ok(response),
            None if self.gate.is_foreign(&parts) => Err(problem(
                403,
                Code::ForeignPage,
                "a page of another origin in a browser must not change anything here: ask by an IP address, as localhost, or \
                 with a token",
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
        let ask = Ask { method: &parts.method, path, query, headers: &parts.headers, caller, from };
        let answer = match bounded("note", ask.parameter("note").unwrap_or_default()) {
            Ok(()) => routes::route(self, &ask, body.to_bytes()).await,
            Err(problem) => Err(problem),
        };
        let answer = answer.map_err(|problem| self.with_members(problem));
        self.audit(&ask, &answer);
        answer
    }

    /// An operator's next question, where none leads: who is missing?
    fn with_members(&self, mut problem: Problem) -> Problem {
        if problem.is(Code::NoLeader) {
            let seen = self.plane.who_answers();
            problem.detail = format!("{}. Members, as {} sees them: {seen}", problem.detail, self.me.name);
        }
        problem
    }

    /// A line for each change that was asked for, whatever came of it.
    fn audit(&self, ask: &Ask<'_>, answer: &Result<Response<Body>, Problem>) {
        // Signs of life change nothing, and would bury what does.
        let path: Vec<&str> = ask.path.iter().map(String::as_str).collect();
        let alive = matches!(path[..], ["v1", "proxies", _] | ["v1", "leases", _]) && ask.method == hyper::Method::PUT;
        if alive || matches!(*ask.method, hyper::Method::GET | hyper::Method::HEAD) {
            return;
        }
        let (status, code) = match answer {
            Ok(response) => (response.status().as_u16(), ""),
            Err(problem) => (problem.status, problem.code.as_str()),
        };
        let path = format!("/{}", ask.path.join("/"));
        let role = auth::role_name(ask.caller.role);
        match &self.audit {
            None => tracing::info!(
                target: "audit", caller = ask.caller.name, role, from = %ask.from, method = %ask.method, path, status, code, "asked"
            ),
            Some(file) => {
                let line = serde_json::json!({
                    "unix_ms": unix_ms(), "caller": ask.caller.name, "role": role, "from": ask.from.to_string(),
                    "method": ask.method.as_str(), "path": path, "status": status, "code": code,
                });
                let mut log = file.lock().unwrap_or_else(PoisonError::into_inner);
                if let Err(error) = log.write(&ringway_config::plain::lines(&line.to_string())) {
                    tracing::error!(%error, %line, "the audit log cannot be written");
                }
            }
        }
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

/// What somebody says of a change is remembered, and shown to others: it has a size.
fn bounded(what: &str, text: &str) -> Result<(), Problem> {
    if text.len() <= crate::state::NOTE_BYTES_MAX {
        return Ok(());
    }
    Err(problem(413, Code::TooLarge, format!("a {what} has at most {} bytes", crate::state::NOTE_BYTES_MAX)))
}

fn problem(status: u16, code: Code, detail: impl Into<String>) -> Problem {
    Problem::new(status, code, detail)
}

impl From<PlaneError> for Problem {
    fn from(error: PlaneError) -> Self {
        match error {
            PlaneError::NoLeader => problem(503, Code::NoLeader, error.to_string()),
            PlaneError::Unknown => problem(504, Code::UnknownOutcome, error.to_string()),
            PlaneError::Refused(refusal) => refusal.into(),
            PlaneError::Member(why) => problem(409, Code::Members, why),
            PlaneError::Internal(why) => problem(500, Code::Internal, why),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        // What a later version refuses, it refuses for what the request says.
        let status = Code::of(&refusal.code).map_or(422, status);
        Self { status, code: refusal.code, detail: refusal.message, findings: refusal.findings }
    }
}

/// Of a text, what fits into so many bytes.
fn cut(text: &mut String, bytes_max: usize) {
    let end = (0..=bytes_max.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    text.truncate(end.unwrap_or(0));
}

/// Of a refusal. What is refused before anything is proposed may have another, nearer to what is wrong with the request.
fn status(code: Code) -> u16 {
    match code {
        Code::BadBody
        | Code::BadCondition
        | Code::BadConsistency
        | Code::BadFlag
        | Code::BadNumber
        | Code::BadPosition => 400,
        Code::BadToken | Code::ExpiredToken | Code::NoToken => 401,
        Code::ForeignPage | Code::NotYours | Code::WrongRole => 403,
        Code::NotFound | Code::UnknownPath | Code::UnknownRevision => 404,
        Code::BadMethod => 405,
        Code::Slow => 408,
        Code::Locked
        | Code::WrongToken
        | Code::RolloutActive
        | Code::RolloutOver
        | Code::WrongStage
        | Code::Initialized
        | Code::GuardEmpty
        | Code::GuardLoss
        | Code::Deposed
        | Code::Members
        | Code::OtherCluster
        | Code::RestoreOrder => 409,
        Code::Removed => 410,
        Code::Stale => 412,
        Code::TooLarge | Code::TooMany => 413,
        Code::BadAddress
        | Code::BadCertificate
        | Code::BadEpoch
        | Code::BadName
        | Code::BadPolicy
        | Code::BadTtl
        | Code::CertificateExpired
        | Code::Damaged
        | Code::IdempotencyMismatch
        | Code::Invalid
        | Code::Known
        | Code::Moved
        | Code::OutOfRange
        | Code::Unjudged
        | Code::UnknownRules
        | Code::WrongKind => 422,
        // The last are said by the command line alone.
        Code::Internal | Code::Http | Code::NoMember | Code::QuorumAlive | Code::Recover | Code::Running => 500,
        Code::Busy | Code::NoLeader | Code::Stopped => 503,
        Code::UnknownOutcome => 504,
    }
}

fn problem_answer(problem: &Problem) -> Response<Body> {
    // What is wrong is often told with what was sent, and that may be long.
    let mut problem = problem.clone();
    for text in problem.findings.iter_mut().chain([&mut problem.detail]) {
        cut(text, DETAIL_BYTES_MAX);
    }
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let text = serde_json::to_string(&problem).expect("invariant: a problem is texts and a number under names");
    let mut response = full(status, "application/problem+json", text);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    }
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
    }
    response
}

fn json(value: &serde_json::Value) -> Response<Body> {
    full(StatusCode::OK, "application/json", format!("{value}\n"))
}

fn full(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

/// Percent-decoding; what is no escape stands for itself, what is no UTF-8 is replaced.
fn unescape(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// A time as in files, in milliseconds.
fn duration_ms(text: &str) -> Option<u64> {
    u64::try_from(ringway_config::parse_duration(text)?.as_millis()).ok()
}
