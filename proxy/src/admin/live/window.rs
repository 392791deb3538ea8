//! The counters of the last seconds: what has come in them is a difference of two looks.

use ringway_telemetry::Sums;
use ringway_telemetry::counters::Registry as Counters;
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

/// What rates and percentiles are of.
pub(super) const WINDOW: Duration = Duration::from_secs(10);

/// Looks at the counters, oldest first.
#[derive(Default)]
pub(super) struct Window(VecDeque<Look>);

struct Look {
    at: Instant,
    services: HashMap<Box<str>, Sums>,
    /// Of the services that somebody looks at.
    backends: HashMap<Box<str>, HashMap<Box<str>, Sums>>,
}

impl Window {
    /// Looks now, and forgets what is older than the window.
    pub(super) fn take(&mut self, counters: &Counters, followed: &HashSet<String>, now: Instant) {
        let mut look = Look { at: now, services: HashMap::new(), backends: HashMap::new() };
        counters.service_sums(|name, sums| {
            look.services.insert(name.into(), sums);
        });
        look.backends.extend(followed.iter().map(|service| (service.as_str().into(), HashMap::new())));
        counters.backend_sums(
            |service| followed.contains(service),
            |service, id, sums| {
                if let Some(backends) = look.backends.get_mut(service) {
                    backends.insert(id.into(), sums);
                }
            },
        );
        self.push(look);
    }

    fn push(&mut self, look: Look) {
        let now = look.at;
        self.0.push_back(look);
        // The first look that is a window old is what the newest is held against.
        while self.0.len() > 2 && self.0.get(1).is_some_and(|next| now.saturating_duration_since(next.at) >= WINDOW) {
            self.0.pop_front();
        }
    }

    /// What all services have counted.
    pub(super) fn of_all(&self) -> (Sums, Duration) {
        let sum = |look: &Look| look.services.values().fold(Sums::default(), |sum, one| sum.plus(one));
        self.between(|look| Some(sum(look)))
    }

    /// What a service has counted.
    pub(super) fn of_service(&self, service: &str) -> (Sums, Duration) {
        self.between(|look| Some(look.services.get(service).copied().unwrap_or_default()))
    }

    /// What a backend has counted, since its service is looked at.
    pub(super) fn of_backend(&self, service: &str, id: &str) -> (Sums, Duration) {
        self.between(|look| Some(look.backends.get(service)?.get(id).copied().unwrap_or_default()))
    }

    /// What has come between the first look that knows it and the last, and the time between the two.
    fn between(&self, read: impl Fn(&Look) -> Option<Sums>) -> (Sums, Duration) {
        let Some((last, sums)) = self.0.back().and_then(|look| Some((look, read(look)?))) else {
            return <_>::default();
        };
        let Some((first, earlier)) = self.0.iter().find_map(|look| Some((look, read(look)?))) else {
            return <_>::default();
        };
        (sums.since(&earlier), last.at.saturating_duration_since(first.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient;

    #[test]
    fn what_has_come_is_that_of_the_last_ten_seconds_or_of_as_long_as_somebody_looks() {
        let (counters, begin) = (Counters::default(), ambient::now());
        let (service, backend) = (counters.service("s"), counters.backend("s", "a"));
        service.requests[2].add(1_000);
        backend.responses[2].add(500);
        let mut window = Window::default();
        let mut look = |second: u64, followed: &[&str]| {
            let followed = followed.iter().map(|&name| name.to_owned()).collect();
            window.take(&counters, &followed, begin + Duration::from_secs(second));
            let (sums, time) = window.of_service("s");
            let (of_backend, of_time) = window.of_backend("s", "a");
            (sums.classes[2], time.as_secs(), of_backend.classes[2], of_time.as_secs(), window.0.len())
        };
        assert_eq!(look(0, &[]), (0, 0, 0, 0, 1), "what came before nobody has seen coming");
        service.requests[2].add(10);
        assert_eq!(look(1, &["s"]), (10, 1, 0, 0, 2));
        backend.responses[2].add(4);
        assert_eq!(look(2, &["s"]), (10, 2, 4, 1, 3));
        for second in 3..=11 {
            look(second, &["s"]);
        }
        assert_eq!(look(12, &["s"]), (0, 10, 0, 10, 11), "it is out of the window");
        assert_eq!(look(60, &["s"]), (0, 48, 0, 48, 2), "after a pause, there is what there is");
    }

    #[test]
    fn a_backend_that_joins_counts_from_nothing() {
        let (counters, begin) = (Counters::default(), ambient::now());
        let followed = HashSet::from(["s".to_owned()]);
        let mut window = Window::default();
        window.take(&counters, &followed, begin);
        counters.backend("s", "new").responses[5].add(3);
        window.take(&counters, &followed, begin + Duration::from_secs(1));
        assert_eq!(window.of_backend("s", "new").0.classes[5], 3);
        assert_eq!(window.of_all().0, Sums::default());
    }
}
