//! How busy the machine is: tests wait the longer for it.

/// How many tasks want each core, one at least: about how much longer everything takes than on a quiet machine.
pub(crate) fn slowness() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut words = text.split(' ');
    let average: f64 = words.next().and_then(|word| word.parse().ok()).unwrap_or(1.0);
    // The average needs a minute to see what has just begun.
    let running: f64 =
        words.nth(2).and_then(|word| word.split('/').next()).and_then(|count| count.parse().ok()).unwrap_or(1.0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    (average.max(running) / cores).clamp(1.0, 15.0)
}
