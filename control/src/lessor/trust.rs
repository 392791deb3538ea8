//! Whether what a proxy reports of its loads agrees with what its heartbeats say.

/// Heartbeats that a judgement is of.
const HEARTBEATS: u32 = 3;
/// Tries for a request that ended, beyond which the two contradict each other: more than retries and hedges make of them.
const FACTOR: u64 = 2;
/// Tries that are no contradiction whatever was counted; and neither are those of one report: the two are not told at the same moment.
const SLACK: u64 = 100;

/// What one process has said in both ways. Fewer tries than requests are none: services that are not reported have requests, too, and
/// reports are lost.
#[derive(Debug, Default)]
pub(super) struct Trust {
    /// Requests at the first heartbeat of what is counted now.
    base: Option<u64>,
    heartbeats: u32,
    tries: u64,
    /// Of one report, at most.
    largest: u64,
    contradiction: Option<String>,
}

impl Trust {
    /// Tries that have ended, by its reports.
    pub(super) fn handle_report(&mut self, tries: u64) {
        // What came before the first heartbeat is in no heartbeat's count.
        if self.base.is_some() {
            self.tries = self.tries.saturating_add(tries);
            self.largest = self.largest.max(tries);
        }
    }

    /// Requests that have ended since it started, by a heartbeat. `true`: it is judged otherwise than before.
    pub(super) fn handle_heartbeat(&mut self, requests: u64) -> bool {
        let Some(base) = self.base.filter(|base| *base <= requests) else {
            // It begins, or has begun again.
            let before = self.contradiction.take();
            *self = Self { base: Some(requests), ..Self::default() };
            return before.is_some();
        };
        self.heartbeats += 1;
        if self.heartbeats < HEARTBEATS {
            return false;
        }
        let ended = requests - base;
        let contradicts = self.tries - self.largest > ended.saturating_mul(FACTOR).saturating_add(SLACK);
        let tries = self.tries;
        let contradiction = contradicts
            .then(|| format!("its reports tell of {tries} tries, its heartbeats of {ended} requests in the same time"));
        let changed = contradiction.is_some() != self.contradiction.is_some();
        *self = Self { base: Some(requests), contradiction, ..Self::default() };
        changed
    }

    /// Why it is not believed, if it is not.
    pub(super) fn contradiction(&self) -> Option<&str> {
        self.contradiction.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_as_many_tries_as_requests_are_not_believed_until_they_agree_again() {
        let mut trust = Trust::default();
        trust.handle_report(1_000_000);
        assert!(!trust.handle_heartbeat(1_000), "what was before is not compared");
        let mut requests = 1_000;
        let mut round = |trust: &mut Trust, tries: u64, ended: u64| {
            let mut changed = false;
            for _ in 0..HEARTBEATS {
                trust.handle_report(tries / u64::from(HEARTBEATS));
                requests += ended / u64::from(HEARTBEATS);
                changed |= trust.handle_heartbeat(requests);
            }
            (changed, trust.contradiction().is_some())
        };
        assert_eq!(round(&mut trust, 3_000, 3_000), (false, false));
        assert_eq!(round(&mut trust, 6_000, 3_000), (false, false), "retries");
        assert_eq!(round(&mut trust, 0, 3_000), (false, false), "other services have them");
        assert_eq!(round(&mut trust, 90, 0), (false, false), "too few to tell");
        assert_eq!(round(&mut trust, 12_000, 3_000), (true, true));
        assert_eq!(round(&mut trust, 12_000, 3_000), (false, true));
        assert_eq!(round(&mut trust, 3_000, 3_000), (true, false));
        assert_eq!(round(&mut trust, 3_000, 0), (true, true));
        // Heartbeats in quick succession, and one report between them.
        assert_eq!(round(&mut trust, 0, 300), (true, false));
        trust.handle_report(1_000_000);
        assert_eq!(round(&mut trust, 0, 300), (false, false));
        assert_eq!(round(&mut trust, 3_000, 0), (true, true));
        // Another process counts from nothing.
        assert!(trust.handle_heartbeat(5) && trust.contradiction().is_none());
    }
}
