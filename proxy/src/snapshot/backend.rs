//! A backend as requests see it, and its state that outlives versions of the configuration.

use super::check_delay::Pace;
use super::concurrency::LatencyMeter;
use crate::ambient;
use crate::net::happy_eyeballs::Preferences;
use ringway_config::model;
use ringway_ring::{ConcurrencyParams, Load};
use ringway_telemetry::traces::Attributes;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use tokio::sync::Notify;

/// A backend as requests see it.
pub struct Backend {
    /// Its configuration.
    pub config: model::Backend,
    /// Its state that outlives the snapshot.
    pub state: Arc<BackendState>,
    /// What the spans of its tries say of it, made for the first of them.
    pub(crate) span_attributes: OnceLock<Attributes>,
}

impl Backend {
    /// Whether each address that it had is one of its addresses still: what is connected to it is connected to it.
    pub(crate) fn has_addresses_of(&self, before: &Self) -> bool {
        let has = |address| self.config.address == address || self.config.additional_address == Some(address);
        has(before.config.address) && before.config.additional_address.is_none_or(has)
    }
}

/// State of a backend that outlives snapshots: belongs to (service, id).
pub struct BackendState {
    /// Stable identity.
    pub id: Box<str>,
    /// In flight, and the share of its keys that it takes.
    pub load: Arc<Load>,
    /// Set while the next success matters to the passive detector, so that the hot path reports no other.
    pub suspect: AtomicBool,
    /// It is ejected, and its checks do not say that it is down: a request that all others have failed may try it.
    pub(crate) last_resort: AtomicBool,
    /// It takes nothing new, and keeps the clients that a cookie has bound to it.
    pub(crate) keeps_clients: AtomicBool,
    /// Connections open to it, idle ones included, over all workers.
    pub connections: AtomicU32,
    /// Those of them that take no more requests, and are closed once what they carry is over.
    pub(super) ending: AtomicU32,
    /// Those of them that are idle in the workers' pools.
    pub(super) idle: AtomicU32,
    /// Retries under way there, where it has a limit on them.
    pub(crate) retrying: AtomicU32,
    /// Requests that wait for a connection to it, where that is limited.
    pub(crate) pending: AtomicU32,
    /// Notifies its sessions that it has gone down.
    pub(crate) down: Falls,
    /// Which of its addresses goes first, where it has two.
    pub(crate) preferences: Arc<Preferences>,
    /// Whether its last check, and the last query of its agent, were slow.
    pub(crate) check_pace: Pace,
    pub(crate) agent_pace: Pace,
    /// What its limit follows, once it has had one that follows latency.
    meter: OnceLock<Box<LatencyMeter>>,
}

impl BackendState {
    pub(super) fn new(id: &str) -> Self {
        Self {
            id: id.into(),
            load: Arc::new(Load::new(id)),
            suspect: AtomicBool::new(false),
            last_resort: AtomicBool::new(false),
            keeps_clients: AtomicBool::new(false),
            connections: AtomicU32::new(0),
            ending: AtomicU32::new(0),
            idle: AtomicU32::new(0),
            retrying: AtomicU32::new(0),
            pending: AtomicU32::new(0),
            down: Falls::default(),
            preferences: Arc::new(Preferences::new(ambient::now())),
            check_pace: Pace::default(),
            agent_pace: Pace::default(),
            meter: OnceLock::new(),
        }
    }

    /// Puts bounds of a limit that follows latency into force, or none.
    pub(super) fn set_concurrency(&self, params: Option<ConcurrencyParams>) {
        let meter = match params {
            Some(_) => Some(self.meter.get_or_init(|| Box::new(LatencyMeter::new()))),
            None => self.meter.get(),
        };
        if let Some(meter) = meter {
            meter.set_params(params, &self.load);
        }
    }

    /// What its limit follows, if it has one.
    pub(super) fn meter(&self) -> Option<&LatencyMeter> {
        self.meter.get().map(|meter| &**meter)
    }
}

/// When a backend has last gone down, in the order of its service's failures. A session takes the number of the last failure before it
/// chooses a backend: then it misses none when it comes to wait for the next one.
#[derive(Default)]
pub(crate) struct Falls {
    last: AtomicU64,
    fallen: Notify,
}

impl Falls {
    /// It has gone down; `number` is the failure's.
    pub(super) fn fall(&self, number: u64) {
        self.last.store(number, SeqCst);
        self.fallen.notify_waiters();
    }

    /// Resolves once it has gone down after failure `number`.
    pub(crate) async fn after(&self, number: u64) {
        let mut fallen = pin!(self.fallen.notified());
        // Registered before the check, so that no failure between the two is missed.
        fallen.as_mut().enable();
        if self.last.load(SeqCst) <= number {
            fallen.await;
        }
    }
}
