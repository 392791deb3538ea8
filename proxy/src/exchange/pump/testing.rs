//! An exchange between two connections in memory, whose other ends a test holds.

use super::Exchange;
use crate::codec::end::{BackendEnd, ClientEnd};
use crate::codec::http1::Http1;
use crate::dispatcher::{ListenerId, ListenerPermits};
use crate::error::ProxyError;
use crate::exchange::attempt::Attempt;
use crate::exchange::client::Client;
use crate::exchange::clock::Clock;
use crate::exchange::outcome::TryError;
use crate::exchange::request::{self, Request};
use crate::net::stream::Stream;
use crate::net::timer::Deadline;
use crate::net::transport::Transport;
use crate::net::transport::memory::{Shape, Socket, pair};
use crate::upstream::Connection;
use crate::worker::testing::Rig;
use crate::worker::{ActiveListener, OpenConnection};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

pub(super) const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A request that has been read, and its client.
pub(super) struct Stage {
    pub(super) rig: Rig,
    client: Client,
    request: Box<Request>,
}

/// Both ends of a connection, ours first.
fn connection(shape: Shape) -> (Http1, Socket) {
    let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let (ours, theirs) = pair(shape, address(1), address(2));
    (Http1::new(Stream::Plain(Transport::Memory(ours))), theirs)
}

impl Stage {
    /// With this request, and bytes that have come behind its head; and the client's end.
    pub(super) fn new(text: &str) -> (Self, Socket) {
        Self::with(text, Shape::default())
    }

    /// The same, on a connection of this shape.
    pub(super) fn with(text: &str, shape: Shape) -> (Self, Socket) {
        let limits = "limits: { requests_max: 1, retries_max: 1 }";
        let rig = Rig::new(&format!("{{ name: s, {limits}, backends: [ {{ id: a, address: \"127.0.0.1:1\" }} ] }}"));
        let worker = Rc::clone(&rig.worker);
        let view = worker.view();
        let key = ListenerId::of(&view.snapshot.config.listeners[0]);
        let active = ActiveListener::new(key, "127.0.0.1:0".into(), Arc::<ListenerPermits>::default());
        let open = Rc::new(OpenConnection::begin(&worker, &active, None, SocketAddr::from(([127, 0, 0, 1], 1))));
        let (http1, theirs) = connection(shape);
        let mut client = Client::new(open, ClientEnd::Http1(http1));
        assert_eq!(client.end.http1().input.put(text.as_bytes()), text.len());
        let mut scratch = worker.scratch.borrow_mut();
        let limits = ringway_http1::Limits::default();
        assert_eq!(ringway_http1::parse_request(text.as_bytes(), &limits, &mut scratch.request), Ok(true));
        let prepared = request::prepare(&client, text.as_bytes(), &view, 0, &mut scratch);
        let Ok(mut request) = prepared else { panic!("refused: {text}") };
        let http1 = client.end.http1();
        http1.body = scratch.request.body.into();
        http1.input.consume(scratch.request.head_len);
        drop(scratch);
        assert_eq!(request.take_small_body(&mut client), Ok(()));
        (Self { rig, client, request }, theirs)
    }

    /// An attempt that begins now, and the backend's end of its connection.
    pub(super) fn attempt(&self, reused: bool) -> (Attempt, Socket) {
        let (http1, theirs) = connection(Shape::default());
        let connection = Connection { end: BackendEnd::Http1(http1), slot: None, reused };
        (Attempt::begin(connection, Clock::stopped(), &self.rig.worker), theirs)
    }

    /// The exchange, and what its time goes by.
    pub(super) fn exchange(&mut self, attempt: Attempt) -> (Exchange<'_>, &Rig) {
        let Self { rig, client, request } = self;
        request.report.backend = Some(0);
        (Exchange::new(client, request, attempt, Deadline::NEVER), rig)
    }
}

/// Polls once.
pub(super) fn once<T>(polling: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    polling(&mut Context::from_waker(Waker::noop()))
}

/// Polls the attempt once: whether the response can be forwarded, or whose fault it is that it cannot, and which.
pub(super) fn respond(exchange: &mut Exchange<'_>) -> Poll<Result<(), (&'static str, ProxyError)>> {
    once(|context| exchange.poll_response(context)).map_err(|error| match error {
        TryError::Upstream(error) => ("backend", error),
        TryError::Downstream(error) => ("client", error),
    })
}

/// All that has come at an end.
pub(super) fn said(end: &Socket) -> String {
    let (mut text, mut space) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = end.try_read(&mut space) {
        text.extend_from_slice(&space[..count]);
    }
    String::from_utf8(text).unwrap()
}

/// Says all of this from an end.
pub(super) fn say(end: &Socket, text: &str) {
    assert_eq!(end.try_write(text.as_bytes()).unwrap(), text.len());
}
