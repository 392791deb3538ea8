//! What is told of a request: the fields that its response gets from here, among them the explanation of its routing that a client may
//! ask for, and its line in the access log.

use super::Request;
use crate::ambient;
use crate::error::ProxyError;
use crate::exchange::client::Client;
use crate::exchange::marks::Marked;
use crate::exchange::outcome::TryError;
use crate::exchange::tapped::{Routing, Tapped};
use crate::exchange::trace::Trace;
use crate::routing::{affinity_cookie, hash_key};
use crate::snapshot::Service;
use crate::worker::Worker;
use ringway_message::{HeadWriter, TraceParent};
use ringway_telemetry::access::{Field, More, Value};

impl Request {
    /// The cookie and the explanation that the response carries, each line with its end.
    pub(crate) fn append_fields(&self, out: &mut HeadWriter) {
        let service = &self.view.services[self.service].service;
        if let (Some(value), Some(cookie)) = (self.set_cookie, &service.config.affinity_cookie) {
            affinity_cookie::write(cookie, value, out);
        }
        out.append(&self.response_lines);
        if self.explain {
            self.append_explanation(service, out);
        }
    }

    /// Requested rarely, by people: this may format.
    #[cold]
    fn append_explanation(&self, service: &Service, out: &mut HeadWriter) {
        let id = |index: usize| service.backends[index].config.id.as_str();
        let owner = self.selection.owner().filter(|_| self.hash.is_some()).map_or("-", |slot| id(usize::from(slot.0)));
        let backend = self.report.backend.map_or("-", id);
        let hash = self.hash.map_or("-".to_owned(), |hash| format!("{hash:016x}"));
        let priority = self.routed_by.http(self.listener).routes[self.route].priority;
        out.field(
            "x-ringway-explain",
            format!(
                "service={}; policy={}; priority={}; key={}; hash={hash}; owner={owner}; backend={backend}; \
                 spills={}; skipped={}; hot={}; retries={}; generation={}",
                service.config.name,
                service.config.policy.name(),
                priority.unwrap_or(service.config.priority).name(),
                if self.keyed { "present" } else { "missing" },
                self.selection.spills(),
                self.selection.skipped(),
                u8::from(self.selection.is_hot()),
                self.report.retries,
                self.view.snapshot.generation,
            )
            .as_bytes(),
        );
    }

    /// The request is over: its spans go to the exporter.
    #[cold]
    pub(crate) fn end_trace(&self, trace: &mut Trace, worker: &Worker, status: u16, error: Option<ProxyError>) {
        let service = &self.view.services[self.service].service;
        let id = |index: usize| service.backends[index].config.id.as_bytes();
        let attributes = &mut trace.attributes;
        attributes.text("ringway.service", service.config.name.as_bytes());
        if let Some(hash) = self.hash {
            attributes.text("ringway.key_hash", hash_key::hex(hash, &mut [0; 16]).as_bytes());
            if let Some(owner) = self.selection.owner() {
                attributes.text("ringway.owner", id(usize::from(owner.0)));
            }
        }
        if let Some(backend) = self.report.backend {
            attributes.text("ringway.backend", id(backend));
        }
        if let Some(handed) = self.handed_word() {
            attributes.text("ringway.handoff", handed.as_bytes());
        }
        attributes.number("ringway.spills", u64::from(self.selection.spills()));
        attributes.number("ringway.retries", u64::from(self.report.retries));
        if let Some(tapped) = &mut trace.tapped {
            self.tell_routing(tapped);
        }
        let status = if error == Some(ProxyError::ClientClosed) { 0 } else { status };
        trace.end(worker, status, error.map(ProxyError::reason), self.target());
    }

    /// What backends are asked for.
    fn target(&self) -> &[u8] {
        let (method_len, target_len) = self.report.line;
        self.out.get(method_len + 1..method_len + 1 + target_len).unwrap_or_default()
    }

    /// Whoever looks at it is told where it went, and why there.
    fn tell_routing(&self, tapped: &mut Tapped) {
        tapped.routing = Some(Routing {
            handoff: self.handed_word(),
            retries: self.report.retries,
            received_bytes: self.report.received_bytes,
            sent_bytes: self.report.sent_bytes,
            ..Routing::of(&self.view, self.service, self.hash, &self.selection, self.report.backend)
        });
    }

    /// The current try has failed.
    pub(in crate::exchange) fn fail_try(&mut self, error: &TryError) {
        if let Some(trace) = &mut self.trace {
            match error {
                TryError::Upstream(ProxyError::ConnectionLimit) => trace.take_back_try(),
                _ => trace.fail_try(error.reason()),
            }
        }
    }

