//! Which backends of a service fail more, or are slower, than their peers: for whoever is to be told, whether or not anybody is
//! ejected for it.
//!
//! The law, of one window of a service. Backends with fewer than [`REQUESTS_MIN`] requests in it are not judged, and are nobody's peers.
//! A backend is *failing* that failed at least [`FAILURES_MIN`] requests, at least [`FAILING_SHARE`] of its own, and [`FAILING_TIMES`]
//! the median share of its peers; without peers at least [`FAILING_ALONE_SHARE`]. It is *slow* whose mean duration of a try is at
//! least [`SLOW_TIMES`] the median of its peers' and [`SLOW_MICROS`] more, while its middle duration falls into a higher bucket than
//! theirs: a few requests that hang make nobody slow. Where so many fail that none stands out, the service is failing, from
//! [`FAILING_ALONE_SHARE`] of all its requests on. What has begun ends at half of these numbers, so that it does not come and go.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::time::{Duration, Instant};

/// Fewest requests of a backend that is judged.
const REQUESTS_MIN: u64 = 50;
/// Fewest failures: below, a few of one client's make a share.
const FAILURES_MIN: u64 = 20;
/// Least share of requests that fail.
const FAILING_SHARE: f64 = 0.05;
/// How many times the peers' share.
const FAILING_TIMES: f64 = 4.0;
/// Least share where nobody is there to compare with.
const FAILING_ALONE_SHARE: f64 = 0.1;
/// How many times the peers' mean.
const SLOW_TIMES: f64 = 2.0;
/// And how much more: what is fast enough for anybody is not told.
const SLOW_MICROS: f64 = 50_000.0;
/// What goes on is told again after this time.
const REPEAT: Duration = Duration::from_secs(3600);
/// So many windows without enough requests end what was told: nothing is known of it any more.
const UNJUDGED_MAX: u32 = 10;

/// What a backend has done in a window.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// Unique in the service.
    pub id: Box<str>,
    /// Requests that got a response or failed.
    pub requests: u64,
    /// Those of them that failed, or got 5xx.
    pub failures: u64,
    /// Tries whose duration is known and is the backend's.
    pub timed: u64,
    /// Their mean duration, in microseconds.
    pub mean_micros: u64,
    /// Bucket of the middle duration, the shortest being 0.
    pub middle_bucket: usize,
}

impl Observed {
    fn failing_share(&self) -> f64 {
        self.failures.min(self.requests) as f64 / self.requests.max(1) as f64
    }
}

/// Why a backend stands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// It fails more requests than its peers.
    Failing,
    /// It takes longer than its peers.
    Slow,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Failing, Self::Slow];

    /// Its label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Failing => "failing",
            Self::Slow => "slow",
        }
    }
}

/// A backend that stands out, in numbers: a share where it fails, microseconds where it is slow.
#[derive(Debug, Clone, PartialEq)]
pub struct StandsOut {
    /// The backend.
    pub id: Box<str>,
    /// Why.
    pub reason: Reason,
    /// Its number.
    pub own: f64,
    /// The median of its peers' numbers, if it has any.
    pub peers: Option<f64>,
    /// Requests that it is judged by.
    pub requests: u64,
}

impl fmt::Display for StandsOut {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.id, self.what())
    }
}

impl StandsOut {
    /// What is wrong with it, in words, without its name.
    #[must_use]
    pub fn what(&self) -> String {
        let Self { reason, own, peers, requests, .. } = self;
        match reason {
            Reason::Failing => {
                let peers = peers.map(|peers| format!(", its peers {:.1} %", peers * 100.0)).unwrap_or_default();
                format!("fails {:.1} % of {requests} requests (5xx or no response){peers}", own * 100.0)
            }
            Reason::Slow => {
                let peers = peers.map(|peers| format!(", its peers {:.1} ms", peers / 1e3)).unwrap_or_default();
                format!("takes {:.1} ms (mean of {requests} requests){peers}", own / 1e3)
            }
        }
    }
}

/// A service of which so many requests fail that no backend stands out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Failing {
    /// Of its requests.
    pub share: f64,
    /// Requests that it is judged by.
    pub requests: u64,
}

/// What a service as a whole has come to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Whole {
    /// Many of its requests fail.
    Failing(Failing),
    /// That is over.
    Over,
}

/// What is to be told of a window.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Told {
    /// Backends that stand out and have not been told for a while, worst first.
    pub stand_out: Vec<StandsOut>,
    /// Those that do no longer.
    pub over: Vec<(Box<str>, Reason)>,
    /// The service.
    pub whole: Option<Whole>,
}

