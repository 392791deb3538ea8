//! Bounds that hold for a whole fleet: what its proxies say of one service's loads becomes one table, which all of them obey.
//!
//! Each proxy sees a part of the traffic, and the less it sees, the more of that is noise; and what one spreads or sheds, another does
//! not. So one of them (the control plane's leader) adds up what all see, and publishes which part of its keys each member sheds, and
//! which keys are hot, with how many owners. All of it is soft state: it is worked out anew from the reports of a second.
//!
//! An integrating controller, as [`crate::ShedController`] is, on the sum of all loads: smoothed (`F += 0.4 (L - F)`), with a dead band.
//! Loads and shares stand in the order of the members' ids, which is that of their slots.
//!
//! Proxies in several zones place keys by several rings of the same members. Each ring has a [`FleetLoads`] and a table of its own; but what a
//! member has too much of is the load that it gets by all of them ([`FleetTotals`]).

use crate::hash::Hash;
use crate::hot::{HotKey, HotParams, Remembered, Report, hot_among};
use crate::load::FULL_SHARE;
use crate::shed::ShedParams;
use std::collections::BTreeMap;

/// One request in flight on a member of mean weight, in the units of a report.
pub const LOAD_UNIT: u16 = 16;
/// In place of a load: that proxy gives this member no keys now.
pub const NOT_ELIGIBLE: u16 = u16::MAX;
/// Most that a report says of a member.
pub const REPORTED_LOAD_MAX: u16 = u16::MAX - 1;
/// Keys of a table at most.
pub const TABLE_KEYS_MAX: usize = 256;
/// Time between two reports of a proxy, and two steps, in milliseconds.
pub const STEP_MILLIS: u64 = 250;

/// A proxy that has said nothing for so long is on its way out: from then on it counts for half of it every step.
const SILENT_MILLIS: u64 = 1_000;
/// And after this time it is not there.
const GONE_MILLIS: u64 = 10_000;
/// Before its first step a table waits for what has been in force: see [`FleetLoads::adopt`].
const WAIT_MILLIS: u64 = 1_000;
/// Part of what is new that a smoothed load takes in at a step.
const SMOOTHING: f64 = 0.4;
/// Gain of a step.
const GAIN: f64 = 0.15;
/// Deviations from the target below this change nothing, where loads are well known.
const DEAD_BAND: f64 = 0.05;
/// Mean requests in flight per member below which loads are noise, and shedding fades.
const LOAD_MIN: f64 = 1.0;
/// Published shares change by this much or not at all: what nobody would notice is not sent to a thousand proxies.
const PUBLISHED_STEP: f64 = 0.005;

/// What one proxy says of one service, for the time since it said so before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// That time, in milliseconds.
    pub span_millis: u32,
    /// Tries that have ended in it.
    pub requests: u32,
    /// Mean requests in flight of each member, divided by its effective weight over the mean of all weights, in [`LOAD_UNIT`]s; or
    /// [`NOT_ELIGIBLE`].
    pub loads: Vec<u16>,
    /// What its sketches remember of keys and their cost.
    pub seen: Report,
}

/// Why a report is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// It is of other members.
    #[error("it tells of {told} members, and there are {known}")]
    Members {
        /// How many it tells of.
        told: usize,
        /// How many there are.
        known: usize,
    },
    /// No time has passed, or more than a minute.
    #[error("it is of a span of {0} ms: 1 to 60,000 can be")]
    Span(u32),
    /// Its keys cost more together than all keys.
    #[error("its keys cost {keys} together, and all that it has seen {total}")]
    Cost {
        /// The keys' cost.
        keys: u64,
        /// The cost of all.
        total: u64,
    },
}

/// What the table is made for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FleetParams {
    /// When members shed, and how much.
    pub shed: ShedParams,
    /// When keys are hot; none are, without.
    pub hot: Option<HotParams>,
}

/// What is published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FleetTable {
    /// The share of its keys that each member sheds, for [`crate::Load::set_shed`].
    pub shed: Vec<u16>,
    /// Hot keys and the number of their owners, by hash.
    pub hot: Vec<(Hash, u16)>,
}

