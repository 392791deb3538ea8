//! A rollout under way, as a leader watches it: how the share of the fleet fares that has the change.

use super::seen::{PROXY_TTL, Seen};
use crate::state::{Observed, Phase, Rollout};
use crate::watch::wire::Heartbeat;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// The rollout that is under way, as this leader has seen it.
pub(super) struct Watched {
    pub(super) id: u64,
    pub(super) phase: Phase,
    pub(super) entered: Instant,
    /// What each proxy said first in this phase: only what comes on top of it is the phase's.
    base: BTreeMap<String, Base>,
    /// For how long, all in all, any of the share was without the change. Counted through, or a proxy that starts again
    /// and again would be waited for without end.
    waited: Duration,
    looked: Instant,
    /// Since when all of the share have it.
    baking: Option<Instant>,
    /// Participants that have ended in order since the rollout began.
    pub(super) left: BTreeSet<String>,
}

/// A proxy at the beginning of a phase.
struct Base {
    requests: u64,
    failed: u64,
    stuck: Option<String>,
}

impl Base {
    fn of(heartbeat: &Heartbeat) -> Self {
        Self { requests: heartbeat.requests, failed: heartbeat.failed, stuck: heartbeat.stuck.clone() }
    }
}

impl Watched {
    pub(super) fn new(rollout: &Rollout, proxies: &BTreeMap<String, Seen>, now: Instant) -> Self {
        Self {
            id: rollout.id,
            phase: rollout.phase.clone(),
            entered: now,
            base: proxies.iter().map(|(name, seen)| (name.clone(), Base::of(&seen.heartbeat))).collect(),
            waited: Duration::ZERO,
            looked: now,
            baking: None,
            left: BTreeSet::new(),
        }
    }

    pub(super) fn handle_heartbeat(&mut self, name: &str, heartbeat: &Heartbeat, before: Option<&Seen>) {
        match self.base.get_mut(name) {
            // It was restarted, and counts from nothing.
            Some(base) if before.is_some_and(|before| heartbeat.requests < before.heartbeat.requests) => {
                (base.requests, base.failed) = (0, 0);
            }
            Some(_) => {}
            None => drop(self.base.insert(name.to_owned(), Base::of(heartbeat))),
        }
    }

    /// Looks at how the share fares that has the change, and fills in what only passing time tells.
    pub(super) fn handle_observed(
        &mut self,
        observed: &mut Observed,
        fleet: &Fleet<'_>,
        rollout: &Rollout,
        now: Instant,
    ) {
        fleet.observe(rollout, self, now, observed);
        // A share that is silent is not watched, however long it was.
        let heard = fleet.last_words(rollout).unwrap_or(now);
        if observed.cohort_waiting > 0 {
            self.waited += now - self.looked;
        }
        self.looked = now;
        let complete = observed.cohort_waiting == 0 && observed.cohort_unheard == 0;
        self.baking = complete.then(|| self.baking.unwrap_or(now));
        observed.waited_ms = self.waited.as_millis() as u64;
        observed.baked_ms = self.baking.map(|since| heard.saturating_duration_since(since).as_millis() as u64);
    }
}

/// Who has been heard of, and since when this leader hears.
pub(super) struct Fleet<'a> {
    pub(super) proxies: &'a BTreeMap<String, Seen>,
    pub(super) since: Instant,
}

impl Fleet<'_> {
    /// How the share fares that has the change, or should have.
    fn observe(&self, rollout: &Rollout, watched: &Watched, now: Instant, observed: &mut Observed) {
        let threshold = rollout.threshold();
        let cohort = || rollout.participants.iter().filter(|name| Rollout::in_cohort(rollout.id, name, threshold));
        for name in cohort().filter(|name| !watched.left.contains(*name)) {
            self.observe_participant(name, watched, now, observed);
        }
        // What nobody has tried is not tried.
        observed.cohort_left = cohort().count() > 0 && cohort().all(|name| watched.left.contains(name));
        self.observe_requests(watched, threshold, observed);
    }

    /// When the one of the share spoke last that has been silent for longest.
    fn last_words(&self, rollout: &Rollout) -> Option<Instant> {
        let threshold = rollout.threshold();
        let share = rollout.participants.iter().filter(|name| Rollout::in_cohort(rollout.id, name, threshold));
        share.filter_map(|name| self.proxies.get(name)).map(|seen| seen.at).min()
    }

    fn observe_participant(&self, name: &str, watched: &Watched, now: Instant, observed: &mut Observed) {
        let seen = self.proxies.get(name);
        // It may have spoken to the leader before this one just now.
        if now - seen.map_or(self.since, |seen| seen.at.max(self.since)) >= PROXY_TTL {
            observed.cohort_lost += 1;
            return;
        }
        let Some(Seen { heartbeat, .. }) = seen else {
            observed.cohort_unheard += 1;
            return;
        };
        let said = || match &heartbeat.stuck {
            Some(why) => format!("{name}: {why}"),
            None => name.to_owned(),
        };
        // What it was stuck with before is no news of this change, and may be what the change is to repair.
        let before = watched.base.get(name).and_then(|base| base.stuck.as_ref());
        if heartbeat.stuck.is_some() && heartbeat.stuck.as_ref() != before {
            observed.stuck.get_or_insert_with(said);
        }
        if heartbeat.canary != Some(watched.id) {
            observed.cohort_waiting += 1;
            observed.straggler.get_or_insert_with(said);
        }
    }

    fn observe_requests(&self, watched: &Watched, threshold: u8, observed: &mut Observed) {
        let (mut cohort, mut rest, mut before) = ((0_u64, 0_u64), (0_u64, 0_u64), (0_u64, 0_u64));
        let add = |sum: &mut (u64, u64), requests: u64, failed: u64| {
            sum.0 = sum.0.saturating_add(requests);
            sum.1 = sum.1.saturating_add(failed);
        };
        for (name, Seen { heartbeat, .. }) in self.proxies {
            let Some(base) = watched.base.get(name) else { continue };
            add(&mut before, base.requests, base.failed);
            let requests = heartbeat.requests.saturating_sub(base.requests);
            let failed = heartbeat.failed.saturating_sub(base.failed);
            if heartbeat.canary == Some(watched.id) {
                // Whatever its member told it the share is.
                add(&mut cohort, requests, failed);
            } else if !Rollout::in_cohort(watched.id, name, threshold) {
                add(&mut rest, requests, failed);
            }
        }
        if rest.0 < Rollout::REQUESTS_MIN {
            // Everybody has the change, or the others have hardly any traffic: what all did before it counts as well.
            add(&mut rest, before.0, before.1);
        }
        let ppm = |(requests, failed): (u64, u64)| {
            u32::try_from(failed.saturating_mul(1_000_000).checked_div(requests).unwrap_or(0)).unwrap_or(u32::MAX)
        };
        observed.cohort_requests = cohort.0;
        (observed.cohort_ppm, observed.rest_ppm) = (ppm(cohort), ppm(rest));
    }
}
