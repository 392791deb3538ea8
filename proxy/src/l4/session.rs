//! A client's TCP session: one backend for its whole lifetime, chosen by server name or address.

use super::tapped::{Beginning, Tapped};
use crate::ambient;
use crate::codec::presence::{Line, Presence};
use crate::codec::tunnel::{self, Direction, End};
use crate::dispatcher::SessionState;
use crate::error::ProxyError;
use crate::exchange::tapped::Routing;
use crate::net::buffers::Buffer;
use crate::net::stream::Stream;
use crate::net::timer::{Deadline, Timer};
use crate::routing::admission::{self, Admitted, Arrival};
use crate::routing::hash_key::{self, KeyInput};
use crate::snapshot::connection_slot::ConnectionSlot;
use crate::upstream::Connector;
use crate::upstream::failover::{Failover, Then};
use crate::upstream::in_flight::InFlight;
use crate::upstream::queue;
use crate::upstream::retry::{self, Retries};
use crate::upstream::search::{self, BackendSearch};
use crate::worker::{OpenConnection, Peer, SessionEntry, View, Worker};
use ringway_health::Outcome;
use ringway_ring::Selection;
use ringway_telemetry::access::{Field, More, Value};
use ringway_telemetry::counters::SESSION;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Instant;

/// A session as the access log records it.
struct Session {
    started: Instant,
    /// The version whose backends it goes to: a newer one than it began with, if it had to wait. `service` and slots belong to it.
    view: Rc<View>,
    service: usize,
    /// Its key, where the service places by keys.
    found: Option<hash_key::Found>,
    selection: Selection,
    retries: u32,
    backend: Option<usize>,
    up_bytes: u64,
    down_bytes: u64,
    /// In the table of what is under way.
    entry: SessionEntry,
    /// What operators see who look at this one.
    tapped: Option<Tapped>,
}

/// Serves a session of a service to its end. `hello`: the bytes that have been read of it.
pub(super) async fn serve(
    open: &OpenConnection,
    mut stream: Stream,
    mut hello: Buffer,
    (peer, server_name): (&Peer, Option<&str>),
    (view, service): (Rc<View>, usize),
    timer: &Timer,
) {
    let worker = &open.worker;
    let this = &view.services[service];
    let input = KeyInput::of_address(peer.ip(), server_name, None);
    let started = ambient::now();
    // What counts against its service's limits is held for as long as the session lasts.
    let admitted = admission::admit((&view, service), worker, &input, (Arrival::New, None), &mut Vec::new(), started);
    let found = admitted.as_ref().ok().and_then(|admitted| admitted.key);
    let context = admission::pick_context(worker, this, found);
    admission::count_spread(this, &context);
    let selection = this.service.backend_set.begin(context);
    let view = Rc::clone(&view);
    let (retries, backend, up_bytes, down_bytes) = (0, None, 0, 0);
    let entry = SessionEntry::begin(&open.entry, &view, service, "tcp");
    let hash = found.map(|found| found.hash);
    let (client, protocol) = (peer.address(), "TCP");
    let tapped = Tapped::begin(&Beginning { open, protocol, client, server_name, view: &view, service, hash, started });
    let mut session =
        Session { started, view, service, found, selection, retries, backend, up_bytes, down_bytes, entry, tapped };
    let mut class = 0;
    // Boxed: it is much larger than all that a session holds once it relays.
    let connecting = Box::pin(session.connect(&admitted, worker, timer, peer, (&mut stream, &mut hello)));
    let reason = match connecting.await {
        Ok(connected) => {
            class = SESSION;
            session.relay(connected, worker, timer, &mut stream, hello).await
        }
        Err(error) => {
            let this = &session.view.services[session.service];
            worker.shared.counters.error(&this.service.config.name, error.reason());
            this.counters.requests[class].increment();
            // The only way to report an error on a TCP connection is to close it.
            stream.abort();
            error.reason()
        }
    };
    session.view.services[session.service].counters.durations.record(ambient::since(session.started));
    open.active_listener.counters.count(class, session.up_bytes, session.down_bytes);
    session.end_tapped(reason, class > 0);
    session.log(open, peer, reason);
}

