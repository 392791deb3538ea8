//! A backend's limit on requests in flight that follows its latency (`adaptive_concurrency`): counts responses of all workers, and has the
//! controller judge them window by window.
//!
//! There is no timer: whoever has a response and finds the window due ends it. Nothing happens where nothing comes.

use ringway_ring::{ConcurrencyController, ConcurrencyParams, Load, Window, log_micros};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A window has so many requests at least, unless it has been due for [`WINDOW_MAX_MILLIS`], and lasts so long.
const WINDOW_REQUESTS_MIN: u32 = 10;
const WINDOW_MIN_MILLIS: u32 = 100;
/// And twice as long as a response takes: what a limit does is seen only in requests that it has let in. But no longer than this.
const WINDOW_MAX_MILLIS: u32 = 5_000;
/// Where the number of responses stands, above the sum of their logarithms: 40 bits are enough for 2^24 of them.
const SAMPLES_SHIFT: u32 = 40;

/// Counts a backend's responses, in words that all workers add to. On cache lines of its own.
#[repr(align(128))]
pub(crate) struct LatencyMeter {
    /// Responses in the window, and the sum of their logarithms: one step counts both.
    timed: AtomicU64,
    drops: AtomicU32,
    /// Responses whose time says nothing.
    untimed: AtomicU32,
    /// Most requests in flight that waited for a response.
    peak: AtomicU32,
    /// Ticks of the workers' clocks, in milliseconds, before which the window does not end.
    due: AtomicU32,
    limiter: Mutex<Limiter>,
}

#[derive(Default)]
struct Limiter {
    /// None while the limit is off: requests that began before that may still end here.
    params: Option<ConcurrencyParams>,
    controller: ConcurrencyController,
}

impl LatencyMeter {
    /// Of a backend of which nothing is known.
    pub(super) fn new() -> Self {
        Self {
            timed: AtomicU64::new(0),
            drops: AtomicU32::new(0),
            untimed: AtomicU32::new(0),
            peak: AtomicU32::new(0),
            due: AtomicU32::new(0),
            limiter: Mutex::default(),
        }
    }

    /// Puts the bounds into force, or none. What is known stays known as long as there are any.
    pub(super) fn set_params(&self, params: Option<ConcurrencyParams>, load: &Load) {
        let mut limiter = self.limiter();
        if limiter.params.is_none() {
            // What is there may be more than a limit begins with: that is no reason to refuse any.
            limiter.controller = ConcurrencyController::begin(load.unanswered());
            self.take_window();
        }
        limiter.params = params;
        load.set_limit(params.map_or(u32::MAX, |params| limiter.controller.limit(&params)));
    }

    /// A response has begun. Gives by how many the limit has been raised, as all of these do.
    pub(crate) fn handle_response(&self, latency: Duration, now_millis: u32, load: &Load) -> u32 {
        let log = u64::from(log_micros(latency.as_micros() as u64));
        let before = self.timed.fetch_add(1 << SAMPLES_SHIFT | log, Relaxed);
        self.end_window(((before >> SAMPLES_SHIFT) + 1) as u32, now_millis, load)
    }

    /// An attempt was given up that had lasted so long. Less than a response takes says nothing: the client has left, or another was
    /// faster.
    pub(crate) fn handle_cut(&self, lasted: Duration, now_millis: u32, load: &Load) -> u32 {
        let base = self.limiter().controller.base();
        if base.is_none_or(|base| lasted > base) { self.handle_response(lasted, now_millis, load) } else { 0 }
    }

    /// The backend was too slow or too busy for a request.
    pub(crate) fn handle_drop(&self, now_millis: u32, load: &Load) -> u32 {
        let before = self.drops.fetch_add(1, Relaxed);
        self.end_window(before.saturating_add(1), now_millis, load)
    }

    /// A response has begun whose time says nothing.
    pub(crate) fn handle_untimed(&self, now_millis: u32, load: &Load) -> u32 {
        let before = self.untimed.fetch_add(1, Relaxed);
        self.end_window(before.saturating_add(1), now_millis, load)
    }

