//! A session of TCP or a flow of UDP that an operator looks at: its whole life, as one line of JSON. Nothing here is on the way of those
//! that nobody looks at.

use crate::ambient;
use crate::dispatcher::{Arrived, Followed, Tap, UnderWay};
use crate::exchange::tapped::{Routing, Step};
use crate::routing::hash_key;
use crate::worker::{OpenConnection, View};
use bytes::Bytes;
use ringway_ring::Hash;
use serde_json::{Map, Value, json};
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// Taps ask for statuses of responses from 100 on: what has been served is below all of them, what has not is [`UNSERVED`].
const SERVED: u16 = 1;
/// As a request without a response.
const UNSERVED: u16 = 0;

/// One that somebody looks at.
pub(super) struct Tapped(Rc<Begun>);

/// What is known of it from its beginning on, and what has become of it since.
struct Begun {
    followed: RefCell<Vec<Followed>>,
    /// Who is there, and how.
    session: Value,
    service: String,
    hash: Option<Hash>,
    started: Instant,
    /// Its tries so far.
    steps: RefCell<Vec<Value>>,
    is_served: Cell<bool>,
    /// From the client, and to it.
    bytes: Cell<(u64, u64)>,
}

/// What is known of a session or flow as it begins.
pub(super) struct Beginning<'a> {
    pub(super) open: &'a OpenConnection,
    /// `TCP` or `UDP`.
    pub(super) protocol: &'static str,
    pub(super) client: SocketAddr,
    pub(super) server_name: Option<&'a str>,
    pub(super) view: &'a View,
    pub(super) service: usize,
    pub(super) hash: Option<Hash>,
    pub(super) started: Instant,
}

impl Tapped {
    /// What is told of it, if somebody wants to see it.
    pub(super) fn begin(beginning: &Beginning<'_>) -> Option<Self> {
        if beginning.open.worker.taps.is_armed() { Self::followed(beginning) } else { None }
    }

    /// The same of a flow, which has its backend from its beginning.
    pub(super) fn of_flow(
        (open, client): (&OpenConnection, SocketAddr),
        (view, service, backend): (&View, usize, usize),
        hash: Option<Hash>,
        started: Instant,
    ) -> Option<Self> {
        let (protocol, server_name) = ("UDP", None);
        let this = Self::begin(&Beginning { open, protocol, client, server_name, view, service, hash, started })?;
        this.begin_try(view, service, backend, started);
        Some(this)
    }

    #[cold]
    fn followed(beginning: &Beginning<'_>) -> Option<Self> {
        let Beginning { open, client, server_name, view, service, hash, started, protocol } = *beginning;
        let listener = open.active_listener.name();
        let service = &view.services[service].service.config.name;
        let followed = open.worker.taps.follow(&Arrived {
            listener: &listener,
            service: Some(service),
            route: None,
            method: b"",
            path: b"",
            client: client.ip().to_canonical(),
            hash,
            has: &|_, _| false,
        });
        if followed.is_empty() {
            return None;
        }
        let tls = open.entry.tls().map(|tls| json!({ "version": tls.version(), "resumed": tls.is_resumed }));
        let at = ambient::unix_nanos() as f64 / 1e9 - ambient::since(started).as_secs_f64();
        let session = json!({
            "at": at, "listener": &*listener, "peer": client.to_string(), "client": client.ip().to_canonical().to_string(),
            "tls": tls, "server_name": server_name, "protocol": protocol,
        });
        let begun = Rc::new(Begun {
            followed: RefCell::new(followed),
            session,
            service: service.clone(),
            hash,
            started,
            steps: RefCell::default(),
            is_served: Cell::new(false),
            bytes: Cell::default(),
        });
        let under_way: Rc<dyn UnderWay> = begun.clone();
        open.worker.taps.note(&under_way);
        Some(Self(begun))
    }

    /// It tries a backend, since that time.
    pub(super) fn begin_try(&self, view: &View, service: usize, backend: usize, began: Instant) {
        let service = &view.services[service].service;
        let step = Step {
            kind: "try",
            began,
            ended: None,
            backend: Some((&service.config.name, &service.backends[backend].config)),
            connected: None,
            answered: None,
            status: 0,
            error: None,
        };
        self.0.steps.borrow_mut().push(step.json(self.0.started, None));
    }

    /// The backend has taken it, or not.
    pub(super) fn handle_connected(&self, error: Option<&'static str>) {
        let now = ambient::since(self.0.started).as_secs_f64();
        if let Some(step) = self.0.steps.borrow_mut().last_mut() {
            match error {
                None => {
                    step["connection"] = "new".into();
                    step["connected_seconds"] = now.into();
                }
                Some(error) => {
                    step["ended_seconds"] = now.into();
                    step["error"] = error.into();
                }
            }
        }
        self.0.is_served.set(error.is_none());
    }

    /// The backend has responded with a first datagram.
    pub(super) fn handle_response(&self) {
        if let Some(step) = self.0.steps.borrow_mut().last_mut() {
            step["response_seconds"] = ambient::since(self.0.started).as_secs_f64().into();
        }
        self.0.is_served.set(true);
    }

    pub(super) fn set_bytes(&self, up: u64, down: u64) {
        self.0.bytes.set((up, down));
    }

    /// It has ended, served or not: its life is told to those who want it as it was.
    pub(super) fn end(self, routing: &Routing, reason: &str, is_served: bool) {
        let begun = &*self.0;
        let duration = ambient::since(begun.started);
        let mut followed = begun.followed.take();
        let status = if is_served { SERVED } else { UNSERVED };
        followed.retain_mut(|followed| followed.takes_end(status, duration));
        if followed.is_empty() {
            return;
        }
        if let Some(step) = begun.steps.borrow_mut().last_mut().filter(|step| step["ended_seconds"].is_null()) {
            step["ended_seconds"] = duration.as_secs_f64().into();
        }
        let mut life = begun.told();
        life.insert("reason".into(), reason.into());
        if let Value::Object(routing) = routing.json() {
            life.extend(routing);
        }
        let line = Bytes::from(format!("{}\n", Value::Object(life)));
        followed.into_iter().for_each(|followed| followed.tell(line.clone()));
    }
}

impl Begun {
    /// What is known by now.
    fn told(&self) -> Map<String, Value> {
        let (received_bytes, sent_bytes) = self.bytes.get();
        let told = json!({
            "session": self.session, "service": self.service, "steps": *self.steps.borrow(),
            "key_hash": self.hash.map(|hash| hash_key::hex(hash, &mut [0; 16]).to_owned()),
            "received_bytes": received_bytes, "sent_bytes": sent_bytes,
            "duration_seconds": ambient::since(self.started).as_secs_f64(),
        });
        if let Value::Object(told) = told { told } else { Map::new() }
    }
}

impl UnderWay for Begun {
    fn tell_so_far(&self, tap: &Arc<Tap>) {
        let duration = ambient::since(self.started);
        let status = if self.is_served.get() { SERVED } else { UNSERVED };
        let mut all = self.followed.borrow_mut();
        for mut followed in all.extract_if(.., |followed| followed.is_of(tap)) {
            if followed.takes_so_far(status, duration) {
                let mut life = self.told();
                life.insert("unfinished".into(), true.into());
                followed.tell(Bytes::from(format!("{}\n", Value::Object(life))));
            }
        }
    }
}
