//! How late workers are, and which of them is stuck: each notes when it looks at what is due, the control side judges.

use crate::net::timer::TICK;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A worker that has not looked at what is due for this long is stuck: something in it does not give way.
const STUCK_AFTER: Duration = Duration::from_secs(3);

/// One that has not looked for this long is given nothing more meanwhile.
const LATE: Duration = Duration::from_millis(500);

/// What workers note.
pub(crate) struct Ticks {
    begun: Instant,
    workers: Box<[Tick]>,
}

/// One worker's.
#[derive(Default)]
struct Tick {
    /// When it last looked, in microseconds since the beginning; 0: it does not run.
    at_micros: AtomicU64,
    /// How late that was, at most, since the control side looked.
    late_micros: AtomicU64,
    /// What the control side has found.
    lag_micros: AtomicU64,
    is_stuck: AtomicBool,
}

/// How late a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lag {
    pub(crate) lag: Duration,
    pub(crate) is_stuck: bool,
}

impl Ticks {
    pub(crate) fn new(workers: usize, now: Instant) -> Self {
        Self { begun: now, workers: (0..workers).map(|_| Tick::default()).collect() }
    }

    /// A worker looks at what was due then.
    pub(crate) fn note(&self, worker: usize, due: Instant, now: Instant) {
        let tick = &self.workers[worker];
        tick.late_micros.fetch_max(micros(now.saturating_duration_since(due)), Relaxed);
        tick.at_micros.store(self.micros_at(now), Relaxed);
    }

    /// For how long a worker has not looked at what is due; `None`: it does not run.
    pub(crate) fn silent(&self, worker: usize, now: Instant) -> Option<Duration> {
        let at = self.workers.get(worker)?.at_micros.load(Relaxed);
        (at > 0).then(|| Duration::from_micros(self.micros_at(now).saturating_sub(at)))
    }

    /// Whether a worker takes what it is given, as far as is known: it has looked at what is due a moment ago, or not begun.
    pub(crate) fn answers(&self, worker: usize, now: Instant) -> bool {
        self.silent(worker, now).is_none_or(|silent| silent < LATE)
    }

    /// A worker has ended.
    pub(crate) fn end(&self, worker: usize) {
        self.workers[worker].at_micros.store(0, Relaxed);
    }

    /// What was found of each at the last look.
    pub(crate) fn found(&self) -> impl Iterator<Item = Lag> {
        self.workers.iter().map(|tick| Lag {
            lag: Duration::from_micros(tick.lag_micros.load(Relaxed)),
            is_stuck: tick.is_stuck.load(Relaxed),
        })
    }

    /// Never 0.
    fn micros_at(&self, now: Instant) -> u64 {
        micros(now.saturating_duration_since(self.begun)) + 1
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX - 1)
}

/// A worker got stuck, or goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) worker: usize,
    pub(crate) is_stuck: bool,
    /// For how long it has not looked, or had not.
    pub(crate) silent: Duration,
}

/// The control side's eye on all workers.
#[derive(Debug)]
pub(crate) struct Watchdog {
    /// Time between two looks.
    interval: Duration,
    looked: Option<Instant>,
    /// The last look came too late itself.
    was_late: bool,
    /// Since when each that is stuck has been silent.
    stuck: Vec<Option<u64>>,
}

impl Watchdog {
    /// Of somebody who looks every `interval`.
    pub(crate) fn new(interval: Duration) -> Self {
        Self { interval, looked: None, was_late: false, stuck: Vec::new() }
    }