    /// What not every line has: its marks, where they are configured, and what became of a key that is handed over.
    fn logged_at_times(&self) -> impl Iterator<Item = (Field, Value<'_>)> {
        let Marked { id, parent } = self.report.marked;
        let trace_id = parent.of(&self.out).get(TraceParent::ID).unwrap_or_default();
        let marks = [(Field::REQUEST_ID, id.of(&self.out)), (Field::TRACE_ID, trace_id)];
        let marks = marks.into_iter().filter(|(_, text)| !text.is_empty());
        let grpc = self.report.grpc_status.map(|code| (Field::GRPC_STATUS, Value::Number(u64::from(code))));
        let handed = self.handed_word().map(|word| (Field::HANDOFF, Value::Word(word)));
        marks.map(|(name, text)| (name, Value::Bytes(text))).chain(grpc).chain(handed)
    }

    /// Writes the request's line of the access log.
    pub(crate) fn log(&self, client: &Client, status: u16, error: Option<ProxyError>) {
        let worker = &client.open.worker;
        if !worker.logs_access() {
            return;
        }
        let elapsed = ambient::since(self.started);
        if !worker.wants_line(self.counted_status(status), elapsed) {
            return;
        }
        let service = &self.view.services[self.service].service;
        let id = |index: usize| Value::Word(&service.backends[index].config.id);
        let owner = self.hash.and(self.selection.owner());
        let mut hash_text = [0; 16];
        let (method_len, target_len) = self.report.line;
        let line = &self.out[..];
        let number = |value: Option<u64>| value.map_or(Value::Nothing, Value::Number);
        let listener = client.open.active_listener.name();
        let pairs = [
            (Field::TIME_MS, Value::Number(ambient::unix_millis())),
            (Field::CLIENT, Value::Word(self.report.client.as_deref().unwrap_or(client.open.peer.text()))),
            (Field::LISTENER, Value::Word(&listener)),
            (Field::METHOD, line.get(..method_len).map_or(Value::Nothing, Value::Bytes)),
            (Field::TARGET, line.get(method_len + 1..method_len + 1 + target_len).map_or(Value::Nothing, Value::Bytes)),
            (Field::STATUS, Value::Number(u64::from(status))),
            (Field::REASON, error.map_or(Value::Nothing, |error| Value::Word(error.reason()))),
            (Field::SERVICE, Value::Word(&service.config.name)),
            (
                Field::KEY_HASH,
                self.hash.map_or(Value::Nothing, |hash| Value::Word(hash_key::hex(hash, &mut hash_text))),
            ),
            (Field::OWNER, owner.map_or(Value::Nothing, |slot| id(usize::from(slot.0)))),
            (Field::BACKEND, self.report.backend.map_or(Value::Nothing, id)),
            (Field::SPILLS, Value::Number(u64::from(self.selection.spills()))),
            (Field::SKIPPED, Value::Number(u64::from(self.selection.skipped()))),
            (Field::HOT, Value::Number(u64::from(self.selection.is_hot()))),
            (Field::RETRIES, Value::Number(u64::from(self.report.retries))),
            (Field::GENERATION, Value::Number(self.view.snapshot.generation)),
            (Field::RECEIVED_BYTES, Value::Number(self.report.received_bytes)),
            (Field::SENT_BYTES, Value::Number(self.report.sent_bytes)),
            (Field::CONNECT_US, number(self.report.connect_micros)),
            (Field::UPSTREAM_HEAD_US, number(self.report.head_micros)),
            (Field::DURATION_US, Value::Number(elapsed.as_micros() as u64)),
            (Field::CONNECTION_ID, client.open.peer.logged_id()),
        ];
        let more = || More {
            fields: [
                (Field::PEER, Value::Word(client.open.peer.text())),
                (Field::PROTOCOL, Value::Word(self.version.name())),
                (Field::ROUTE, Value::Number(self.route as u64 + 1)),
                (Field::TRIES, Value::Number(self.report.backend.map_or(0, |_| u64::from(self.report.retries) + 1))),
                (Field::TLS_VERSION, client.open.peer.tls_version()),
                (Field::TLS_CIPHER, client.open.peer.tls_cipher()),
                (Field::SNI, client.open.peer.logged_name()),
            ],
            head: line.get(..self.head_len).unwrap_or_default(),
        };
        worker.log(|log| log.line(pairs.into_iter().chain(self.logged_at_times()), more));
    }
}
