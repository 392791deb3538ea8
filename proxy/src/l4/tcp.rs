//! A client's TCP session: one backend, chosen by the name it asks for or its address, for its whole life.

use crate::ambient;
use crate::codec::presence::{Line, Presence};
use crate::codec::tunnel::{self, End, Way};
use crate::error::ProxyError;
use crate::net::buffers::Buffer;
use crate::net::client_hello::{HelloReader, NoHello};
use crate::net::stream::Stream;
use crate::net::timer::{Deadline, Timer};
use crate::routing::hash_key;
use crate::routing::rate_limit::{self, Admission};
use crate::snapshot::Service;
use crate::snapshot::connection_slot::ConnectionSlot;
use crate::upstream::Reach;
use crate::upstream::in_flight::{self, InFlight, Placing};
use crate::upstream::refusals::{Refusals, Then};
use crate::upstream::retry::{self, Retries};
use crate::worker::Peer;
use crate::worker::{OpenConnection, View, Worker};
use ringway_config::model::{HostMatch, KeySource, Protocol, TcpListener};
use ringway_health::Outcome;
use ringway_ring::{Ask, Selection};
use ringway_telemetry::access::Value;
use ringway_telemetry::cells::SESSION;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
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
    /// The version whose backends it goes to: a newer one than it began with, if it had to wait. `service` and slots are of it.
    view: Rc<View>,
    service: usize,
    /// Its key, where the service places by keys.
    found: Option<hash_key::Found>,
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
        // Where names only choose among backends, who speaks no TLS has none: his key is another one, or missing.
        match client_hello(&mut stream, &mut hello, &timer, tcp.names.is_empty()).await {
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
    let placed = place(&this.service, &worker, peer, server_name);
    let found = placed.as_ref().ok().and_then(|(found, _)| *found);
    let mut session = Session {
        started: ambient::now(),
        view: Rc::clone(&view),
        service,
        found,
        selection: this.service.group.begin(Ask {
            hash: found.map_or(chance, |found| found.hash),
            chance,
            now_millis: worker.millis(),
            owners: 0,
        }),
        retries: 0,
        backend: None,
        up_bytes: 0,
        down_bytes: 0,
    };
    let connected = match &placed {
        Ok(_) => connect(&mut session, &worker, &timer, peer, (&mut stream, &mut hello)).await,
        Err(error) => Err(*error),
    };
    let view = Rc::clone(&session.view);
    let this = &view.services[session.service];
    let reason = match connected {
        Err(error) => {
            worker.shared.cells.error(&this.service.config.name, error.reason());
            this.cells.requests[0].increment();
            // Nothing can be said on a TCP connection but that it is over.
            stream.abort();
            error.reason()
        }
        Ok(Connected { guard, stream: mut backend, slot, falls }) => {
            guard.report(Outcome::Success);
            if session.selection.spills() > 0 {
                this.cells.spills.increment();
            }
            if found.is_some_and(|found| found.keyed) {
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
            if end == End::Reset {
                // What one side has broken off must not look whole to the other.
                stream.abort();
                backend.abort();
            }
            // Who gets the place may open a connection in place of this one.
            drop((backend, slot));
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
    this.cells.durations.record(ambient::since(session.started));
    log(&open, &session, peer, reason);
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
pub(crate) fn service_of(tcp: &TcpListener, server_name: Option<&str>) -> Option<usize> {
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
/// such message, or does not come in time. `plain`: bytes that are no TLS ask for no name.
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
            if plain && hello.bytes().first().is_some_and(|first| *first != crate::net::client_hello::TLS_HANDSHAKE) {
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

/// Key and limits: everything that can refuse a session before a backend is chosen.
fn place(
    service: &Service,
    worker: &Worker,
    peer: &Peer,
    server_name: Option<&str>,
) -> Result<(Option<hash_key::Found>, Option<Admission>), ProxyError> {
    let input = hash_key::KeyInput { buffer: b"", head: None, client: peer.ip(), secure: false, server_name };
    let mut key_bytes = Vec::new();
    rate_limit::admit(service, worker, &input, &mut key_bytes, ambient::now())?;
    let found = service.hashes().then(|| hash_key::find(service, worker, &input, &mut key_bytes)).transpose()?;
    Ok((found, Admission::enter(service)?))
}

/// A backend, with a connection to it.
struct Connected {
    guard: InFlight,
    stream: Stream,
    slot: ConnectionSlot,
    /// Number of the service's last fall of a backend before this one was chosen.
    falls: u64,
}

fn presence<'a>(
    stream: &'a mut Stream,
    input: &'a mut Buffer,
    ended: &'a mut bool,
    worker: &'a Worker,
) -> Presence<'a> {
    Presence { line: Line::Bytes(stream, input), ended, dispatcher: worker, may_end: true }
}

/// A connection to the first backend of the walk that takes one: nothing has been sent, so any may be tried.
async fn connect(
    session: &mut Session,
    worker: &Rc<Worker>,
    timer: &Timer,
    peer: &Peer,
    (stream, hello): (&mut Stream, &mut Buffer),
) -> Result<Connected, ProxyError> {
    // A client that has left keeps no place, in the queue or on a backend. One that has said all that it has to say has not.
    let mut ended = false;
    let mut last_error = None;
    let mut refusals = Refusals::default();
    let mut retries = Retries::default();
    let this = &session.view.services[session.service];
    this.live.count(&this.service.config, worker.timers.millis());
    // The place of a retry, with the number of the last fall before it was chosen.
    let mut ready = None;
    loop {
        // Before the choice: while the connection is being made, the backend may go down.
        let falls = session.view.services[session.service].service.live.falls.load(SeqCst);
        let Session { view, service, selection, backend, .. } = session;
        let placing = Placing { worker, view, service, selection, backend, refusals: &mut refusals };
        let (mut guard, falls) = match ready.take() {
            Some(ready) => ready,
            None => match presence(stream, hello, &mut ended, worker)
                .during(in_flight::acquire(placing, timer, Deadline::NEVER))
                .await?
            {
                Ok(guard) => (guard, falls),
                Err(error) => return Err(last_error.unwrap_or(error)),
            },
        };
        if retries.has_begun() {
            let Session { view, service, selection, .. } = session;
            guard = in_flight::settle_for_retry(guard, view, *service, selection, worker.index)
                .ok_or(last_error.unwrap_or(ProxyError::AllFull))?;
        }
        let view = Rc::clone(&session.view);
        let this = &view.services[session.service];
        let config = &this.service.config;
        session.backend = Some(guard.index());
        let upstream = &this.upstreams[guard.index()];
        refusals.begin(timer.deadline(config.timeouts.connect), this.service.turnover());
        let limit = refusals.limit();
        let reach = Reach { worker, service: this, slot: guard.slot, peer: Some(peer), limit, timer };
        let connected = presence(stream, hello, &mut ended, worker).during(reach.open()).await?;
        if !matches!(connected, Err(ProxyError::ConnectionLimit)) {
            upstream.cells.requests.increment();
        }
        match connected {
            Ok((stream, slot)) => return Ok(Connected { guard, stream, slot, falls }),
            Err(ProxyError::ConnectionLimit) => guard.give_back_full(&mut session.selection, &mut refusals),
            Err(error) => {
                if !refusals.cut_short(error) {
                    guard.report_error(error);
                }
                if !error.retry().holds(&config.retry.on, true) {
                    return Err(error);
                }
                let last = guard.slot;
                drop(guard);
                let number = session.retries - refusals.walked() + 1;
                let then = refusals.handle_failure(error, worker.timers.now());
                last_error = Some(error);
                match then {
                    Then::End => return Err(error),
                    Then::GoOn if !retry::goes_back(&this.service, &session.selection) => {}
                    Then::GoOn | Then::Retry => {
                        // It is no walk any more.
                        refusals.handle_taken();
                        let may =
                            number <= config.retry.attempts && retry::has_candidate(&this.service, &session.selection);
                        if !may || !retries.take(this, worker) {
                            return Err(error);
                        }
                        let pause = tokio::time::sleep(retry::pause(&config.retry, number, worker.random()));
                        presence(stream, hello, &mut ended, worker).during(pause).await?;
                        let falls = this.service.live.falls.load(SeqCst);
                        let (selection, shard) = (&mut session.selection, worker.index);
                        match in_flight::acquire_for_retry(&view, session.service, selection, Some(last), shard) {
                            Ok(found) => ready = found.map(|guard| (guard, falls)),
                            Err(limit) => {
                                this.cells.refuse_retry(limit);
                                return Err(error);
                            }
                        }
                    }
                }
                session.retries += 1;
                this.cells.retries.increment();
            }
        }
    }
}

fn log(open: &OpenConnection, session: &Session, peer: &Peer, reason: &str) {
    if !open.worker.logs_access() {
        return;
    }
    let view = &session.view;
    let service = &view.services[session.service].service;
    let id = |index: usize| Value::Word(&service.backends[index].config.id);
    let hash = session.found.map(|found| found.hash);
    let owner = hash.and(session.selection.owner());
    let mut hash_text = [0; 16];
    let listener = open.gate.name();
    let pairs = [
        ("time_ms", Value::Number(ambient::unix_millis())),
        ("client", Value::Word(&peer.text)),
        ("listener", Value::Word(&listener)),
        ("reason", Value::Word(reason)),
        ("service", Value::Word(&service.config.name)),
        ("key_hash", hash.map_or(Value::Nothing, |hash| Value::Word(hash_key::hex(hash, &mut hash_text)))),
        ("owner", owner.map_or(Value::Nothing, |slot| id(usize::from(slot.0)))),
        ("backend", session.backend.map_or(Value::Nothing, id)),
        ("spills", Value::Number(u64::from(session.selection.spills()))),
        ("skipped", Value::Number(u64::from(session.selection.skipped()))),
        ("retries", Value::Number(u64::from(session.retries))),
        ("generation", Value::Number(view.snapshot.generation)),
        ("received_bytes", Value::Number(session.up_bytes)),
        ("sent_bytes", Value::Number(session.down_bytes)),
        ("duration_us", Value::Number(ambient::since(session.started).as_micros() as u64)),
        ("connection_id", peer.logged_id()),
    ];
    open.worker.log(|log| log.line(&pairs));
}
