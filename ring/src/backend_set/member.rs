//! A member of a set: its load and its limits.

use crate::load::Load;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct MemberState {
    pub(super) load: Arc<Load>,
    pub(super) weight: u32,
    /// What its configuration says. See [`MemberState::requests_max`].
    pub(super) own_requests_max: u32,
    /// Index into `levels`.
    pub(super) level: u8,
}

impl MemberState {
    /// Hard limit on its requests in flight.
    #[inline]
    pub(super) fn requests_max(&self) -> u32 {
        self.own_requests_max.min(self.load.in_flight_max())
    }

    /// Weight times active fraction.
    #[inline]
    pub(super) fn effective_weight(&self) -> u64 {
        self.load.effective_weight(self.weight)
    }

    /// Its effective weight, less what it sheds.
    #[inline]
    pub(super) fn kept_weight(&self) -> u64 {
        self.load.kept_weight(self.weight)
    }

    /// Requests in flight, one more included, for its share: as HAProxy's `leastconn` counts.
    #[inline]
    pub(super) fn relative_load(&self) -> f64 {
        (f64::from(self.load.in_flight()) + 1.0) / self.kept_weight().max(1) as f64
    }

    /// Mean latency times requests in flight for its share of `mean_weight`, this one not divided by it: of idle ones that are
    /// equally fast, none is better than another, whatever their weights. Nobody knows how fast one is that was never used: it gets
    /// one request to find out, and no second before that is known.
    #[inline]
    pub(super) fn cost(&self, mean_weight: f64, now_millis: u32, decay_millis: u32) -> f64 {
        const UNKNOWN_MICROS: f64 = 1e6;
        let in_flight = f64::from(self.load.in_flight()) * mean_weight / self.effective_weight().max(1) as f64;
        match f64::from(self.load.latency_micros(now_millis, decay_millis)) {
            latency if latency > 0.0 => latency * (in_flight + 1.0),
            _ => UNKNOWN_MICROS * in_flight,
        }
    }
}