    /// Looks at all workers. `None`: nothing can be said, because this look came late itself, or the one before: then the whole
    /// machine has stood still, and workers are not to blame. If not, the lag of the one that is least late of those that are not stuck, and
    /// who has got stuck or goes on.
    pub(crate) fn look(&mut self, ticks: &Ticks, now: Instant) -> Option<(Duration, Vec<Turn>)> {
        let since = self.looked.replace(now).map_or(Duration::ZERO, |looked| now.saturating_duration_since(looked));
        let is_late = since > self.interval * 2;
        let says_nothing = is_late || self.was_late;
        self.was_late = is_late;
        self.stuck.resize(ticks.workers.len(), None);
        let now_micros = ticks.micros_at(now);
        let (mut least, mut turns) = (None, Vec::new());
        for (worker, (tick, stuck)) in ticks.workers.iter().zip(&mut self.stuck).enumerate() {
            let late = Duration::from_micros(tick.late_micros.swap(0, Relaxed));
            let at = tick.at_micros.load(Relaxed);
            if says_nothing || at == 0 {
                continue;
            }
            let silent = Duration::from_micros(now_micros.saturating_sub(at));
            let lag = late.max(silent.saturating_sub(TICK));
            match *stuck {
                None if silent >= STUCK_AFTER => {
                    *stuck = Some(at);
                    turns.push(Turn { worker, is_stuck: true, silent });
                }
                Some(since) if since != at => {
                    *stuck = None;
                    let silent = Duration::from_micros(at.saturating_sub(since));
                    turns.push(Turn { worker, is_stuck: false, silent });
                }
                None | Some(_) => {}
            }
            if stuck.is_none() {
                least = Some(least.map_or(lag, |least: Duration| least.min(lag)));
            }
            tick.lag_micros.store(micros(lag), Relaxed);
            tick.is_stuck.store(stuck.is_some(), Relaxed);
        }
        (!says_nothing).then_some((least.unwrap_or_default(), turns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient;

    const INTERVAL: Duration = Duration::from_millis(250);
    const MILLI: Duration = Duration::from_millis(1);

    /// Two workers that look on time for as long as they are told to, and a watchdog that looks after each interval.
    struct Rig {
        ticks: Ticks,
        watchdog: Watchdog,
        now: Instant,
    }

    impl Rig {
        fn new() -> Self {
            let now = ambient::now();
            let mut rig = Self { ticks: Ticks::new(2, now), watchdog: Watchdog::new(INTERVAL), now };
            assert_eq!(rig.pass(&[0, 1]), Some((Duration::ZERO, vec![])));
            rig
        }

        /// An interval in which these workers tick.
        fn pass(&mut self, ticking: &[usize]) -> Option<(Duration, Vec<Turn>)> {
            for _ in 0..5 {
                self.now += TICK;
                ticking.iter().for_each(|worker| self.ticks.note(*worker, self.now, self.now));
            }
            self.watchdog.look(&self.ticks, self.now)
        }

        fn found(&self) -> Vec<(Duration, bool)> {
            self.ticks.found().map(|lag| (lag.lag, lag.is_stuck)).collect()
        }
    }

    #[test]
    fn a_worker_that_stands_still_is_named_once_and_once_again_when_it_goes_on() {
        let mut rig = Rig::new();
        let mut told = Vec::new();
        for turn in 1..=20_u32 {
            let (least, turns) = rig.pass(&[1]).unwrap();
            assert_eq!((least, rig.found()[0].0), (Duration::ZERO, INTERVAL * turn - TICK));
            told.extend(turns);
        }
        assert_eq!(told, [Turn { worker: 0, is_stuck: true, silent: STUCK_AFTER }]);
        assert_eq!(rig.found(), [(INTERVAL * 20 - TICK, true), (Duration::ZERO, false)]);
        let silent = |worker| rig.ticks.silent(worker, rig.now);
        assert_eq!([silent(0), silent(1), silent(2)], [Some(INTERVAL * 20), Some(Duration::ZERO), None]);
        let (_, turns) = rig.pass(&[0, 1]).unwrap();
        assert_eq!(turns, [Turn { worker: 0, is_stuck: false, silent: INTERVAL * 21 }]);
        assert_eq!(rig.pass(&[0, 1]), Some((Duration::ZERO, vec![])));
        assert_eq!(rig.found(), [(Duration::ZERO, false); 2]);
    }

    #[test]
    fn the_longest_lag_between_two_looks_counts_once_of_the_worker_that_is_least_late() {
        let mut rig = Rig::new();
        rig.ticks.note(0, rig.now, rig.now + MILLI * 80);
        rig.ticks.note(1, rig.now, rig.now + MILLI * 70);
        rig.ticks.note(1, rig.now, rig.now + MILLI * 3);
        assert_eq!(rig.pass(&[0, 1]).unwrap().0, MILLI * 70);
        assert_eq!(rig.pass(&[0, 1]).unwrap().0, Duration::ZERO);
    }

    #[test]
    fn who_is_stuck_is_not_asked_how_late_others_are() {
        let mut rig = Rig::new();
        for _ in 0..20 {
            rig.pass(&[1]);
        }
        rig.ticks.note(1, rig.now, rig.now + MILLI * 70);
        assert_eq!(rig.pass(&[1]).unwrap().0, MILLI * 70);
    }

    #[test]
    fn when_the_whole_machine_has_stood_still_no_worker_is_blamed() {
        let mut rig = Rig::new();
        let due = rig.now;
        rig.now += Duration::from_secs(60);
        assert_eq!(rig.watchdog.look(&rig.ticks, rig.now), None);
        // Workers, too, find out that they are late only now.
        rig.ticks.note(0, due, rig.now);
        rig.ticks.note(1, due, rig.now);
        assert_eq!(rig.pass(&[0, 1]), None);
        assert_eq!(rig.pass(&[0, 1]), Some((Duration::ZERO, vec![])));
    }

    #[test]
    fn a_worker_that_has_not_begun_or_has_ended_is_not_late() {
        let mut rig = Rig::new();
        rig.ticks.end(0);
        for _ in 0..30 {
            assert_eq!(rig.pass(&[1]), Some((Duration::ZERO, vec![])));
        }
        let idle = Ticks::new(3, rig.now);
        assert_eq!(
            Watchdog::new(INTERVAL).look(&idle, rig.now + Duration::from_secs(9)),
            Some((Duration::ZERO, vec![]))
        );
    }
}