/// A backend, with a connection to it.
struct Connected {
    guard: InFlight,
    stream: Stream,
    slot: ConnectionSlot,
    /// Number of the last time that a backend of the service went down before this one was chosen.
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

/// State of a session's attempts.
#[derive(Default)]
struct Tries {
    failover: Failover,
    retries: Retries,
    last_error: Option<ProxyError>,
    /// The last try has failed, and the next one has not begun.
    is_retry: bool,
    /// The reservation of a retry, with the number of the last backend failure before it was chosen.
    ready: Option<(InFlight, u64)>,
}

impl Session {
    /// A connection to the first candidate that takes one: nothing has been sent, so any may be tried.
    async fn connect(
        &mut self,
        admitted: &Result<Admitted, ProxyError>,
        worker: &Rc<Worker>,
        timer: &Timer,
        peer: &Peer,
        (stream, hello): (&mut Stream, &mut Buffer),
    ) -> Result<Connected, ProxyError> {
        if let Err(error) = admitted {
            return Err(*error);
        }
        // A client that has left keeps no position in the queue and no reservation. A client that has half-closed has not left.
        let mut ended = false;
        let mut tries = Tries::default();
        let this = &self.view.services[self.service];
        this.live.count(&this.service.config, worker.timers.millis());
        loop {
            let choosing = self.choose(&mut tries, worker, timer);
            let (mut guard, falls) = presence(stream, hello, &mut ended, worker).during(choosing).await??;
            if std::mem::take(&mut tries.is_retry) {
                self.retries += 1;
                self.view.services[self.service].counters.retries.increment();
            }
            let began = ambient::now();
            let key = guard.begin_try(began, self.found.and_then(hash_key::Found::key));
            let view = Rc::clone(&self.view);
            let this = &view.services[self.service];
            self.backend = Some(guard.index());
            self.entry.set_backend(&view, self.service, (guard.index(), key));
            if let Some(tapped) = &self.tapped {
                tapped.begin_try(&view, self.service, guard.index(), began);
            }
            let connect_timeout = timer.deadline(this.service.config.timeouts.connect);
            tries.failover.begin(connect_timeout, this.service.turnover());
            let limit = tries.failover.limit();
            let reach = Connector { worker, service: this, slot: guard.slot, peer: Some(peer), limit, timer };
            let connected = presence(stream, hello, &mut ended, worker).during(reach.open()).await?;
            if let Some(tapped) = &self.tapped {
                tapped.handle_connected(connected.as_ref().err().map(|error| error.reason()));
            }
            if !matches!(connected, Err(ProxyError::ConnectionLimit)) {
                this.upstreams[guard.index()].counters.requests.increment();
            }
            match connected {
                Ok((stream, slot)) => return Ok(Connected { guard, stream, slot, falls }),
                Err(ProxyError::ConnectionLimit) => guard.give_back_full(&mut self.selection, &mut tries.failover),
                Err(error) => {
                    let failing = self.handle_failure(error, guard, &mut tries, worker);
                    presence(stream, hello, &mut ended, worker).during(failing).await??;
                }
            }
        }
    }

    /// The next backend, with the number of its service's last backend failure before it was chosen: while the connection is being
    /// made, it may go down.
    async fn choose(
        &mut self,
        tries: &mut Tries,
        worker: &Rc<Worker>,
        timer: &Timer,
    ) -> Result<(InFlight, u64), ProxyError> {
        let falls = self.falls();
        let Self { view, service, selection, backend, .. } = self;
        let (guard, falls) = match tries.ready.take() {
            Some(ready) => ready,
            None => {
                let search = BackendSearch { worker, view, service, selection, backend, failover: &mut tries.failover };
                let found = queue::acquire(search, timer, Deadline::NEVER).await;
                (found.map_err(|error| tries.last_error.unwrap_or(error))?, falls)
            }
        };
        if !tries.retries.has_begun() {
            return Ok((guard, falls));
        }
        let settled = search::settle_for_retry(guard, view, *service, selection, worker.index);
        Ok((settled.ok_or(tries.last_error.unwrap_or(ProxyError::AllFull))?, falls))
    }

    fn falls(&self) -> u64 {
        self.view.services[self.service].service.live.falls.load(SeqCst)
    }

    /// A backend has not taken the connection.
    ///
    /// # Errors
    /// No other is tried.
    async fn handle_failure(
        &mut self,
        error: ProxyError,
        guard: InFlight,
        tries: &mut Tries,
        worker: &Rc<Worker>,
    ) -> Result<(), ProxyError> {
        let view = Rc::clone(&self.view);
        let this = &view.services[self.service];
        let config = &this.service.config.retry;
        if !tries.failover.cut_short(error) {
            guard.report_error(error);
        }
        if !error.retry().holds(&config.on, true) {
            return Err(error);
        }
        let last = guard.slot;
        drop(guard);
        self.entry.leave_backend();
        let number = self.retries - tries.failover.failed_over() + 1;
        let then = tries.failover.handle_failure(error, worker.timers.now());
        tries.last_error = Some(error);
        match then {
            Then::End => return Err(error),
            Then::NextCandidate if !retry::goes_back(&this.service, &self.selection) => {}
            Then::NextCandidate | Then::Retry => {
                // It no longer follows the candidate sequence.
                tries.failover.handle_taken();
                let may = number <= config.attempts && retry::has_candidate(&this.service, &self.selection);
                if !may || !tries.retries.take(this, worker) {
                    return Err(error);
                }
                tokio::time::sleep(retry::pause(config, number, worker.random())).await;
                let (falls, shard) = (self.falls(), worker.index);
                let found = search::acquire_for_retry(&view, self.service, &mut self.selection, Some(last), shard);
                let found = found.map_err(|limit| {
                    this.counters.refuse_retry(limit);
                    error
                })?;
                tries.ready = found.map(|guard| (guard, falls));
            }
        }
        tries.is_retry = true;
        Ok(())
    }

