//! A client's TCP session: one backend, chosen by the client's address, for its whole life.

use crate::buffers::Buffer;
use crate::error::ProxyError;
use crate::http::Peer;
use crate::inflight::{self, InFlight};
use crate::stream::Stream;
use crate::timer::Timer;
use crate::tunnel::{self, End, Way};
use crate::upstream::{ConnectionSlot, Reach};
use crate::worker::{OpenConnection, View};
use crate::{key, request};
use ringway_config::model::{HostMatch, KeySource, Protocol, TcpListener};
use ringway_health::Outcome;
use ringway_ring::{Ask, Selection};
use ringway_telemetry::access::Value;
use ringway_telemetry::cells::SESSION;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

/// How long a client may take to say which server it wants.
const HELLO_TIME: Duration = Duration::from_secs(10);
/// Longest first message of a client.
const HELLO_BYTES_MAX: usize = 64 * 1024;
/// A fatal alert: unrecognized_name.
const UNRECOGNIZED_NAME: &[u8] = &[0x15, 3, 3, 0, 2, 2, 112];

/// A session as the access log tells it.
struct Session {
    started: Instant,
    service: usize,
    hash: Option<u64>,
    selection: Selection,
    retries: u32,
    backend: Option<usize>,
    up_bytes: u64,
    down_bytes: u64,
}

/// Serves a session to its end.
pub(crate) async fn serve(open: Rc<OpenConnection>, mut stream: Stream, peer: &Peer, view: Rc<View>, listener: usize) {
    let Protocol::Tcp(tcp) = &view.snapshot.config.listeners[listener].protocol else { return };
    let worker = Rc::clone(&open.worker);
    let timer = worker.timer();
    let mut hello = Buffer::default();
    let mut named = None;
    if peer.server_name.is_none() && matches!(stream, Stream::Plain(_)) && wants_name(tcp, &view) {
        hello = worker.buffers.take();
        timer.set(HELLO_TIME);
        match client_hello(&mut stream, &mut hello, &timer).await {
            Some(name) => named = name,
            None => {
                worker.shared.cells.error("", "client_hello");
                worker.buffers.give(hello);
                return;
            }
        }
    }
    let server_name = peer.server_name.as_deref().or(named.as_deref());
    let Some(service) = service_of(tcp, server_name) else {
        // RFC 6066, 3: the name is not known here.
        let _ = stream.write_all(UNRECOGNIZED_NAME).await;
        worker.shared.cells.error("", "unknown_server_name");
        worker.buffers.give(hello);
        return;
    };
    let this = &view.services[service];
    let chance = worker.random();
    let hash = this.service.hashes().then(|| hash_of(&this.service, peer, server_name));
    let mut session = Session {
        started: Instant::now(),
        service,
        hash,
        selection: this.service.group.begin(Ask {
            hash: hash.unwrap_or(chance),
            chance,
            now_millis: worker.millis(),
            owners: 0,
        }),
        retries: 0,
        backend: None,
        up_bytes: 0,
        down_bytes: 0,
    };
    let admission = admit(&this.service, &worker, peer.address);
    let connected = match &admission {
        Ok(_) => connect(&view, &mut session, &worker, &timer, peer).await,
        Err(error) => Err(*error),
    };
    let reason = match connected {
        Err(error) => {
            worker.shared.cells.error(&this.service.config.name, error.reason());
            this.cells.requests[0].increment();
            // Nothing can be said on a TCP connection but that it is over.
            stream.abort();
            error.reason()
        }
        Ok(Connected { guard, stream: mut backend, slot: _slot, falls }) => {
            guard.report(Outcome::Success);
            if session.selection.spills() > 0 {
                this.cells.spills.increment();
            }
            if session.hash.is_some() {
                this.cells.keyed.increment();
                this.cells.distance.add(u64::from(session.selection.spills() + session.selection.skipped()));
                if session.selection.owner() == Some(guard.slot) {
                    this.cells.owned.increment();
                }
            }
            let timeouts = &this.service.config.timeouts;
            let limits = tunnel::Limits { idle: timeouts.idle, session: timer.deadline(timeouts.session) };
            let (mut up, mut down) = (Way::new(std::mem::take(&mut hello)), Way::new(<_>::default()));
            let state = Arc::clone(&this.service.backends[guard.index()].state);
            let relay = tunnel::relay(&mut stream, &mut backend, &mut up, &mut down, &worker, &timer, &limits);
            let end = if this.service.config.close_on_down {
                // Whoever is told to go connects anew, and finds another.
                tokio::select! {
                    end = relay => end,
                    () = state.down.after(falls) => End::BackendDown,
                }
            } else {
                relay.await
            };
            (session.up_bytes, session.down_bytes) = (up.moved, down.moved);
            worker.cells.received_bytes.add(up.moved);
            worker.cells.sent_bytes.add(down.moved);
            this.cells.requests[SESSION].increment();
            drop(guard);
            match end {
                End::Closed => "closed",
                End::Reset => "reset",
                End::TimedOut => "session_timeout",
                End::BackendDown => {
                    stream.abort();
                    "backend_down"
                }
            }
        }
    };
    this.cells.durations.record(session.started.elapsed());
    log(&open, &view, &session, peer, reason);
}

