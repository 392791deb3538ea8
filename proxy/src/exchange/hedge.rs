//! A second try beside the first: when no byte of the answer has come for a while, the request also goes to the next backend
//! of its walk. Whichever begins to answer first is taken, the other connection is closed.

use super::pump::{Exchange, TryError};
use crate::error::ProxyError;
use crate::http::{Client, Peer};
use crate::inflight::{self, InFlight};
use crate::request::Request;
use crate::stream::Stream;
use crate::timer::{Deadline, Timer};
use crate::upstream::{Connection, Reach};
use crate::worker::Worker;
use ringway_ring::Selection;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::io::AsyncWriteExt;

/// A request's second try: first the wait for it, then the try.
pub(super) struct Hedge {
    wait: Pin<Box<tokio::time::Sleep>>,
    rival: Option<Pin<Box<dyn Future<Output = Option<Rival>>>>>,
    /// It has been tried: a request has one rival at most.
    spent: bool,
}

/// The second try, with the first byte of its answer come.
struct Rival {
    guard: InFlight,
    connection: Connection,
    selection: Selection,
}

impl Hedge {
    /// Of a request whose service hedges, and which may be sent twice.
    pub(super) fn new(client: &Client, request: &Request, repeatable: bool) -> Option<Self> {
        let this = &request.view.services[request.service];
        // What goes beside the text of a request would not reach the second.
        let beside =
            matches!(&client.stream, Stream::Downstream(stream) if stream.may_trail() || stream.length().is_some());
        let may = repeatable && request.replayable && !request.upgrade && !beside;
        let hedge = this.service.config.hedge.filter(|_| may)?;
        this.live.hedges.borrow_mut().count(client.open.worker.second());
        Some(Self { wait: Box::pin(tokio::time::sleep(hedge.after)), rival: None, spent: false })
    }

    /// The answer that begins first. The guard is then that of its backend.
    pub(super) async fn race(&mut self, exchange: &mut Exchange<'_>, guard: &mut InFlight) -> Result<(), TryError> {
        let mut failed = None;
        loop {
            let rival = poll_fn(|context| {
                if failed.is_none() {
                    match exchange.poll_answer(context) {
                        // The rival, if there is one, may still answer.
                        Poll::Ready(Err(TryError::Upstream(error))) if self.rival.is_some() => failed = Some(error),
                        Poll::Ready(result) => return Poll::Ready(Err(result)),
                        Poll::Pending if !exchange.is_waiting() => {
                            // The first has begun to answer.
                            self.rival = None;
                            return Poll::Pending;
                        }
                        Poll::Pending => {}
                    }
                } else if exchange.poll_left(context, exchange.request.may_half_close()).is_ready() {
                    return Poll::Ready(Err(Err(TryError::Downstream(ProxyError::ClientClosed))));
                }
                self.poll(context, exchange).map(Ok)
            })
            .await;
            match rival {
                Err(result) => return result,
                Ok(Some(rival)) => {
                    let view = Rc::clone(&exchange.request.view);
                    let this = &view.services[exchange.request.service];
                    if let Some(error) = failed.take() {
                        let worker = &exchange.client.open.worker;
                        let error = super::timed_out(error, worker, exchange.request.limit);
                        // As without a rival: a connection that was being closed, or held what was left on it, tells nothing.
                        let stream = &exchange.upstream.stream;
                        let tells_nothing = stream.was_unprocessed() && !stream.was_refused()
                            || exchange.is_first_on_used()
                                && matches!(error, ProxyError::UpstreamClosed | ProxyError::BadAnswer(_));
                        if !tells_nothing {
                            guard.report_error(error);
                        }
                    }
                    this.cells.hedges_won.increment();
                    *guard = rival.guard;
                    exchange.request.set_cookie =
                        guard.wants_cookie().then(|| guard.cookie()).or(exchange.request.set_cookie);
                    exchange.request.selection = rival.selection;
                    exchange.request.report.backend = Some(guard.index());
                    exchange.replace(rival.connection);
                    return poll_fn(|context| exchange.poll_answer(context)).await;
                }
                // The rival has come to nothing.
                Ok(None) => {
                    if let Some(error) = failed {
                        return Err(TryError::Upstream(error));
                    }
                }
            }
        }
    }

