//! How long a backend takes to begin its response, measured for each attempt by itself.
//!
//! The time runs from the end of the attempt's request to the head of its response, as for `timeouts.response`: the time to get a
//! connection, and the time a client takes to send its body, are not the backend's. An attempt that ends before its response (another
//! was faster, the time was over, the client has left) has taken at least as long as it has lasted, and that counts.

use crate::ambient;
use crate::upstream::in_flight::InFlight;
use crate::worker::View;
use ringway_config::model;
use ringway_ring::{PolicyParams, Slot};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The clock of one attempt: none where nothing goes by latency. Dropped while it runs, it reports how long the attempt has lasted.
pub(crate) struct Clock(Option<Face>);

struct Face {
    view: Rc<View>,
    service: usize,
    slot: Slot,
    since: Instant,
    /// The request has been sent whole: from then on the time is the backend's alone.
    sent: bool,
    /// What comes of it is reported to the limit that follows latency elsewhere.
    is_failure: bool,
}

impl Clock {
    /// For an attempt on the guard's backend, whose request begins to be sent now.
    pub(crate) fn begin(view: &Rc<View>, service: usize, guard: &InFlight) -> Self {
        let wanted = view.services[service].service.times_responses;
        Self(wanted.then(|| Face {
            view: Rc::clone(view),
            service,
            slot: guard.slot,
            since: ambient::now(),
            sent: false,
            is_failure: false,
        }))
    }

    /// The clock of an attempt that is over.
    pub(crate) fn stopped() -> Self {
        Self(None)
    }

    /// All of the request has been sent.
    pub(crate) fn handle_sent(&mut self) {
        if let Some(face) = &mut self.0 {
            (face.since, face.sent) = (ambient::now(), true);
        }
    }

    /// The response head is here. A response that comes while the request is still being sent has taken no time.
    pub(crate) fn handle_response(&mut self, status: u16) {
        if let Some(face) = self.0.take() {
            let elapsed = ambient::since(face.since);
            face.tell_limit(status, elapsed);
            let counters = face.observe(elapsed);
            counters.timed.increment();
            counters.latency_micros.add(elapsed.as_micros() as u64);
        }
    }

    /// The attempt is over because its backend took too long, which counts as a failure of the backend's: it is not to count twice.
    pub(crate) fn handle_timeout(&mut self) {
        if let Some(face) = &mut self.0 {
            face.is_failure = true;
        }
    }

    /// The outcome of the attempt says nothing about its backend's speed.
    pub(crate) fn forget(&mut self) {
        self.0 = None;
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        if let Some(face) = self.0.take().filter(|face| face.sent) {
            let elapsed = ambient::since(face.since);
            let now = face.view.millis();
            let service = &face.view.services[face.service].service;
            if !face.is_failure {
                service.measure(face.slot, |meter, load| meter.handle_cut(elapsed, now, load));
            }
            let counters = face.observe(elapsed);
            counters.cut.increment();
            counters.cut_micros.add(elapsed.as_micros() as u64);
        }
    }
}

impl Face {
    /// Reports to the limit that follows latency. What a backend refuses because it has too much to do may be said at once; how fast
    /// another failure was says nothing. Nor does what is said of one client alone, or before the request has ended; but the backend
    /// has responded.
    fn tell_limit(&self, status: u16, elapsed: Duration) {
        let now = self.view.millis();
        let service = &self.view.services[self.service].service;
        service.measure(self.slot, |meter, load| match status {
            503 | 504 => meter.handle_drop(now, load),
            500.. => 0,
            429 => meter.handle_untimed(now, load),
            _ if self.sent => meter.handle_response(elapsed, now, load),
            _ => meter.handle_untimed(now, load),
        });
    }

    /// Reports to the policy. A lower bound may be reported as if it were the latency: the mean never falls below what time alone
    /// would have made of it, and it grows with each observation.
    fn observe(&self, elapsed: Duration) -> &ringway_telemetry::counters::BackendCounters {
        let this = &self.view.services[self.service];
        let index = usize::from(self.slot.0);
        let config: &model::Service = &this.service.config;
        if let PolicyParams::PeakEwma(params) = config.policy {
            let load = &this.service.backends[index].state.load;
            load.observe(elapsed.as_micros() as f32, self.view.millis(), params.decay_millis);
        }
        &this.upstreams[index].counters
    }
}
