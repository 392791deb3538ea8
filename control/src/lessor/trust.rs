//! Whether what a proxy reports of its loads agrees with what its heartbeats say.

/// Heartbeats that a judgement is of.
const HEARTBEATS: u32 = 3;
/// Requests of reports for one of heartbeats, beyond which the two contradict each other. Both count requests that have ended, retries and
/// hedges once: but the two are not told at the same moment.
const FACTOR: u64 = 2;
/// Requests that are no contradiction whatever was counted; and neither are those of one report.
const SLACK: u64 = 100;

/// What one process has said in both ways. Fewer requests in reports are none: services that are not reported have requests, too, and
/// reports are lost.
#[derive(Debug, Default)]
pub(super) struct Trust {
    /// Of the process.
    instance: u64,
    /// Requests at the first heartbeat of what is counted now.
    base: Option<u64>,
    heartbeats: u32,
    reported: u64,
    /// Of one report, at most.
    largest: u64,
    contradiction: Option<String>,
}

impl Trust {
    /// Requests that have ended, by its reports.
    pub(super) fn handle_report(&mut self, requests: u64) {
        // What came before the first heartbeat is in no heartbeat's count.
        if self.base.is_some() {
            self.reported = self.reported.saturating_add(requests);
            self.largest = self.largest.max(requests);
        }
    }

    /// Requests that have ended since it started, by a heartbeat. `true`: it is judged otherwise than before.
    pub(super) fn handle_heartbeat(&mut self, instance: u64, requests: u64) -> bool {
        let base = self.base.filter(|base| self.instance == instance && *base <= requests);
        let Some(base) = base else {
            // It begins, or has begun again.
            let before = self.contradiction.take();
            *self = Self { instance, base: Some(requests), ..Self::default() };
            return before.is_some();
        };
        self.heartbeats += 1;
        if self.heartbeats < HEARTBEATS {
            return false;
        }
        let ended = requests - base;
        let contradicts = self.reported - self.largest > ended.saturating_mul(FACTOR).saturating_add(SLACK);
        let reported = self.reported;
        let contradiction = contradicts
            .then(|| format!("its reports tell of {reported} requests, its heartbeats of {ended} in the same time"));
        let changed = contradiction.is_some() != self.contradiction.is_some();
        *self = Self { instance, base: Some(requests), contradiction, ..Self::default() };
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
    fn more_than_twice_as_many_in_reports_are_not_believed_until_both_agree_again() {
        let mut trust = Trust::default();
        trust.handle_report(1_000_000);
        assert!(!trust.handle_heartbeat(7, 1_000), "what was before is not compared");
        let mut requests = 1_000;
        let mut round = |trust: &mut Trust, reported: u64, ended: u64| {
            let mut changed = false;
            for _ in 0..HEARTBEATS {
                trust.handle_report(reported / u64::from(HEARTBEATS));
                requests += ended / u64::from(HEARTBEATS);
                changed |= trust.handle_heartbeat(7, requests);
            }
            (changed, trust.contradiction().is_some())
        };
        assert_eq!(round(&mut trust, 3_000, 3_000), (false, false));
        assert_eq!(round(&mut trust, 6_000, 3_000), (false, false), "of another moment");
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
        assert!(trust.handle_heartbeat(8, u64::MAX) && trust.contradiction().is_none());
    }
}