    /// Forwards bytes, both ways, until the session ends; returns how.
    async fn relay(
        &mut self,
        connected: Connected,
        worker: &Rc<Worker>,
        timer: &Timer,
        stream: &mut Stream,
        hello: Buffer,
    ) -> &'static str {
        let Connected { mut guard, stream: mut backend, slot, falls } = connected;
        guard.handle_class(SESSION);
        guard.report(Outcome::Success);
        let this = &self.view.services[self.service];
        let keyed = self.found.is_some_and(|found| found.keyed);
        admission::count_served(this, keyed, (&self.selection, None), Some(guard.index()));
        let timeouts = &this.service.config.timeouts;
        let limits = tunnel::Limits { idle: timeouts.idle, session: timer.deadline(timeouts.session) };
        let (mut up, mut down) = (Direction::new(hello), Direction::new(<_>::default()));
        let state = Arc::clone(&this.service.backends[guard.index()].state);
        self.entry.set_state(SessionState::Relaying);
        let tell = |up, down| {
            self.entry.set_bytes(up, down);
            if let Some(tapped) = &self.tapped {
                tapped.set_bytes(up, down);
            }
        };
        let relay = tunnel::relay(stream, &mut backend, (&mut up, &mut down), worker, timer, &limits, tell);
        let end = if this.service.config.close_on_down {
            // A client whose session is ended reconnects, and gets another backend.
            tokio::select! {
                end = relay => end,
                () = state.down.after(falls) => End::BackendDown,
            }
        } else {
            relay.await
        };
        (self.up_bytes, self.down_bytes) = (up.moved, down.moved);
        worker.counters.received_bytes.add(up.moved);
        worker.counters.sent_bytes.add(down.moved);
        this.counters.requests[SESSION].increment();
        if end == End::Reset {
            // If one side has reset, the other must not see a clean end.
            stream.abort();
            backend.abort();
        }
        // The request that gets the reservation may open a connection in place of this one.
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

    fn end_tapped(&mut self, reason: &str, is_served: bool) {
        if let Some(tapped) = self.tapped.take() {
            tapped.set_bytes(self.up_bytes, self.down_bytes);
            let hash = self.found.map(|found| found.hash);
            let routing = Routing::of(&self.view, self.service, hash, &self.selection, self.backend);
            let (retries, received_bytes, sent_bytes) = (self.retries, self.up_bytes, self.down_bytes);
            tapped.end(&Routing { retries, received_bytes, sent_bytes, ..routing }, reason, is_served);
        }
    }

    fn log(&self, open: &OpenConnection, peer: &Peer, reason: &str) {
        let elapsed = ambient::since(self.started);
        if !open.worker.wants_line(0, elapsed) {
            return;
        }
        let view = &self.view;
        let service = &view.services[self.service].service;
        let id = |index: usize| Value::Word(&service.backends[index].config.id);
        let hash = self.found.map(|found| found.hash);
        let owner = hash.and(self.selection.owner());
        let mut hash_text = [0; 16];
        let listener = open.active_listener.name();
        let pairs = [
            (Field::TIME_MS, Value::Number(ambient::unix_millis())),
            (Field::CLIENT, Value::Word(peer.text())),
            (Field::LISTENER, Value::Word(&listener)),
            (Field::REASON, Value::Word(reason)),
            (Field::SERVICE, Value::Word(&service.config.name)),
            (Field::KEY_HASH, hash.map_or(Value::Nothing, |hash| Value::Word(hash_key::hex(hash, &mut hash_text)))),
            (Field::OWNER, owner.map_or(Value::Nothing, |slot| id(usize::from(slot.0)))),
            (Field::BACKEND, self.backend.map_or(Value::Nothing, id)),
            (Field::SPILLS, Value::Number(u64::from(self.selection.spills()))),
            (Field::SKIPPED, Value::Number(u64::from(self.selection.skipped()))),
            (Field::RETRIES, Value::Number(u64::from(self.retries))),
            (Field::GENERATION, Value::Number(view.snapshot.generation)),
            (Field::RECEIVED_BYTES, Value::Number(self.up_bytes)),
            (Field::SENT_BYTES, Value::Number(self.down_bytes)),
            (Field::DURATION_US, Value::Number(elapsed.as_micros() as u64)),
            (Field::CONNECTION_ID, peer.logged_id()),
        ];
        let more = || More {
            fields: [
                (Field::PEER, Value::Word(peer.text())),
                (Field::PROTOCOL, Value::Word("TCP")),
                (Field::ROUTE, Value::Nothing),
                (Field::TRIES, Value::Number(self.backend.map_or(0, |_| u64::from(self.retries) + 1))),
                (Field::TLS_VERSION, peer.tls_version()),
                (Field::TLS_CIPHER, peer.tls_cipher()),
                (Field::SNI, peer.logged_name()),
            ],
            head: &[],
        };
        open.worker.log(|log| log.line(pairs, more));
    }
}
