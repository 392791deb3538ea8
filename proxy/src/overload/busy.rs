//! What share of its time each worker was busy: the runtime counts it for each at its waits, the control side divides.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::RuntimeMetrics;

/// Looks that a share is over, one of which has begun it: two seconds of the driver's.
const LOOKS: usize = 9;

/// What workers' runtimes count, and the shares that were found at the last look.
pub(crate) struct Busy {
    workers: Box<[Worker]>,
}

#[derive(Default)]
struct Worker {
    runtime: Mutex<Option<RuntimeMetrics>>,
    /// Bits of the share.
    ratio: AtomicU64,
}

impl Busy {
    pub(crate) fn new(workers: usize) -> Self {
        Self { workers: (0..workers).map(|_| Worker::default()).collect() }
    }

    /// A worker begins, on this runtime of its own; or has ended.
    pub(crate) fn set(&self, worker: usize, runtime: Option<RuntimeMetrics>) {
        *self.workers[worker].runtime.lock().unwrap_or_else(PoisonError::into_inner) = runtime;
    }

    /// The shares that were found at the last look.
    pub(crate) fn ratios(&self) -> impl Iterator<Item = f64> {
        self.workers.iter().map(|worker| f64::from_bits(worker.ratio.load(Relaxed)))
    }

    /// How long each worker has been busy since it began.
    fn totals(&self) -> Vec<Duration> {
        let total = |worker: &Worker| {
            let runtime = worker.runtime.lock().unwrap_or_else(PoisonError::into_inner);
            runtime.as_ref().map_or(Duration::ZERO, |runtime| runtime.worker_total_busy_duration(0))
        };
        self.workers.iter().map(total).collect()
    }
}

/// The last looks, the oldest first.
#[derive(Default)]
pub(crate) struct BusyMeter(VecDeque<(Instant, Vec<Duration>)>);

impl BusyMeter {
    /// Finds the shares anew. A worker that is stuck is busy: what it does is counted only once it waits again.
    pub(crate) fn look(&mut self, busy: &Busy, is_stuck: impl Iterator<Item = bool>, now: Instant) {
        let ratios = self.ratios(busy.totals(), now);
        for ((worker, ratio), is_stuck) in busy.workers.iter().zip(ratios).zip(is_stuck) {
            worker.ratio.store(if is_stuck { 1.0 } else { ratio }.to_bits(), Relaxed);
        }
    }

    fn ratios(&mut self, totals: Vec<Duration>, now: Instant) -> Vec<f64> {
        if self.0.len() == LOOKS {
            self.0.pop_front();
        }
        let (since, before) = self.0.front().map_or((now, &totals), |(since, before)| (*since, before));
        let time = now.saturating_duration_since(since).as_secs_f64();
        let share = |(total, before): (&Duration, &Duration)| {
            if time > 0.0 { (total.saturating_sub(*before).as_secs_f64() / time).min(1.0) } else { 0.0 }
        };
        let ratios = totals.iter().zip(before).map(share).collect();
        self.0.push_back((now, totals));
        ratios
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use crate::ambient;

    const TURN: Duration = Duration::from_millis(250);

    #[test]
    fn a_share_is_that_of_the_last_two_seconds() {
        let (mut meter, begin) = (BusyMeter::default(), ambient::now());
        let at = |turn: u32| begin + TURN * turn;
        assert_eq!(meter.ratios(vec![Duration::ZERO; 2], at(0)), [0.0, 0.0]);
        // The first is half busy, the other always, as far as the runtime has counted.
        for turn in 1..=20 {
            assert_eq!(meter.ratios(vec![TURN / 2 * turn, TURN * turn], at(turn)), [0.5, 1.0], "{turn}");
        }
        // Then the first rests.
        let rest: Vec<f64> = (21..=28).map(|turn| meter.ratios(vec![TURN * 10, TURN * turn], at(turn))[0]).collect();
        assert!(rest.windows(2).all(|pair| pair[1] < pair[0]) && rest[7] == 0.0, "{rest:?}");
    }

    #[test]
    fn a_runtime_that_works_is_busy_and_one_that_has_ended_is_not() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (busy, mut meter) = (Busy::new(2), BusyMeter::default());
        busy.set(0, Some(runtime.metrics()));
        meter.look(&busy, [false, false].into_iter(), ambient::now());
        runtime.block_on(async {
            for _ in 0..5 {
                let until = ambient::now() + Duration::from_millis(10);
                while ambient::now() < until {
                    std::hint::spin_loop();
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        meter.look(&busy, [false, true].into_iter(), ambient::now());
        let ratios: Vec<f64> = busy.ratios().collect();
        assert!(ratios[0] > 0.1 && ratios[1] == 1.0, "{ratios:?}");
        busy.set(0, None);
        meter.look(&busy, [false, false].into_iter(), ambient::now());
        assert_eq!(busy.ratios().collect::<Vec<_>>(), [0.0, 0.0]);
    }
}
