//! Loads of the fleet, as a leader hears of them, and the tables that follow ([`FleetLoads`](ringway_ring::FleetLoads) works them out). A
//! service has a table for each ring that proxies place its keys by: those of a zone have one. Soft state: a new leader goes on from what it has relayed, or from what
//! proxies tell it.

use super::load_answer::{LoadRefusal, LoadsAnswer};
use super::load_reporters::{LIVE, Reporter, Told, votes};
use super::load_rings::{LoadRing, LoadRings};
use super::load_size::{Held, LoadSize};
use super::trust::Trust;
use crate::loads::{
    Position, REPORT_SERVICES_MAX, Reports, RingTable, ServiceLoad, TABLES_MAX, TABLES_MEMBERS_MAX, Tables,
};
use ringway_ring::FleetParams;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A table of which nobody has reported for so long has gone; and so has what was told of a refusal.
const GONE: Duration = Duration::from_secs(10);
/// Loads of members, by all proxies, that are held at a time, and what rings take: about as many bytes, twice.
const HELD_MAX: usize = 32 << 20;
/// The part of it that one proxy's reports may take, and of the members of all tables those that it may tell of.
const PROXY_PART: usize = 4;

/// See the module.
pub(super) struct Loads {
    began: Instant,
    reporters: BTreeMap<String, Reporter>,
    trust: BTreeMap<String, Trust>,
    services: BTreeMap<String, LoadRings>,
    /// What is published, or what was when this leader began.
    tables: Arc<Tables>,
    /// By reports.
    held: usize,
    /// As of the last step, and what has come since.
    size: LoadSize,
    pub(super) held_max: usize,
    pub(super) tables_max: (usize, usize),
}

