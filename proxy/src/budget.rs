//! Budgets of extra tries: so many percent of the requests of the last ten seconds. A fleet that fails must not be asked
//! more and more because it fails.

/// Seconds that a budget looks back.
const SECONDS: usize = 10;

/// One worker's budget of one service.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    second: u64,
    requests: [u32; SECONDS],
    extra: [u32; SECONDS],
}

impl Budget {
    /// Counts a request, in the second `now`.
    #[inline]
    pub(crate) fn count(&mut self, now: u64) {
        self.turn(now);
        self.requests[now as usize % SECONDS] += 1;
    }

    /// Takes one extra try out of the budget of `percent` of the requests, and `least` a second in any case. `false`: there
    /// is none left.
    pub(crate) fn take(&mut self, now: u64, percent: u32, least: u32) -> bool {
        self.turn(now);
        let sum = |counts: &[u32; SECONDS]| counts.iter().map(|&count| u64::from(count)).sum::<u64>();
        let allowed = sum(&self.requests) * u64::from(percent) / 100 + u64::from(least) * SECONDS as u64;
        let may = sum(&self.extra) < allowed;
        self.extra[now as usize % SECONDS] += u32::from(may);
        may
    }

    /// Forgets the seconds that have passed.
    #[inline]
    fn turn(&mut self, now: u64) {
        if self.second != now {
            let passed = now.saturating_sub(self.second).min(SECONDS as u64);
            for second in (now + 1 - passed)..=now {
                (self.requests[second as usize % SECONDS], self.extra[second as usize % SECONDS]) = (0, 0);
            }
            self.second = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_tries_are_a_part_of_the_requests_of_ten_seconds() {
        let mut budget = Budget::default();
        let taken = |budget: &mut Budget, now| (0..10_000).filter(|_| budget.take(now, 20, 0)).count();
        for second in 100..110 {
            (0..50).for_each(|_| budget.count(second));
        }
        assert_eq!(taken(&mut budget, 109), 100);
        assert_eq!(taken(&mut budget, 109), 0);
        // Nine seconds later all but the last second's requests are forgotten, and so are the tries of before that.
        assert_eq!(taken(&mut budget, 118), 0);
        assert_eq!(taken(&mut budget, 119), 0);
        (0..50).for_each(|_| budget.count(119));
        assert_eq!(taken(&mut budget, 119), 10);
    }

    #[test]
    fn the_least_is_there_without_requests() {
        let mut budget = Budget::default();
        assert_eq!((0..1_000).filter(|_| budget.take(5, 0, 3)).count(), 30);
        assert_eq!((0..1_000).filter(|_| budget.take(1_000_000, 0, 3)).count(), 30);
    }
}
