//! A listener as a worker has it: open or closing.

use super::view::View;
use crate::dispatcher::{ListenerId, ListenerPermits};
use crate::net::timer::Deadline;
use ringway_telemetry::listener::ListenerCounters;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Notify;
use xxhash_rust::xxh3::xxh3_64;

/// A listener's open-or-closing state, shared by its connections.
pub(crate) struct ActiveListener {
    pub(super) key: ListenerId,
    /// The listener's name, as far as this worker knows.
    pub(super) name: RefCell<Arc<str>>,
    /// The address it is bound to, as text.
    pub(crate) address_text: Arc<str>,
    /// Tells that address from others.
    pub(crate) address_hash: u64,
    /// The successor that takes its socket over, once it closes.
    pub(crate) successor: RefCell<Option<Rc<Self>>>,
    pub(crate) closing: Cell<bool>,
    /// How often its TLS has changed so that earlier connections may not go on.
    pub(super) secured: Cell<u32>,
    /// While it closes, or earlier connections may not go on: when the last idle one of them must be closed.
    pub(super) leave_until: Cell<Deadline>,
    /// Its permits, over all workers.
    pub(crate) permits: Arc<ListenerPermits>,
    /// This worker's numbers of it.
    pub(crate) counters: Arc<ListenerCounters>,
    pub(crate) stop: Notify,
    /// The newest view that has this listener, and its index there: connections that are accepted while it closes are served by it.
    pub(super) latest: RefCell<Option<(Rc<View>, usize)>>,
}

impl ActiveListener {
    /// One that is open.
    pub(crate) fn new(key: ListenerId, address_text: Arc<str>, permits: Arc<ListenerPermits>) -> Rc<Self> {
        Rc::new(Self {
            key,
            name: RefCell::new("".into()),
            address_hash: xxh3_64(address_text.as_bytes()),
            address_text,
            successor: RefCell::default(),
            closing: Cell::new(false),
            secured: Cell::new(0),
            leave_until: Cell::new(Deadline::NEVER),
            counters: permits.numbers.worker(),
            permits,
            stop: Notify::new(),
            latest: RefCell::default(),
        })
    }

    /// Closes: no more is accepted, and the last of its idle connections closes by then.
    pub(crate) fn close(&self, leave_until: Deadline) {
        self.leave_until.set(leave_until);
        self.closing.set(true);
        self.stop.notify_one();
    }

    /// The connections that it has end as if it closed, and it goes on.
    pub(super) fn end_earlier(&self, leave_until: Deadline) {
        if !self.closing.get() {
            self.leave_until.set(leave_until);
            self.secured.set(self.secured.get().wrapping_add(1));
        }
    }

    pub(crate) fn key(&self) -> ListenerId {
        self.key.clone()
    }

    /// Whether it has this key.
    pub(crate) fn is_of(&self, key: &ListenerId) -> bool {
        self.key == *key
    }

    pub(crate) fn name(&self) -> Arc<str> {
        Arc::clone(&self.name.borrow())
    }
}