impl FleetTable {
    /// Of a service of so many members, of which none sheds anything.
    #[must_use]
    pub fn idle(members: usize) -> Self {
        Self { shed: vec![0; members], hot: Vec::new() }
    }

    /// The shares once it is known for so long that nobody has confirmed it: whole for ten seconds, and half of that every five seconds
    /// from then on. Without a word, a proxy goes back to what it sees for itself, in small steps.
    #[must_use]
    pub fn shed_after(share: u16, age_millis: u64) -> u16 {
        match age_millis.checked_sub(FRESH_MILLIS) {
            None => share,
            Some(over) => share.checked_shr(u32::try_from(over / HALVING_MILLIS + 1).unwrap_or(u32::MAX)).unwrap_or(0),
        }
    }
}

/// A table that was confirmed within this time is fresh.
pub const FRESH_MILLIS: u64 = 10_000;
/// See [`FleetTable::shed_after`].
const HALVING_MILLIS: u64 = 5_000;

/// The loads of one service whose members, weights and ring all of its proxies agree on, and the table that follows from them.
#[derive(Debug)]
pub struct FleetLoads {
    proxies: BTreeMap<String, Told>,
    members: Vec<Smoothed>,
    /// Members that are eligible.
    eligible: usize,
    hot: BTreeMap<Hash, HotKey>,
    table: FleetTable,
    /// It waits until then for what has been in force before.
    waits_until: Option<u64>,
    has_stepped: bool,
}

#[derive(Debug)]
struct Told {
    at_millis: u64,
    report: LoadReport,
}

#[derive(Debug, Clone, Copy, Default)]
struct Smoothed {
    /// `None`: it was not eligible at the last step.
    load: Option<f64>,
    shed: f64,
}

/// What members get by all rings that are made of them.
#[derive(Debug)]
pub struct FleetTotals {
    members: Vec<MemberTotal>,
}

#[derive(Debug, Clone, Copy, Default)]
struct MemberTotal {
    load: f64,
    /// What it would get, if each ring shared its load evenly among its eligible members.
    even: f64,
}

impl FleetTotals {
    /// Of so many members, that get nothing yet.
    #[must_use]
    pub fn new(members: usize) -> Self {
        Self { members: vec![MemberTotal::default(); members] }
    }

    /// And what they get by this ring, as it was at [`FleetLoads::smooth`]. A ring of other members is left out.
    pub fn add(&mut self, ring: &FleetLoads) {
        if ring.members.len() != self.members.len() || ring.proxies.is_empty() {
            return;
        }
        let sum: f64 = ring.members.iter().filter_map(|member| member.load).sum();
        let even = sum / ring.eligible.max(1) as f64;
        for (total, load) in self.members.iter_mut().zip(ring.members.iter().map(|member| member.load)) {
            if let Some(load) = load {
                (total.load, total.even) = (total.load + load, total.even + even);
            }
        }
    }
}

impl FleetLoads {
    /// Of so many members. Nothing is published before [`FleetLoads::step`] has said so.
    #[must_use]
    pub fn new(members: usize) -> Self {
        Self {
            proxies: BTreeMap::new(),
            members: vec![Smoothed::default(); members],
            eligible: 0,
            hot: BTreeMap::new(),
            table: FleetTable::idle(members),
            waits_until: None,
            has_stepped: false,
        }
    }

    /// Whether what was in force before is of use: nothing has been worked out yet, and nothing adopted.
    #[must_use]
    pub fn wants_table(&self) -> bool {
        !self.has_stepped
    }

    /// Goes on from a table that was in force: of a leader before, or of members that have changed since. Nothing is left of it where
    /// it is of other members. Does nothing once a step has been made.
    pub fn adopt(&mut self, table: FleetTable) {
        if !self.wants_table() || table.shed.len() != self.members.len() {
            return;
        }
        for (member, share) in self.members.iter_mut().zip(&table.shed) {
            member.shed = f64::from(*share) / f64::from(FULL_SHARE);
        }
        self.hot = table
            .hot
            .iter()
            .take(TABLE_KEYS_MAX)
            .map(|&(hash, owners)| (hash, HotKey { share: 0.0, owners }))
            .collect();
        self.table =
            FleetTable { shed: table.shed, hot: self.hot.iter().map(|(hash, key)| (*hash, key.owners)).collect() };
    }

