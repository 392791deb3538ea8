//! What marks a request on its way: its id, and its place in a trace. Both are decided once, before anything is written.

use crate::dispatcher::Dispatcher;
use crate::routing::request_id::RequestId;
use ringway_config::model;
use ringway_message::{HeadWriter, RequestHead, Span, TraceParent, has_trace_context, is_trace_state, reads_as};

/// What a request is marked with; nothing of it where neither ids nor traces are configured.
pub(crate) struct Marks<'b> {
    id: Option<(&'b model::RequestId, RequestId<'b>)>,
    trace: Option<Place>,
}

/// A request's place in a trace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// As it goes on: the span is Ringway's own.
    pub(crate) own: TraceParent,
    /// The span that the client has sent it by.
    pub(crate) parent: Option<[u8; 8]>,
    /// Whether `tracestate` goes on.
    pub(crate) has_state: bool,
    /// Whether the client has sent fields of trace context, valid or not.
    has_fields: bool,
}

/// Where the marks stand in a head that goes out; empty where there are none.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Marked {
    /// The request's id.
    pub(crate) id: Span,
    /// `traceparent`, in version 00.
    pub(crate) parent: Span,
}

impl<'b> Marks<'b> {
    /// Of a request whose client is one of the proxies in front, or is not.
    #[inline(never)]
    pub(crate) fn of(
        (http, tracing): (&'b model::HttpListener, Option<&model::Tracing>),
        trusted: bool,
        dispatcher: &Dispatcher,
        bytes: &'b [u8],
        head: &RequestHead,
    ) -> Self {
        let id = http.request_id.as_ref().map(|rule| (rule, RequestId::of(rule, trusted, dispatcher, bytes, head)));
        Self { id, trace: tracing.map(|tracing| place(tracing, trusted, dispatcher, bytes, head)) }
    }

    /// Where in its trace the request is, if it is recorded.
    pub(crate) fn recorded(&self) -> Option<&Place> {
        self.trace.as_ref().filter(|place| place.own.sampled)
    }

    /// The request's id.
    pub(crate) fn id(&self) -> Option<&[u8]> {
        self.id.as_ref().map(|(_, id)| id.text())
    }

    /// The id of the request's trace, recorded or not.
    pub(crate) fn trace_id(&self) -> Option<[u8; 16]> {
        self.trace.map(|place| place.own.trace_id)
    }

    /// Whether fields of the client may be among those that do not go on.
    #[inline]
    pub(crate) fn may_replace(&self) -> bool {
        self.id.is_some() || self.trace.is_some_and(|place| place.has_fields)
    }

    /// Whether a field that the client has sent does not go on: these marks take its place.
    pub(crate) fn replaces(&self, name: &[u8]) -> bool {
        self.id.as_ref().is_some_and(|(rule, _)| reads_as(name, &rule.header))
            || self
                .trace
                .is_some_and(|place| reads_as(name, "traceparent") || !place.has_state && reads_as(name, "tracestate"))
    }

    /// Writes the fields.
    pub(crate) fn write(&self, out: &mut HeadWriter) -> Marked {
        let mut marked = Marked::default();
        let end = |out: &HeadWriter| out.text().len() as u32;
        if let Some((rule, id)) = &self.id {
            let line = out.begin(&rule.header);
            let start = end(out);
            out.text_mut().extend_from_slice(id.text());
            marked.id = Span { start, end: end(out) };
            out.end(line);
        }
        if let Some(place) = &self.trace {
            marked.parent = out.line(&place.own.line(), TraceParent::LINE_NAME_BYTES);
        }
        marked
    }

    /// The line that the response gets, if it is to have the id.
    pub(crate) fn write_response(&self, lines: &mut Vec<u8>) {
        if let Some((rule, id)) = self.id.as_ref().filter(|(rule, _)| rule.respond) {
            for part in [rule.header.as_bytes(), b": ", id.text(), b"\r\n"] {
                lines.extend_from_slice(part);
            }
        }
    }
}

/// The client's trace goes on, unless it has none that is valid. Whether it is recorded is the client's decision where its word is taken.
/// Else it is drawn: by the id of a trace that begins here, and by chance for one whose id the client may have chosen so that it is drawn.
fn place(tracing: &model::Tracing, trusted: bool, dispatcher: &Dispatcher, bytes: &[u8], head: &RequestHead) -> Place {
    let has_fields = has_trace_context(bytes, head);
    let told = if has_fields { TraceParent::of(bytes, head) } else { None };
    let trace_id = told.map_or_else(|| dispatcher.ids.long(), |told| told.trace_id);
    let sampled = match told {
        Some(told) if tracing.trust.takes(trusted) => told.sampled,
        Some(_) => tracing.samples(&dispatcher.ids.long()),
        None => tracing.samples(&trace_id),
    };
    Place {
        own: TraceParent {
            trace_id,
            span_id: dispatcher.ids.short(),
            sampled,
            random: told.is_none_or(|told| told.random),
        },
        parent: told.map(|told| told.span_id),
        has_state: told.is_some() && is_trace_state(bytes, head),
        has_fields,
    }
}
