//! What the configuration says about health: the parameter types that `ringway-config` fills in.

use crate::agent::AgentParams;
use std::time::Duration;

/// Beyond this, an ejection is as good as for ever; and calculations with it cannot overflow.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 86_400);

/// Schedule and thresholds of the active checks of a service.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CheckParams {
    /// Time between the starts of two checks of a backend that is up and settled.
    pub interval: Duration,
    /// The same while a backend is down and settled.
    pub interval_down: Duration,
    /// The same while a backend is in transition: some, but not all, of the checks that would change its state are in.
    pub interval_transition: Duration,
    /// How long one check may take.
    pub timeout: Duration,
    /// Consecutive successes that bring a backend up.
    pub rise: u32,
    /// Consecutive failures that take a backend down.
    pub fall: u32,
    /// Each interval is drawn from `interval * [1 - jitter, 1]`, so that checks of many proxies do not fall into step, and
    /// a failure is still seen within `fall` intervals; 0.0 to 0.5.
    pub jitter: f64,
    /// What a backend is taken for until its first check has ended.
    pub initial: Initial,
}

impl Default for CheckParams {
    fn default() -> Self {
        let second = Duration::from_secs(1);
        Self {
            interval: second * 2,
            interval_down: second * 2,
            interval_transition: second * 2,
            timeout: second,
            rise: 2,
            fall: 3,
            jitter: 0.1,
            initial: Initial::Up,
        }
    }
}

/// What a backend is taken for until its first check has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Initial {
    /// It takes traffic at once; one failed first check takes it down.
    #[default]
    Up,
    /// It takes no traffic; one good first check brings it up.
    Down,
}

/// Which outcomes of live traffic count as failures for ejection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutlierOn {
    /// Only what the proxy itself saw: refused, reset, timed out, garbage instead of a response.
    Connection,
    /// These, and the statuses 502, 503 and 504.
    Gateway,
    /// These, and every status from 500 to 599.
    #[default]
    ServerErrors,
}

impl OutlierOn {
    /// Whether a response with this status counts as a failure.
    #[must_use]
    pub fn counts(self, status: u16) -> bool {
        match self {
            Self::Connection => false,
            Self::Gateway => matches!(status, 502..=504),
            Self::ServerErrors => (500..=599).contains(&status),
        }
    }
}

/// Ejection after consecutive failures of live traffic.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OutlierParams {
    /// Which outcomes count.
    pub on: OutlierOn,
    /// Consecutive failures that eject. 0 turns this off.
    pub consecutive_failures: u32,
    /// Consecutive failures of the way to a backend (refused, reset, timed out) that eject. If given, these are counted
    /// apart and no longer among [`OutlierParams::consecutive_failures`]; 0 turns this off.
    pub consecutive_local_failures: Option<u32>,
    /// Ejection by failure percentage, or none.
    pub failure_percentage: Option<FailurePercentageParams>,
    /// Ejection by deviation of the success rate, or none.
    pub success_rate: Option<SuccessRateParams>,
    /// Ejection by latency, or none.
    pub latency: Option<LatencyParams>,
    /// Time over which the three above are judged.
    pub interval: Duration,
    /// Longest Retry-After that is obeyed, by an ejection of that length; zero obeys none. Nothing beyond
    /// [`OutlierParams::max_ejection`] is.
    pub retry_after_max: Duration,
    /// Whether active checks that succeed as often in a row as a rise takes end an ejection.
    pub return_on_check: bool,
    /// First ejection's length; the n-th in a row lasts n times as long.
    pub base_ejection: Duration,
    /// Longest ejection, whatever its cause, jitter included.
    pub max_ejection: Duration,
    /// An ejection is lengthened by up to this share of itself, so that many do not return at once; 0.0 to 1.0. One that
    /// could become too long so is shortened instead.
    pub jitter: f64,
    /// Share of the backends that may be ejected at once, in percent, of those that take traffic or would if they were not
    /// ejected: not the drained, those of weight 0, those that are down. One always may, if that leaves somebody. Below 100,
    /// somebody is always left.
    pub max_ejection_percent: u32,
}

