//! The statistical detectors: which backends are worse than the fleet over an interval.

use crate::event::{Cause, Window};
use crate::params::OutlierParams;

/// Mean time to the head of a backend's responses in an interval, in microseconds, 0 if nothing is known: of those `answered`, and of
/// those `cut` that were given up before their response and have lasted at least so long, both as their number and the sum of their
/// times. What is only a lower bound never makes a backend look faster than its responses do.
#[must_use]
pub fn mean_latency_micros(answered: (u64, u64), cut: (u64, u64)) -> u64 {
    let mean = |(count, sum): (u64, u64)| sum.checked_div(count).unwrap_or(0);
    mean(answered).max(mean((answered.0 + cut.0, answered.1.saturating_add(cut.1))))
}

/// Backends that an interval's numbers speak against, with the cause; each once, in the order of the windows.
pub(crate) fn outliers<'a>(windows: &[Window<'a>], params: &OutlierParams) -> Vec<(&'a str, Cause)> {
    let mut found: Vec<(&str, Cause)> = Vec::new();
    let mut add = |id: &'a str, cause: Cause| {
        if !found.iter().any(|(known, _)| *known == id) {
            found.push((id, cause));
        }
    };
    if let Some(detector) = params.failure_percentage {
        for window in enough(windows, detector.volume_min, detector.hosts_min) {
            let percent = window.failures * 100 / window.requests.max(1);
            if percent >= u64::from(detector.threshold) && percent > 0 {
                add(window.id, Cause::FailurePercentage(percent.min(100) as u8));
            }
        }
    }
    if let Some(detector) = params.success_rate {
        let judged = enough(windows, detector.volume_min, detector.hosts_min);
        let rate =
            |window: &Window<'_>| 1.0 - window.failures.min(window.requests) as f64 / window.requests.max(1) as f64;
        let count = judged.len().max(1) as f64;
        let mean = judged.iter().map(|window| rate(window)).sum::<f64>() / count;
        let variance = judged.iter().map(|window| (rate(window) - mean).powi(2)).sum::<f64>() / count;
        let least = mean - detector.deviations * variance.sqrt();
        // Rounding must not eject a backend from a fleet of equals.
        for window in judged.iter().filter(|window| rate(window) < least - 1e-9) {
            let cause = Cause::SuccessRate { rate: (rate(window) * 100.0) as u8, least: (least * 100.0) as u8 };
            add(window.id, cause);
        }
    }
    if let Some(detector) = params.latency {
        let judged: Vec<&Window<'_>> = enough(windows, detector.volume_min, detector.hosts_min)
            .into_iter()
            .filter(|window| window.latency_micros > 0)
            .collect();
        let mut latencies: Vec<u64> = judged.iter().map(|window| window.latency_micros).collect();
        latencies.sort_unstable();
        // The lower median: with two backends, the slow one must not be its own yardstick.
        if let Some(&median) = latencies.get(latencies.len().saturating_sub(1) / 2) {
            let limit = (median as f64 * detector.factor).max(detector.least.as_micros() as f64);
            for window in judged.iter().filter(|window| window.latency_micros as f64 > limit) {
                add(window.id, Cause::Latency { micros: window.latency_micros, median_micros: median });
            }
        }
    }
    found
}

