//! Upstream connections: a pool per worker and backend, last in, first out.

pub(crate) mod connection_slot;
pub(crate) mod failover;
pub(crate) mod in_flight;
pub(crate) mod preconnect;
pub(crate) mod queue;
pub(crate) mod retry;
pub(crate) mod search;

use crate::codec::end::BackendEnd;
use crate::codec::http1::Http1;
use crate::codec::http2::{self, Opening};
use crate::dispatcher::Shared;
use crate::error::ProxyError;
use crate::net::shortage::{Operation, Resource};
use crate::net::stream::Stream;
use crate::net::timer::{Deadline, Timer};
use crate::net::transport::Transport;
use crate::net::{happy_eyeballs, proxy_protocol};
use crate::snapshot::Service;
use crate::snapshot::connection_life::ConnectionLife;
use crate::snapshot::connection_slot::{ConnectionSlot, Pending};
use crate::worker::Peer;
use crate::worker::{Upstream, Worker, WorkerService};
use ringway_config::model::{ProxyHeader, UpstreamProtocol};
use ringway_ring::Slot;
use ringway_telemetry::counters::ServiceCounters;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// A connection to a backend, in use.
pub(crate) struct Connection {
    pub(crate) end: BackendEnd,
    /// Counts it among the backend's; a shared connection is counted elsewhere.
    pub(crate) slot: Option<ConnectionSlot>,
    /// It has carried a request before: the backend may close it at any time.
    pub(crate) reused: bool,
}

impl Connection {
    fn http1((stream, slot): (Stream, ConnectionSlot), reused: bool) -> Self {
        Self { end: BackendEnd::Http1(Http1::new(stream)), slot: Some(slot), reused }
    }

    fn http2(stream: http2::Upstream) -> Self {
        Self { reused: stream.reused, end: BackendEnd::Http2(Box::new(stream)), slot: None }
    }
}

/// What it takes to get a connection to a backend for one exchange.
pub(crate) struct Connector<'a> {
    pub(crate) worker: &'a Rc<Worker>,
    pub(crate) service: &'a WorkerService,
    pub(crate) slot: Slot,
    /// The client that a PROXY header names, if one is sent to the backend.
    pub(crate) peer: Option<&'a Peer>,
    pub(crate) limit: Deadline,
    pub(crate) timer: &'a Timer,
}

/// A used connection to this backend, if there is one at once. `certain`: see `worker::Pool::take`.
pub(crate) fn at_hand(worker: &Worker, service: &WorkerService, slot: Slot, certain: bool) -> Option<Connection> {
    let upstream = &service.upstreams[usize::from(slot.0)];
    match service.service.config.protocol {
        UpstreamProtocol::H2 => {
            upstream.shared.take(false, &service.service.config.pool, &worker.timers).map(Connection::http2)
        }
        // An upgrade takes the connection for good; a pooled one serves as well.
        UpstreamProtocol::Http1 => {
            upstream.pool.take(certain, &worker.counters).map(|taken| Connection::http1(taken, true))
        }
    }
}

