//! Where a whole request goes and why: its listener, its route, its split target and its key. Where the key leads is told by
//! [`super::key`].

use super::described::{Described, DescribedError};
use super::listener::listener_of;
use super::nearest::nearest;
use crate::admin::words::{self, Values};
use crate::error::ProxyError;
use crate::exchange::actions;
use crate::exchange::local_reply::Cause;
use crate::exchange::request::{Matched, match_route};
use crate::l4::tcp::service_of;
use crate::routes::RouteTable;
use crate::routing::affinity_cookie;
use crate::routing::forwarded;
use crate::routing::hash_key::{KeyInput, address_key, extract};
use crate::routing::split::{Choice, fall};
use crate::snapshot::ListenerTable;
use crate::snapshot::handoff_request::{Asked, is_credential};
use crate::worker::Peer;
use ringway_config::model::{
    Actions, Config, HttpListener, KeySource, Listener, OnMissing, Priority, Protocol, Route, Service, TcpListener,
};
use ringway_http1::{Limits, ParseError, RequestHead, parse_request};
use ringway_ring::hash_key;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;

/// How a request would be routed, as far as its configuration says it.
#[derive(Debug)]
pub(super) struct RequestExplanation {
    values: Values,
    listener: String,
    client: String,
    /// Its number from 1, and its conditions.
    route: Option<(usize, String)>,
    nearest: Option<String>,
    /// The route's own.
    priority: Option<Priority>,
    /// It is drawn which of several services takes it.
    is_drawn: bool,
    /// Status and what is said of a response that no backend gives.
    local_reply: Option<(u16, &'static str, String)>,
    /// Its index.
    pub(super) service: Option<usize>,
    key: Option<String>,
    /// The hash that places it.
    pub(super) hash: Option<u64>,
    /// The value of an affinity cookie that names its backend.
    pub(super) held: Option<u64>,
    /// What hand-off asks of it, where it is one of HTTP.
    pub(super) asked: Option<Asked>,
    steps: Vec<String>,
}

/// What hand-off asks of a request, as its route sends it on.
fn asked(described: &Described, actions: Option<&Actions>, head: &RequestHead, buffer: &[u8]) -> Asked {
    let edits = actions.map(|actions| &actions.request);
    let stays = |name: &[u8]| !edits.is_some_and(|edits| actions::drops(edits, name));
    let added = edits.map_or("", |edits| &edits.lines).lines().filter_map(|line| line.split(':').next());
    let mut sent = head.fields.iter().map(|field| field.name.of(buffer)).filter(|name| stays(name));
    Asked {
        method: head.method,
        has_body: described.body_bytes > 0,
        upgrades: head.upgrade.is_some(),
        has_credentials: sent.any(is_credential) || added.map(str::as_bytes).any(is_credential),
    }
}

/// The listener's table, made for this once where no snapshot has one.
enum Table<'t> {
    Known(&'t ListenerTable),
    Made(ListenerTable),
}

impl RequestExplanation {
    fn of(listener: &Listener, values: Values) -> Self {
        Self {
            values,
            listener: listener.name.clone(),
            client: String::new(),
            route: None,
            nearest: None,
            priority: None,
            is_drawn: false,
            local_reply: None,
            service: None,
            key: None,
            hash: None,
            held: None,
            asked: None,
            steps: Vec::new(),
        }
    }

