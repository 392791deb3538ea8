//! Limits on connections to backends, and the counts that are checked against them.

use ringway_config::model::{self, UpstreamProtocol};
use std::pin::pin;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU32, fence};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Requests in flight that a backend may have because of its own limits.
pub(crate) fn places(service: &model::Service, backend: &model::Backend) -> u32 {
    match service.protocol {
        UpstreamProtocol::Http1 => backend.requests_max.min(backend.connections_max),
        UpstreamProtocol::H2 => backend.requests_max,
    }
}

/// Requests in flight that a service may have on all its backends together, because of its connection limit; `u32::MAX` is no limit.
pub(crate) fn places_together(service: &model::Service) -> u32 {
    match service.protocol {
        UpstreamProtocol::Http1 => service.connections_max,
        UpstreamProtocol::H2 => u32::MAX,
    }
}

/// Of these, so many may be taken when one of them is for what can be left out: a copy of a request, whose place others may need.
pub(crate) fn places_beside(service: &model::Service) -> u32 {
    match places_together(service) {
        u32::MAX => u32::MAX,
        most => most / 2,
    }
}

/// Copies of handed keys that may be under way; `None` where nothing is handed over. A quarter of the places is all that they may take.
pub(crate) fn copies_max(service: &model::Service) -> Option<u32> {
    let most = service.handoff.as_ref()?.copy.in_flight_max;
    Some(match places_together(service) {
        u32::MAX => most,
        places => most.min(places / 4),
    })
}

/// Connections to a service's backends, and the requests that want one.
#[derive(Default)]
pub(crate) struct Connections {
    /// Open now, idle ones included, over all workers and backends.
    pub(super) open: AtomicU32,
    /// Those of them that take no more requests, and are closed once what they carry is over.
    pub(super) ending: AtomicU32,
    /// How many wait for one to be closed.
    pub(super) wanting: AtomicU32,
    /// Being opened before a request needs them.
    pub(super) ahead: AtomicU32,
    /// Somebody waits for one to be closed from now on.
    pub(super) wanted: Notify,
    /// One was closed while a request waited for that.
    closed: Notify,
}

/// Adds one to a count that is below a limit. One that was raised first and lowered again would hide a slot from a reader just then.
pub(crate) fn add_below(count: &AtomicU32, limit: u32) -> bool {
    count.fetch_update(Relaxed, Relaxed, |count| (count < limit).then_some(count + 1)).is_ok()
}

impl Connections {
    /// Open now, and how many wait for one to be closed.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> (u32, u32) {
        (self.open.load(Relaxed), self.wanting.load(Relaxed))
    }

    /// Ready while somebody waits for one to be closed: what no request needs yet gives way.
    pub(crate) async fn wanted(&self) {
        let mut wanted = pin!(self.wanted.notified());
        // Registered before the check, so that nobody who begins to wait between the two is missed.
        wanted.as_mut().enable();
        fence(SeqCst);
        if self.wanting.load(Relaxed) == 0 {
            wanted.await;
        }
    }

    /// Whether any is being opened that will give way.
    pub(crate) fn is_opening_ahead(&self) -> bool {
        self.ahead.load(Relaxed) > 0
    }

    /// Ready once one has been closed while a request waited for that.
    pub(crate) fn closed(&self) -> Notified<'_> {
        self.closed.notified()
    }

    /// One is closed, and counted no more.
    pub(super) fn tell(&self) {
        // Either this side sees the waiting request, or that request sees the slot: both write one word and read another.
        fence(SeqCst);
        if self.wanting.load(Relaxed) > 0 {
            self.closed.notify_waiters();
        }
    }
}
