//! One thread's timers, buffers and counters.

use super::bulk::BulkQueue;
use super::command::Command;
use super::ids::Ids;
use super::shared::{AccessSink, Shared};
use super::tap::Taps;
use super::tasks;
use crate::ambient;
use crate::net::buffers::Buffers;
use crate::net::pipe::Pipes;
use crate::net::timer::{Timer, Timers};
use ringway_http2::{Memory, MemoryLimits};
use ringway_message::{RequestHead, ResponseHead};
use ringway_ring::Reader;
use ringway_telemetry::access::{AccessLog, Format};
use ringway_telemetry::counters::WorkerCounters;
use ringway_telemetry::traces::{Outcome, Sink, SpanBatch};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Buffers for bodies over HTTP/2 that a worker keeps, of 16 KiB each, and more for heads: what ten busy connections need. They are
/// freed by halves.
const HTTP2_BUFFERS_KEPT: usize = 512;
/// Bytes by which the windows of a worker's streams may grow, all together.
pub(crate) const HTTP2_WINDOW_GROWTH: u32 = 4 * 1024 * 1024;

/// Tables that are reused from request to request; borrowed only between two waits.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) request: RequestHead,
    pub(crate) response: ResponseHead,
    pub(crate) key: Vec<u8>,
    /// The text of a head that came over HTTP/2.
    pub(crate) arena: Vec<u8>,
    /// A head that goes out over HTTP/2.
    pub(crate) block: Vec<u8>,
}

/// A worker's own state that does not depend on what it serves. Never leaves its thread.
pub(crate) struct Dispatcher {
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) buffers: Buffers,
    /// What much of a tunnel goes through.
    pub(crate) pipes: Pipes,
    /// Long transfers that take turns.
    pub(crate) bulk: Rc<BulkQueue>,
    pub(crate) timers: Rc<Timers>,
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) scratch: RefCell<Scratch>,
    access: RefCell<Option<(usize, AccessLog)>>,
    sinks: RefCell<Reader<Option<AccessSink>>>,
    spans: RefCell<Option<(usize, SpanBatch)>>,
    span_sinks: RefCell<Reader<Option<Sink>>>,
    /// Buffers and windows of all connections of HTTP/2.
    pub(crate) http2_memory: Rc<Memory>,
    /// Copies of requests under way.
    pub(crate) mirroring: Cell<usize>,
    /// Bytes of requests' bodies that are kept to be sent again.
    pub(crate) kept_bytes: Cell<usize>,
    /// Responses being compressed.
    pub(crate) compressing: Cell<usize>,
    /// Operators who look at requests.
    pub(crate) taps: Taps,
    random: Cell<u64>,
    /// Of requests, traces and spans.
    pub(crate) ids: Ids,
    /// Ids of connections issued.
    connection_ids: Cell<u64>,
}

impl Dispatcher {
    /// The dispatcher of the worker with this index.
    pub(crate) fn new(index: usize, shared: Arc<Shared>) -> Rc<Self> {
        let limits =
            MemoryLimits { window_growth_bytes: HTTP2_WINDOW_GROWTH as usize, buffers_kept: HTTP2_BUFFERS_KEPT };
        let counters = shared.counters.worker();
        Rc::new(Self {
            index,
            buffers: Buffers::default(),
            bulk: BulkQueue::new(&counters),
            pipes: Pipes::new(&counters),
            timers: Timers::new(ambient::now()),
            counters,
            scratch: RefCell::default(),
            access: RefCell::default(),
            sinks: RefCell::new(Reader::new(Arc::clone(&shared.access))),
            spans: RefCell::default(),
            span_sinks: RefCell::new(Reader::new(Arc::clone(&shared.spans))),
            http2_memory: Memory::new(limits),
            mirroring: Cell::new(0),
            kept_bytes: Cell::new(0),
            compressing: Cell::new(0),
            taps: Taps::default(),
            random: Cell::new(0x9e37_79b9_7f4a_7c15 ^ (index as u64 + 1) << 32 ^ shared.instance),
            ids: Ids::new(shared.secret, shared.instance, index),
            connection_ids: Cell::new(0),
            shared,
        })
    }

    /// Begins a task; `what` names it in the log if it ends by a panic.
    #[inline]
    pub(crate) fn spawn(&self, what: &'static str, task: impl Future<Output = ()> + 'static) {
        tasks::spawn(&self.counters, what, task);
    }

    pub(crate) fn timer(&self) -> Timer {
        self.timers.timer()
    }

