//! How many requests a backend is given at once, found out from how long its responses take: a gradient controller.
//!
//! A backend that is given more than it can work on lets the rest wait, and its latency grows while its throughput does not. So the latency
//! of each window is held against that of the backend without such a queue, `limit *= tolerance * base / latency` where that is below 1,
//! and `sqrt(limit)` is allowed on top, so that the limit finds its way up again. This is the form that Netflix's concurrency-limits
//! (`Gradient2Limit`) and Envoy's adaptive concurrency filter share. They differ in where `base` is from, and this one is like neither:
//!
//! * Envoy lowers the limit to next to nothing once a minute, and measures then (`min_rtt_calc_params`): traffic pays for it, most of all
//!   where nothing is wrong.
//! * Netflix takes a long mean. Under an overload that lasts, the mean becomes the overload's: with `limit` at rest latency is above
//!   `tolerance * base`, so that `base` follows it up, and the limit with it.
//! * Here it is the least mean of a sliding window of periods, as BBR has its least round trip (Cardwell et al., "BBR: Congestion-Based
//!   Congestion Control", 2016). It needs no probe as long as latency comes down to it now and then. Where it does not, or the limit has
//!   held requests back all the while, nobody knows whether the backend has become slower or its queue is always full. Only then the limit
//!   is lowered for a few windows, by Little's law just below the point where a queue would be gone: what is left of the latency is
//!   the backend's own.
//!
//! A limit that nothing comes up against, as with a population of clients that stays as it is, must not be out of the way for good: it grows
//! to twice the load and no further; where latency is too high for some windows on end, it is brought down to the load, and follows from
//! there; and where the least latency has risen by much since it was last known to be without a queue, that is found out as above. As a
//! steady queue hides the backend's own latency altogether, such a probe goes on as long as latency falls with it.
//!
//! Means are of the logarithms of latencies: one response that takes a thousand times as long (a long poll) moves a mean of a hundred by
//! 7 %, and a backend with fast and slow requests has a mean that stands still, where a median would jump from one to the other.

use std::time::Duration;

/// Where a limit begins, unless more are in flight just then. Source: Netflix's `initialLimit`.
const LIMIT_INITIAL: f64 = 20.0;
/// Growth of each window until latency has risen for the first time: from 20 to 1,000 in ten windows.
const GROWTH: f64 = 1.5;
/// It goes to so many times the load: room for a burst. Source: Netflix, which lets a limit alone when half of it is not used.
const HEADROOM: f64 = 2.0;
/// Windows on end with too high a latency until a limit of which less than half is used comes down to the load.
const UNUSED_WINDOWS: u32 = 5;
/// Part of the way to its new value that the limit goes with each window: one bad window, as of a collector's pause, takes a tenth at most.
const SMOOTHING: f64 = 0.2;
/// However much slower a window was.
const GRADIENT_MIN: f64 = 0.5;
/// What is left of the limit when a window had drops: AIMD's backoff, as in Netflix's `AIMDLimit`.
const BACKOFF: f64 = 0.9;
/// A window has drops when more than one request of so many is one.
const DROP_PART: u32 = 10;
/// Windows whose mean is one candidate for the least: two seconds, when there is traffic.
const PERIOD_WINDOWS: u32 = 20;
/// Periods that the least is looked for in: ten seconds, BBR's window.
const PERIODS: usize = 5;
/// The least may rise by so much (its logarithm to base 2; 10 %) before it is doubted.
const RISE_BORNE: f64 = 0.14;
/// Where fewer are in flight than a limit would have let in, latency says too little for it to be lowered.
const PEAK_SURE: u32 = 10;
/// Windows with the limit lowered. The first one still has responses from before.
const PROBE_WINDOWS: u32 = 3;
/// Lowered to so much of what Little's law gives.
const PROBE_PART: f64 = 0.9;
/// So many times on end, as long as latency falls by so much (its logarithm to base 2): nine tenths of a queue take nine tenths as long.
const PROBE_ROUNDS: u32 = 6;
const PROBE_FALL: f64 = 0.1;
/// Windows on end with the gradient at its least until it is doubted that they are a queue's: with less than that to go by, the limit
/// would be low for hours where responses take seconds. Doubled each time that a queue it was.
const FLOOR_WINDOWS_MIN: u32 = 5;
const FLOOR_WINDOWS_MAX: u32 = PERIOD_WINDOWS * PERIODS as u32;
/// A window of fewer says too little of what latency is at its least.
const SAMPLES_SURE: u32 = 10;
/// Binary digits after the point in a logarithm.
const FRACTION_BITS: u32 = 8;

