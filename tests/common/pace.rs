//! How busy the machine is, tests wait the longer for it; and the three reasons to sleep, where there is nothing to wait for.

use std::time::Duration;

/// How many tasks want each core, one at least: about how much longer everything takes than on a quiet machine.
pub fn slowness() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut words = text.split(' ');
    let average: f64 = words.next().and_then(|word| word.parse().ok()).unwrap_or(1.0);
    // The average needs a minute to see what has just begun.
    let running: f64 =
        words.nth(2).and_then(|word| word.split('/').next()).and_then(|count| count.parse().ok()).unwrap_or(1.0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    (average.max(running) / cores).clamp(1.0, 15.0)
}

/// This takes its time: a slow peer, an outage that lasts, a lock that is held. The time is what the test is about.
pub fn takes(time: Duration) {
    std::thread::sleep(time);
}

/// The rhythm of somebody who does the same again and again beside the test, until he is told to end.
pub fn pace(time: Duration) {
    std::thread::sleep(time);
}

/// Time for what must not happen, and for what happens in somebody's head: no look tells that it has, or will not. Where it was too
/// short, on a machine that stood still, the test has shown less, and holds.
pub fn leave_time(time: Duration) {
    std::thread::sleep(time);
}