/// Whether the name that a TLS client asks for matters.
fn wants_name(tcp: &TcpListener, view: &View) -> bool {
    let hashes_name = |service: usize| view.services[service].service.config.hash_key.contains(&KeySource::Sni);
    !tcp.names.is_empty() || tcp.service.is_some_and(hashes_name)
}

fn service_of(tcp: &TcpListener, server_name: Option<&str>) -> Option<usize> {
    let name = server_name.unwrap_or_default();
    // With or without the dot of the root, it is one name.
    let name = name.strip_suffix('.').unwrap_or(name);
    let found = tcp.names.iter().find(|(host, _)| match host {
        HostMatch::Exact(host) => host == name,
        HostMatch::Suffix(suffix) => name.len() > suffix.len() && name.ends_with(suffix.as_str()),
    });
    found.map(|(_, service)| *service).or(tcp.service)
}

/// Reads a client's first TLS message, which stays in the buffer, to pass on; gives the name that it asks for. `None`: it is no
/// such message, or does not come in time.
async fn client_hello(stream: &mut Stream, hello: &mut Buffer, timer: &Timer) -> Option<Option<String>> {
    let mut acceptor = rustls::server::Acceptor::default();
    poll_fn(|context| {
        loop {
            let before = hello.len();
            match hello.poll_read(stream, HELLO_BYTES_MAX, context) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(None),
                Poll::Pending if timer.poll_fired(context) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
            let mut fresh = &hello.bytes()[before..];
            while !fresh.is_empty() {
                if !matches!(acceptor.read_tls(&mut fresh), Ok(1..)) {
                    return Poll::Ready(None);
                }
                match acceptor.accept() {
                    Ok(None) => {}
                    Ok(Some(accepted)) => {
                        let name = accepted.client_hello().server_name().map(str::to_ascii_lowercase);
                        return Poll::Ready(Some(name));
                    }
                    Err(_) => return Poll::Ready(None),
                }
            }
        }
    })
    .await
}

/// One session of a service that limits them.
struct Admission(Arc<crate::snapshot::ServiceLive>);

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.admitted.fetch_sub(1, Relaxed);
    }
}

/// The service's limits on the rate and number of sessions. Of the sources of a rate's key, a session has its address.
fn admit(
    service: &crate::snapshot::Service,
    worker: &crate::worker::Worker,
    peer: SocketAddr,
) -> Result<Option<Admission>, ProxyError> {
    if let (Some(limit), Some(limiter)) = (&service.config.rate_limit, &service.limiter)
        && let Some((v4_bits, v6_bits)) = address_bits(&limit.key)
    {
        let mut text = Vec::new();
        key::address_key(peer.ip(), v4_bits, v6_bits, &mut text);
        let hash = ringway_ring::hash_key(&text, worker.shared.secret);
        if limiter.admit(hash, worker.shared.started.elapsed()).is_err() {
            return Err(ProxyError::RateLimited { seconds: 1 });
        }
    }
    if service.config.requests_max == u32::MAX {
        return Ok(None);
    }
    let admission = Admission(Arc::clone(&service.live));
    if service.live.admitted.fetch_add(1, Relaxed) >= service.config.requests_max {
        return Err(ProxyError::ServiceFull);
    }
    Ok(Some(admission))
}