    /// Ends the window if it is due. `counted`: so many requests there are in it at least.
    #[inline]
    fn end_window(&self, counted: u32, now_millis: u32, load: &Load) -> u32 {
        let in_flight = load.unanswered();
        if in_flight > self.peak.load(Relaxed) {
            self.peak.fetch_max(in_flight, Relaxed);
        }
        let due = self.due.load(Relaxed);
        if is_reached(due, now_millis) && (counted >= WINDOW_REQUESTS_MIN || is_overdue(due, now_millis)) {
            return self.judge(now_millis, load);
        }
        0
    }

    #[cold]
    fn judge(&self, now_millis: u32, load: &Load) -> u32 {
        let Ok(mut limiter) = self.limiter.try_lock() else { return 0 };
        // Another may have done it.
        let (Some(params), true) = (limiter.params, is_reached(self.due.load(Relaxed), now_millis)) else { return 0 };
        let window = self.take_window();
        self.due.store(now_millis.wrapping_add(length_millis(&window)), Relaxed);
        let limit = limiter.controller.handle_window(&window, &params);
        limit.saturating_sub(load.set_limit(limit))
    }

    fn take_window(&self) -> Window {
        let timed = self.timed.swap(0, Relaxed);
        Window {
            samples: (timed >> SAMPLES_SHIFT) as u32,
            logs: timed & ((1 << SAMPLES_SHIFT) - 1),
            drops: self.drops.swap(0, Relaxed),
            untimed: self.untimed.swap(0, Relaxed),
            peak: self.peak.swap(0, Relaxed),
        }
    }