    /// `tables`: of a snapshot, in the order of its listeners. `bound`: where listeners are bound, by name.
    pub(super) fn new(
        config: &Config,
        tables: Option<&[ListenerTable]>,
        bound: &HashMap<String, SocketAddr>,
        described: &Described,
    ) -> Result<Self, DescribedError> {
        let index = listener_of(config, bound, described)?;
        let listener = &config.listeners[index];
        let address = bound.get(&listener.name).unwrap_or(&listener.address);
        let table = match tables {
            Some(tables) => Table::Known(&tables[index]),
            None => Table::Made(ListenerTable::new(listener)),
        };
        let table = match &table {
            Table::Known(table) => table,
            Table::Made(table) => table,
        };
        let values = if tables.is_some() { Values::Hidden } else { Values::Shown };
        let mut this = Self::of(listener, values);
        let spoken = if listener.tls.is_some() { ", TLS" } else { "" };
        this.steps.push(format!("listener {} ({address}{spoken})", listener.name));
        match (&listener.protocol, table) {
            (Protocol::Http(http), ListenerTable::Http(routes)) => {
                this.http(config, (listener, http, routes), &address.to_string(), described)?;
            }
            (Protocol::Tcp(tcp), ListenerTable::Tcp(names)) => {
                let service = service_of(tcp, names, described.server_name.as_deref());
                this.session(config, service, tcp_refusal(tcp), described);
            }
            (Protocol::Udp(udp), _) if udp.quic.is_some() => {
                this.note_service(config, udp.service);
                this.steps.push("the id of its QUIC connection is its key, which nobody knows before".to_owned());
            }
            (Protocol::Udp(udp), _) => this.session(config, Some(udp.service), "", described),
            _ => unreachable!("invariant: a table is made of its listener"),
        }
        Ok(this)
    }

    fn http(
        &mut self,
        config: &Config,
        (listener, http, routes): (&Listener, &HttpListener, &RouteTable),
        host: &str,
        described: &Described,
    ) -> Result<(), DescribedError> {
        let buffer = described.head(host)?;
        let mut peer = Peer::new(SocketAddr::new(described.from, 0));
        peer.secure = listener.tls.is_some();
        peer.server_name = described.server_name.as_ref().map(|name| name.to_ascii_lowercase().into());
        self.client = peer.text().to_owned();
        let head = match parse(http, &buffer) {
            Ok(head) => head,
            Err(error) => {
                self.refuse(error);
                return Ok(());
            }
        };
        match match_route(http, routes, &peer, &buffer, &head) {
            Ok(Matched { origin, route }) => {
                self.note_route(&http.routes, route);
                if origin.address != peer.ip() {
                    self.client = origin.address.to_string();
                    self.steps.push(format!("client {}, as the trusted hop {} says", origin.address, peer.ip()));
                }
                let input = KeyInput {
                    buffer: &buffer,
                    head: Some(&head),
                    client: origin.address,
                    secure: origin.secure,
                    server_name: peer.server_name.as_deref(),
                    connection_id: None,
                };
                self.asked = Some(asked(described, http.routes[route].actions.as_deref(), &head, &buffer));
                self.target(config, &http.routes[route], &input, &head);
            }
            Err((cause, route)) => {
                if let Some(route) = route {
                    self.note_route(&http.routes, route);
                }
                if let Cause::Error(ProxyError::NoRoute) = cause {
                    let secure = forwarded::origin(&http.forwarded, &peer, &buffer, &head).secure;
                    self.nearest = nearest(&http.routes, (&buffer, &head), secure, self.values);
                    self.steps
                        .extend(self.nearest.iter().map(|nearest| format!("no route matched; nearest: {nearest}")));
                }
                match cause {
                    Cause::Error(error) => self.refuse(error),
                    Cause::Answer(answer) => {
                        let fields = words::text(&answer.fields);
                        let said = format!("the route responds itself: {}", fields.trim_end().replace("\r\n", "; "));
                        self.local_reply = Some((answer.status, "direct_response", said));
                    }
                }
            }
        }
        Ok(())
    }

    fn note_route(&mut self, routes: &[Route], index: usize) {
        let said = words::route(&routes[index], self.values);
        self.priority = routes[index].priority;
        self.steps.push(format!("route {} of {} ({said})", index + 1, routes.len()));
        self.route = Some((index + 1, said));
    }