    /// Takes in what a proxy says, in place of what it said before.
    ///
    /// # Errors
    /// See [`ReportError`]; what it said before holds.
    pub fn handle_report(&mut self, proxy: &str, report: LoadReport, now_millis: u64) -> Result<(), ReportError> {
        let (told, known) = (report.loads.len(), self.members.len());
        if told != known {
            return Err(ReportError::Members { told, known });
        }
        if !(1..=60_000).contains(&report.span_millis) {
            return Err(ReportError::Span(report.span_millis));
        }
        let keys = report.seen.keys.iter().map(|(_, cost)| u64::from(*cost)).sum();
        if keys > report.seen.total {
            return Err(ReportError::Cost { keys, total: report.seen.total });
        }
        self.waits_until.get_or_insert(now_millis + WAIT_MILLIS);
        match self.proxies.get_mut(proxy) {
            Some(known) => *known = Told { at_millis: now_millis, report },
            None => drop(self.proxies.insert(proxy.to_owned(), Told { at_millis: now_millis, report })),
        }
        Ok(())
    }

    /// It reports no more.
    pub fn forget(&mut self, proxy: &str) {
        self.proxies.remove(proxy);
    }

    /// Proxies that are heard.
    #[must_use]
    pub fn proxies(&self) -> usize {
        self.proxies.len()
    }

    /// What is published.
    #[must_use]
    pub fn table(&self) -> &FleetTable {
        &self.table
    }

    /// A step of a ring that is alone with its members; to be taken every [`STEP_MILLIS`]. `true`: what is published has changed.
    pub fn step(&mut self, params: &FleetParams, now_millis: u64) -> bool {
        self.smooth(now_millis);
        let mut totals = FleetTotals::new(self.members.len());
        totals.add(self);
        self.step_among(params, &totals, now_millis)
    }

    /// Takes in the loads that were reported: the first half of a step, for all rings of the same members before the second of any. Those
    /// members are eligible that some of the proxies give keys to, more than a tenth. A proxy alone may be wrong about a member that is gone.
    pub fn smooth(&mut self, now_millis: u64) {
        self.proxies.retain(|_, told| now_millis.saturating_sub(told.at_millis) < GONE_MILLIS);
        // Without a word from anybody all stays as it is.
        if self.proxies.is_empty() {
            return;
        }
        let mut sums = vec![(0.0, 0.0); self.members.len()];
        let mut voters = 0.0;
        for told in self.proxies.values() {
            let part = part_of(now_millis.saturating_sub(told.at_millis));
            voters += part;
            for ((load, votes), &reported) in sums.iter_mut().zip(&told.report.loads) {
                if reported != NOT_ELIGIBLE {
                    *load += part * f64::from(reported) / f64::from(LOAD_UNIT);
                    *votes += part;
                }
            }
        }
        self.eligible = 0;
        for (member, (load, votes)) in self.members.iter_mut().zip(sums) {
            let is_eligible = votes * 10.0 > voters;
            self.eligible += usize::from(is_eligible);
            member.load = is_eligible.then_some(match member.load {
                Some(before) => before + SMOOTHING * (load - before),
                None => load,
            });
        }
    }

    /// The second half: what follows from what the members get by all rings. `true`: what is published has changed.
    pub fn step_among(&mut self, params: &FleetParams, totals: &FleetTotals, now_millis: u64) -> bool {
        // What was in force may still come.
        let Some(waits_until) = self.waits_until else { return false };
        if self.proxies.is_empty() || !self.has_stepped && now_millis < waits_until {
            return false;
        }
        let is_first = !std::mem::replace(&mut self.has_stepped, true);
        self.shed(&params.shed, totals);
        self.find_hot(params.hot.as_ref(), now_millis);
        self.publish() || is_first
    }