/// Bounds of a limit that follows latency.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConcurrencyParams {
    /// It never falls below this. At least 1.
    pub limit_min: u32,
    /// Nor rises above this; not below the other.
    pub limit_max: u32,
    /// So many times the latency without a queue is borne. At least 1.
    pub tolerance: f64,
}

/// What became of the requests whose responses began in a stretch of time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Window {
    /// Responses that were timed.
    pub samples: u32,
    /// Sum of their [`log_micros`].
    pub logs: u64,
    /// Requests that the backend was too slow or too busy for.
    pub drops: u32,
    /// Responses whose time says nothing: they began before the request's end.
    pub untimed: u32,
    /// Most requests that waited for a response when one of them had it.
    pub peak: u32,
}

/// The logarithm of a latency to base 2, as a whole number of 256ths. Between powers of two it is drawn straight, which is 9 % off at most,
/// and the same for all.
#[inline]
#[must_use]
pub fn log_micros(micros: u64) -> u32 {
    let micros = micros.max(1);
    let exponent = micros.ilog2();
    let below = (micros << (63 - exponent) << 1) >> (64 - FRACTION_BITS);
    exponent << FRACTION_BITS | below as u32
}

/// The controller of one backend's limit.
#[derive(Debug)]
pub struct ConcurrencyController {
    limit: f64,
    /// Latency has not risen yet.
    starting: bool,
    /// Means of the last periods, the newest last; without a value, infinite.
    periods: [f64; PERIODS],
    period: Mean,
    windows: u32,
    /// The least mean of a window, until the first period has ended: it may have begun in an overload, or have seen one begin.
    least: f64,
    /// The limit has held requests back in the current period, and in so many before it on end.
    held: bool,
    held_periods: u32,
    /// The least latency when it was last known to be without a queue, or less than that since; less than any before it was.
    known: f64,
    /// Most requests in flight in the current period.
    peak: u32,
    /// Windows on end with too high a latency in which less than half of the limit was used, and the most requests in flight in them.
    unused: (u32, u32),
    /// Windows on end with the gradient at its least, and how many are borne.
    floored: u32,
    floored_max: u32,
    probe: Option<Probe>,
}

/// The limit is lowered, to see whether latency falls with it.
#[derive(Debug)]
struct Probe {
    rounds: u32,
    windows: u32,
    mean: Mean,
    /// The limit before, and what was used of it.
    limit: f64,
    used: f64,
    /// The latency before it, and in the round before.
    before: f64,
    last: f64,
}

#[derive(Debug, Default)]
struct Mean {
    logs: u64,
    samples: u64,
}

impl Mean {
    fn add(&mut self, window: &Window) {
        self.logs += window.logs;
        self.samples += u64::from(window.samples);
    }

    fn value(&self) -> f64 {
        if self.samples == 0 { f64::INFINITY } else { self.logs as f64 / self.samples as f64 / unit() }
    }
}

fn mean_of(window: &Window) -> f64 {
    let mut mean = Mean::default();
    mean.add(window);
    mean.value()
}

fn unit() -> f64 {
    f64::from(1_u32 << FRACTION_BITS)
}

impl Default for ConcurrencyController {
    fn default() -> Self {
        Self {
            limit: LIMIT_INITIAL,
            starting: true,
            periods: [f64::INFINITY; PERIODS],
            period: Mean::default(),
            windows: 0,
            least: f64::INFINITY,
            held: false,
            held_periods: 0,
            known: f64::NEG_INFINITY,
            peak: 0,
            unused: (0, 0),
            floored: 0,
            floored_max: FLOOR_WINDOWS_MIN,
            probe: None,
        }
    }
}

impl ConcurrencyController {
    /// Of a backend that has so many requests in flight already.
    #[must_use]
    pub fn begin(in_flight: u32) -> Self {
        Self { limit: LIMIT_INITIAL.max(f64::from(in_flight)), ..Self::default() }
    }

    /// The limit now.
    #[must_use]
    pub fn limit(&self, params: &ConcurrencyParams) -> u32 {
        (self.limit.floor() as u32).clamp(params.limit_min, params.limit_max.max(params.limit_min))
    }

    /// The latency of the backend without a queue, as far as it is known.
    #[must_use]
    pub fn base(&self) -> Option<Duration> {
        let base = self.base_log();
        base.is_finite().then(|| Duration::from_micros(base.exp2() as u64))
    }