    /// The service, and the key that counts there.
    fn target(&mut self, config: &Config, route: &Route, input: &KeyInput<'_>, head: &RequestHead) {
        let mut service = Some(route.service);
        if let Some(split) = &route.split {
            let mut key = Vec::new();
            let index = match Choice::of(split, input, head, &mut key) {
                Choice::Keyed(hash) => {
                    self.steps.push(format!("split by the key {:?}", words::text(&key)));
                    Some(fall(split, hash).unwrap_or(0))
                }
                Choice::Held(index) => {
                    self.steps.push("split: a cookie holds the client in its target".to_owned());
                    Some(index)
                }
                Choice::Chance => None,
            };
            service = index.map(|index| split.targets[index].service);
            self.is_drawn = index.is_none();
            if self.is_drawn {
                let name = |service: usize| config.services[service].name.as_str();
                let targets =
                    split.targets.iter().map(|target| format!("{} ({})", name(target.service), target.weight));
                let targets: Vec<String> = targets.collect();
                self.steps.push(format!("split by chance among {}, by these weights", targets.join(", ")));
            }
        }
        if let Some(actions) = route.actions.as_deref() {
            self.note_actions(config, actions, input, head);
        }
        if let Some(service) = service {
            self.note_service(config, service);
            self.place(&config.services[service], input);
        }
    }

    fn note_actions(&mut self, config: &Config, actions: &Actions, input: &KeyInput<'_>, head: &RequestHead) {
        if let Some(rewrite) = &actions.rewrite {
            let mut target = Vec::new();
            actions::write_target(rewrite, head.forward_target.of(input.buffer), &mut target);
            self.steps.push(format!("the backend gets the target {}", words::text(&target)));
        }
        if let Some(mirror) = actions.mirror {
            let service = &config.services[mirror.service].name;
            self.steps.push(format!("service {service} gets a copy of {} % of such requests", mirror.percent));
        }
    }

    /// A TCP session or a UDP flow.
    fn session(&mut self, config: &Config, service: Option<usize>, refusal: &str, described: &Described) {
        let client = described.from.to_canonical();
        self.client = client.to_string();
        match service {
            None => self.local_reply = Some((0, "unknown_server_name", refusal.to_owned())),
            Some(service) => {
                self.note_service(config, service);
                let name = described.server_name.as_ref().map(|name| name.to_ascii_lowercase());
                self.place(&config.services[service], &KeyInput::of_address(client, name.as_deref(), None));
            }
        }
    }

    fn note_service(&mut self, config: &Config, service: usize) {
        let of = &config.services[service];
        self.service = Some(service);
        let priority = self.priority(of).name();
        self.steps.push(format!("service {} ({}), priority {priority}", of.name, of.policy.name()));
        if let Some(limit) = &of.rate_limit {
            let sources: Vec<String> = limit.key.iter().map(words::source).collect();
            let key = if sources.is_empty() { "all requests".to_owned() } else { sources.join(", else ") };
            self.steps.push(format!(
                "its rate limit ({} at once, then one each {:?}; by {key}) is not asked here",
                limit.burst, limit.interval
            ));
        }
    }

    /// The key, and what places a request without one.
    fn place(&mut self, service: &Service, input: &KeyInput<'_>) {
        let hashes = service.policy.hashes();
        let seed = service.policy.seed();
        if let (Some(cookie), Some(head)) = (&service.affinity_cookie, input.head) {
            let value = affinity_cookie::find(cookie, input.buffer, head);
            match value {
                Some(value) if hashes => self.hash = Some(hash_key(&value.0.to_le_bytes(), seed)),
                Some(value) => self.held = Some(value.0),
                None => {}
            }
            let said = if value.is_some() { "is there, and decides" } else { "is not there: the client gets one" };
            self.steps.push(format!("affinity cookie {} {said}", cookie.name));
            return;
        }
        if !hashes {
            self.steps.push("the policy asks for no key".to_owned());
            return;
        }
        let mut bytes = Vec::new();
        let found = service.hash_key.iter().find(|source| extract(std::slice::from_ref(source), input, &mut bytes));
        if let Some(source) = found {
            self.keep_key(&bytes, seed, &words::source(source));
            return;
        }
        let sources: Vec<String> = service.hash_key.iter().map(|source: &KeySource| words::source(source)).collect();
        let without = format!("no key: the request has none of {}", sources.join(", "));
        match service.on_missing {
            OnMissing::Reject => {
                self.steps.push(without);
                self.refuse(ProxyError::KeyMissing);
            }
            OnMissing::Random => self.steps.push(format!("{without}; any backend is drawn")),
            OnMissing::RoundRobin => self.steps.push(format!("{without}; the next backend in turn")),
            OnMissing::SourceIp => {
                bytes.clear();
                address_key(input.client, 32, 128, &mut bytes);
                self.steps.push(without);
                self.keep_key(&bytes, seed, "client address");
            }
        }
    }