    /// Poisoning is ignored: its methods leave the controller consistent.
    fn limiter(&self) -> MutexGuard<'_, Limiter> {
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn length_millis(window: &Window) -> u32 {
    let log = window.logs.checked_div(u64::from(window.samples)).unwrap_or(0);
    let millis = (log as f64 / f64::from(log_micros(2))).exp2() / 1e3;
    ((millis * 2.0) as u32).clamp(WINDOW_MIN_MILLIS, WINDOW_MAX_MILLIS)
}

/// Whether a time has come. Clocks wrap, and nothing is due later than in [`WINDOW_MAX_MILLIS`]: all else has been due, however long ago.
fn is_reached(due_millis: u32, now_millis: u32) -> bool {
    !(1..=WINDOW_MAX_MILLIS).contains(&due_millis.wrapping_sub(now_millis))
}

/// Whether one that has come has for so long that the window ends with what there is.
fn is_overdue(due_millis: u32, now_millis: u32) -> bool {
    now_millis.wrapping_sub(due_millis) >= WINDOW_MAX_MILLIS
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use crate::snapshot::Service;
    use crate::worker::testing::Rig;
    use ringway_ring::Slot;
    use std::sync::Arc;

    const PARAMS: ConcurrencyParams = ConcurrencyParams { limit_min: 3, limit_max: 1000, tolerance: 1.5 };

    /// A meter in use, and its backend's load.
    fn meter() -> (LatencyMeter, Load) {
        let (meter, load) = (LatencyMeter::new(), Load::new("a"));
        meter.set_params(Some(PARAMS), &load);
        assert_eq!(load.limit(), 20);
        // As many as were in flight at a time.
        meter.peak.store(20, Relaxed);
        (meter, load)
    }

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn a_window_ends_once_it_is_due_and_has_enough_responses() {
        let (meter, load) = meter();
        let due = u32::MAX - 5;
        meter.due.store(due, Relaxed);
        let raised = |now_millis: u32| meter.handle_response(MILLI, now_millis, &load);
        assert!((0..20).all(|_| raised(due - 1) == 0), "it is not due");
        assert_eq!((raised(due), load.limit()), (10, 30));
        let again = due.wrapping_add(WINDOW_MIN_MILLIS);
        assert_eq!(meter.due.load(Relaxed), again, "the clock has wrapped meanwhile");
        meter.peak.store(30, Relaxed);
        assert!((0..9).all(|_| raised(again) == 0), "there are too few");
        assert_eq!((raised(again), load.limit()), (15, 45));
    }

    #[test]
    fn a_window_lasts_twice_as_long_as_a_response_within_bounds() {
        let after = |millis: u32| {
            let (meter, load) = meter();
            (0..10).for_each(|_| _ = meter.handle_response(MILLI * millis, 0, &load));
            meter.due.load(Relaxed)
        };
        assert_eq!([after(1), after(60_000)], [WINDOW_MIN_MILLIS, WINDOW_MAX_MILLIS]);
        assert!((900..1_100).contains(&after(500)), "{}", after(500));
    }

    #[test]
    fn a_backend_that_is_new_after_weeks_has_windows_from_its_first_responses_on() {
        for now in [3_000_000_000, 1 << 31, 0, 1] {
            let (meter, load) = meter();
            let raised: u32 = (0..20).map(|_| meter.handle_response(MILLI, now, &load)).sum();
            assert!(raised > 0, "at {now}");
        }
    }

    #[test]
    fn a_window_that_is_overdue_ends_with_what_it_has() {
        let (meter, load) = meter();
        (0..10).for_each(|_| _ = meter.handle_response(MILLI * 1_000, 0, &load));
        let due = meter.due.load(Relaxed);
        meter.peak.store(30, Relaxed);
        assert_eq!(meter.handle_response(MILLI * 1_000, due + WINDOW_MAX_MILLIS - 1, &load), 0);
        assert_eq!(meter.handle_response(MILLI * 1_000, due + WINDOW_MAX_MILLIS, &load), 15);
    }

    const OFF: &str = "{ name: s, backends: [ { id: a, address: \"10.0.0.1:80\" } ] }";
    const ON: &str = "{ name: s, adaptive_concurrency: {}, backends: [ { id: a, address: \"10.0.0.1:80\" } ] }";

    fn service(rig: &Rig) -> Arc<Service> {
        Arc::clone(&rig.worker.view().services[0].service)
    }

    #[test]
    fn responses_without_a_time_end_windows_and_those_that_have_begun_are_none_that_a_limit_counts() {
        let service = service(&Rig::new(ON));
        let state = &service.backends[0].state;
        let (meter, load) = (state.meter().unwrap(), &state.load);
        (0..30).for_each(|_| {
            service.backend_set.resume(Slot(0), 0);
            load.begin_answer();
        });
        // So many streams are open, and nothing waits: the limit has nothing to do with them.
        (0..100).for_each(|now| _ = meter.handle_untimed(now * WINDOW_MAX_MILLIS, load));
        assert_eq!((load.limit(), load.in_flight_max()), (20, 50));
        (0..30).for_each(|_| load.end_answer());
        assert!((100..120).any(|now| meter.handle_untimed(now * WINDOW_MAX_MILLIS, load) > 0));
    }

    #[test]
    fn turned_on_it_begins_with_what_is_in_flight() {
        let mut rig = Rig::new(OFF);
        (0..50).for_each(|_| service(&rig).backend_set.resume(Slot(0), 0));
        rig.apply(ON);
        assert_eq!(service(&rig).backends[0].state.load.limit(), 50);
    }

    #[test]
    fn drops_alone_end_a_window_and_lower_the_limit() {
        let (meter, load) = meter();
        assert!((0..10).all(|_| meter.handle_drop(0, &load) == 0));
        assert_eq!(load.limit(), 18);
    }

    #[test]
    fn what_was_given_up_counts_only_if_it_has_lasted_longer_than_a_response_takes() {
        let (meter, load) = meter();
        (0..10).for_each(|_| _ = meter.handle_response(MILLI * 10, 0, &load));
        let counted = || meter.timed.load(Relaxed) >> SAMPLES_SHIFT;
        assert_eq!((meter.handle_cut(MILLI, 0, &load), counted()), (0, 0));
        assert_eq!((meter.handle_cut(MILLI * 20, 0, &load), counted()), (0, 1));
    }

    #[test]
    fn turned_off_it_sets_no_limit_whatever_still_ends_and_begins_anew_afterwards() {
        let (meter, load) = meter();
        (0..10).for_each(|_| _ = meter.handle_response(MILLI, 0, &load));
        assert_eq!(load.limit(), 30);
        meter.set_params(Some(ConcurrencyParams { limit_max: 25, ..PARAMS }), &load);
        assert_eq!(load.limit(), 25);
        meter.set_params(None, &load);
        (0..100).for_each(|_| _ = meter.handle_response(MILLI, 1_000, &load));
        assert_eq!(load.limit(), u32::MAX);
        meter.set_params(Some(PARAMS), &load);
        assert_eq!(load.limit(), 20);
    }
}