    /// Takes in a window, gives the limit.
    pub fn handle_window(&mut self, window: &Window, params: &ConcurrencyParams) -> u32 {
        let limit = self.limit(params);
        let dropped =
            window.drops > 0 && window.drops.saturating_mul(DROP_PART) > window.samples + window.untimed + window.drops;
        if window.samples > 0 {
            if self.probe.is_some() {
                self.probe(window, params);
                return self.clamped(params);
            }
            self.period.add(window);
            if window.samples >= SAMPLES_SURE {
                self.least = self.least.min(mean_of(window));
            }
            self.held |= window.peak >= limit;
            self.peak = self.peak.max(window.peak);
            self.windows += 1;
        }
        if f64::from(window.peak) * HEADROOM >= f64::from(limit) {
            self.unused = (0, 0);
            self.follow(window, dropped, params);
        } else if window.samples > 0 {
            self.look_at_unused(window, params);
        }
        if self.windows >= PERIOD_WINDOWS {
            self.end_period(params);
        }
        if self.floored >= self.floored_max && self.probe.is_none() {
            self.doubt(params);
        }
        self.clamped(params)
    }

    /// Where half of the limit is not even used, one slow window, and failures, have nothing to do with it. Many on end mean that what is in
    /// flight is too much already.
    fn look_at_unused(&mut self, window: &Window, params: &ConcurrencyParams) {
        if mean_of(window) - self.base_log() <= params.tolerance.log2() {
            self.unused = (0, 0);
            return;
        }
        self.unused = (self.unused.0 + 1, self.unused.1.max(window.peak));
        if self.unused.0 >= UNUSED_WINDOWS {
            self.limit = f64::from(self.unused.1);
            self.starting = false;
            self.unused = (0, 0);
        }
    }

    fn follow(&mut self, window: &Window, dropped: bool, params: &ConcurrencyParams) {
        let above = if window.samples > 0 { mean_of(window) - self.base_log() } else { 0.0 };
        let gradient = (params.tolerance.log2() - above).exp2().clamp(GRADIENT_MIN, 1.0);
        self.starting &= gradient == 1.0 && !dropped;
        self.floored = if gradient == GRADIENT_MIN { self.floored + 1 } else { 0 };
        if self.starting {
            self.limit = self.limit.max((self.limit * GROWTH).min(f64::from(window.peak) * HEADROOM));
            return;
        }
        // Where latency is too high, it is by what is in flight, not by what the limit would let in beyond that.
        let used = if gradient < 1.0 { self.limit.min(f64::from(window.peak)) } else { self.limit };
        let wanted = used * gradient + used.sqrt();
        let followed = self.limit + (wanted - self.limit) * SMOOTHING;
        self.limit = if dropped { followed.min(self.limit * BACKOFF) } else { followed };
    }

    /// The least of the last periods' means; before the first has ended, of its windows'.
    fn base_log(&self) -> f64 {
        let least = self.periods.iter().copied().fold(f64::INFINITY, f64::min);
        if least.is_finite() { least } else { self.least }
    }

    fn end_period(&mut self, params: &ConcurrencyParams) {
        let (before, ended) = (self.base_log(), std::mem::take(&mut self.period).value());
        let is_first = self.periods.iter().all(|mean| mean.is_infinite());
        let (held, peak) = (std::mem::take(&mut self.held), std::mem::take(&mut self.peak));
        self.held_periods = if held { self.held_periods + 1 } else { 0 };
        self.windows = 0;
        self.periods.rotate_left(1);
        self.periods[PERIODS - 1] = if is_first && before.is_finite() { before } else { ended };
        self.known = self.known.min(self.base_log());
        let rise = self.base_log() - self.known;
        // A probe takes something from requests that the limit has let alone so far: there must be more of a reason.
        let is_doubted = match held {
            true => rise > RISE_BORNE && self.known.is_finite() || self.held_periods as usize >= PERIODS,
            false => rise > RISE_BORNE.max(params.tolerance.log2() / 2.0) && peak >= PEAK_SURE,
        };
        if is_doubted && before.is_finite() && ended.is_finite() {
            self.begin_probe(before, ended, peak, params);
        }
    }

    /// Latency has been far above the least for long, and the limit falls or is at its end.
    fn doubt(&mut self, params: &ConcurrencyParams) {
        let (before, now) = (self.base_log(), std::mem::take(&mut self.period).value());
        let peak = std::mem::take(&mut self.peak);
        (self.windows, self.held) = (0, false);
        if now.is_finite() && before.is_finite() {
            self.begin_probe(before, now, peak, params);
        }
    }

