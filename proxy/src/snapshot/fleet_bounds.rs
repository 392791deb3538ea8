//! A service's part in bounds that hold for a whole fleet: what this proxy has seen since it said so last, and the table of the fleet that
//! it obeys. It outlives versions of the configuration.

use ringway_ring::{FleetTable, HotKeys, LOAD_UNIT, LoadReport, NOT_ELIGIBLE, REPORTED_LOAD_MAX, Report};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A table that nobody has confirmed for so long is forgotten: what it made its members shed has faded to nothing long before.
const FORGOTTEN: Duration = Duration::from_secs(120);

/// Which table: later ones are greater. Tables of one epoch of the fleet, and one term of its leader, are counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableStamp {
    /// Of the topology: a restore begins another.
    pub epoch: u64,
    /// Of the leader.
    pub term: u64,
    /// Of the table.
    pub seq: u64,
}

/// A table as the fleet publishes it.
#[derive(Debug, Clone)]
pub struct OfferedTable {
    /// Which.
    pub stamp: TableStamp,
    /// Digest of the ring that its members are of.
    pub digest: u64,
    /// What it says.
    pub table: Arc<FleetTable>,
    /// When the leader has made or confirmed it.
    pub confirmed: Instant,
}

/// Why a table is not obeyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableRefusal {
    /// It is of other members, or of other weights.
    #[error("it is of another ring: of a change that is not in force here yet, or not in force elsewhere")]
    Digest,
    /// A newer one is known.
    #[error("it is older than the one that is known: its member was cut off, or has been restored")]
    Older,
    /// It does not say something of each member.
    #[error("it is not of as many members as the ring has")]
    Members,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct FleetBounds {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    seen: Option<Seen>,
    /// The last report said that nothing was under way.
    was_idle: bool,
    /// Requests that had ended when something was said last; `None`: nothing was yet.
    requests: Option<u64>,
    in_force: Option<OfferedTable>,
    /// Digest of the last table that was, and why.
    refused: Option<(u64, TableRefusal)>,
    refusals: u64,
}

/// Loads, sample by sample.
#[derive(Debug)]
struct Seen {
    digest: u64,
    since: Instant,
    samples: u32,
    /// Sums of loads for their weights; `None` of a member that had no share at the last sample.
    sums: Vec<Option<f64>>,
}

impl FleetBounds {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One look at the loads: requests in flight for the effective weight, in the order of slots; `None` where a member takes nothing.
    pub(crate) fn handle_sample(&self, digest: u64, loads: impl Iterator<Item = Option<f64>>, now: Instant) {
        let mut state = self.state();
        let loads: Vec<Option<f64>> = loads.collect();
        match state.seen.as_mut().filter(|seen| seen.digest == digest && seen.sums.len() == loads.len()) {
            Some(seen) => {
                seen.samples += 1;
                for (sum, load) in seen.sums.iter_mut().zip(loads) {
                    // Who comes or goes in between counts from then on, or for nothing.
                    *sum = load.map(|load| sum.unwrap_or(0.0) + load);
                }
            }
            None => state.seen = Some(Seen { digest, since: now, samples: 1, sums: loads }),
        }
    }

    /// What has been seen since it was asked last, of this ring; `requests`: how many have ended since the start. `None`: nothing was
    /// looked at since, or there is nothing new to say, as nothing is and was under way.
    pub(crate) fn report(&self, digest: u64, requests: u64, hot: &HotKeys, now: Instant) -> Option<LoadReport> {
        let mut state = self.state();
        let seen = state.seen.take().filter(|seen| seen.digest == digest && seen.samples > 0)?;
        let keys = hot.report();
        let load = |sum: &Option<f64>| match sum {
            Some(sum) => {
                let mean = sum / f64::from(seen.samples) * f64::from(LOAD_UNIT);
                (mean.round() as u64).min(u64::from(REPORTED_LOAD_MAX)) as u16
            }
            None => NOT_ELIGIBLE,
        };
        let loads: Vec<u16> = seen.sums.iter().map(load).collect();
        // What has ended before the first report is nobody's business.
        let before = state.requests.replace(requests).unwrap_or(requests);
        let ended = u32::try_from(requests.saturating_sub(before)).unwrap_or(u32::MAX);
        let is_idle =
            ended == 0 && keys == Report::default() && loads.iter().all(|load| matches!(load, 0 | &NOT_ELIGIBLE));
        if is_idle && std::mem::replace(&mut state.was_idle, is_idle) {
            return None;
        }
        state.was_idle = is_idle;
        let span = now.saturating_duration_since(seen.since).as_millis().clamp(1, 60_000);
        Some(LoadReport { span_millis: span as u32, requests: ended, loads, seen: keys })
    }