fn address_bits(sources: &[KeySource]) -> Option<(u8, u8)> {
    sources.iter().find_map(|source| match source {
        KeySource::SourceIp { v4_bits, v6_bits } => Some((*v4_bits, *v6_bits)),
        _ => None,
    })
}

fn hash_of(service: &crate::snapshot::Service, peer: &Peer, server_name: Option<&str>) -> u64 {
    // Of all the sources, a TCP session has the name that it asks for and an address.
    for source in &service.config.hash_key {
        match (source, server_name) {
            (KeySource::Sni, Some(name)) => return ringway_ring::hash_key(name.as_bytes(), service.seed()),
            (KeySource::SourceIp { .. }, _) => break,
            _ => {}
        }
    }
    let (v4_bits, v6_bits) = address_bits(&service.config.hash_key).unwrap_or((32, 128));
    let mut text = Vec::new();
    key::address_key(peer.ip(), v4_bits, v6_bits, &mut text);
    ringway_ring::hash_key(&text, service.seed())
}

/// A backend, with a connection to it.
struct Connected {
    guard: InFlight,
    stream: Stream,
    slot: ConnectionSlot,
    /// Number of the service's last fall of a backend before this one was chosen.
    falls: u64,
}

/// A connection to the first backend of the walk that takes one: nothing has been sent, so any may be tried.
async fn connect(
    view: &Rc<View>,
    session: &mut Session,
    worker: &Rc<crate::worker::Worker>,
    timer: &Timer,
    peer: &Peer,
) -> Result<Connected, ProxyError> {
    let this = &view.services[session.service];
    let config = &this.service.config;
    let mut last_error = None;
    loop {
        // Before the choice: while the connection is being made, the backend may go down.
        let falls = this.service.live.falls.load(SeqCst);
        let selection = &mut session.selection;
        let limit = crate::timer::Deadline::NEVER;
        let found = inflight::acquire(view, session.service, selection, worker.index, timer, limit).await;
        let guard = match found {
            Ok(guard) => guard,
            Err(error) => return Err(last_error.unwrap_or(error)),
        };
        session.backend = Some(guard.index());
        let upstream = &this.upstreams[guard.index()];
        upstream.cells.requests.increment();
        let reach = Reach { worker, service: this, slot: guard.slot, peer: Some(peer), limit, timer };
        let connected = reach.open().await;
        match connected {
            Ok((stream, slot)) => return Ok(Connected { guard, stream, slot, falls }),
            Err(error) => {
                guard.report_error(error);
                if session.retries >= config.retry.attempts || !error.retry().holds(&config.retry.on, true) {
                    return Err(error);
                }
                session.retries += 1;
                this.cells.retries.increment();
                last_error = Some(error);
            }
        }
    }
}

fn log(open: &OpenConnection, view: &View, session: &Session, peer: &Peer, reason: &str) {
    if !open.worker.logs_access() {
        return;
    }
    let service = &view.services[session.service].service;
    let id = |index: usize| Value::Word(&service.backends[index].config.id);
    let owner = session.hash.and(session.selection.owner());
    let mut hash_text = [0; 16];
    let listener = open.gate.name();
    let pairs = [
        ("time_ms", Value::Number(request::unix_millis())),
        ("client", Value::Word(&peer.text)),
        ("listener", Value::Word(&listener)),
        ("reason", Value::Word(reason)),
        ("service", Value::Word(&service.config.name)),
        ("key_hash", session.hash.map_or(Value::Nothing, |hash| Value::Word(request::hex(hash, &mut hash_text)))),
        ("owner", owner.map_or(Value::Nothing, |slot| id(usize::from(slot.0)))),
        ("backend", session.backend.map_or(Value::Nothing, id)),
        ("spills", Value::Number(u64::from(session.selection.spills()))),
        ("skipped", Value::Number(u64::from(session.selection.skipped()))),
        ("retries", Value::Number(u64::from(session.retries))),
        ("generation", Value::Number(view.snapshot.generation)),
        ("received_bytes", Value::Number(session.up_bytes)),
        ("sent_bytes", Value::Number(session.down_bytes)),
        ("duration_us", Value::Number(session.started.elapsed().as_micros() as u64)),
        ("connection_id", peer.logged_id()),
    ];
    open.worker.log(|log| log.line(&pairs));
}