/// The windows with enough requests, if there are enough of them.
fn enough<'w, 'a>(windows: &'w [Window<'a>], volume_min: u32, hosts_min: u32) -> Vec<&'w Window<'a>> {
    let judged: Vec<_> = windows.iter().filter(|window| window.requests >= u64::from(volume_min.max(1))).collect();
    if judged.len() < hosts_min as usize { Vec::new() } else { judged }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::{FailurePercentageParams, LatencyParams, SuccessRateParams};
    use std::time::Duration;

    fn windows(numbers: &[(u64, u64, u64)]) -> Vec<Window<'static>> {
        let ids = ["a", "b", "c", "d", "e", "f"];
        let window = |(id, &(requests, failures, latency_micros)): (&&'static str, &(u64, u64, u64))| Window {
            id,
            requests,
            failures,
            latency_micros,
        };
        ids.iter().zip(numbers).map(window).collect()
    }

    #[test]
    fn failure_percentage_needs_volume_and_hosts() {
        let detector = FailurePercentageParams { threshold: 30, hosts_min: 3, volume_min: 50 };
        let params = OutlierParams { failure_percentage: Some(detector), ..OutlierParams::default() };
        let found = outliers(&windows(&[(100, 30, 0), (100, 29, 0), (50, 0, 0)]), &params);
        assert_eq!(found, [("a", Cause::FailurePercentage(30))]);
        assert!(outliers(&windows(&[(100, 90, 0), (100, 0, 0), (49, 0, 0)]), &params).is_empty());
    }

    #[test]
    fn a_threshold_of_nothing_speaks_against_who_has_failed_alone_and_each_is_found_once() {
        let detector = FailurePercentageParams { threshold: 0, hosts_min: 1, volume_min: 0 };
        let latency = LatencyParams { factor: 2.0, least: Duration::ZERO, hosts_min: 1, volume_min: 0 };
        let params =
            OutlierParams { failure_percentage: Some(detector), latency: Some(latency), ..OutlierParams::default() };
        let found = outliers(&windows(&[(100, 0, 10), (50, 1, 90), (7, 0, 90), (0, 0, 10), (9, 0, 10)]), &params);
        let slow = Cause::Latency { micros: 90, median_micros: 10 };
        assert_eq!(found, [("b", Cause::FailurePercentage(2)), ("c", slow)]);
        // More failures than requests, which ended later than they began, are all of them.
        let found = outliers(&windows(&[(10, 30, 0)]), &params);
        assert_eq!(found, [("a", Cause::FailurePercentage(100))]);
    }

    #[test]
    fn success_rate_is_compared_with_the_fleets() {
        let detector = SuccessRateParams { deviations: 1.9, hosts_min: 5, volume_min: 100 };
        let params = OutlierParams { success_rate: Some(detector), ..OutlierParams::default() };
        let healthy = (100, 1, 0);
        let found = outliers(&windows(&[healthy, healthy, healthy, healthy, healthy, (100, 40, 0)]), &params);
        // Rates of five times 99 % and once 60 %: 92.5 % and 14.53 % are their mean and deviation.
        assert_eq!(found, [("f", Cause::SuccessRate { rate: 60, least: 64 })]);
        // All equally bad: none is an outlier.
        assert!(outliers(&windows(&[(100, 50, 0); 6]), &params).is_empty());
    }

    #[test]
    fn tries_that_were_given_up_make_a_backend_slower_and_never_faster() {
        assert_eq!(mean_latency_micros((0, 0), (0, 0)), 0);
        assert_eq!(mean_latency_micros((4, 400), (0, 0)), 100);
        // All that is known is how long it was waited for.
        assert_eq!(mean_latency_micros((0, 0), (10, 510_000)), 51_000);
        // Nine of ten were given up after 50 ms, the tenth was quick.
        assert_eq!(mean_latency_micros((1, 1_000), (9, 450_000)), 45_100);
        // Its answers take 500 ms; that it lost some races after 1 ms tells nothing.
        assert_eq!(mean_latency_micros((10, 5_000_000), (90, 90_000)), 500_000);
    }

    #[test]
    fn latency_is_compared_with_the_median() {
        let detector = LatencyParams { factor: 3.0, least: Duration::from_millis(50), hosts_min: 2, volume_min: 10 };
        let params = OutlierParams { latency: Some(detector), ..OutlierParams::default() };
        let found = outliers(&windows(&[(10, 0, 20_000), (10, 0, 90_000)]), &params);
        assert_eq!(found, [("b", Cause::Latency { micros: 90_000, median_micros: 20_000 })]);
        assert!(outliers(&windows(&[(10, 0, 1_000), (10, 0, 40_000)]), &params).is_empty(), "fast enough for anybody");
        assert!(outliers(&windows(&[(10, 0, 0), (10, 0, 90_000)]), &params).is_empty(), "nothing to compare with");
    }
}
