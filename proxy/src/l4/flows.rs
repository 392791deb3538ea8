//! The flows of a listening socket, by client address and by connection id.

use super::tapped::Tapped;
use crate::dispatcher::ConnectionPermit;
use crate::net::quic_ids::Id;
use crate::net::timer::Timer;
use crate::snapshot::BackendState;
use crate::worker::SessionEntry;
use ringway_config::model::{QuicIds, UdpListener};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Connection ids that a flow is known by: the client's first, and some that came after it.
const IDS_PER_FLOW: usize = 8;

/// Where a client's datagrams come from, and which of the host's addresses they were sent to, where the socket has several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Path {
    pub(super) client: SocketAddr,
    pub(super) local: Option<IpAddr>,
}

/// A socket's flows.
#[derive(Default)]
pub(super) struct Flows {
    pub(super) count: usize,
    /// One for each backend; the last is the newest.
    pub(super) by_path: HashMap<Path, Vec<Rc<Flow>>>,
    pub(super) by_id: HashMap<(Path, Id), Rc<Flow>>,
    /// Oldest first: flows without a response when they were last looked at.
    pub(super) unanswered: VecDeque<Weak<Flow>>,
}

impl Flows {
    pub(super) fn newest(&self, path: Path) -> Option<Rc<Flow>> {
        self.by_path.get(&path)?.last().cloned()
    }

    pub(super) fn on_backend(&self, path: Path, id: &str) -> Option<Rc<Flow>> {
        self.by_path.get(&path)?.iter().find(|flow| *flow.backend.id == *id).cloned()
    }

    pub(super) fn insert(&mut self, flow: &Rc<Flow>) {
        self.count += 1;
        self.by_path.entry(flow.path).or_default().push(Rc::clone(flow));
        self.unanswered.push_back(Rc::downgrade(flow));
        // Twice as many as there can be: most have had a response or are gone.
        if self.unanswered.len() > 2 * self.count + 64 {
            self.unanswered.retain(|flow| flow.upgrade().is_some_and(|flow| flow.is_unanswered()));
        }
    }

    /// Ends the oldest flow without a response from its backend, if there is one, and frees its slot: its client's address may be
    /// spoofed.
    pub(super) fn evict(&mut self) -> Option<ConnectionPermit> {
        while let Some(oldest) = self.unanswered.pop_front() {
            if let Some(flow) = oldest.upgrade().filter(|flow| flow.is_unanswered()) {
                self.remove(&flow);
                flow.waker.take().iter().for_each(Waker::wake_by_ref);
                return flow.permit.take();
            }
        }
        None
    }

    /// `true`: the flow was not known by this id.
    pub(super) fn learn(&mut self, flow: &Rc<Flow>, id: Id) -> bool {
        if self.by_id.insert((flow.path, id), Rc::clone(flow)).is_some_and(|before| Rc::ptr_eq(&before, flow)) {
            return false;
        }
        let mut ids = flow.ids.borrow_mut();
        ids.push_back(id);
        let oldest = if ids.len() > IDS_PER_FLOW { ids.pop_front() } else { None };
        drop(ids);
        oldest.iter().for_each(|id| self.forget(flow, id));
        true
    }

    /// Another flow may have taken the id over.
    pub(super) fn forget(&mut self, flow: &Rc<Flow>, id: &Id) {
        if self.by_id.get(&(flow.path, *id)).is_some_and(|known| Rc::ptr_eq(known, flow)) {
            self.by_id.remove(&(flow.path, *id));
        }
    }

    pub(super) fn remove(&mut self, flow: &Rc<Flow>) {
        if flow.removed.replace(true) {
            return;
        }
        self.count -= 1;
        if let Some(flows) = self.by_path.get_mut(&flow.path) {
            flows.retain(|known| !Rc::ptr_eq(known, flow));
            if flows.is_empty() {
                self.by_path.remove(&flow.path);
            }
        }
        for id in std::mem::take(&mut *flow.ids.borrow_mut()) {
            self.forget(flow, &id);
        }
    }
}