impl Connector<'_> {
    /// A used connection, or a fresh one. `certain`: see `worker::Pool::take`.
    pub(crate) async fn connection(&self, fresh: bool, certain: bool) -> Result<Connection, ProxyError> {
        if !fresh && let Some(connection) = at_hand(self.worker, self.service, self.slot, certain) {
            return Ok(connection);
        }
        match self.service.service.config.protocol {
            UpstreamProtocol::H2 => self.stream(fresh).await,
            UpstreamProtocol::Http1 => Ok(Connection::http1(self.open().await?, false)),
        }
    }

    /// A stream of a shared connection that is opened now. `fresh`: of none that was there before.
    async fn stream(&self, fresh: bool) -> Result<Connection, ProxyError> {
        let upstream = &self.service.upstreams[usize::from(self.slot.0)];
        let pending = Pending::enter_for(&self.service.service, self.slot)?;
        let opened = self.opened_stream(upstream, fresh).await;
        pending.end(&opened);
        opened.map(Connection::http2)
    }

    /// A stream of a connection that is being opened now, by this request or another.
    async fn opened_stream(&self, upstream: &Rc<Upstream>, mut fresh: bool) -> Result<http2::Upstream, ProxyError> {
        let (shared, limits) = (&upstream.shared, &self.service.service.config.pool);
        self.timer.set_before(Duration::ZERO, self.limit);
        let _waiting = shared.wait();
        loop {
            // A connection that another request is just opening serves as well.
            let mut opened = pin!(shared.opened());
            if let Some(opening) = shared.open(limits) {
                let (worker, service) = (Rc::clone(self.worker), Arc::clone(&self.service.service));
                let counters = Arc::clone(&self.service.counters);
                let opens = open_shared(worker, (service, counters), self.slot, Rc::clone(upstream), opening, None);
                self.worker.spawn("the opening of a shared connection", async {
                    let (Ok(()) | Err(_)) = opens.await;
                });
            }
            let result = poll_fn(|context| match opened.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(Ok(())),
                Poll::Pending if self.timer.poll_fired(context) => Poll::Ready(Err(ProxyError::ConnectTimeout)),
                Poll::Pending => Poll::Pending,
            });
            result.await?;
            if let Some(stream) = shared.take(std::mem::take(&mut fresh), limits, &self.worker.timers) {
                return Ok(stream);
            }
            shared.outcome()?;
        }
    }

    /// A fresh connection, counted.
    pub(crate) async fn open(&self) -> Result<(Stream, ConnectionSlot), ProxyError> {
        let service = &self.service.service;
        let pending = Pending::enter_for(service, self.slot)?;
        let opening = async {
            let slot = connection_slot::slot(service, self.slot, self.worker, self.timer, self.limit).await?;
            self.open_on(slot, true).await
        };
        let opened = opening.await;
        pending.end(&opened);
        opened
    }

    /// A fresh connection, in place of one that is counted already. `needed`: see [`connect`].
    async fn open_on(&self, mut slot: ConnectionSlot, needed: bool) -> Result<(Stream, ConnectionSlot), ProxyError> {
        let (service, worker, counters) = (&self.service.service, self.worker, &self.service.counters);
        self.service.upstreams[usize::from(self.slot.0)].counters.connects.increment();
        let opens = Opens { worker, counters, needed };
        let stream = connect(service, self.slot, self.peer, self.limit, self.timer, opens).await?;
        slot.life = ConnectionLife::begin(&service.config.pool, worker.timers.now(), || worker.random());
        Ok((stream, slot))
    }
}

/// Opens a connection that requests share. No request owns it: it stays when the client that caused it leaves.
/// `counted`: its place, if there is one already: no request needs it yet.
async fn open_shared(
    worker: Rc<Worker>,
    (service, counters): (Arc<Service>, Arc<ServiceCounters>),
    slot: Slot,
    upstream: Rc<Upstream>,
    opening: Opening,
    counted: Option<ConnectionSlot>,
) -> Result<(), ProxyError> {
    let timer = worker.timer();
    let opened = async {
        let needed = counted.is_none();
        let mut counted = match counted {
            Some(counted) => counted,
            None => match connection_slot::slot(&service, slot, &worker, &timer, Deadline::NEVER).await {
                Err(ProxyError::ConnectionLimit) => {
                    let retired = upstream.shared.revive(&service.config.pool, &worker.timers);
                    return retired.ok_or(ProxyError::ConnectionLimit);
                }
                taken => taken?,
            },
        };
        upstream.counters.connects.increment();
        // No PROXY header goes on a shared connection: the configuration check ensures that.
        let opens = Opens { worker: &worker, counters: &counters, needed };
        let stream = connect(&service, slot, None, Deadline::NEVER, &timer, opens).await?;
        counted.life = ConnectionLife::begin(&service.config.pool, worker.timers.now(), || worker.random());
        let (keepalive, flood) = (service.config.keepalive, service.config.flood);
        let beginning = http2::Connection::begin(stream, counted, &worker.dispatcher, keepalive, flood);
        let connection = within(&timer, ProxyError::Http2Failed, beginning).await?;
        // A connection that takes no streams is of no use: the waiting requests are better off elsewhere.
        if connection.has_room(&service.config.pool) { Ok(connection) } else { Err(ProxyError::StreamRefused) }
    };
    let opened = opened.await;
    let outcome = opened.as_ref().map(|_| ()).map_err(|error| *error);
    upstream.shared.put(opening, opened, &service.config.pool);
    if outcome.is_ok() {
        // The request that wanted it may be gone: it is idle, and can give way.
        service.live.tell_room();
    }
    outcome
}