impl fmt::Display for Failing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = self.share * 100.0;
        write!(out, "{percent:.1} % of {} requests fail (5xx or no response), and no backend stands out", self.requests)
    }
}

#[derive(Debug)]
struct Known {
    /// As it was when it was judged last.
    seen: StandsOut,
    since: Instant,
    told: Instant,
    /// Windows since it could be judged.
    unjudged: u32,
}

/// Who stands out of one service, from window to window.
#[derive(Debug, Default)]
pub struct StandingOut {
    known: BTreeMap<(Box<str>, Reason), Known>,
    whole: Option<KnownWhole>,
}

#[derive(Debug)]
struct KnownWhole {
    /// As it was when it was judged last.
    seen: Failing,
    since: Instant,
    told: Instant,
}

impl StandingOut {
    /// How many backends stand out for this reason.
    #[must_use]
    pub fn count(&self, reason: Reason) -> usize {
        self.known.keys().filter(|(_, of)| *of == reason).count()
    }

    /// All that stand out now, as they were when they were judged last, and since when.
    pub fn all(&self) -> impl Iterator<Item = (&StandsOut, Instant)> {
        self.known.values().map(|known| (&known.seen, known.since))
    }

    /// Why a backend stands out now, and since when.
    pub fn of(&self, id: &str) -> impl Iterator<Item = (&StandsOut, Instant)> {
        let known = Reason::ALL.into_iter().filter_map(move |reason| self.known.get(&(id.into(), reason)));
        known.map(|known| (&known.seen, known.since))
    }

    /// Whether the service as a whole is failing, and since when.
    #[must_use]
    pub fn failing_whole(&self) -> Option<(Failing, Instant)> {
        self.whole.as_ref().map(|known| (known.seen, known.since))
    }

