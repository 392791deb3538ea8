//! From a parsed head to a request that is ready to send.

use super::head::{Written, write_head};
use super::route::{Routed, Unrouted, route_of};
use super::{Report, Request, compression};
use crate::ambient;
use crate::codec::grpc::{grpc_timeout, is_grpc};
use crate::dispatcher::Scratch;
use crate::exchange::actions;
use crate::exchange::client::Client;
use crate::exchange::compress;
use crate::exchange::local_reply::LocalReply;
use crate::exchange::marks::Marks;
use crate::exchange::span_attributes::Beginning;
use crate::exchange::trace::Trace;
use crate::net::timer::Deadline;
use crate::routing::admission::{Admitted, count_spread, pick_context};
use crate::routing::affinity_cookie::{self, Value as CookieValue};
use crate::routing::forwarded::{self, Origin};
use crate::snapshot::Service;
use crate::upstream::failover::Failover;
use crate::upstream::retry::Retries;
use crate::worker::{SessionEntry, View};
use ringway_config::model::{PathMatch, UpstreamProtocol};
use ringway_message::{HeadWriter, RequestHead, Version};
use ringway_ring::Hash;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Prepares the request of this head, whose spans point into `bytes`. Boxed: it is half a kilobyte, and is moved often.
pub(crate) fn prepare(
    client: &Client,
    bytes: &[u8],
    view: &Rc<View>,
    listener: usize,
    scratch: &mut Scratch,
) -> Result<Box<Request>, Box<LocalReply>> {
    let http = view.http(listener);
    let tracing = view.snapshot.config.tracing.as_ref();
    let worker = &client.open.worker;
    let Scratch { request: head, key: key_bytes, .. } = scratch;
    let started = ambient::now();
    if let Some(most) = &http.keep_alive {
        client.open.count_request(most);
    }

    let routed = route_of(client, bytes, view, listener, head, key_bytes, started);
    let Routed { route, service, origin, hold, explain, admitted } = match routed {
        Ok(routed) => routed,
        Err(Unrouted { why, route, service }) => {
            let mut refusal = LocalReply::of(why, bytes, head);
            if worker.logs_chosen_fields() {
                refusal.keep_head(bytes, head);
            }
            let origin = forwarded::origin(&http.forwarded, &client.open.peer, bytes, head);
            refusal.client = named_client(client, origin);
            let marks = Marks::of((http, tracing), origin.trusted, worker, bytes, head);
            if let Some(service) = service {
                refusal.service = view.services[service].service.config.name.as_str().into();
            }
            let service = service.map(|service| view.services[service].service.config.name.as_str());
            refusal.route = route;
            let of_route =
                (route.and_then(|route| http.routes[route].path.as_ref()), route.map(|route| route + 1), None);
            refusal.mark(&marks, tracing, &beginning(client, (bytes, head), (origin, started), service, of_route));
            return Err(refusal);
        }
    };
    let actions = http.routes[route].actions.as_deref();
    let worker_service = &view.services[service];
    let this = &worker_service.service;
    let Admitted { key, sticky, set_cookie, admission } = admitted;
    let ask = pick_context(worker, worker_service, key);
    count_spread(worker_service, &ask);
    let mirrored = actions
        .and_then(|actions| actions.mirror)
        .is_some_and(|mirror| view.services[mirror.service].service.config.protocol == UpstreamProtocol::H2);
    let is_marked = http.request_id.is_some() || tracing.is_some();
    let marks = is_marked.then(|| Marks::of((http, tracing), origin.trusted, worker, bytes, head));
    let written =
        write_head(client, bytes, head, (http, this, actions), (&view.snapshot, mirrored), (origin, marks.as_ref()));
    let Written { out, line, authority, protocols, chunked, encoding, marked } = written;

    let mut response_lines = actions.map(|actions| actions::response_lines(actions, bytes, head)).unwrap_or_default();
    let targets = http.routes[route].split.as_ref().map(|split| &split.targets);
    if let Some(cookie) = hold.and_then(|arm| targets?.get(arm)?.cookie.as_ref()) {
        let mut lines = HeadWriter::new(response_lines, Vec::new(), false);
        // Its presence is the whole message: it has no value of its own.
        affinity_cookie::write(cookie, CookieValue(0), &mut lines);
        (response_lines, _) = lines.into_parts();
    }
    if let Some(marks) = &marks {
        marks.write_response(&mut response_lines);
    }
    let recorded = marks.as_ref().and_then(|marks| marks.recorded().zip(tracing));
    let mut trace = None;
    if recorded.is_some() || worker.taps.is_armed() {
        let of_route = (http.routes[route].path.as_ref(), Some(route + 1), key.map(|key| key.hash));
        let service = Some(this.config.name.as_str());
        trace = Trace::begin(recorded, &beginning(client, (bytes, head), (origin, started), service, of_route));
    }
    let (out, lines) = out.into_parts();
    // Without its query, which may hold secrets.
    let asked = (head.method_span.of(bytes), head.path.of(bytes));
    let spoken = (&client.open.entry, head.version);
    let entry = SessionEntry::of_request(spoken, (view, service), asked, (route, head.head_len as u64));
    Ok(Box::new(Request {
        routed_by: Rc::clone(view),
        view: Rc::clone(view),
        listener,
        route,
        service,
        hash: key.map(|key| key.hash),
        keyed: key.is_some_and(|key| key.keyed),
        selection: this.backend_set.begin(ask),
        handed: None,
        sticky,
        set_cookie,
        response_lines,
        // Without chunks, nothing would show where a body of unknown length was cut off.
        coding: compression(http, route)
            .filter(|_| head.version != Version::Http10)
            .and_then(|rule| compress::choose(rule, bytes, head)),
        explain,
        admission,
        head_len: out.len(),
        out,
        lines,
        authority,
        target_sensitive: head.target_sensitive,
        replayable: true,
        is_terminated: false,
        trailers: HeadWriter::new(Vec::new(), Vec::new(), true),
        chunked,
        joined: 0,
        kept: None,
        mirror: None,
        method: head.method,
        version: head.version,
        keep_alive: head.keep_alive,
        upgrade: protocols.is_some(),
        protocols: protocols.unwrap_or_default(),
        grpc: is_grpc(bytes, head),
        encoding,
        body_bytes_left: actions.and_then(|actions| actions.body_bytes_max).unwrap_or(http.body_bytes_max),
        started,
        limit: limit(client, head, bytes, actions.and_then(|actions| actions.timeout), this),
        ended_try: None,
        failover: Failover::default(),
        retries: Retries::default(),
        entry,
        trace,
        report: Report {
            line,
            marked,
            client: named_client(client, origin),
            received_bytes: head.head_len as u64,
            ..Report::default()
        },
    }))
}