impl Loads {
    /// `before`: what this member has relayed last.
    pub(super) fn new(before: Arc<Tables>, now: Instant) -> Self {
        let (reporters, trust, services, size) = <_>::default();
        let tables_max = (TABLES_MAX, TABLES_MEMBERS_MAX);
        let mut loads = Self {
            began: now,
            reporters,
            trust,
            services,
            tables: before,
            held: 0,
            size,
            held_max: HELD_MAX,
            tables_max,
        };
        loads.size = LoadSize::of(&loads.services, &loads.tables);
        loads
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether there is nothing to be worked out.
    pub(super) fn is_idle(&self) -> bool {
        self.services.is_empty() && self.tables.services.is_empty()
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Those of whose reports something is held, and whether that is added up rightly.
    #[cfg(test)]
    pub(super) fn reporters(&self) -> (Vec<String>, bool) {
        let holds = self.reporters.iter().filter(|(_, reporter)| !reporter.services.is_empty());
        let sum: usize = self.reporters.values().map(|reporter| reporter.held.loads).sum();
        (holds.map(|(name, _)| name.clone()).collect(), sum == self.held)
    }

    pub(super) fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// It reports no more.
    pub(super) fn forget(&mut self, proxy: &str) {
        self.trust.remove(proxy);
        self.forget_reports(proxy);
    }

    /// Of proxies that are not known any more, nothing is.
    pub(super) fn retain(&mut self, is_known: impl Fn(&str) -> bool) {
        self.trust.retain(|proxy, _| is_known(proxy));
        let gone: Vec<String> = self.reporters.keys().filter(|proxy| !is_known(proxy)).cloned().collect();
        gone.iter().for_each(|proxy| self.forget_reports(proxy));
    }

    fn forget_reports(&mut self, proxy: &str) {
        self.silence(proxy);
        self.reporters.remove(proxy);
    }

    fn leave(&mut self, service: &str, digest: u64, proxy: &str) {
        let Some(known) = self.services.get_mut(service) else { return };
        let Some(ring) = known.rings.get_mut(&digest) else { return };
        ring.loads.forget(proxy);
        // One that has a table stays for a while: it may come back.
        if ring.loads.proxies() == 0 && !ring.has_table {
            self.size = self.size.without(ring.members);
            known.rings.remove(&digest);
        }
    }

    /// Requests that have ended at a proxy's process since it started, by its heartbeat. What has become of it, and why, if that is
    /// something new.
    pub(super) fn handle_heartbeat(
        &mut self,
        proxy: &str,
        instance: u64,
        requests: u64,
    ) -> Option<(&'static str, String)> {
        if self.reporters.get(proxy).is_some_and(|reporter| reporter.instance != instance) {
            self.forget_reports(proxy);
        }
        let trust = self.trust.get_mut(proxy)?;
        trust.handle_heartbeat(instance, requests).then(|| match trust.contradiction() {
            Some(why) => ("loads_refused", why.to_owned()),
            None => ("loads_taken", "its reports agree with its heartbeats again".to_owned()),
        })
    }

    /// Takes in what a proxy's process reports that heartbeats have told of. `at`: the cluster's epoch, and this leader's term; `revision`:
    /// the topology's.
    pub(super) fn handle_report(
        &mut self,
        mut reports: Reports,
        at: (u64, u64),
        revision: u64,
        now: Instant,
    ) -> LoadsAnswer {
        let mut answer = LoadsAnswer::default();
        answer.answer.position = self.tables.position.filter(|known| (known.epoch, known.term) == at);
        if let Some(known) = self.reporters.get(&reports.proxy)
            && known.instance == reports.instance
            && known.seq >= reports.seq
        {
            answer.refuse("", LoadRefusal::Older, format!("report {} has been taken already", known.seq));
            return answer;
        }
        let trust = self.trust.entry(reports.proxy.clone()).or_default();
        trust.handle_report(reports.services.iter().map(|service| u64::from(service.report.requests)).sum());
        let contradiction = trust.contradiction().map(str::to_owned);
        let services = std::mem::take(&mut reports.services);
        let is_full = !self.begin(&reports, &services, now);
        if let Some(why) = contradiction {
            answer.refuse("", LoadRefusal::Contradiction, why);
            self.silence(&reports.proxy);
        } else if is_full {
            answer.refuse("", LoadRefusal::Full, "the leader holds as many loads as it can".to_owned());
            self.silence(&reports.proxy);
        } else {
            let holders = self.holders(&services, at, now);
            for service in services {
                let name = service.name.clone();
                match self.handle_service(&reports.proxy, service, (at, revision, &holders), now) {
                    Ok(true) => answer.answer.want.push(name),
                    Ok(false) => {}
                    Err((refusal, why)) => {
                        answer.refuse(&name, refusal, why);
                        self.drop_told(&reports.proxy, &name);
                    }
                }
            }
        }
        let first = answer.answer.refused.iter().next();
        let said = first.map(|(service, why)| match service.is_empty() {
            true => why.clone(),
            false => format!("service {service:?}: {why}"),
        });
        if let (Some(reporter), Some(said)) = (self.reporters.get_mut(&reports.proxy), said) {
            reporter.refused = Some((now, said));
        }
        answer
    }

    /// Notes who reports of what. `false`: there is no room for it.
    fn begin(&mut self, reports: &Reports, services: &[ServiceLoad], now: Instant) -> bool {
        let holds = services.iter().filter_map(|service| service.holds).max();
        let before = self.reporters.remove(&reports.proxy);
        let (mut told, held, refused) =
            before.map_or_else(Default::default, |before| (before.services, before.held, before.refused));
        let refused = refused.filter(|(at, _)| now.saturating_duration_since(*at) < GONE);
        let (mut sum, mut left) = (held, Vec::new());
        for service in services {
            let next = Told { at: now, digest: service.digest, params: self.params(service), held: Held::of(service) };
            sum += next.held;
            if let Some(known) = told.insert(service.name.clone(), next) {
                sum -= known.held;
                left.extend((known.digest != service.digest).then_some((&service.name, known.digest)));
            }
        }
        left.into_iter().for_each(|(name, digest)| self.leave(name, digest, &reports.proxy));
        self.held = self.held - held.loads + sum.loads;
        let is_fair = sum.loads <= self.held_max / PROXY_PART
            && sum.members <= self.tables_max.1 / PROXY_PART
            && told.len() <= REPORT_SERVICES_MAX;
        let (instance, seq) = (reports.instance, reports.seq);
        let reporter = Reporter { instance, seq, at: now, services: told, held: sum, holds, refused };
        self.reporters.insert(reports.proxy.clone(), reporter);
        self.held + self.size.held() <= self.held_max && is_fair
    }

    /// The service's, where they are the same: most proxies say the same of all services.
    fn params(&self, service: &ServiceLoad) -> Arc<FleetParams> {
        let ring = self.services.get(&service.name).and_then(|known| known.rings.get(&service.digest));
        let known = ring.map(LoadRing::params).filter(|params| ***params == service.params);
        known.map_or_else(|| Arc::new(service.params), Arc::clone)
    }

    /// What it has said counts for nothing, and what it says next is compared anew.
    fn silence(&mut self, proxy: &str) {
        let Some(reporter) = self.reporters.get_mut(proxy) else { return };
        self.held -= std::mem::take(&mut reporter.held).loads;
        for (name, told) in std::mem::take(&mut reporter.services) {
            self.leave(&name, told.digest, proxy);
        }
    }

    /// Of a service that is not taken, and of one that it does not tell of any more.
    fn drop_told(&mut self, proxy: &str, service: &str) {
        let Some(reporter) = self.reporters.get_mut(proxy) else { return };
        let Some(told) = reporter.services.remove(service) else { return };
        reporter.held -= told.held;
        self.held -= told.held.loads;
        self.leave(service, told.digest, proxy);
    }

    /// `true`: what is in force there is to be told.
    fn handle_service(
        &mut self,
        proxy: &str,
        service: ServiceLoad,
        (at, revision, holders): ((u64, u64), u64, &BTreeMap<Position, usize>),
        now: Instant,
    ) -> Result<bool, (LoadRefusal, String)> {
        if service.revision > revision {
            let why = format!("revision {} is to come: the fleet's is {revision}", service.revision);
            return Err((LoadRefusal::Absurd, why));
        }
        if let Some(held) = service.holds.filter(|held| *held > self.latest(at)) {
            return Err((LoadRefusal::Absurd, format!("table {held} has not been published yet")));
        }
        // Of an earlier leader's, or of before a restore, what two say is believed, and what nobody says otherwise.
        let is_told = |held: &Position| holders.len() == 1 || holders.get(held).is_some_and(|count| *count > 1);
        let is_credible = service.holds.is_none_or(|held| held.leader() == at || is_told(&held));
        let millis = self.millis(now);
        let before = self.tables.of(&service.name, service.digest);
        let before = self.tables.position.zip(before.map(|before| &before.table));
        let known = self.services.get(&service.name);
        if known.is_none_or(|known| !known.rings.contains_key(&service.digest)) {
            let ring = LoadRing::new(&service, before, now);
            let size = self.size.with(ring.members);
            let (tables_max, members_max) = self.tables_max;
            let is_full = size.tables > tables_max || size.members > members_max;
            if is_full || self.held + size.held() > self.held_max {
                return Err((LoadRefusal::Full, "the leader has as many rings and members as it can".to_owned()));
            }
            self.size = size;
            self.services.entry(service.name.clone()).or_default().rings.insert(service.digest, ring);
        }
        let known = self.services.entry(service.name.clone()).or_default();
        let Some(ring) = known.rings.get_mut(&service.digest) else { return Ok(false) };
        if let Err(error) = ring.loads.handle_report(proxy, service.report, millis) {
            return Err((LoadRefusal::Absurd, error.to_string()));
        }
        ring.handle_revision(service.revision);
        ring.heard = now;
        Ok(is_credible && ring.handle_in_force(service.holds, service.in_force))
    }

    /// The last place of a table that this cluster can have published.
    fn latest(&self, (epoch, term): (u64, u64)) -> Position {
        let own = self.tables.position.filter(|known| (known.epoch, known.term) == (epoch, term));
        own.unwrap_or(Position { epoch, term, seq: 0 })
    }

    /// By how many proxies each table is held, where one is held of an earlier leader: nobody here knows what that has published.
    fn holders(&self, services: &[ServiceLoad], (epoch, term): (u64, u64), now: Instant) -> BTreeMap<Position, usize> {
        let mut holders = BTreeMap::new();
        if services.iter().filter_map(|service| service.holds).any(|held| (held.epoch, held.term) != (epoch, term)) {
            let live = self.reporters.values().filter(|reporter| now.saturating_duration_since(reporter.at) < LIVE);
            live.filter_map(|reporter| reporter.holds).for_each(|held| *holders.entry(held).or_default() += 1);
        }
        holders
    }

    /// A step; `true`: other tables are published. `at`: the cluster's epoch, and this leader's term.
    pub(super) fn step(&mut self, at: (u64, u64), now: Instant) -> bool {
        let (epoch, term) = at;
        if self.tables.position.is_some_and(|known| known.epoch != epoch) {
            // A restore: nothing of before holds. Shares go on from what proxies have in force.
            let position = Some(Position { epoch, term, seq: 1 });
            *self = Self::new(Arc::new(Tables { position, services: BTreeMap::new() }), now);
            return true;
        }
        let millis = self.millis(now);
        self.forget_silent(now);
        let votes = votes(&self.reporters, now);
        let position = Position { seq: self.latest(at).seq + 1, epoch, term };
        let mut next: Option<BTreeMap<String, BTreeMap<u64, RingTable>>> = None;
        for (name, service) in &mut self.services {
            let tables = service.step(votes.get(name.as_str()), position, millis, now);
            if !tables.is_empty() {
                let next = next.get_or_insert_with(|| self.tables.services.clone());
                next.entry(name.clone()).or_default().extend(tables);
            }
        }
        // What an earlier leader has published holds until somebody could have reported of it.
        let is_new = now.saturating_duration_since(self.began) < GONE;
        let stays = |name: &str, digest: u64, table: &RingTable| {
            let ring = self.services.get(name).and_then(|known| known.rings.get(&digest));
            ring.map_or(is_new && table.position.leader() != at, |ring| ring.has_table)
        };
        if self.tables.iter().any(|(name, digest, table)| !stays(name, digest, table)) {
            let next = next.get_or_insert_with(|| self.tables.services.clone());
            next.retain(|name, rings| {
                rings.retain(|digest, table| stays(name, *digest, table));
                !rings.is_empty()
            });
        }
        let has_changed = next.is_some();
        if let Some(services) = next {
            self.tables = Arc::new(Tables { position: Some(position), services });
        }
        self.size = LoadSize::of(&self.services, &self.tables);
        has_changed
    }

    fn forget_silent(&mut self, now: Instant) {
        let is_over = |at: Instant, after: Duration| now.saturating_duration_since(at) >= after;
        let gone: Vec<String> =
            self.reporters.iter().filter(|(_, of)| is_over(of.at, GONE)).map(|(name, _)| name.clone()).collect();
        gone.iter().for_each(|name| self.forget_reports(name));
        // Who reports, but not of this any more.
        let told = self.reporters.iter().filter(|(_, of)| !is_over(of.at, LIVE)).flat_map(|(proxy, of)| {
            let left = of.services.iter().filter(|(_, told)| is_over(told.at, LIVE));
            left.map(|(service, _)| (proxy.clone(), service.clone()))
        });
        let left: Vec<(String, String)> = told.collect();
        left.iter().for_each(|(proxy, service)| self.drop_told(proxy, service));
        let from = self.unheard_since();
        self.services.retain(|_, service| {
            service.rings.retain(|_, ring| {
                ring.loads.proxies() > 0 || !is_over(ring.heard, GONE) && from.is_none_or(|from| ring.heard > from)
            });
            !service.rings.is_empty()
        });
    }

    /// Rings with a table of which nobody reports any more take a part of what there is room for: whoever has invented them is gone. The
    /// time at which one was heard of last with which it is too much.
    fn unheard_since(&self) -> Option<Instant> {
        let rings = self.services.values().flat_map(|service| service.rings.values());
        let mut unheard: Vec<_> = rings.filter(|ring| ring.loads.proxies() == 0).collect();
        unheard.sort_by_key(|ring| Reverse(ring.heard));
        let mut left = LoadSize::default();
        let is_too_much = |ring: &&&LoadRing| {
            left = left.with(ring.members);
            left.tables > self.tables_max.0 / PROXY_PART || left.members > self.tables_max.1 / PROXY_PART
        };
        unheard.iter().find(is_too_much).map(|ring| ring.heard)
    }

    /// How a proxy reports: for how long it has not, of how many services, by which table it goes, and why it was refused lately.
    pub(super) fn seen(&self, proxy: &str, now: Instant) -> Option<crate::watch::wire::ProxyLoads> {
        let reporter = self.reporters.get(proxy)?;
        let refused = reporter.refused.as_ref().filter(|(at, _)| now.saturating_duration_since(*at) < GONE);
        Some(crate::watch::wire::ProxyLoads {
            age_ms: u64::try_from(now.saturating_duration_since(reporter.at).as_millis()).unwrap_or(u64::MAX),
            services: reporter.services.len(),
            holds: reporter.holds,
            refused: refused.map(|(_, why)| why.clone()),
        })
    }
}