    /// Forgets backends that are gone: there is nothing to tell of them.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.known.retain(|(id, _), _| is_there(id));
    }

    /// Takes in a window; gives what is to be told. Backends without requests may be left out of it.
    ///
    /// Who has too few requests to be judged is as it was, for some windows: it may be ejected, and as bad as before.
    pub fn handle_window(&mut self, window: &[Observed], now: Instant) -> Told {
        let judged: Vec<&Observed> = window.iter().filter(|one| one.requests >= REQUESTS_MIN).collect();
        let mut found = self.failing(&judged);
        let whole = self.whole(&judged, found.is_empty(), now);
        found.extend(self.slow(&judged));
        let over = self.over(&judged, &found);
        Told { stand_out: self.begun(found, now), over, whole }
    }

    fn knows(&self, id: &str, reason: Reason) -> bool {
        self.known.contains_key(&(id.into(), reason))
    }

    fn failing(&self, judged: &[&Observed]) -> Vec<StandsOut> {
        let shares = Sorted::new(judged.iter().map(|one| one.failing_share()));
        let stands_out = |one: &&&Observed| {
            let (own, peers) = (one.failing_share(), shares.median_without(one.failing_share()));
            let ease = if self.knows(&one.id, Reason::Failing) { 0.5 } else { 1.0 };
            let least = peers.map_or(FAILING_ALONE_SHARE, |peers| (peers * FAILING_TIMES).max(FAILING_SHARE));
            one.failures as f64 >= FAILURES_MIN as f64 * ease && own >= least * ease
        };
        let of = |one: &&Observed| StandsOut {
            id: one.id.clone(),
            reason: Reason::Failing,
            own: one.failing_share(),
            peers: shares.median_without(one.failing_share()),
            requests: one.requests,
        };
        worst_first(judged.iter().filter(stands_out).map(of).collect())
    }

    fn slow(&self, judged: &[&Observed]) -> Vec<StandsOut> {
        let judged: Vec<&Observed> = judged.iter().copied().filter(|one| one.timed >= REQUESTS_MIN).collect();
        let means = Sorted::new(judged.iter().map(|one| one.mean_micros as f64));
        let buckets = Sorted::new(judged.iter().map(|one| one.middle_bucket as f64));
        let stands_out = |one: &&Observed| {
            let own = one.mean_micros as f64;
            let peers = means.median_without(own)?;
            let bucket = one.middle_bucket as f64;
            let is_known = self.knows(&one.id, Reason::Slow);
            let is_slow = match is_known {
                true => own >= peers * f64::midpoint(1.0, SLOW_TIMES) && own >= peers + SLOW_MICROS / 2.0,
                false => own >= peers * SLOW_TIMES && own >= peers + SLOW_MICROS,
            };
            let is_mostly = is_known || buckets.median_without(bucket).is_some_and(|peers| bucket > peers);
            (is_slow && is_mostly).then(|| StandsOut {
                id: one.id.clone(),
                reason: Reason::Slow,
                own,
                peers: Some(peers),
                requests: one.timed,
            })
        };
        worst_first(judged.iter().filter_map(stands_out).collect())
    }

    fn whole(&mut self, judged: &[&Observed], none_stands_out: bool, now: Instant) -> Option<Whole> {
        let sum = |number: fn(&Observed) -> u64| judged.iter().map(|one| number(one)).sum::<u64>();
        let (requests, failures) = (sum(|one| one.requests), sum(|one| one.failures.min(one.requests)));
        if requests == 0 {
            return None;
        }
        let share = failures as f64 / requests as f64;
        let ease = if self.whole.is_some() { 0.5 } else { 1.0 };
        let is_failing =
            none_stands_out && failures as f64 >= FAILURES_MIN as f64 * ease && share >= FAILING_ALONE_SHARE * ease;
        if !is_failing {
            return self.whole.take().map(|_| Whole::Over);
        }
        let seen = Failing { share, requests };
        let is_new = self.whole.as_ref().is_none_or(|known| now.saturating_duration_since(known.told) >= REPEAT);
        let (since, told) = self.whole.as_ref().map_or((now, now), |known| (known.since, known.told));
        self.whole = Some(KnownWhole { seen, since, told: if is_new { now } else { told } });
        is_new.then_some(Whole::Failing(seen))
    }

    /// Forgets who does not stand out any more.
    fn over(&mut self, judged: &[&Observed], found: &[StandsOut]) -> Vec<(Box<str>, Reason)> {
        let judged: HashSet<&str> = judged.iter().map(|one| &*one.id).collect();
        let found: HashSet<(&str, Reason)> = found.iter().map(|one| (&*one.id, one.reason)).collect();
        let mut over = Vec::new();
        self.known.retain(|(id, reason), known| {
            known.unjudged = if judged.contains(&**id) { 0 } else { known.unjudged + 1 };
            let stays = found.contains(&(&**id, *reason)) || (1..=UNJUDGED_MAX).contains(&known.unjudged);
            if !stays {
                over.push((id.clone(), *reason));
            }
            stays
        });
        over
    }

    /// Of who stands out, those who are to be told.
    fn begun(&mut self, found: Vec<StandsOut>, now: Instant) -> Vec<StandsOut> {
        let is_new = |one: &StandsOut| {
            let known = self.known.entry((one.id.clone(), one.reason));
            let mut is_new = false;
            let known = known.or_insert_with(|| {
                is_new = true;
                Known { seen: one.clone(), since: now, told: now, unjudged: 0 }
            });
            known.seen = one.clone();
            if now.saturating_duration_since(known.told) >= REPEAT {
                is_new = true;
                known.told = now;
            }
            is_new
        };
        found.into_iter().filter(is_new).collect()
    }
}

fn worst_first(mut found: Vec<StandsOut>) -> Vec<StandsOut> {
    found.sort_by(|one, other| other.own.total_cmp(&one.own));
    found
}

/// Numbers of all, in order.
struct Sorted(Vec<f64>);

impl Sorted {
    fn new(numbers: impl Iterator<Item = f64>) -> Self {
        let mut numbers: Vec<f64> = numbers.collect();
        numbers.sort_by(f64::total_cmp);
        Self(numbers)
    }