    /// A random number to pick a backend: not secret, not reproducible.
    pub(crate) fn random(&self) -> u64 {
        // xorshift64*, Vigna 2016.
        let mut state = self.random.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.random.set(state);
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// 32 hex digits that no other process, worker or call returns.
    pub(crate) fn unique_id(&self) -> String {
        self.connection_ids.set(self.connection_ids.get() + 1);
        format!("{:016x}{:04x}{:012x}", self.shared.instance, self.index, self.connection_ids.get())
    }

    /// A line of the access log, if there is one.
    pub(crate) fn log(&self, line: impl FnOnce(&mut AccessLog) -> u64) {
        let mut sinks = self.sinks.borrow_mut();
        let in_force = sinks.read();
        let mut access = self.access.borrow_mut();
        let Some(sink) = in_force.as_ref() else {
            *access = None;
            return;
        };
        let identity = Arc::as_ptr(in_force) as usize;
        if access.as_ref().is_none_or(|(current, _)| *current != identity) {
            if let Some((_, old)) = access.as_mut() {
                self.counters.access_log_lost.add(old.flush());
            }
            *access = Some((identity, AccessLog::new(sink.format.clone(), sink.sender.clone())));
        }
        if let Some((_, log)) = access.as_mut() {
            self.counters.access_log_lost.add(line(log));
        }
    }

    pub(crate) fn logs_access(&self) -> bool {
        self.sinks.borrow_mut().read().is_some()
    }

    /// Whether the access log may have fields of heads.
    pub(crate) fn logs_chosen_fields(&self) -> bool {
        let mut sinks = self.sinks.borrow_mut();
        let Some(sink) = sinks.read().as_ref() else { return false };
        matches!(sink.format, Format::Chosen(_))
    }

    /// Spans for the exporter, so many of them. Where there is none any more they are lost.
    pub(crate) fn spans(&self, count: u64, write: impl FnOnce(&mut SpanBatch)) {
        let mut sinks = self.span_sinks.borrow_mut();
        let in_force = sinks.read();
        let mut spans = self.spans.borrow_mut();
        let Some(sink) = in_force.as_ref() else {
            *spans = None;
            self.shared.counters.spans.add(Outcome::Dropped, count);
            return;
        };
        let identity = Arc::as_ptr(in_force) as usize;
        if spans.as_ref().is_none_or(|(current, _)| *current != identity) {
            *spans = Some((identity, SpanBatch::new(sink.clone())));
        }
        if let Some((_, batch)) = spans.as_mut() {
            write(batch);
        }
    }

    /// Passes spans to the exporter.
    pub(crate) fn flush_spans(&self) {
        let mut spans = self.spans.borrow_mut();
        let Some((current, batch)) = spans.as_mut() else { return };
        batch.flush();
        // A worker holds no handle of an exporter that another has taken the place of: it ends when the last is dropped.
        if Arc::as_ptr(self.span_sinks.borrow_mut().read()) as usize != *current {
            *spans = None;
        }
    }

    /// Whether the access log has a line of what has ended with this status (0 is none) after so long.
    pub(crate) fn wants_line(&self, status: u16, elapsed: Duration) -> bool {
        let mut sinks = self.sinks.borrow_mut();
        let Some(sink) = sinks.read().as_ref() else { return false };
        sink.only.as_ref().is_none_or(|only| only.takes(status, elapsed, || self.random()))
    }

    /// Sends a command to all other workers.
    pub(crate) fn ask_others(&self, command: impl Fn() -> Command) {
        let commands = self.shared.commands.get().into_iter().flatten().enumerate();
        for (_, sender) in commands.filter(|(index, _)| *index != self.index) {
            // A worker that has ended needs none.
            let _ = sender.send(command());
        }
    }

    /// The milliseconds that latencies fade by.
    pub(crate) fn millis(&self) -> u32 {
        self.timers.millis() as u32
    }

    /// Once a tick: passes the access log's lines to their writer.
    pub(crate) fn flush_log(&self) {
        if let Some((_, log)) = self.access.borrow_mut().as_mut() {
            self.counters.access_log_lost.add(log.flush());
        }
        // A worker that writes no lines any more holds no handle of their writer, which waits until the last is dropped.
        if !self.logs_access() {
            *self.access.borrow_mut() = None;
        }
    }

    /// Frees memory that only a busier time needs.
    pub(crate) fn trim(&self) {
        self.buffers.trim();
        self.pipes.trim();
        self.http2_memory.trim();
    }
}
