//! Threads that are waited for, but not for ever: one that is stuck must not keep a process from ending.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two looks at whether one has ended.
const LOOK: Duration = Duration::from_millis(2);

/// Waits until a thread has ended, or until then. `None`: it goes on. `Some(false)`: it has panicked.
#[allow(
    clippy::disallowed_methods,
    reason = "the process ends: nothing else runs that could be held up, and no time is played"
)]
pub fn join_by<T>(thread: JoinHandle<T>, until: Instant) -> Option<bool> {
    while !thread.is_finished() {
        if Instant::now() >= until {
            return None;
        }
        std::thread::sleep(LOOK);
    }
    Some(thread.join().is_ok())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "real threads take real time")]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_thread_that_ends_is_joined_and_one_that_goes_on_is_left() {
        let far = Instant::now() + Duration::from_secs(600);
        assert_eq!(join_by(std::thread::spawn(|| {}), far), Some(true));
        let panicked = std::thread::spawn(|| std::panic::resume_unwind(Box::new(())));
        assert_eq!(join_by(panicked, far), Some(false));
        let (held, waits) = mpsc::channel::<()>();
        let stuck = std::thread::spawn(move || waits.recv().is_err());
        assert_eq!(join_by(stuck, Instant::now()), None);
        drop(held);
    }
}
