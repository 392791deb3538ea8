//! When something was, as a page is told.

use std::time::Duration;

/// When something began that has lasted so long, in Unix seconds: what does not change is told once.
pub(super) fn seconds(at_ms: u64, lasted: Duration) -> u64 {
    at_ms.saturating_sub(u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX)).saturating_add(500) / 1000
}
