//! One worker's connections to one backend: which one a stream goes to, and when another is opened.

use super::Upstream;
use super::connection::Connection;
use super::demand::Demand;
use crate::error::ProxyError;
use crate::net::timer::Timers;
use ringway_config::model;
use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::rc::{Rc, Weak};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Connections that are being opened at once, where their peer takes few streams on each.
const OPENINGS_MAX: usize = 16;

/// Connections of one worker to one backend.
#[derive(Default)]
pub(crate) struct Shared {
    connections: RefCell<Vec<Rc<Connection>>>,
    /// Those that others are to follow, as long as they carry streams.
    retired: RefCell<Vec<Weak<Connection>>>,
    /// Those that are being opened: all requests that need one wait for them.
    opening: Rc<Opens>,
    demand: Demand,
}

#[derive(Default)]
struct Opens {
    under_way: Cell<usize>,
    waiting: Cell<usize>,
    /// Streams that the last one to be opened had room for; 0 while none is known.
    room: Cell<usize>,
    over: Notify,
    /// How the last opening failed, if it did: the requests that waited for it need not try one after the other.
    failed: Cell<Option<ProxyError>>,
}

/// Signals that the opening is over, however it ended.
pub(crate) struct Opening(Rc<Opens>);

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get() - 1);
        self.0.over.notify_waiters();
    }
}