    /// Takes a table that is newer than what is in force, or a newer confirmation of it. `own`: digest and size of the ring here.
    /// `Ok(true)`: it is in force from now on.
    ///
    /// # Errors
    /// It is not for this ring, or older: what is in force stays, and ages.
    pub(crate) fn take(&self, offered: &OfferedTable, own: (u64, usize), now: Instant) -> Result<bool, TableRefusal> {
        let mut state = self.state();
        // Whoever has forgotten a table takes any.
        let in_force = state.in_force.as_ref().filter(|table| !is_forgotten(table, now));
        let known = in_force.map(|table| (table.stamp, table.confirmed));
        let is_same =
            in_force.is_some_and(|table| table.stamp == offered.stamp || Arc::ptr_eq(&table.table, &offered.table));
        let refusal = match known {
            Some((stamp, _)) if offered.stamp < stamp => Some(TableRefusal::Older),
            _ if offered.digest != own.0 => Some(TableRefusal::Digest),
            _ if offered.table.shed.len() != own.1 => Some(TableRefusal::Members),
            _ => None,
        };
        if let Some(refusal) = refusal {
            // Tables of a ring are offered again and again, and count once.
            if state.refused.replace((offered.digest, refusal)) != Some((offered.digest, refusal)) {
                state.refusals += 1;
            }
            return Err(refusal);
        }
        state.refused = None;
        match known {
            Some((stamp, confirmed)) if offered.stamp == stamp && offered.confirmed <= confirmed => Ok(false),
            Some(_) => {
                state.in_force = Some(offered.clone());
                Ok(!is_same)
            }
            None => {
                state.in_force = Some(offered.clone());
                Ok(true)
            }
        }
    }

    /// The table that is obeyed, and how long ago it was confirmed; none that is too old.
    pub(crate) fn in_force(&self, now: Instant) -> Option<(OfferedTable, Duration)> {
        let in_force = self.state().in_force.clone().filter(|table| !is_forgotten(table, now))?;
        let age = now.saturating_duration_since(in_force.confirmed);
        Some((in_force, age))
    }

    /// Why the last table that was offered is not obeyed, and how many were not.
    pub(crate) fn refused(&self) -> (Option<TableRefusal>, u64) {
        let state = self.state();
        (state.refused.map(|(_, refusal)| refusal), state.refusals)
    }

    /// Fleet bounds are not wanted any more.
    pub(crate) fn clear(&self) {
        let refusals = self.state().refusals;
        *self.state() = State { refusals, ..State::default() };
    }
}

