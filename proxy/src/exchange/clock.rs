//! How long a backend takes to begin its answer, each try by itself.
//!
//! The time runs from the end of a try's request to the head of its answer, as that of `timeouts.response` does: what it takes to get
//! a connection, and what a client takes to send its body, is not the backend's answering. A try that ends before its answer (another
//! was faster, the time was over, the client has left) has taken at least as long as it has lasted, and that counts.

use crate::ambient;
use crate::upstream::in_flight::InFlight;
use crate::worker::View;
use ringway_config::model;
use ringway_ring::{PolicyParams, Slot};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// One try's clock: nothing where nobody wants to know. Dropped while it runs, it tells how long the try has lasted.
pub(crate) struct Clock(Option<Face>);

struct Face {
    view: Rc<View>,
    service: usize,
    slot: Slot,
    since: Instant,
    /// The request has been sent whole: from then on its backend is waited for, and nobody else.
    sent: bool,
}

impl Clock {
    /// Of a try on the guard's backend, whose request begins to be sent now.
    pub(crate) fn begin(view: &Rc<View>, service: usize, guard: &InFlight) -> Self {
        let wanted = view.services[service].service.times_responses;
        Self(wanted.then(|| Face {
            view: Rc::clone(view),
            service,
            slot: guard.slot,
            since: ambient::now(),
            sent: false,
        }))
    }

    /// That of a try which is over.
    pub(crate) fn stopped() -> Self {
        Self(None)
    }

    /// All of the request has been sent.
    pub(crate) fn handle_sent(&mut self) {
        if let Some(face) = &mut self.0 {
            (face.since, face.sent) = (ambient::now(), true);
        }
    }

    /// The head of the answer is here. One that comes while the request is still being sent has not waited for its end.
    pub(crate) fn handle_response(&mut self) {
        if let Some(face) = self.0.take() {
            let elapsed = ambient::since(face.since);
            let counters = face.observe(elapsed);
            counters.timed.increment();
            counters.latency_micros.add(elapsed.as_micros() as u64);
        }
    }

    /// What became of the try tells nothing of its backend's speed.
    pub(crate) fn forget(&mut self) {
        self.0 = None;
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        if let Some(face) = self.0.take().filter(|face| face.sent) {
            let elapsed = ambient::since(face.since);
            let counters = face.observe(elapsed);
            counters.cut.increment();
            counters.cut_micros.add(elapsed.as_micros() as u64);
        }
    }
}

impl Face {
    /// Tells the policy. A lower bound may be told as if it were the latency: whatever is observed, the mean is never below what
    /// time alone would have made of it, and grows with what is observed.
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