    fn shed(&mut self, params: &ShedParams, totals: &FleetTotals) {
        for (member, total) in self.members.iter_mut().zip(&totals.members) {
            // Of who takes no keys, what it shed is of no use any more when it comes back.
            if member.load.is_none() || total.even < LOAD_MIN || self.eligible < 2 {
                member.shed *= 0.5;
                continue;
            }
            let error = total.load / total.even - params.target;
            if error.abs() > DEAD_BAND * (2.0 / (total.even / 2.0).sqrt()).max(1.0) {
                member.shed += GAIN * error;
            }
            // Also of what was adopted, and after the most has become less.
            member.shed = member.shed.clamp(0.0, params.share_max);
        }
    }

    fn find_hot(&mut self, params: Option<&HotParams>, now_millis: u64) {
        let Some(params) = params else { return self.hot.clear() };
        let mut seen = Remembered::default();
        for told in self.proxies.values() {
            seen.add(&told.report.seen, part_of(now_millis.saturating_sub(told.at_millis)));
        }
        let params = HotParams { keys_max: params.keys_max.min(TABLE_KEYS_MAX), ..*params };
        self.hot = hot_among(&self.hot, &seen, &params, self.eligible);
    }

    fn publish(&mut self) -> bool {
        let mut changed = false;
        for (published, member) in self.table.shed.iter_mut().zip(&self.members) {
            let shed = if member.shed < PUBLISHED_STEP { 0.0 } else { member.shed };
            let before = f64::from(*published) / f64::from(FULL_SHARE);
            if (shed == 0.0) != (*published == 0) || (shed - before).abs() >= PUBLISHED_STEP {
                *published = (shed * f64::from(FULL_SHARE)) as u16;
                changed = true;
            }
        }
        let hot: Vec<(Hash, u16)> = self.hot.iter().map(|(hash, key)| (*hash, key.owners)).collect();
        if hot != self.table.hot {
            self.table.hot = hot;
            changed = true;
        }
        changed
    }
}