/// A request that waits for a connection to be opened.
pub(crate) struct Waiting(Rc<Opens>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

fn streams_of(connections: &[Rc<Connection>]) -> usize {
    connections.iter().map(|connection| connection.line.streams.get()).sum()
}

impl Shared {
    /// In place of one whose connections are to be opened anew, and can be used until they are.
    pub(crate) fn succeeding(before: &Self) -> Self {
        let mut retired: Vec<Weak<Connection>> = before.connections.borrow().iter().map(Rc::downgrade).collect();
        retired.extend(before.retired.borrow().iter().cloned());
        Self { retired: RefCell::new(retired), ..Self::default() }
    }

    /// One gets no new streams: it closes once those that it has are over.
    fn retire(&self, connection: &Rc<Connection>) {
        connection.line.leave();
        let mut retired = self.retired.borrow_mut();
        retired.retain(|known| known.strong_count() > 0);
        retired.push(Rc::downgrade(connection));
    }

    /// One that was retired, for more streams: as many connections as there may be are in use, and it has not come to its end in time.
    /// It begins another life.
    pub(crate) fn revive(&self, limits: &model::Pool, timers: &Timers) -> Option<Rc<Connection>> {
        let mut retired = self.retired.borrow_mut();
        let has_room = |known: &Weak<Connection>| known.upgrade().is_some_and(|connection| connection.has_room(limits));
        let index = retired.iter().position(has_room)?;
        let connection = retired.swap_remove(index).upgrade()?;
        let mut life = connection.life.get();
        life.renew(timers.now());
        connection.life.set(life);
        connection.revived.set(true);
        connection.line.slot.upgrade().iter().for_each(|slot| slot.end_ending());
        Some(connection)
    }

    /// Connections, and streams on them.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let connections = self.connections.borrow();
        (connections.len(), streams_of(&connections))
    }

    /// The connection with room for one more stream that carries fewest; `newest`: the one that was opened last, which counts as fresh.
    /// One that takes no more closes once its streams are over.
    pub(crate) fn take(&self, newest: bool, limits: &model::Pool, timers: &Timers) -> Option<Upstream> {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|connection| {
            let takes_more = !connection.line.closed.get() && !connection.life.get().is_over(limits, timers);
            if !takes_more {
                self.retire(connection);
            }
            takes_more
        });
        let mut with_room = (0..connections.len()).filter(|&index| connections[index].has_room(limits));
        let index = if newest {
            with_room.next_back()
        } else {
            // Of equals the first: with few requests, the others are left to idle.
            with_room.min_by_key(|&index| connections[index].line.streams.get())
        }?;
        if connections.len() > 1 {
            self.demand.note(streams_of(&connections) + 1);
        }
        let connection = &connections[index];
        connection.count_request();
        let upstream = Upstream::new(connection, connection.carried.replace(true));
        if connection.life.get().is_over(limits, timers) {
            // This was its last: it closes with it, and not only once the next request finds it.
            self.retire(&connections.remove(index));
        }
        Some(upstream)
    }

    /// Counts one more waiting request.
    pub(crate) fn wait(&self) -> Waiting {
        self.opening.waiting.set(self.opening.waiting.get() + 1);
        Waiting(Rc::clone(&self.opening))
    }

    /// Permission to open one; `None`: as far as is known, those under way are enough for all that wait, or there may be no more than
    /// those under way.
    pub(crate) fn open(&self, limits: &model::Pool) -> Option<Opening> {
        let Opens { under_way, waiting, room, failed, .. } = &*self.opening;
        let most = limits.streams_max as usize;
        let each = if room.get() == 0 { most } else { room.get().min(most) };
        let awaits_others = failed.get() == Some(ProxyError::ConnectionLimit) && under_way.get() > 0;
        if awaits_others || under_way.get() >= waiting.get().div_ceil(each).min(OPENINGS_MAX) {
            return None;
        }
        under_way.set(under_way.get() + 1);
        failed.set(None);
        Some(Opening(Rc::clone(&self.opening)))
    }

    /// Permission to open one that no request waits for yet. Those that come meanwhile wait for it.
    pub(crate) fn open_ahead(&self) -> Opening {
        self.opening.under_way.set(self.opening.under_way.get() + 1);
        self.opening.failed.set(None);
        Opening(Rc::clone(&self.opening))
    }

    /// Those that still take streams, if only once one has ended.
    pub(crate) fn len(&self) -> usize {
        let takes = |connection: &&Rc<Connection>| !connection.line.closed.get() && !connection.line.doubted.get();
        self.connections.borrow().iter().filter(takes).count()
    }

    /// The end of an opening that is under way, or begins next.
    pub(crate) fn opened(&self) -> Notified<'_> {
        self.opening.over.notified()
    }

    /// How that ended. Where connections are limited, nothing is lost while others are under way: these may be the last. Any other failure is
    /// one of the backend's, and those who wait go elsewhere at once: what is still under way may hang.
    pub(crate) fn outcome(&self) -> Result<(), ProxyError> {
        match self.opening.failed.get() {
            Some(ProxyError::ConnectionLimit) if self.opening.under_way.get() > 0 => Ok(()),
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Shares what was opened, or notifies the requests that wait for it of the failure.
    pub(crate) fn put(&self, opening: Opening, opened: Result<Rc<Connection>, ProxyError>, limits: &model::Pool) {
        match opened {
            Ok(connection) => {
                opening.0.room.set(connection.streams_max(limits).min(limits.requests_max as usize));
                opening.0.failed.set(None);
                self.connections.borrow_mut().push(connection);
            }
            Err(error) => opening.0.failed.set(Some(error)),
        }
    }

    /// Drops connections that have been without streams for too long, those that are too old, and those that were not needed, few as the
    /// streams were that have been spread over them: they close once their streams are over. `workers` share what is kept open ahead.
    pub(crate) fn expire(&self, limits: &model::Pool, timers: &Timers, workers: usize) {
        let (oldest, now) = (timers.before(limits.idle_timeout), timers.now());
        let mut connections = self.connections.borrow_mut();
        connections.retain(|connection| {
            if connection.line.streams.get() > 0 {
                connection.used.set(now);
            }
            let streams = connection.line.streams.get();
            let over = connection.line.closed.get() || connection.life.get().is_over(limits, timers);
            let worn = streams == 0 && (connection.revived.get() || connection.used.get() < oldest);
            if over || worn {
                self.retire(connection);
            }
            !over && !worn
        });
        if connections.len() < 2 {
            return;
        }
        let streams = streams_of(&connections);
        if let Some(most) = self.demand.most(streams, limits.idle_timeout, timers) {
            let each = connections.iter().map(|connection| connection.streams_max(limits)).min().unwrap_or(1);
            let kept = most.div_ceil(each.max(1)).max((limits.idle_min as usize).div_ceil(workers.max(1)));
            // One with streams would keep its place among those that there may be, and take no more: only who is idle goes.
            connections.sort_by_key(|connection| Reverse(connection.line.streams.get()));
            let mut index = 0;
            connections.retain(|connection| {
                index += 1;
                let stays = index <= kept.max(1) || connection.line.streams.get() > 0;
                if !stays {
                    self.retire(connection);
                }
                stays
            });
        }
    }

    /// Drops one without streams, which then closes. `false`: there is none.
    pub(crate) fn close_one(&self) -> bool {
        let mut connections = self.connections.borrow_mut();
        let idle = |connection: &Rc<Connection>| connection.line.streams.get() == 0 && !connection.line.closed.get();
        let found = connections.iter().position(idle);
        found.map(|index| self.retire(&connections.remove(index))).is_some()
    }

    /// Drops all: open streams end normally.
    pub(crate) fn close(&self) {
        let connections = self.connections.take();
        connections.iter().for_each(|connection| self.retire(connection));
    }
}