/// One client's datagrams, and their backend's socket.
pub(super) struct Flow {
    pub(super) path: Path,
    pub(super) backend: Arc<BackendState>,
    /// Connection ids that lead here from this client's address, oldest first.
    pub(super) ids: RefCell<VecDeque<Id>>,
    /// Whether, and how, the backend's ids are looked for.
    pub(super) quic: Option<QuicIds>,
    pub(super) upstream: UdpSocket,
    pub(super) timer: Timer,
    pub(super) idle: Duration,
    pub(super) up: Cell<u64>,
    pub(super) down: Cell<u64>,
    /// The backend's host has reported that nothing listens there.
    pub(super) refused: Cell<bool>,
    /// Its permit, until another flow takes it over.
    pub(super) permit: Cell<Option<ConnectionPermit>>,
    /// It is not among the flows any more: another has its slot.
    pub(super) removed: Cell<bool>,
    pub(super) waker: Cell<Option<Waker>>,
    /// In the table of what is under way.
    entry: SessionEntry,
    /// What operators see who look at this one.
    pub(super) tapped: RefCell<Option<Tapped>>,
}

impl Flow {
    /// A flow that begins.
    pub(super) fn new(
        path: Path,
        (backend, upstream): (Arc<BackendState>, UdpSocket),
        permit: ConnectionPermit,
        timer: Timer,
        udp: &UdpListener,
        (entry, tapped): (SessionEntry, Option<Tapped>),
    ) -> Rc<Self> {
        timer.set(udp.idle);
        Rc::new(Self {
            path,
            backend,
            ids: RefCell::default(),
            quic: udp.quic,
            upstream,
            timer,
            idle: udp.idle,
            up: Cell::new(0),
            down: Cell::new(0),
            refused: Cell::new(false),
            permit: Cell::new(Some(permit)),
            removed: Cell::new(false),
            waker: Cell::default(),
            entry,
            tapped: RefCell::new(tapped),
        })
    }

    pub(super) fn is_unanswered(&self) -> bool {
        self.down.get() == 0 && !self.removed.get()
    }

    /// A datagram to the backend. One that cannot go now is lost, as datagrams may be.
    pub(super) fn send(&self, datagram: &[u8]) -> io::Result<()> {
        self.timer.set(self.idle);
        // Bypasses the runtime, which does not know yet whether a fresh socket is writable.
        let sent = socket2::SockRef::from(&self.upstream).send(datagram);
        if let Ok(count) = &sent {
            self.up.set(self.up.get() + *count as u64);
            self.tell();
        }
        sent.map(drop).inspect_err(|error| self.note(error))
    }

    /// How many bytes have passed is known to who asks what is under way.
    pub(super) fn tell(&self) {
        self.entry.set_bytes(self.up.get(), self.down.get());
        if let Some(tapped) = &*self.tapped.borrow() {
            tapped.set_bytes(self.up.get(), self.down.get());
        }
    }

    /// A datagram from the backend, or an ICMP error about ours.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut take = || (&*socket2::SockRef::from(&self.upstream)).read(buffer);
        // One after the other: the runtime clears readiness for each alone only.
        let received = match self.upstream.try_io(Interest::READABLE, &mut take) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.upstream.try_io(Interest::ERROR, take),
            received => received,
        };
        received.inspect_err(|error| self.note(error))
    }

    /// Handles an error: a backend that is gone has no flow.
    pub(super) fn note(&self, error: &io::Error) {
        if says_nobody_is_there(error) {
            self.refused.set(true);
            // Its task waits for datagrams: it has to see this.
            self.waker.take().iter().for_each(Waker::wake_by_ref);
        }
    }

    /// Why the flow is over, if it is.
    pub(super) fn end(&self) -> Option<&'static str> {
        if self.refused.get() {
            return Some("refused");
        }
        self.removed.get().then_some("evicted")
    }
}

/// Whether an error was reported by ICMP: no such port, protocol or host (RFC 1122, 4.1.3.3).
fn says_nobody_is_there(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(
        code,
        Some(
            Errno::ECONNREFUSED
                | Errno::EHOSTUNREACH
                | Errno::ENETUNREACH
                | Errno::EHOSTDOWN
                | Errno::ENONET
                | Errno::ENOPROTOOPT
        )
    )
}