    fn keep_key(&mut self, bytes: &[u8], seed: u64, source: &str) {
        let (key, hash) = (words::text(bytes), hash_key(bytes, seed));
        self.steps.push(format!("key {key:?} from {source}, hash {hash:016x}"));
        (self.key, self.hash) = (Some(key), Some(hash));
    }

    fn refuse(&mut self, error: ProxyError) {
        self.local_reply = Some((error.status(), error.reason(), error.to_string()));
    }

    /// What it is under overload: its route's, or its service's.
    pub(super) fn priority(&self, service: &Service) -> Priority {
        self.priority.unwrap_or(service.priority)
    }

    /// Whether it is drawn which of several services takes it.
    pub(super) fn is_drawn(&self) -> bool {
        self.is_drawn
    }

    /// The step that comes after all others so far.
    pub(super) fn note(&mut self, step: String) {
        self.steps.push(step);
    }

    /// Whether it gets as far as its service.
    pub(super) fn is_refused(&self) -> bool {
        self.local_reply.is_some()
    }

    /// All of it, with what its service makes of it: the verdict in words, the backend, and the explanation of its key.
    pub(super) fn json(&self, config: &Config, verdict: &str, explanation: Value) -> Value {
        let mut object = Map::new();
        let mut put = |name: &str, value: Value| drop(object.insert(name.to_owned(), value));
        put("listener", json!(self.listener));
        put("client", json!(self.client));
        put("route", json!(self.route.as_ref().map(|(number, text)| json!({ "number": number, "conditions": text }))));
        put("nearest", json!(self.nearest));
        put("service", json!(self.service.map(|service| config.services[service].name.as_str())));
        put("key", json!(self.key));
        put("hash", json!(self.hash.map(|hash| format!("{hash:016x}"))));
        match &self.local_reply {
            Some((status, reason, text)) => {
                let status = (*status > 0).then_some(*status);
                put("status", json!(status));
                put("reason", json!(reason));
                let status = status.map_or_else(|| "closed".to_owned(), |status| status.to_string());
                put("verdict", json!(format!("{status} {reason}: {text}")));
            }
            None => put("verdict", json!(verdict)),
        }
        put("steps", json!(self.steps));
        put("explanation", explanation);
        Value::Object(object)
    }
}

fn parse(http: &HttpListener, buffer: &[u8]) -> Result<RequestHead, ProxyError> {
    let limits = Limits { head_bytes_max: http.head_bytes_max, fields_max: http.fields_max };
    let mut head = RequestHead::default();
    match parse_request(buffer, &limits, &mut head) {
        Ok(true) => Ok(head),
        // Its last line is empty: it is not complete because it is longer than is looked at.
        Ok(false) => Err(ProxyError::BadRequest(ParseError::HeadTooLarge)),
        Err(error) => Err(ProxyError::BadRequest(error)),
    }
}

fn tcp_refusal(tcp: &TcpListener) -> &'static str {
    if tcp.names.is_empty() { "there is no service" } else { "no service has the name that the client asks for" }
}
