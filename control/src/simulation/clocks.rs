//! What clocks say.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// The wall clock's first word, in Unix milliseconds.
const WALL_MS: u64 = 1_700_000_000_000;

thread_local! {
    /// What the wall clock said, and when.
    static WALL: Cell<(u64, Option<Instant>)> = const { Cell::new((WALL_MS, None)) };
}

/// The wall clock begins anew: a simulation does.
pub(super) fn begin() {
    WALL.set((WALL_MS, Some(Instant::now())));
}

/// Wall time, everybody's, in Unix milliseconds. Members decide nothing by it but where epochs begin.
pub(super) fn wall() -> u64 {
    let (ms, since) = WALL.get();
    ms + since.map_or(0, |since| since.elapsed().as_millis() as u64)
}

/// Somebody sets the wall clock back.
pub(super) fn set_back(by: Duration) {
    WALL.set((wall().saturating_sub(by.as_millis() as u64), Some(Instant::now())));
}