impl Default for OutlierParams {
    fn default() -> Self {
        Self {
            on: OutlierOn::ServerErrors,
            consecutive_failures: 5,
            consecutive_local_failures: None,
            failure_percentage: None,
            success_rate: None,
            latency: None,
            interval: Duration::from_secs(10),
            retry_after_max: Duration::ZERO,
            return_on_check: false,
            base_ejection: Duration::from_secs(30),
            max_ejection: Duration::from_secs(300),
            jitter: 0.1,
            max_ejection_percent: 20,
        }
    }
}

impl OutlierParams {
    /// Length of the n-th ejection in a row, drawn by a number from 0 to 1: at least `n * base_ejection`, or what of
    /// `max_ejection` jitter can take, and never more than `max_ejection`.
    pub(crate) fn ejection(&self, count: u32, fraction: f64) -> Duration {
        let most = self.max_ejection.min(LONGEST);
        let jitter = self.jitter.clamp(0.0, 1.0);
        let wanted = self.base_ejection.min(LONGEST).saturating_mul(count).min(most);
        let longest = wanted.mul_f64(1.0 + jitter).min(most);
        // At the limit, it is the lower end that gives way: backends that have failed for long must not all come back at once either.
        let shortest = wanted.min(longest.div_f64(1.0 + jitter));
        (longest - (longest - shortest).mul_f64(1.0 - fraction.clamp(0.0, 1.0))).min(most)
    }

    /// What is obeyed of a wish to be left alone.
    pub(crate) fn obeyed(&self, wish: Duration) -> Duration {
        wish.min(self.retry_after_max).min(self.max_ejection).min(LONGEST)
    }

    /// Whether any detector needs [`crate::Window`]s.
    #[must_use]
    pub fn needs_windows(&self) -> bool {
        self.failure_percentage.is_some() || self.success_rate.is_some() || self.latency.is_some()
    }
}

/// A backend is ejected if too many percent of its requests failed within an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailurePercentageParams {
    /// Percent from which it is ejected.
    pub threshold: u32,
    /// Backends that must have the volume.
    pub hosts_min: u32,
    /// Requests that a backend must have had.
    pub volume_min: u32,
}

/// A backend is ejected if its success rate is below the mean of all by more than a multiple of their standard deviation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SuccessRateParams {
    /// That multiple.
    pub deviations: f64,
    /// Backends that must have the volume.
    pub hosts_min: u32,
    /// Requests that a backend must have had.
    pub volume_min: u32,
}

/// A backend is ejected if its mean latency is a multiple of the median of all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatencyParams {
    /// That multiple.
    pub factor: f64,
    /// Below this, no backend is too slow.
    pub least: Duration,
    /// Backends that must have the volume.
    pub hosts_min: u32,
    /// Requests that a backend must have had.
    pub volume_min: u32,
}

/// What panic does with a service's traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PanicMode {
    /// It goes to all backends, healthy or not.
    #[default]
    All,
    /// It is refused, so that the few healthy ones are not overrun.
    Fail,
}

/// Ramp of a backend that has just come up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowStartParams {
    /// From the first request to the full share.
    pub window: Duration,
    /// Share at the start of the window, in percent, 1 to 100.
    pub initial_percent: u32,
}

/// All that a service's configuration says about health.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Params {
    /// Active checks, or none: then backends count as up.
    pub check: Option<CheckParams>,
    /// Agents beside the backends, or none: then what they have said holds no longer.
    pub agent: Option<AgentParams>,
    /// Ejection by live traffic.
    pub outlier: OutlierParams,
    /// Health is ignored while less than this share of the weight is healthy, in percent; 0 is never.
    pub panic_threshold_percent: u32,
    /// What is done then.
    pub panic_mode: PanicMode,
    /// A level (tier, zone) keeps all its keys as long as this many percent of its healthy weight make up its weight:
    /// 140 keeps them down to 72 % healthy, as Envoy's overprovisioning factor does. 0 counts as 100.
    pub overprovisioning_percent: u32,
    /// Ramp of a backend that comes up or joins, or none.
    pub slow_start: Option<SlowStartParams>,
    /// Ramp of a backend that is drained; zero is at once.
    pub drain_ramp: Duration,
    /// How long a backend that takes no keys any more keeps the clients that are bound to it; `None`: not at all,
    /// [`Duration::MAX`]: until it is gone.
    pub keep_clients: Option<Duration>,
}
