//! Where the exchanges of HTTP/1.1 connections run. An exchange's future is several times as large as all that an idle connection holds: it
//! is taken from here for as long as a request is served, and is not made anew for each.

use super::connection::Connection;
use crate::exchange::request::Request;
use crate::exchange::{self, Next};
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Idle ones, at most, per worker: about half a MiB.
const KEPT: usize = 256;

/// A worker's pool.
#[derive(Default)]
pub(super) struct ExchangePool(RefCell<Vec<Runner>>);

/// What is to be done, and what has been.
#[derive(Default)]
struct Mailbox {
    request: Cell<Option<(Box<Connection>, Box<Request>)>>,
    outcome: Cell<Option<(Box<Connection>, Next)>>,
}

/// Runs one exchange after the other, each for the connection that polls it.
pub(super) struct Runner {
    mailbox: Rc<Mailbox>,
    future: Pin<Box<dyn Future<Output = Infallible>>>,
}

impl Runner {
    fn new() -> Self {
        let mailbox = Rc::new(Mailbox::default());
        let future = Box::pin(run_all(Rc::clone(&mailbox)));
        Self { mailbox, future }
    }
}

async fn run_all(mailbox: Rc<Mailbox>) -> Infallible {
    loop {
        let next = poll_fn(|_| mailbox.request.take().map_or(Poll::Pending, Poll::Ready));
        let (mut connection, mut request) = next.await;
        let next = exchange::run(&mut connection.client, &mut request).await;
        drop(request);
        mailbox.outcome.set(Some((connection, next)));
    }
}

impl Runner {
    /// Ready once the exchange is over. It never ends itself; what it waits for wakes the connection's task.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<(Box<Connection>, Next)> {
        let Poll::Pending = self.future.as_mut().poll(context);
        self.mailbox.outcome.take().map_or(Poll::Pending, Poll::Ready)
    }
}

impl ExchangePool {
    /// Begins to serve a connection's request.
    pub(super) fn begin(&self, connection: Box<Connection>, request: Box<Request>) -> Runner {
        let runner = self.0.borrow_mut().pop().unwrap_or_else(Runner::new);
        runner.mailbox.request.set(Some((connection, request)));
        runner
    }

    /// Takes back one whose exchange is over.
    pub(super) fn give(&self, runner: Runner) {
        let mut idle = self.0.borrow_mut();
        if idle.len() < KEPT {
            idle.push(runner);
        }
    }

    /// Frees half of the idle ones.
    pub(super) fn trim(&self) {
        let mut idle = self.0.borrow_mut();
        let keep = idle.len() / 2;
        idle.truncate(keep);
    }
}