    /// The median of all but one, whose number this is.
    fn median_without(&self, own: f64) -> Option<f64> {
        let rank = self.0.partition_point(|number| *number < own);
        let other = |at: usize| self.0.get(if at < rank { at } else { at + 1 }).copied();
        let count = self.0.len().checked_sub(1).filter(|count| *count > 0)?;
        Some(f64::midpoint(other((count - 1) / 2)?, other(count / 2)?))
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test has a time of its own")]
mod tests {
    use super::*;

    /// A backend with so many requests, failures, and a mean in milliseconds.
    fn one(id: impl ToString, requests: u64, failures: u64, millis: u64) -> Observed {
        let middle_bucket = millis.ilog2() as usize;
        Observed {
            id: id.to_string().into(),
            requests,
            failures,
            timed: requests,
            mean_micros: millis * 1000,
            middle_bucket,
        }
    }

    fn names(told: &Told) -> Vec<(&str, Reason)> {
        told.stand_out.iter().map(|one| (&*one.id, one.reason)).collect()
    }

    /// Numbers that look like chance.
    fn noise(seed: &mut u64, below: u64) -> u64 {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        *seed % below
    }

    #[test]
    fn nobody_stands_out_of_equals_whatever_the_noise_and_nobody_with_few_requests() {
        let (mut seed, now) = (7, Instant::now());
        for count in (1..40).flat_map(|count| [count; 20]) {
            let rate = noise(&mut seed, 8);
            let alike = (0..count).map(|id| {
                let requests = 40 + noise(&mut seed, 2000);
                let failures = requests * rate / 100 + noise(&mut seed, 5);
                one(id, requests, failures, 100 + noise(&mut seed, 60))
            });
            let alike: Vec<Observed> = alike.collect();
            let told = StandingOut::default().handle_window(&alike, now);
            assert_eq!(told, Told::default(), "{alike:?}");
            let mut few = alike;
            few.push(one("few", REQUESTS_MIN - 1, REQUESTS_MIN - 1, 9000));
            assert_eq!(StandingOut::default().handle_window(&few, now), Told::default());
        }
    }

    #[test]
    fn the_one_that_is_worse_is_named_and_nobody_else() {
        let (mut seed, now) = (11, Instant::now());
        for count in (1..40).flat_map(|count| [count; 20]) {
            let good = |id| one(id, 100 + noise(&mut seed, 900), noise(&mut seed, 3), 1 + noise(&mut seed, 3));
            let good: Vec<Observed> = (0..count).map(good).collect();
            for (bad, reason) in [(one("bad", 200, 100, 2), Reason::Failing), (one("bad", 200, 0, 200), Reason::Slow)] {
                let mut window = good.clone();
                window.insert(noise(&mut seed, count as u64 + 1) as usize, bad);
                let mut standing_out = StandingOut::default();
                assert_eq!(names(&standing_out.handle_window(&window, now)), [("bad", reason)], "{window:?}");
                assert_eq!(
                    Reason::ALL.map(|of| standing_out.count(of)),
                    Reason::ALL.map(|of| usize::from(of == reason))
                );
            }
        }
    }

    #[test]
    fn thresholds_are_where_the_law_says() {
        let now = Instant::now();
        let fails = |share: u64, peers: u64| {
            let mut window = vec![one("a", 1000, share, 1), one("b", 1000, peers, 1), one("c", 1000, peers, 1)];
            let with_peers = names(&StandingOut::default().handle_window(&window, now)).len();
            window.truncate(1);
            (with_peers, names(&StandingOut::default().handle_window(&window, now)).len())
        };
        assert_eq!([fails(49, 0), fails(50, 0), fails(79, 20), fails(80, 20)], [(0, 0), (1, 0), (0, 0), (1, 0)]);
        assert_eq!([fails(99, 30), fails(100, 30), fails(120, 30)], [(0, 0), (0, 1), (1, 1)]);
        let slow = |own: u64, peers: u64| {
            let window = [one("a", 50, 0, own), one("b", 50, 0, peers), one("c", 50, 0, peers)];
            names(&StandingOut::default().handle_window(&window, now)).len()
        };
        assert_eq!([slow(50, 1), slow(51, 1), slow(199, 100), slow(200, 100)], [0, 1, 0, 1]);
        // A few requests that hang: the mean alone is high.
        let hung = Observed { middle_bucket: 0, ..one("a", 50, 0, 900) };
        let window = [hung, one("b", 50, 0, 1), one("c", 50, 0, 1)];
        assert_eq!(StandingOut::default().handle_window(&window, now), Told::default());
        let untimed = Observed { timed: 49, ..one("a", 500, 0, 900) };
        let window = [untimed, one("b", 50, 0, 1), one("c", 50, 0, 1)];
        assert_eq!(StandingOut::default().handle_window(&window, now), Told::default());
        let few = [one("a", 50, 19, 1), one("b", 50, 0, 1)];
        assert_eq!(StandingOut::default().handle_window(&few, now), Told::default());
    }

    #[test]
    fn where_most_fail_the_service_is_told_and_that_it_is_over() {
        let (mut standing_out, now) = (StandingOut::default(), Instant::now());
        let bad: Vec<Observed> = (0..4).map(|id| one(id, 100, if id == 0 { 0 } else { 40 }, 1)).collect();
        let told = standing_out.handle_window(&bad, now);
        assert_eq!((names(&told), told.whole), (vec![], Some(Whole::Failing(Failing { share: 0.3, requests: 400 }))));
        assert_eq!(standing_out.handle_window(&bad, now + REPEAT / 2), Told::default());
        assert_eq!(standing_out.handle_window(&[], now + REPEAT / 2), Told::default(), "nothing is known");
        assert!(standing_out.handle_window(&bad, now + REPEAT).whole.is_some());
        assert_eq!(standing_out.failing_whole().map(|(_, since)| since), Some(now));
        let half: Vec<Observed> = (0..4).map(|id| one(id, 100, 6, 1)).collect();
        assert_eq!(standing_out.handle_window(&half, now + REPEAT), Told::default(), "not yet over");
        let good: Vec<Observed> = (0..4).map(|id| one(id, 100, 1, 1)).collect();
        assert_eq!(standing_out.handle_window(&good, now + REPEAT).whole, Some(Whole::Over));
        assert_eq!(standing_out.failing_whole(), None);
    }

    #[test]
    fn what_goes_on_is_told_once_an_hour_and_what_is_over_once() {
        let (mut standing_out, now) = (StandingOut::default(), Instant::now());
        let window = |failures, millis| [one("a", 1000, failures, millis), one("b", 1000, 0, 1), one("c", 1000, 0, 1)];
        let minute = |number: u32| now + Duration::from_secs(60) * number;
        let mut told = |failures, millis, number| {
            let told = standing_out.handle_window(&window(failures, millis), minute(number));
            (told.stand_out.len(), told.over)
        };
        assert_eq!(told(500, 200, 0), (2, vec![]), "failing and slow");
        for number in 1..60_u32 {
            assert_eq!(told(if number.is_multiple_of(2) { 100 } else { 30 }, 40, number), (0, vec![]), "it hovers");
        }
        assert_eq!(told(100, 40, 60), (2, vec![]), "again after an hour");
        assert_eq!(told(10, 40, 61), (0, vec![("a".into(), Reason::Failing)]));
        assert_eq!(told(10, 20, 62), (0, vec![("a".into(), Reason::Slow)]));
        assert_eq!(told(10, 20, 63), (0, vec![]));
        assert_eq!(told(50, 20, 64), (1, vec![]), "and anew");
    }

    #[test]
    fn whoever_comes_late_sees_who_stands_out_since_when_and_by_how_much_now() {
        let (mut standing_out, now) = (StandingOut::default(), Instant::now());
        let window = |failures| [one("a", 1000, failures, 1), one("b", 1000, 0, 1), one("c", 1000, 0, 1)];
        standing_out.handle_window(&window(500), now);
        standing_out.handle_window(&window(1000), now + Duration::from_secs(60));
        let expected = "fails 100.0 % of 1000 requests (5xx or no response), its peers 0.0 %";
        let of = |id: &str| standing_out.of(id).map(|(one, since)| (one.what(), since)).collect::<Vec<_>>();
        assert_eq!((of("a"), of("b")), (vec![(expected.to_owned(), now)], vec![]));
        assert_eq!(standing_out.all().count(), 1);
    }

    #[test]
    fn who_gets_no_more_requests_is_forgotten_after_a_while() {
        let (mut standing_out, now) = (StandingOut::default(), Instant::now());
        let good = [one("b", 1000, 0, 1), one("c", 1000, 0, 1)];
        let bad = [one("a", 1000, 500, 1), good[0].clone(), good[1].clone()];
        assert_eq!(standing_out.handle_window(&bad, now).stand_out.len(), 1);
        for _ in 0..UNJUDGED_MAX {
            assert_eq!(standing_out.handle_window(&good, now), Told::default());
            assert_eq!(standing_out.count(Reason::Failing), 1);
        }
        assert_eq!(standing_out.handle_window(&good, now).over, [("a".into(), Reason::Failing)]);
        assert_eq!(standing_out.count(Reason::Failing), 0);
        standing_out.handle_window(&bad, now);
        standing_out.retain(|id| id != "a");
        assert_eq!((standing_out.count(Reason::Failing), standing_out.handle_window(&good, now)), (0, Told::default()));
    }

    #[test]
    fn they_are_told_in_words_worst_first() {
        let window = [
            one("a", 400, 48, 1),
            one("b", 3401, 408, 203),
            one("c", 900, 1, 1),
            one("d", 900, 1, 1),
            one("e", 900, 1, 1),
        ];
        let told = StandingOut::default().handle_window(&window, Instant::now());
        let texts: Vec<String> = told.stand_out.iter().map(StandsOut::to_string).collect();
        assert_eq!(
            texts,
            [
                "a fails 12.0 % of 400 requests (5xx or no response), its peers 0.1 %",
                "b fails 12.0 % of 3401 requests (5xx or no response), its peers 0.1 %",
                "b takes 203.0 ms (mean of 3401 requests), its peers 1.0 ms",
            ]
        );
    }
}