    fn poll(&mut self, context: &mut Context<'_>, exchange: &Exchange<'_>) -> Poll<Option<Rival>> {
        if self.rival.is_none() {
            if self.spent {
                return Poll::Pending;
            }
            std::task::ready!(self.wait.as_mut().poll(context));
            self.spent = true;
            self.rival = begin(exchange);
        }
        let Some(rival) = &mut self.rival else { return Poll::Pending };
        let ended = std::task::ready!(rival.as_mut().poll(context));
        self.rival = None;
        Poll::Ready(ended)
    }
}

/// The second try, if the budget allows it and another backend has room.
fn begin(exchange: &Exchange<'_>) -> Option<Pin<Box<dyn Future<Output = Option<Rival>>>>> {
    let request = &*exchange.request;
    let worker = Rc::clone(&exchange.client.open.worker);
    let view = Rc::clone(&request.view);
    let service = request.service;
    let this = &view.services[service];
    let percent = this.service.config.hedge?.budget_percent;
    if !this.live.hedges.borrow_mut().take(worker.second(), percent, 1) {
        return None;
    }
    let mut selection = request.selection.clone();
    let guard = inflight::acquire_now(&view, service, &mut selection, worker.index)?;
    this.cells.hedges.increment();
    let timer = worker.timer();
    let peer = Rc::clone(&exchange.client.peer);
    let client_trails = matches!(exchange.client.stream, Stream::Downstream(_));
    let what = Sending { bytes: request.out.clone(), limit: request.limit, peer, client_trails };
    Some(Box::pin(async move {
        match run(&guard, &view, service, &timer, &what, &worker).await {
            Ok(connection) => Some(Rival { guard, connection, selection }),
            Err(error) => {
                let error = super::timed_out(error, &worker, what.limit);
                guard.report_error(error);
                None
            }
        }
    }))
}

/// A request, to be sent again.
struct Sending {
    bytes: Vec<u8>,
    limit: Deadline,
    peer: Rc<Peer>,
    client_trails: bool,
}

/// Sends the request and waits for the first byte of its answer.
async fn run(
    guard: &InFlight,
    view: &Rc<crate::worker::View>,
    service: usize,
    timer: &Timer,
    what: &Sending,
    worker: &Rc<Worker>,
) -> Result<Connection, ProxyError> {
    let this = &view.services[service];
    let config = &this.service.config;
    let upstream = &this.upstreams[guard.index()];
    let reach = Reach { worker, service: this, slot: guard.slot, peer: Some(&what.peer), limit: what.limit, timer };
    let mut connection = reach.connection(false, true).await?;
    let stream = &mut connection.stream;
    if let Stream::Upstream(stream) = stream {
        stream.client_trails = what.client_trails;
    }
    upstream.cells.requests.increment();
    timer.set_before(config.timeouts.body_idle, what.limit);
    let mut sending = pin!(stream.write_all(&what.bytes));
    let sent = poll_fn(|context| match sending.as_mut().poll(context) {
        Poll::Ready(result) => Poll::Ready(result.map_err(|_| ProxyError::UpstreamClosed)),
        Poll::Pending if timer.poll_fired(context) => Poll::Ready(Err(ProxyError::SendTimeout)),
        Poll::Pending => Poll::Pending,
    });
    sent.await?;
    timer.set_before(config.timeouts.response, what.limit);
    let answered = poll_fn(|context| {
        stream.poll_drive(context);
        if let Poll::Ready(result) = stream.poll_read_ready(context) {
            return Poll::Ready(result.map_err(|_| ProxyError::UpstreamClosed));
        }
        if timer.poll_fired(context) {
            stream.handle_timeout();
            return Poll::Ready(Err(ProxyError::ResponseTimeout));
        }
        Poll::Pending
    });
    answered.await?;
    // An end is no answer.
    let mut byte = [std::mem::MaybeUninit::uninit()];
    match stream.tcp().map(|tcp| socket2::SockRef::from(tcp).peek(&mut byte)) {
        None | Some(Ok(1..)) => {}
        Some(Err(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {}
        Some(_) => return Err(ProxyError::UpstreamClosed),
    }
    Ok(connection)
}
