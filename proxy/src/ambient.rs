//! What the data path reads from its process: the time, and a value that differs between processes. The only place that reads them, so
//! that in a test whose runtime's time is paused all of it stands still and goes on together.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Now, for deadlines and latencies.
#[inline]
#[allow(clippy::disallowed_methods, reason = "this is the place")]
pub(crate) fn now() -> Instant {
    // Without the runtime's test features, this is the system's clock and nothing more.
    tokio::time::Instant::now().into_std()
}

/// How long ago that was.
#[inline]
pub(crate) fn since(then: Instant) -> Duration {
    now().saturating_duration_since(then)
}

/// The system's time of day: for dates that others read or have written, never for waiting.
#[allow(clippy::disallowed_methods, reason = "this is the place")]
pub(crate) fn time_of_day() -> SystemTime {
    SystemTime::now()
}

/// The same in milliseconds of Unix time, as the access log has it.
pub(crate) fn unix_millis() -> u64 {
    time_of_day().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Differs between processes, so that many do not draw the same numbers; no secret. In tests it is always the same.
pub(crate) fn process_salt() -> u64 {
    if cfg!(test) { 0x5a17 } else { u64::from(std::process::id()) }
}

/// The same in nanoseconds, as traces have it.
pub(crate) fn unix_nanos() -> u64 {
    time_of_day().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_stands_still_until_it_is_waited_for() {
        let begin = now();
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(since(begin), Duration::ZERO);
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(since(begin), Duration::from_secs(3600));
        assert_eq!(begin.checked_sub(Duration::from_millis(1)).map(since), Some(Duration::from_millis(3_600_001)));
    }
}