/// What there is to know of a request at its beginning, for who records it: of its route its path, its number and the key's hash.
fn beginning<'a>(
    client: &'a Client,
    (bytes, head): (&'a [u8], &'a RequestHead),
    (origin, started): (Origin, Instant),
    service: Option<&'a str>,
    (route, number, hash): (Option<&'a PathMatch>, Option<usize>, Option<Hash>),
) -> Beginning<'a> {
    Beginning { client, bytes, head, origin, started, route, number, service, hash }
}

/// The client for the access log, where a trusted hop has named another than the peer.
fn named_client(client: &Client, origin: Origin) -> Option<Box<str>> {
    let named = origin.address != client.open.peer.ip() && client.open.worker.logs_access();
    named.then(|| origin.address.to_string().into())
}

/// End of the whole exchange: the route's limit or the service's, or the client's if that is earlier.
fn limit(
    client: &Client,
    head: &RequestHead,
    buffer: &[u8],
    of_route: Option<Duration>,
    service: &Service,
) -> Deadline {
    let limit = client.timer.deadline(of_route.unwrap_or(service.config.timeouts.request));
    match head.value_of(buffer, b"grpc-timeout").and_then(grpc_timeout) {
        Some(timeout) => limit.min(client.timer.deadline(timeout.max(Duration::from_millis(1)))),
        None => limit,
    }
}