/// Who opens a connection.
#[derive(Clone, Copy)]
struct Opens<'a> {
    worker: &'a Worker,
    counters: &'a ServiceCounters,
    /// A request needs it now, and idle ones make room for it.
    needed: bool,
}

/// Opens a connection to a backend: TCP, then what the service puts on it (PROXY header, TLS), which is the same for both of its addresses
/// where it has two.
async fn connect(
    service: &Service,
    slot: Slot,
    peer: Option<&Peer>,
    limit: Deadline,
    timer: &Timer,
    opens: Opens<'_>,
) -> Result<Stream, ProxyError> {
    let address = service.address(slot);
    timer.set_before(service.config.timeouts.connect, limit);
    let mut opened = within(timer, ProxyError::ConnectFailed, open(service, slot, opens)).await;
    if opens.needed && matches!(opened, Err(ProxyError::LocalShortage)) && opens.worker.release_idle() > 0 {
        opened = within(timer, ProxyError::ConnectFailed, open(service, slot, opens)).await;
    }
    let mut tcp = opened?;
    if let Some(version) = service.config.proxy_protocol {
        let mut header = Vec::new();
        proxy_protocol::write(version, &told(version, peer, opens.worker), &mut header);
        within(timer, ProxyError::ConnectFailed, tcp.write_all(&header)).await?;
    }
    let Some(tls) = &service.tls else { return Ok(Stream::Plain(tcp)) };
    let connector = tokio_rustls::TlsConnector::from(tls.config_for(address));
    // Boxed: a handshake must not make every connection's future larger.
    let connecting = Box::pin(connector.connect(tls.name(address.ip()), tcp));
    let stream = within(timer, ProxyError::TlsFailed, connecting).await?;
    Ok(Stream::Client(Box::new(stream)))
}

/// A connection to a backend: to the address that it has, or to whichever of two takes it first.
async fn open(service: &Service, slot: Slot, opens: Opens<'_>) -> std::io::Result<Transport> {
    let backend = &service.backends[usize::from(slot.0)];
    let timeouts = &service.config.timeouts;
    let open_at = |address| open_at(address, timeouts.tcp_user_timeout, opens.worker);
    let Some(additional) = backend.config.additional_address else { return open_at(backend.config.address).await };
    let (addresses, preference) = ([backend.config.address, additional], &backend.state.preferences.traffic);
    // Boxed: few backends have two addresses, and the futures of all would be larger.
    let connecting = Box::pin(happy_eyeballs::connect(addresses, preference, timeouts.connect, open_at));
    let (opened, address) = connecting.await?;
    if address == additional {
        opens.counters.additional_connects.increment();
    }
    Ok(opened)
}

/// A connection to an address, within the descriptors that the data path may take.
async fn open_at(address: SocketAddr, user_timeout: Duration, worker: &Worker) -> std::io::Result<Transport> {
    let Shared { network, shortage, .. } = &*worker.shared;
    let opened = network.connect(address, user_timeout, shortage).await;
    if let Err(error) = &opened
        && Resource::of(error).is_some()
    {
        shortage.note(Operation::Connect, error, address);
    }
    opened
}

/// The PROXY header for a client.
fn told(version: ProxyHeader, peer: Option<&Peer>, worker: &Worker) -> proxy_protocol::Header {
    let Some(peer) = peer else { return proxy_protocol::Header::default() };
    proxy_protocol::Header {
        addresses: peer.destination().map(|destination| (peer.address(), destination)),
        authority: peer.server_name.clone().map(String::from),
        secure: peer.secure,
        unique_id: matches!(version, ProxyHeader::V2 { unique_id: true }).then(|| peer.unique_id(worker).into()),
    }
}

/// Runs a future to its end, or to the timer's.
async fn within<T>(
    timer: &Timer,
    otherwise: ProxyError,
    doing: impl Future<Output = std::io::Result<T>>,
) -> Result<T, ProxyError> {
    let mut doing = pin!(doing);
    poll_fn(|context| {
        if let Poll::Ready(result) = doing.as_mut().poll(context) {
            return Poll::Ready(result.map_err(|error| ProxyError::of_io(&error, otherwise)));
        }
        if timer.poll_fired(context) {
            return Poll::Ready(Err(ProxyError::ConnectTimeout));
        }
        Poll::Pending
    })
    .await
}
