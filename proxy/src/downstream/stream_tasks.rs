//! Tasks that serve HTTP/2 streams, and the count of a connection's streams.

use crate::codec::end::ClientEnd;
use crate::codec::http2::{Downstream, REST_TIME, Stream};
use crate::error::ProxyError;
use crate::exchange::client::Client;
use crate::exchange::local_reply::LocalReply;
use crate::exchange::request::{self, Request};
use crate::exchange::{self, Next};
use crate::net::timer::Timer;
use crate::worker::{OpenConnection, View, Worker};
use ringway_http2::Reason;
use ringway_message::ParseError;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// How many streams are served, and the timer that runs while none is.
pub(super) struct Activity {
    pub(super) streams: Cell<usize>,
    /// How often a stream has begun or ended.
    pub(super) turns: Cell<u64>,
    pub(super) timer: Timer,
    /// How long it runs then: less once the connection ends.
    pub(super) idle: Cell<Duration>,
    /// It runs for a first part of that, after which the connection frees what only a busy one needs; then for the rest.
    pub(super) rest: Cell<Option<Duration>>,
}

impl Activity {
    /// No stream is served.
    pub(super) fn idle(&self) {
        let idle = self.idle.get();
        // Zero is for ever.
        let rest = (idle.is_zero() || idle > REST_TIME).then(|| idle.saturating_sub(REST_TIME));
        self.rest.set(rest);
        self.timer.set(if rest.is_some() { REST_TIME } else { idle });
    }
}

/// A stream that is served.
pub(super) struct Active(Rc<Activity>);

impl Active {
    pub(super) fn begin(activity: &Rc<Activity>) -> Self {
        activity.streams.set(activity.streams.get() + 1);
        activity.turns.set(activity.turns.get() + 1);
        Self(Rc::clone(activity))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.turns.set(self.0.turns.get() + 1);
        if self.0.streams.get() == 0 {
            self.0.idle();
        }
    }
}

/// A stream to be served.
pub(super) struct Job {
    pub(super) stream: Stream,
    pub(super) fault: Option<ParseError>,
    pub(super) open: Rc<OpenConnection>,
    pub(super) active: Active,
}

/// Tasks that serve streams, one after the other: a task is some kilobytes, which are not allocated and freed for each stream.
#[derive(Default)]
pub(crate) struct StreamTasks(Rc<RefCell<Vec<Rc<StreamTask>>>>);

/// A task that waits for its next stream.
#[derive(Default)]
struct StreamTask {
    job: RefCell<Option<Job>>,
    /// There is no next one.
    is_over: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl StreamTask {
    /// Waits for the next job; `None`: there is none.
    fn poll_job(&self, context: &Context<'_>) -> Poll<Option<Job>> {
        let job = self.job.take();
        if job.is_some() || self.is_over.get() {
            return Poll::Ready(job);
        }
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
        Poll::Pending
    }

    fn wake(&self) {
        self.waker.borrow().iter().for_each(Waker::wake_by_ref);
    }
}

/// Idle tasks, at most, per worker.
const TASKS_KEPT: usize = 1024;

impl StreamTasks {
    pub(super) fn serve(&self, worker: &Worker, job: Job) {
        let idle = self.0.borrow_mut().pop();
        if let Some(task) = idle {
            *task.job.borrow_mut() = Some(job);
            task.wake();
            return;
        }
        let task = Rc::new(StreamTask { job: RefCell::new(Some(job)), ..StreamTask::default() });
        worker.spawn("a stream of HTTP/2", run_streams(Rc::clone(&self.0), task));
    }

    /// The idle tasks.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.0.borrow().len()
    }

    /// Ends half of the idle tasks.
    pub(crate) fn trim(&self) {
        let mut idle = self.0.borrow_mut();
        let keep = idle.len() / 2;
        for task in idle.drain(keep..) {
            task.is_over.set(true);
            task.wake();
        }
    }
}

async fn run_streams(idle: Rc<RefCell<Vec<Rc<StreamTask>>>>, task: Rc<StreamTask>) {
    // All in one future: futures that are awaited inside are not moved.
    while let Some(job) = poll_fn(|context| task.poll_job(context)).await {
        let Job { stream, fault, open, active } = job;
        if let Some((view, listener)) = open.worker.listener(&open.active_listener) {
            let end = ClientEnd::Http2(Downstream::new(stream));
            serve_stream(Client::new(open, end), fault, &view, listener).await;
        } else {
            // It was not processed: the client may send it elsewhere.
            stream.reset(Reason::RefusedStream);
        }
        drop(active);
        if idle.borrow().len() >= TASKS_KEPT {
            return;
        }
        idle.borrow_mut().push(Rc::clone(&task));
    }
}

/// Serves a stream of HTTP/2: one request, and the response to it.
async fn serve_stream(mut client: Client, fault: Option<ParseError>, view: &Rc<View>, listener: usize) {
    client.timer.set(view.http(listener).timeouts.head);
    match take_request(&mut client, fault, view, listener) {
        None => {}
        Some(Err(mut refusal)) => {
            refusal.send(&mut client).await;
        }
        Some(Ok(mut request)) => {
            // The part of the stream that is still open is reset.
            let _: Next = exchange::run(&mut client, &mut request).await;
        }
    }
}

/// The request of a stream; `None`: its client has reset it before its turn, which counts as no request.
fn take_request(
    client: &mut Client,
    fault: Option<ParseError>,
    view: &Rc<View>,
    listener: usize,
) -> Option<Result<Box<Request>, Box<LocalReply>>> {
    let worker = Rc::clone(&client.open.worker);
    let ClientEnd::Http2(stream) = &mut client.end else { return None };
    if stream.is_gone() {
        return None;
    }
    if let Some(fault) = fault {
        stream.handle_fault();
        let refusal = LocalReply::of_stream(ProxyError::BadRequest(fault));
        return Some(Err(refusal.told_by(b"", view.http(listener), &worker)));
    }
    let mut scratch = worker.scratch.borrow_mut();
    let mut arena = std::mem::take(&mut scratch.arena);
    let taken = stream.take_request(&mut scratch.request, &mut arena).then(|| {
        let mut request = request::prepare(client, &arena, view, listener, &mut scratch)?;
        request.take_small_body(client).map_err(LocalReply::of_stream)?;
        Ok(request)
    });
    scratch.arena = arena;
    taken
}