    /// Lowers the limit. `base`: the least, as far as is known; `now`: the latency; `peak`: most requests in flight.
    fn begin_probe(&mut self, base: f64, now: f64, peak: u32, params: &ConcurrencyParams) {
        let (limit, mean) = (self.limit, Mean::default());
        let used = limit.min(f64::from(peak)).max(1.0);
        self.probe = Some(Probe { rounds: 0, windows: 0, mean, limit, used, before: now, last: now });
        self.limit = used;
        self.lower(base - now, params);
        self.floored = 0;
        // Until the probe is over, nothing is known that is better.
        self.periods = [f64::INFINITY; PERIODS];
        self.periods[PERIODS - 1] = base;
    }

    /// Lowers it to where a queue would be gone that makes latency so much (its logarithm to base 2) higher.
    fn lower(&mut self, above: f64, params: &ConcurrencyParams) {
        self.limit = (self.limit * above.exp2() * PROBE_PART).max(f64::from(params.limit_min));
    }

    fn probe(&mut self, window: &Window, params: &ConcurrencyParams) {
        let Some(mut probe) = self.probe.take() else { return };
        probe.windows += 1;
        if probe.windows > 1 {
            probe.mean.add(window);
        }
        if probe.windows < PROBE_WINDOWS {
            self.probe = Some(probe);
            return;
        }
        let mean = probe.mean.value();
        probe.rounds += 1;
        if probe.last - mean > PROBE_FALL && probe.rounds < PROBE_ROUNDS && self.limit > f64::from(params.limit_min) {
            // There was a queue, and there may be one still.
            self.lower(mean - probe.last, params);
            self.probe = Some(Probe { windows: 0, mean: Mean::default(), last: mean, ..probe });
            return;
        }
        self.held_periods = 0;
        let least = mean.min(probe.last);
        // Of what there was, so many had no queue; that many times as long is borne.
        let borne = probe.used * (least - probe.before).exp2() * params.tolerance;
        self.limit = probe.limit.min(borne + borne.sqrt());
        self.periods = [f64::INFINITY; PERIODS];
        self.periods[PERIODS - 1] = least;
        // As slow as before with fewer: it is the backend itself that has become slower, and the limit has been too low.
        self.starting = probe.before - least <= RISE_BORNE;
        self.known = if self.starting { probe.before } else { least };
        if self.starting {
            self.limit = probe.limit;
        }
        self.floored_max =
            if self.starting { FLOOR_WINDOWS_MIN } else { (self.floored_max * 2).min(FLOOR_WINDOWS_MAX) };
    }

