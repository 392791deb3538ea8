//! Dials to an address that has failed: one at a time, less and less often, for all that call there.
//!
//! A member that hangs lets the kernel take its connections, and each purpose's dial after dial ends in time. When the member goes
//! on, all of them are handshakes with nobody. What has not failed is dialled at once, by everybody: connections are many after a
//! start, and each takes some round trips.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// First and longest pause after a failure. Short: a member that is back is missed for no longer than an election takes.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// Of one address.
#[derive(Default)]
pub(super) struct Gate {
    /// Held by the one that tries whether it answers again.
    trying: tokio::sync::Mutex<()>,
    failed: Mutex<Option<Failed>>,
}

#[derive(Clone)]
struct Failed {
    at: Instant,
    pause: Duration,
    kind: io::ErrorKind,
    reason: String,
}

impl Gate {
    /// Dials, or says what the last dial came to.
    pub(super) async fn pass<T>(&self, dial: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let asked = Instant::now();
        if self.failed().is_none() {
            return self.noted(asked, dial.await);
        }
        let trying = self.trying.lock().await;
        let failed = self.failed().clone();
        match failed {
            // Another has found the way open.
            None => {
                drop(trying);
                self.noted(asked, dial.await)
            }
            Some(failed) if failed.at >= asked || failed.at.elapsed() < failed.pause => {
                Err(io::Error::new(failed.kind, failed.reason))
            }
            Some(_) => self.noted(asked, dial.await),
        }
    }

    fn failed(&self) -> MutexGuard<'_, Option<Failed>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn noted<T>(&self, asked: Instant, dialled: io::Result<T>) -> io::Result<T> {
        let mut failed = self.failed();
        match &dialled {
            Ok(_) => *failed = None,
            // Who began before another has failed has seen the same failure.
            Err(_) if failed.as_ref().is_some_and(|failed| failed.at > asked) => {}
            Err(error) => {
                let pause = failed.as_ref().map_or(PAUSE.0, |failed| (failed.pause * 2).min(PAUSE.1));
                *failed = Some(Failed { at: Instant::now(), pause, kind: error.kind(), reason: error.to_string() });
            }
        }
        dialled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

    #[tokio::test(start_paused = true)]
    async fn an_address_that_hangs_is_dialled_by_one_at_a_time_and_again_by_all_when_it_answers() {
        let gate = Arc::new(Gate::default());
        let (hangs, dials) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let dial = |gate: Arc<Gate>, hangs: Arc<AtomicBool>, dials: Arc<AtomicUsize>| async move {
            gate.pass(async {
                dials.fetch_add(1, Relaxed);
                if hangs.load(Relaxed) {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Ok(())
            })
            .await
        };
        let callers: Vec<_> = (0..5)
            .map(|_| {
                let (gate, hangs, dials) = (Arc::clone(&gate), Arc::clone(&hangs), Arc::clone(&dials));
                tokio::spawn(async move {
                    while dial(Arc::clone(&gate), Arc::clone(&hangs), Arc::clone(&dials)).await.is_err() {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(10)).await;
        // Five that began together, and then one every 200 ms and a pause.
        assert!((10..=25).contains(&dials.load(Relaxed)), "{}", dials.load(Relaxed));
        hangs.store(false, Relaxed);
        let began = Instant::now();
        for caller in callers {
            caller.await.unwrap();
        }
        assert!(
            began.elapsed() <= Duration::from_millis(200) + PAUSE.1 + Duration::from_millis(20),
            "{:?}",
            began.elapsed()
        );
    }
}
