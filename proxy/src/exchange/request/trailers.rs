//! Which fields may stand behind a body: none that says what only Ringway or the route says in the head. A reader may join both
//! (RFC 9110, 6.5.1).

use crate::exchange::actions;
use crate::snapshot::Snapshot;
use crate::worker::View;
use ringway_config::model::{Actions, HttpListener};
use ringway_message::reads_as;

/// The rules of one request's route.
#[derive(Clone, Copy)]
pub(in crate::exchange) struct TrailerRules<'a> {
    snapshot: &'a Snapshot,
    http: &'a HttpListener,
    actions: Option<&'a Actions>,
}

impl<'a> TrailerRules<'a> {
    pub(super) fn of(view: &'a View, listener: usize, route: usize) -> Self {
        let http = view.http(listener);
        Self { snapshot: &view.snapshot, http, actions: http.routes[route].actions.as_deref() }
    }

    /// Whether a field of that name goes on to the backend.
    pub(in crate::exchange) fn keeps_of_request(&self, name: &[u8]) -> bool {
        let is_id = || self.http.request_id.as_ref().is_some_and(|rule| reads_as(name, &rule.header));
        let is_trace = || {
            self.snapshot.config.tracing.is_some() && (reads_as(name, "traceparent") || reads_as(name, "tracestate"))
        };
        let is_edited = || self.actions.is_some_and(|actions| actions::drops(&actions.request, name));
        self.snapshot.keeps_trailer(name) && !is_id() && !is_trace() && !is_edited()
    }

    /// Whether a field of that name goes on to the client.
    pub(in crate::exchange) fn keeps_of_response(&self, name: &[u8]) -> bool {
        let responded = self.http.request_id.as_ref().filter(|rule| rule.respond);
        !responded.is_some_and(|rule| reads_as(name, &rule.header))
            && !self.actions.is_some_and(|actions| actions::drops_response_field(actions, name))
    }
}
