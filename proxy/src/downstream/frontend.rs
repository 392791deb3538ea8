//! What serves a worker's clients, and what that keeps from connection to connection.

use super::stream_tasks::StreamTasks;
use crate::worker::Worker;
use std::cell::Cell;
use std::rc::Rc;

/// A worker, as the connections of its clients have it.
pub(crate) struct Frontend {
    pub(crate) worker: Rc<Worker>,
    /// Tasks for streams of HTTP/2.
    pub(crate) streams: StreamTasks,
    /// Clients that are being told why they are turned away.
    pub(crate) farewells: Cell<u32>,
}

impl Frontend {
    pub(crate) fn new(worker: Rc<Worker>) -> Rc<Self> {
        Rc::new(Self { worker, streams: StreamTasks::default(), farewells: Cell::new(0) })
    }

    /// Gives memory back that only a busier time needs.
    pub(crate) fn trim(&self) {
        self.streams.trim();
    }
}