/// What counts of a report of this age.
fn part_of(age_millis: u64) -> f64 {
    let steps = age_millis.saturating_sub(SILENT_MILLIS).div_ceil(STEP_MILLIS);
    0.5_f64.powi(i32::try_from(steps).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PARAMS: FleetParams = FleetParams {
        shed: ShedParams { target: 1.2, share_max: 0.9 },
        hot: Some(HotParams {
            enter: 0.5,
            leave: 0.35,
            keys_max: 256,
            owners_max: 32,
            volume_min: 1_000,
            half_life_millis: 30_000,
        }),
    };

    /// Loads in requests.
    fn of(loads: &[f64]) -> LoadReport {
        let loads = loads.iter().map(|load| (load * f64::from(LOAD_UNIT)).round() as u16).collect();
        LoadReport { span_millis: 250, requests: 100, loads, seen: Report::default() }
    }

    fn hot(total: u64, keys: &[(Hash, u32)], members: usize) -> LoadReport {
        let seen = Report { requests: total, total, keys: keys.to_vec() };
        LoadReport { seen, ..of(&vec![10.0; members]) }
    }

    /// A service that has waited for a table of before, and got none.
    fn begun(members: usize) -> FleetLoads {
        let mut fleet = FleetLoads::new(members);
        fleet.handle_report("p", of(&vec![0.0; members]), 0).unwrap();
        assert!(!fleet.step(&PARAMS, 999) && fleet.wants_table());
        assert!(fleet.step(&PARAMS, 1_000), "the first table says that there is one");
        assert!(!fleet.wants_table());
        fleet.forget("p");
        fleet
    }

    fn parts(fleet: &FleetLoads) -> Vec<f64> {
        fleet.table().shed.iter().map(|share| f64::from(*share) / f64::from(FULL_SHARE)).collect()
    }

    #[test]
    fn who_has_too_much_in_the_sum_of_all_sheds_until_it_is_at_the_target_and_rests() {
        let mut fleet = begun(10);
        let mut shed = 0.0;
        let (mut history, mut published) = (Vec::new(), 0);
        for step in 0..120_u64 {
            // Of the first's load each proxy sees a part of its own; no one's part tells anything.
            let (first, rest) = (200.0 * (1.0 - shed), 100.0 + 200.0 * shed / 9.0);
            for (proxy, part) in [("a", 0.5), ("b", 0.3), ("c", 0.2)] {
                let mut loads = vec![rest * part; 10];
                loads[0] = first * part;
                fleet.handle_report(proxy, of(&loads), 2_000 + step * STEP_MILLIS).unwrap();
            }
            published += u32::from(fleet.step(&PARAMS, 2_000 + step * STEP_MILLIS));
            shed = parts(&fleet)[0];
            assert!(parts(&fleet)[1..].iter().all(|share| *share == 0.0));
            history.push(shed);
        }
        let load = 200.0 * (1.0 - shed) / 110.0;
        assert!((1.1..1.3).contains(&load), "{load}");
        assert!(history[100..].windows(2).all(|pair| pair[0] == pair[1]), "it rests: {:?}", &history[100..]);
        assert!(published < 60, "and nothing is published then: {published}");
    }

    #[test]
    fn what_one_proxy_takes_for_overload_and_the_others_do_not_is_none() {
        let mut fleet = begun(4);
        for step in 0..40 {
            let now = 2_000 + step * STEP_MILLIS;
            fleet.handle_report("a", of(&[40.0, 10.0, 10.0, 10.0]), now).unwrap();
            fleet.handle_report("b", of(&[10.0, 40.0, 40.0, 40.0]), now).unwrap();
            assert!(!fleet.step(&PARAMS, now));
        }
        assert_eq!(fleet.table(), &FleetTable::idle(4));
    }

    #[test]
    fn who_falls_silent_fades_and_without_a_word_all_stays_as_it_is() {
        let mut fleet = begun(3);
        let tell = |fleet: &mut FleetLoads, name: &str, loads: [f64; 3], now| {
            fleet.handle_report(name, of(&loads), now).unwrap();
        };
        tell(&mut fleet, "a", [100.0, 10.0, 10.0], 2_000);
        for step in 0..20 {
            tell(&mut fleet, "b", [100.0, 100.0, 100.0], 2_000 + step * STEP_MILLIS);
            fleet.step(&PARAMS, 2_000 + step * STEP_MILLIS);
        }
        // Five seconds without a word from `a`: what it saw is a ten-thousandth, and the loads are even.
        assert!(fleet.members.iter().all(|member| (member.load.unwrap() - 100.0).abs() < 5.0), "{:?}", fleet.members);
        assert_eq!(fleet.proxies(), 2);
        fleet.step(&PARAMS, 12_000);
        assert_eq!(fleet.proxies(), 1);
        let before = fleet.table().clone();
        assert!(!fleet.step(&PARAMS, 60_000), "nobody is there");
        assert_eq!((fleet.proxies(), fleet.table()), (0, &before));
    }

    #[test]
    fn a_table_that_was_in_force_is_gone_on_from_without_a_jump() {
        let table = FleetTable { shed: vec![20_000, 0, 7], hot: vec![(3, 2), (9, 3)] };
        let mut fleet = FleetLoads::new(3);
        assert!(fleet.wants_table());
        fleet.adopt(FleetTable { shed: vec![1, 2], hot: Vec::new() });
        assert_eq!(fleet.table(), &FleetTable::idle(3), "of other members");
        fleet.handle_report("a", hot(10_000, &[(3, 2_000), (9, 3_000)], 3), 500).unwrap();
        assert!(!fleet.step(&PARAMS, 750));
        fleet.adopt(table.clone());
        assert_eq!(fleet.table(), &table);
        assert!(!fleet.step(&PARAMS, 1_250));
        fleet.handle_report("a", hot(10_000, &[(3, 2_000), (9, 3_000)], 3), 1_500).unwrap();
        fleet.step(&PARAMS, 1_500);
        // Even loads: 0.2 below the target, of which a step takes back 0.15. And the keys are as hot as they were.
        let expected = 20_000.0 / 65_535.0 - 0.03;
        assert!((parts(&fleet)[0] - expected).abs() < 1e-3, "{:?}", parts(&fleet));
        assert_eq!(fleet.table().hot, table.hot);
        let before = fleet.table().clone();
        fleet.adopt(table);
        assert_eq!(fleet.table(), &before, "too late");
    }

    #[test]
    fn reports_that_cannot_be_are_refused_and_what_was_said_before_holds() {
        let mut fleet = begun(2);
        fleet.handle_report("a", of(&[30.0, 10.0]), 2_000).unwrap();
        let bad = [
            (of(&[1.0]), ReportError::Members { told: 1, known: 2 }),
            (LoadReport { span_millis: 0, ..of(&[1.0, 1.0]) }, ReportError::Span(0)),
            (LoadReport { span_millis: 60_001, ..of(&[1.0, 1.0]) }, ReportError::Span(60_001)),
            (
                LoadReport { seen: Report { requests: 9, total: 10, keys: vec![(1, 6), (2, 5)] }, ..of(&[1.0, 1.0]) },
                ReportError::Cost { keys: 11, total: 10 },
            ),
        ];
        for (report, error) in bad {
            assert_eq!(fleet.handle_report("a", report.clone(), 2_100), Err(error));
            assert_eq!(fleet.handle_report("b", report, 2_100), Err(error));
        }
        assert_eq!((fleet.proxies(), &fleet.proxies["a"].report), (1, &of(&[30.0, 10.0])));
    }

    #[test]
    fn a_member_to_which_nobody_gives_keys_is_no_measure_and_what_it_shed_fades() {
        let mut fleet = begun(3);
        let mut now = 2_000;
        let mut say = |fleet: &mut FleetLoads, away: usize, steps: u32| {
            for _ in 0..steps {
                for (index, name) in ["a", "b", "c"].into_iter().enumerate() {
                    let mut report = of(&[140.0, 10.0, 10.0]);
                    if index < away {
                        report.loads[0] = NOT_ELIGIBLE;
                    }
                    fleet.handle_report(name, report, now).unwrap();
                }
                fleet.step(&PARAMS, now);
                now += STEP_MILLIS;
            }
        };
        say(&mut fleet, 2, 8);
        let shed = parts(&fleet)[0];
        assert!(shed > 0.2, "one of three gives it keys: {shed}");
        say(&mut fleet, 3, 1);
        assert!((parts(&fleet)[0] - shed / 2.0).abs() < 1e-3);
        say(&mut fleet, 3, 8);
        assert_eq!(fleet.table().shed, [0, 0, 0], "the others are even among themselves");
        say(&mut fleet, 0, 1);
        assert!(parts(&fleet)[0] < 0.25, "what it had is not remembered: {:?}", parts(&fleet));
    }

    #[test]
    fn no_share_is_above_the_most_whatever_was_before() {
        let mut fleet = FleetLoads::new(2);
        fleet.adopt(FleetTable { shed: vec![FULL_SHARE, 0], hot: Vec::new() });
        let less = FleetParams { shed: ShedParams { share_max: 0.3, ..PARAMS.shed }, ..PARAMS };
        for (step, params) in [(0, PARAMS), (4, PARAMS), (5, less)] {
            // Right at the target: within the dead band.
            fleet.handle_report("a", of(&[12.0, 8.0]), step * STEP_MILLIS).unwrap();
            fleet.step(&params, step * STEP_MILLIS);
            assert!(step == 0 || parts(&fleet)[0] <= params.shed.share_max + 1e-3, "{:?}", parts(&fleet));
        }
        assert!(parts(&fleet)[0] > 0.29);
    }

    #[test]
    fn keys_are_hot_by_what_all_have_seen_and_have_the_same_owners_everywhere() {
        let mut fleet = begun(10);
        // Each sees another key at 8 % of what it has: 2 % of all, where a half of a fair share is 5 %. One is seen by all.
        for (index, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
            fleet.handle_report(name, hot(1_000, &[(index as u64, 80), (77, 120)], 10), 2_000).unwrap();
        }
        assert!(fleet.step(&PARAMS, 2_000));
        assert_eq!(fleet.table().hot, [(77, 4)]);
        assert!(!fleet.step(&PARAMS, 2_250), "and it is said once");
        // Too little to believe it.
        let mut fleet = begun(10);
        for name in ["a", "b", "c"] {
            fleet.handle_report(name, hot(333, &[(77, 120)], 10), 2_000).unwrap();
        }
        assert!(!fleet.step(&PARAMS, 2_000) && fleet.table().hot.is_empty());
        let without = FleetParams { hot: None, ..PARAMS };
        fleet.handle_report("a", hot(10_000, &[(77, 9_000)], 10), 2_000).unwrap();
        assert!(fleet.step(&PARAMS, 2_000) && fleet.step(&without, 2_250));
        assert!(fleet.table().hot.is_empty());
        // Few entries, however many a configuration allows.
        let keys: Vec<(Hash, u32)> = (0..TABLE_KEYS_MAX as u64 * 2).map(|hash| (hash, 19)).collect();
        let many =
            FleetParams { hot: PARAMS.hot.map(|hot| HotParams { enter: 0.01, keys_max: 10_000, ..hot }), ..PARAMS };
        fleet.handle_report("a", hot(10_000, &keys, 10), 2_500).unwrap();
        fleet.step(&many, 2_500);
        assert_eq!(fleet.table().hot.len(), TABLE_KEYS_MAX);
    }

    /// A step of several rings of the same members.
    fn step_all(rings: &mut [FleetLoads], params: &FleetParams, now: u64) {
        let mut totals = FleetTotals::new(rings[0].members.len());
        for ring in &mut *rings {
            ring.smooth(now);
            totals.add(ring);
        }
        rings.iter_mut().for_each(|ring| _ = ring.step_among(params, &totals, now));
    }

    #[test]
    fn zones_shed_by_what_is_uneven_within_them_and_not_because_one_has_more_than_another() {
        let mut zones = [begun(4), begun(4)];
        for step in 0..40 {
            let now = 2_000 + step * STEP_MILLIS;
            // Two members are of the first zone, which is busy, and two of the other.
            let mut busy = of(&[300.0, 100.0, 0.0, 0.0]);
            busy.loads[2..].fill(NOT_ELIGIBLE);
            let mut quiet = of(&[0.0, 0.0, 10.0, 10.0]);
            quiet.loads[..2].fill(NOT_ELIGIBLE);
            zones[0].handle_report("a", busy, now).unwrap();
            zones[1].handle_report("b", quiet, now).unwrap();
            step_all(&mut zones, &PARAMS, now);
        }
        assert!(zones[0].table().shed[0] > 0 && zones[0].table().shed[1..] == [0, 0, 0], "{:?}", zones[0].table());
        assert_eq!(zones[1].table(), &FleetTable::idle(4));
    }

    #[test]
    fn a_member_that_several_rings_load_is_bounded_by_all_of_it() {
        let mut zones = [begun(3), begun(3)];
        let (mut shed, mut now) = ([0.0; 2], 2_000);
        for _ in 0..200 {
            // By what each zone sees, its own member has as much as the first.
            for (index, zone) in zones.iter_mut().enumerate() {
                let first = 60.0 * (1.0 - shed[index]);
                let mut loads = [first, 30.0, 30.0];
                loads[index + 1] += 30.0 + 60.0 * shed[index];
                zone.handle_report("p", of(&loads), now).unwrap();
            }
            step_all(&mut zones, &PARAMS, now);
            shed = [parts(&zones[0])[0], parts(&zones[1])[0]];
            now += STEP_MILLIS;
        }
        // 120 of 300 together, where 100 are even: within the dead band of 1.2.
        assert_eq!(shed, [0.0; 2]);
        for _ in 0..200 {
            for (index, zone) in zones.iter_mut().enumerate() {
                let kept = 90.0 * (1.0 - shed[index]);
                zone.handle_report("p", of(&[kept, 30.0 + 45.0 * shed[index], 30.0 + 45.0 * shed[index]]), now)
                    .unwrap();
            }
            step_all(&mut zones, &PARAMS, now);
            shed = [parts(&zones[0])[0], parts(&zones[1])[0]];
            now += STEP_MILLIS;
        }
        let load = 2.0 * 90.0 * (1.0 - shed[0]) / 100.0;
        assert!(shed[0] > 0.2 && shed[0] == shed[1] && (1.1..1.3).contains(&load), "{shed:?}: {load}");
    }

    #[test]
    fn a_ring_of_which_nobody_reports_any_more_counts_for_nothing() {
        let mut rings = [begun(2), begun(2)];
        for step in 0..60 {
            let now = 2_000 + step * STEP_MILLIS;
            if step < 5 {
                rings[0].handle_report("a", of(&[500.0, 10.0]), now).unwrap();
            }
            rings[1].handle_report("b", of(&[10.0, 10.0]), now).unwrap();
            step_all(&mut rings, &PARAMS, now);
        }
        assert!(rings[0].table().shed[0] > 0, "what it has published stays");
        assert_eq!((rings[0].proxies(), rings[1].table().shed[0]), (0, 0));
        let mut totals = FleetTotals::new(3);
        totals.add(&rings[1]);
        assert!(totals.members.iter().all(|member| member.load == 0.0), "of other members");
    }

    #[test]
    fn without_a_word_shares_are_kept_for_ten_seconds_and_halved_every_five_then() {
        let after = |age| FleetTable::shed_after(40_000, age);
        assert_eq!([after(0), after(9_999), after(10_000), after(14_999)], [40_000, 40_000, 20_000, 20_000]);
        assert_eq!([after(15_000), after(20_000), after(90_000), after(u64::MAX)], [10_000, 5_000, 0, 0]);
    }

    proptest! {
        #[test]
        fn proxies_shed_the_same_however_they_are_divided_among_rings(
            loads in prop::collection::vec(prop::collection::vec(0..200_u16, 4), 6),
            rings in prop::collection::vec(0..3_usize, 6),
        ) {
            // No load is right at the dead band's end, where it would count in which order loads are added up.
            let params = FleetParams { shed: ShedParams { target: 1.212_345_6, share_max: 0.9 }, ..PARAMS };
            let mut whole = begun(4);
            let mut parts = [begun(4), begun(4), begun(4)];
            let reported = |index: usize| LoadReport {
                loads: loads[index].iter().map(|load| load * LOAD_UNIT).collect(), ..of(&[0.0; 4])
            };
            for step in 0..30 {
                let now = 2_000 + step * STEP_MILLIS;
                for (index, ring) in rings.iter().enumerate() {
                    whole.handle_report(&index.to_string(), reported(index), now).unwrap();
                    parts[*ring].handle_report(&index.to_string(), reported(index), now).unwrap();
                }
                whole.step(&params, now);
                step_all(&mut parts, &params, now);
            }
            for part in parts.iter().filter(|part| part.proxies() > 0) {
                let shed = part.members.iter().zip(&whole.members).map(|(one, other)| (one.shed - other.shed).abs());
                prop_assert!(shed.fold(0.0, f64::max) < 1e-6, "{:?} and {:?}", part.table(), whole.table());
            }
        }

        #[test]
        fn whatever_is_reported_shares_stay_within_their_bounds(
            reports in prop::collection::vec((0..4_u8, prop::collection::vec(any::<u16>(), 5), 0..2_000_u64), 1..60),
            share_max in 0.0..=1.0_f64,
            target in 1.0..=10.0_f64,
        ) {
            let mut fleet = FleetLoads::new(5);
            let params = FleetParams { shed: ShedParams { target, share_max }, ..PARAMS };
            let mut now = 0;
            for (proxy, loads, passed) in reports {
                now += passed;
                let report = LoadReport { loads, ..of(&[0.0; 5]) };
                fleet.handle_report(&proxy.to_string(), report, now).unwrap();
                fleet.step(&params, now);
                let most = (share_max * f64::from(FULL_SHARE)) as u16;
                prop_assert!(fleet.table().shed.iter().all(|share| *share <= most), "{:?}", fleet.table());
                prop_assert!(fleet.members.iter().all(|member| member.shed.is_finite() && member.load.unwrap_or(0.0).is_finite()));
            }
        }
    }
}
