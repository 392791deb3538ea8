//! What is told of a request: the fields that its response gets from here, among them the explanation of its routing that a client may
//! ask for, and its line in the access log.

use super::Request;
use crate::ambient;
use crate::error::ProxyError;
use crate::exchange::client::Client;
use crate::routing::{affinity_cookie, hash_key};
use crate::snapshot::Service;
use ringway_message::HeadWriter;
use ringway_telemetry::access::Value;

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

    /// Writes the request's line of the access log.
    pub(crate) fn log(&self, client: &Client, status: u16, error: Option<ProxyError>) {
        let worker = &client.open.worker;
        if !worker.logs_access() {
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
            ("time_ms", Value::Number(ambient::unix_millis())),
            ("client", Value::Word(self.report.client.as_deref().unwrap_or(&client.peer.text))),
            ("listener", Value::Word(&listener)),
            ("method", line.get(..method_len).map_or(Value::Nothing, Value::Bytes)),
            ("target", line.get(method_len + 1..method_len + 1 + target_len).map_or(Value::Nothing, Value::Bytes)),
            ("status", Value::Number(u64::from(status))),
            ("reason", error.map_or(Value::Nothing, |error| Value::Word(error.reason()))),
            ("service", Value::Word(&service.config.name)),
            ("key_hash", self.hash.map_or(Value::Nothing, |hash| Value::Word(hash_key::hex(hash, &mut hash_text)))),
            ("owner", owner.map_or(Value::Nothing, |slot| id(usize::from(slot.0)))),
            ("backend", self.report.backend.map_or(Value::Nothing, id)),
            ("spills", Value::Number(u64::from(self.selection.spills()))),
            ("skipped", Value::Number(u64::from(self.selection.skipped()))),
            ("hot", Value::Number(u64::from(self.selection.is_hot()))),
            ("retries", Value::Number(u64::from(self.report.retries))),
            ("generation", Value::Number(self.view.snapshot.generation)),
            ("received_bytes", Value::Number(self.report.received_bytes)),
            ("sent_bytes", Value::Number(self.report.sent_bytes)),
            ("connect_us", number(self.report.connect_micros)),
            ("upstream_head_us", number(self.report.head_micros)),
            ("duration_us", Value::Number(ambient::since(self.started).as_micros() as u64)),
            ("connection_id", client.peer.logged_id()),
        ];
        worker.log(|log| log.line(&pairs));
    }
}