    fn clamped(&mut self, params: &ConcurrencyParams) -> u32 {
        self.limit = self.limit.clamp(f64::from(params.limit_min), f64::from(params.limit_max.max(params.limit_min)));
        self.limit(params)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARAMS: ConcurrencyParams = ConcurrencyParams { limit_min: 3, limit_max: 1000, tolerance: 1.5 };

    fn window(micros: u64, peak: u32) -> Window {
        Window { samples: 100, logs: 100 * u64::from(log_micros(micros)), peak, ..Window::default() }
    }

    /// The limit after so many windows of this latency, with as many in flight as it lets.
    fn after(controller: &mut ConcurrencyController, windows: u32, micros: u64) -> u32 {
        (0..windows)
            .fold(controller.limit(&PARAMS), |limit, _| controller.handle_window(&window(micros, limit), &PARAMS))
    }

    #[test]
    fn logarithms_grow_with_latency_and_tell_one_tenth_apart() {
        assert_eq!([0, 1, 2, 3, 4, 1024, 1536].map(log_micros), [0, 0, 256, 384, 512, 2560, 2688]);
        let logs: Vec<u32> = (1..100_000).map(log_micros).collect();
        assert!(logs.is_sorted());
        assert!((100..1_000_000).step_by(997).all(|micros| log_micros(micros + micros / 10) > log_micros(micros)));
        assert_eq!(log_micros(u64::MAX) >> FRACTION_BITS, 63);
    }

    #[test]
    fn it_grows_fast_until_latency_rises_and_then_by_its_root() {
        let mut controller = ConcurrencyController::default();
        assert_eq!(controller.limit(&PARAMS), 20);
        assert_eq!(after(&mut controller, 3, 1_000), 67);
        // As slow as that it takes a tenth at most, less what it grows by.
        let lower = after(&mut controller, 1, 100_000);
        assert!((60..67).contains(&lower), "{lower}");
        let next = after(&mut controller, 1, 1_000);
        assert!((lower..lower + 4).contains(&next), "{lower} {next}");
    }

    #[test]
    fn latency_moves_nothing_where_half_of_the_limit_is_not_used() {
        let mut controller = ConcurrencyController::default();
        after(&mut controller, 30, 1_000);
        let limit = controller.limit(&PARAMS);
        for micros in [10, 1_000, 1_000_000] {
            let idle = Window { drops: 60, ..window(micros, limit / 2 - 1) };
            assert_eq!(controller.handle_window(&idle, &PARAMS), limit, "{micros}");
        }
        assert_eq!(controller.handle_window(&Window::default(), &PARAMS), limit);
    }

    #[test]
    fn drops_lower_it_where_more_than_a_tenth_are() {
        let limit_after = |drops: u32, samples: u32| {
            let mut controller = ConcurrencyController { limit: 100.0, starting: false, ..Default::default() };
            let logs = u64::from(samples) * u64::from(log_micros(1_000));
            controller.handle_window(&Window { samples, logs, drops, peak: 100, ..Window::default() }, &PARAMS)
        };
        assert_eq!([limit_after(0, 90), limit_after(10, 90), limit_after(11, 89)], [102, 102, 90]);
        assert_eq!([limit_after(1, 0), limit_after(50, 0)], [90, 90], "nothing but drops");
    }

    #[test]
    fn responses_that_say_nothing_of_latency_let_it_rise_where_it_is_in_the_way() {
        let mut controller = ConcurrencyController { limit: 100.0, starting: false, ..Default::default() };
        let streams = |drops: u32, peak: u32| Window { untimed: 10, drops, peak, ..Window::default() };
        assert_eq!(controller.handle_window(&streams(1, 49), &PARAMS), 100);
        assert_eq!(controller.handle_window(&streams(1, 100), &PARAMS), 102);
        assert_eq!(controller.handle_window(&streams(2, 100), &PARAMS), 91);
    }

    #[test]
    fn a_backend_that_is_slower_for_good_gets_more_within_a_few_windows_also_when_each_has_few_responses() {
        let mut controller = ConcurrencyController { starting: false, ..Default::default() };
        after(&mut controller, 60, 3_000_000);
        let few = |micros: u32, limit: u32| Window {
            samples: 4,
            logs: 4 * u64::from(log_micros(u64::from(micros))),
            peak: limit,
            ..Window::default()
        };
        let before = controller.limit(&PARAMS);
        let mut windows = 0;
        // Slower by itself, whatever it is given.
        while windows < 5 || controller.limit(&PARAMS) <= before {
            controller.handle_window(&few(10_000_000, controller.limit(&PARAMS)), &PARAMS);
            windows += 1;
            assert!(windows < 20, "{} after {before}", controller.limit(&PARAMS));
        }
    }

    #[test]
    fn one_window_of_a_single_response_is_no_measure_of_what_is_normal() {
        let mut controller = ConcurrencyController::default();
        controller.handle_window(
            &Window { samples: 1, logs: u64::from(log_micros(100)), peak: 1, ..Window::default() },
            &PARAMS,
        );
        assert_eq!(after(&mut controller, 3, 10_000), 67);
    }

    #[test]
    fn it_begins_with_what_is_in_flight_already() {
        let limit = |in_flight: u32| ConcurrencyController::begin(in_flight).limit(&PARAMS);
        assert_eq!([0, 20, 300, 5_000].map(limit), [20, 20, 300, 1_000]);
    }

    #[test]
    fn it_stays_between_its_bounds_also_when_these_change() {
        let mut controller = ConcurrencyController::default();
        assert_eq!(controller.limit(&ConcurrencyParams { limit_min: 50, ..PARAMS }), 50);
        assert_eq!(controller.limit(&ConcurrencyParams { limit_max: 10, ..PARAMS }), 10);
        assert_eq!(after(&mut controller, 90, 1_000), 1_000);
        assert_eq!(controller.limit(&ConcurrencyParams { limit_max: 10, ..PARAMS }), 10);
        let timeouts = Window { drops: 100, peak: 1_000, ..Window::default() };
        for _ in 0..200 {
            controller.handle_window(&timeouts, &PARAMS);
        }
        assert_eq!(controller.limit(&PARAMS), 3);
    }
}