fn is_forgotten(table: &OfferedTable, now: Instant) -> bool {
    now.saturating_duration_since(table.confirmed) >= FORGOTTEN
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use crate::ambient;

    fn offered(seq: u64, digest: u64, shed: &[u16], confirmed: Instant) -> OfferedTable {
        let table = Arc::new(FleetTable { shed: shed.to_vec(), hot: Vec::new() });
        OfferedTable { stamp: TableStamp { epoch: 1, term: 1, seq }, digest, table, confirmed }
    }

    #[test]
    fn a_report_has_means_of_all_samples_since_the_last_and_says_once_that_nothing_is_under_way() {
        let (bounds, hot, begin) = (FleetBounds::default(), HotKeys::default(), ambient::now());
        let at = |millis: u64| begin + Duration::from_millis(millis);
        assert_eq!(bounds.report(7, 100, &hot, begin), None, "nobody has looked yet");
        for (millis, loads) in [(0, [Some(1.0), Some(0.0), None]), (50, [Some(2.0), Some(0.5), Some(1.0)])] {
            bounds.handle_sample(7, loads.into_iter(), at(millis));
        }
        let report = bounds.report(7, 130, &hot, at(100)).unwrap();
        assert_eq!((report.span_millis, report.requests), (100, 0), "what was before is no news");
        assert_eq!(report.loads, [24, 4, 8], "sixteenths, and of the last what it had since it came");
        bounds.handle_sample(7, [Some(1e9), None, Some(0.01)].into_iter(), at(150));
        let report = bounds.report(7, 131, &hot, at(200)).unwrap();
        assert_eq!((report.requests, report.loads), (1, vec![REPORTED_LOAD_MAX, NOT_ELIGIBLE, 0]));
        // Idle: said once, and whatever comes is told again.
        let idle = || bounds.handle_sample(7, [Some(0.0), None, Some(0.0)].into_iter(), at(250));
        idle();
        assert_eq!(bounds.report(7, 131, &hot, at(300)).unwrap().loads, [0, NOT_ELIGIBLE, 0]);
        idle();
        assert_eq!(bounds.report(7, 131, &hot, at(350)), None);
        idle();
        assert_eq!(bounds.report(7, 132, &hot, at(400)).unwrap().requests, 1);
        idle();
        assert!(bounds.report(7, 132, &hot, at(450)).is_some(), "and once more that it is idle again");
    }

    #[test]
    fn samples_of_another_ring_are_not_mixed() {
        let (bounds, hot, now) = (FleetBounds::default(), HotKeys::default(), ambient::now());
        bounds.handle_sample(7, [Some(100.0), Some(100.0)].into_iter(), now);
        bounds.handle_sample(8, [Some(1.0), Some(2.0), Some(3.0)].into_iter(), now);
        assert_eq!(bounds.report(8, 1, &hot, now).unwrap().loads, [16, 32, 48]);
        bounds.handle_sample(8, [Some(1.0), Some(2.0), Some(3.0)].into_iter(), now);
        assert_eq!(bounds.report(9, 2, &hot, now), None, "of a ring that nobody has looked at yet");
    }

    #[test]
    fn a_table_is_obeyed_if_it_is_newer_and_of_this_ring_and_confirmed_by_coming_again() {
        let (bounds, begin) = (FleetBounds::default(), ambient::now());
        let later = begin + Duration::from_secs(5);
        assert!(bounds.in_force(begin).is_none());
        assert_eq!(bounds.take(&offered(3, 7, &[1, 2], begin), (7, 2), later), Ok(true));
        assert_eq!(bounds.take(&offered(3, 7, &[1, 2], later), (7, 2), later), Ok(false), "a confirmation");
        assert_eq!(bounds.in_force(later).unwrap().1, Duration::ZERO);
        assert_eq!(
            bounds.take(&offered(3, 7, &[1, 2], begin), (7, 2), later),
            Ok(false),
            "an older one takes nothing back"
        );
        assert_eq!(bounds.in_force(later).unwrap().1, Duration::ZERO);
        for (table, refusal) in [
            (offered(2, 7, &[9, 9], later), TableRefusal::Older),
            (offered(4, 8, &[9, 9], later), TableRefusal::Digest),
            (offered(4, 7, &[9, 9, 9], later), TableRefusal::Members),
        ] {
            let before = bounds.refused().1;
            assert_eq!(bounds.take(&table, (7, 2), later), Err(refusal));
            assert_eq!(bounds.take(&table, (7, 2), later), Err(refusal), "offered again");
            assert_eq!(bounds.refused(), (Some(refusal), before + 1));
            assert_eq!(bounds.in_force(later).unwrap().0.stamp.seq, 3);
        }
        // The ring of the table that was refused comes into force here.
        assert_eq!(bounds.take(&offered(4, 8, &[9, 9], later), (8, 2), later), Ok(true));
        assert_eq!(bounds.refused().0, None);
        let newer_term =
            OfferedTable { stamp: TableStamp { epoch: 1, term: 2, seq: 1 }, ..offered(0, 8, &[1, 1], later) };
        assert_eq!(bounds.take(&newer_term, (8, 2), later), Ok(true));
        assert!(bounds.in_force(later + FORGOTTEN - Duration::from_millis(1)).is_some());
        let long_after = later + FORGOTTEN;
        assert!(bounds.in_force(long_after).is_none());
        let older = offered(1, 8, &[1, 1], long_after);
        assert_eq!(bounds.take(&older, (8, 2), long_after), Ok(true), "whoever has forgotten takes anything");
        bounds.clear();
        assert!(bounds.in_force(long_after).is_none());
        assert_eq!(bounds.refused(), (None, 3));
    }
}
