//! Retry and hedge budgets: a percentage of the requests of the last ten seconds, and a minimum per second in any case. A fleet that
//! fails must not get more and more attempts because it fails.

/// Seconds that a budget looks back.
const SECONDS: usize = 10;
/// Parts of an attempt that the floor is counted in: what one attempt a second gains in a millisecond.
const PARTS: u64 = 1_000;

/// One worker's budget of one service.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    second: u64,
    requests: [u32; SECONDS],
    /// Attempts that were taken out of the requests' part.
    extra: [u32; SECONDS],
    floor: Floor,
}

/// A token bucket that holds what it gains in a second, and begins full.
#[derive(Debug, Default)]
struct Floor {
    /// What has been taken out and has not been refilled, in parts of an attempt.
    owed: u64,
    told_millis: u64,
}

impl Floor {
    /// Takes one of the attempts that are allowed in any case, `least` a second.
    fn take(&mut self, now_millis: u64, least: u32) -> bool {
        let least = u64::from(least);
        let gained = now_millis.saturating_sub(self.told_millis).saturating_mul(least);
        // No more than a full bucket, also where it was larger before.
        self.owed = self.owed.saturating_sub(gained).min(least * PARTS);
        self.told_millis = self.told_millis.max(now_millis);
        let may = self.owed + PARTS <= least * PARTS;
        self.owed += PARTS * u64::from(may);
        may
    }
}

impl Budget {
    /// Counts a request.
    #[inline]
    pub(crate) fn count(&mut self, now_millis: u64) {
        let now = self.turn(now_millis);
        self.requests[now] += 1;
    }

    /// Takes one extra attempt out of the budget of `percent` of the requests, or out of the `least` a second that are allowed in
    /// any case. `false`: there is none left.
    pub(crate) fn take(&mut self, now_millis: u64, percent: u32, least: u32) -> bool {
        let now = self.turn(now_millis);
        let sum = |counts: &[u32; SECONDS]| counts.iter().map(|&count| u64::from(count)).sum::<u64>();
        if sum(&self.extra) < sum(&self.requests) * u64::from(percent) / 100 {
            self.extra[now] += 1;
            return true;
        }
        self.floor.take(now_millis, least)
    }

    /// Forgets the seconds that have passed. Returns the index of the current one.
    #[inline]
    fn turn(&mut self, now_millis: u64) -> usize {
        let now = now_millis / 1_000;
        if self.second != now {
            let passed = now.saturating_sub(self.second).min(SECONDS as u64);
            for second in (now + 1 - passed)..=now {
                (self.requests[second as usize % SECONDS], self.extra[second as usize % SECONDS]) = (0, 0);
            }
            self.second = now;
        }
        now as usize % SECONDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many attempts the budget allows.
    fn taken(budget: &mut Budget, now_millis: u64, percent: u32, least: u32) -> usize {
        (0..10_000).filter(|_| budget.take(now_millis, percent, least)).count()
    }

    #[test]
    fn extra_tries_are_a_part_of_the_requests_of_ten_seconds() {
        let mut budget = Budget::default();
        for second in 100..110 {
            (0..50).for_each(|_| budget.count(second * 1_000));
        }
        assert_eq!(taken(&mut budget, 109_000, 20, 0), 100);
        assert_eq!(taken(&mut budget, 109_999, 20, 0), 0);
        // Nine seconds later all but the last second's requests are forgotten, and so are the attempts of before that.
        assert_eq!(taken(&mut budget, 118_000, 20, 0), 0);
        assert_eq!(taken(&mut budget, 119_000, 20, 0), 0);
        (0..50).for_each(|_| budget.count(119_000));
        assert_eq!(taken(&mut budget, 119_000, 20, 0), 10);
    }

    #[test]
    fn the_floor_is_there_without_requests_and_is_never_more_than_a_seconds_worth() {
        let mut budget = Budget::default();
        assert_eq!(taken(&mut budget, 5_000, 0, 3), 3);
        assert_eq!(taken(&mut budget, 5_333, 0, 3), 0);
        assert_eq!(taken(&mut budget, 5_334, 0, 3), 1);
        assert_eq!(taken(&mut budget, 1_000_000_000, 0, 3), 3);
        // It adds to what the requests allow.
        (0..100).for_each(|_| budget.count(1_000_002_000));
        assert_eq!(taken(&mut budget, 1_000_002_000, 10, 3), 13);
    }

    #[test]
    fn a_budget_of_nothing_allows_nothing() {
        let mut budget = Budget::default();
        for second in 0..100 {
            (0..1_000).for_each(|_| budget.count(second * 1_000));
            assert_eq!(taken(&mut budget, second * 1_000 + 500, 0, 0), 0);
        }
    }

    /// xorshift, so that a failure can be replayed.
    fn random(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    #[test]
    fn no_interval_has_more_extra_tries_than_percent_and_floor_allow() {
        for seed in 1..60_u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let (percent, least) = (random(&mut state) % 101, random(&mut state) % 8);
            let (mut budget, mut now) = (Budget::default(), random(&mut state) % 100_000);
            let (mut requests, mut extra) = (Vec::new(), Vec::new());
            for _ in 0..60 {
                now += [0, 1, 7, 50, 333, 1_000, 4_000][(random(&mut state) % 7) as usize];
                for _ in 0..random(&mut state) % 12 {
                    budget.count(now);
                    requests.push(now);
                }
                for _ in 0..random(&mut state) % 12 {
                    if budget.take(now, percent as u32, least as u32) {
                        extra.push(now);
                    }
                }
            }
            for (first, &from) in extra.iter().enumerate() {
                for (last, &to) in extra.iter().enumerate().skip(first) {
                    let seconds = (to - from) as f64 / 1_000.0;
                    // The requests that the percentage may count began at most ten seconds before the interval.
                    let before = requests.partition_point(|&at| at + 10_000 <= from);
                    let counted = (requests.partition_point(|&at| at <= to) - before) as f64;
                    let allowed = counted * percent as f64 / 100.0 + least as f64 * (seconds + 1.0);
                    let count = (last - first + 1) as f64;
                    assert!(count <= allowed + 1e-6, "seed {seed}: {count} in {seconds} s, {allowed} allowed");
                }
            }
        }
    }
}
