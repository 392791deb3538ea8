//! What serves a worker's clients, and what it keeps from connection to connection.

use super::exchange_pool::ExchangePool;
use super::stream_tasks::StreamTasks;
use crate::worker::Worker;
use std::cell::Cell;
use std::rc::Rc;

/// A worker, as its clients' connections see it.
pub(crate) struct Frontend {
    pub(crate) worker: Rc<Worker>,
    /// Exchanges of HTTP/1.1 connections.
    pub(super) exchanges: ExchangePool,
    /// Tasks for streams of HTTP/2.
    pub(crate) streams: StreamTasks,
    /// Clients that get a local reply as they are turned away.
    pub(crate) farewells: Cell<u32>,
}

impl Frontend {
    pub(crate) fn new(worker: Rc<Worker>) -> Rc<Self> {
        Rc::new(Self {
            worker,
            exchanges: ExchangePool::default(),
            streams: StreamTasks::default(),
            farewells: Cell::new(0),
        })
    }

    /// Frees memory that only a busier time needs.
    pub(crate) fn trim(&self) {
        self.exchanges.trim();
        self.streams.trim();
    }
}
