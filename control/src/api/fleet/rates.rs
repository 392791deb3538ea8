//! What proxies serve: they tell how many requests have ended since they began, and two such numbers make a rate.

use crate::watch::wire::ProxyView;
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// What rates are of.
const WINDOW: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Default)]
pub(super) struct Rates(HashMap<String, Counted>);

/// Of one process, oldest first.
struct Counted {
    instance: u64,
    told: VecDeque<Told>,
}

#[derive(Clone, Copy)]
struct Told {
    at: Instant,
    requests: u64,
    failed: u64,
}

/// What a proxy serves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rate {
    pub(super) requests_per_second: f64,
    /// Of the requests: those that it could not serve, or that were answered 5xx.
    pub(super) failed_percent: f64,
}

impl Rates {
    /// What proxies have told until now.
    pub(super) fn take(&mut self, proxies: &[ProxyView], now: Instant) {
        let here: HashSet<&str> = proxies.iter().map(|proxy| proxy.name.as_str()).collect();
        self.0.retain(|name, _| here.contains(name.as_str()));
        for proxy in proxies {
            let heartbeat = &proxy.heartbeat;
            let at = now.checked_sub(Duration::from_millis(proxy.age_ms)).unwrap_or(now);
            let told = Told { at, requests: heartbeat.requests, failed: heartbeat.failed };
            match self.0.get_mut(&proxy.name) {
                Some(counted) => counted.take(heartbeat.instance, told),
                None => {
                    let counted = Counted { instance: heartbeat.instance, told: VecDeque::from([told]) };
                    self.0.insert(proxy.name.clone(), counted);
                }
            }
        }
        // Of one that says nothing, nothing is known.
        self.0.values_mut().for_each(|counted| counted.forget(now));
    }

    pub(super) fn of(&self, name: &str) -> Option<Rate> {
        self.0.get(name)?.rate()
    }

    /// Of all together, to three digits; `None`: nothing is known yet.
    pub(super) fn all(&self) -> Option<f64> {
        let known = self.0.values().filter_map(Counted::rate);
        known.map(|rate| rate.requests_per_second).reduce(|sum, rate| sum + rate).map(rounded)
    }
}

impl Counted {
    fn take(&mut self, instance: u64, told: Told) {
        let last = self.told.back();
        // It was started again, and counts from nothing.
        if self.instance != instance
            || last.is_some_and(|last| told.requests < last.requests || told.failed < last.failed)
        {
            (self.instance, self.told) = (instance, VecDeque::from([told]));
        } else if last.is_none_or(|last| told.at.saturating_duration_since(last.at) > WINDOW / 20) {
            self.told.push_back(told);
        }
    }

    fn forget(&mut self, now: Instant) {
        while self.told.len() > 2
            && self.told.get(1).is_some_and(|next| now.saturating_duration_since(next.at) >= WINDOW)
        {
            self.told.pop_front();
        }
        if self.told.back().is_some_and(|last| now.saturating_duration_since(last.at) >= WINDOW) {
            self.told.clear();
        }
    }

    fn rate(&self) -> Option<Rate> {
        let (first, last) = (self.told.front()?, self.told.back()?);
        let time = last.at.saturating_duration_since(first.at).as_secs_f64();
        if time == 0.0 {
            return None;
        }
        let (requests, failed) = (last.requests - first.requests, last.failed.saturating_sub(first.failed));
        let failed_percent = if requests == 0 { 0.0 } else { failed as f64 * 100.0 / requests as f64 };
        Some(Rate {
            requests_per_second: rounded(requests as f64 / time),
            failed_percent: rounded(failed_percent.min(100.0)),
        })
    }
}

/// To three digits.
fn rounded(value: f64) -> f64 {
    if !value.is_finite() || value == 0.0 {
        return 0.0;
    }
    let scale = 10_f64.powi(2 - value.abs().log10().floor() as i32);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(requests: u64, failed: u64, instance: u64) -> ProxyView {
        serde_json::from_value(serde_json::json!({
            "name": "p", "age_ms": 0, "state": "synced",
            "heartbeat": {
                "version": "1", "epoch": 1, "revision": 1, "digest": "d", "rings": {}, "stuck": null, "generation": 1, "vote": null,
                "down": [], "requests": requests, "failed": failed, "canary": null, "instance": instance,
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_rate_is_of_the_last_seconds_of_one_process() {
        let (mut rates, begin) = (Rates::default(), Instant::now());
        let mut take = |second: u64, of: &[ProxyView]| {
            rates.take(of, begin + Duration::from_secs(second));
            rates.of("p").map(|rate| (rate.requests_per_second, rate.failed_percent))
        };
        assert_eq!(take(0, &[proxy(1_000, 10, 7)]), None, "what came before nobody has seen coming");
        assert_eq!(take(2, &[proxy(1_200, 30, 7)]), Some((100.0, 10.0)));
        assert_eq!(take(4, &[proxy(1_200, 30, 7)]), Some((50.0, 10.0)));
        assert_eq!(take(14, &[proxy(1_200, 30, 7)]), Some((0.0, 0.0)), "it is out of the window");
        assert_eq!(take(15, &[proxy(1, 0, 8)]), None, "another process");
        assert_eq!(take(16, &[proxy(12, 0, 8)]), Some((11.0, 0.0)));
        assert_eq!(take(17, &[]), None);
    }

    #[test]
    fn one_that_says_nothing_serves_nothing_that_is_known() {
        let (mut rates, begin) = (Rates::default(), Instant::now());
        rates.take(&[proxy(0, 0, 7)], begin);
        rates.take(&[proxy(50, 0, 7)], begin + Duration::from_secs(1));
        assert_eq!(rates.all(), Some(50.0));
        let silent = ProxyView { age_ms: 10_000, ..proxy(50, 0, 7) };
        rates.take(&[silent], begin + Duration::from_secs(11));
        assert_eq!((rates.all(), rates.of("p")), (None, None));
    }
}
