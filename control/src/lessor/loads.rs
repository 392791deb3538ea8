//! Loads of the fleet, as a leader hears of them, and the tables that follow ([`FleetLoads`](ringway_ring::FleetLoads) works them out). A
//! service has a table for each ring that proxies place its keys by: those of a zone have one. Soft state: a new leader goes on from what it has relayed, or from what
//! proxies tell it.

mod forget;

use super::load_answer::{LoadRefusal, LoadsAnswer};
use super::load_members::Members;
use super::load_reporters::{LIVE, Reporter, Told, votes};
use super::load_rings::{LoadRing, LoadRings};
use super::load_size::{Held, LoadSize, Room};
use super::trust::Trust;
use crate::loads::{
    Position, REPORT_SERVICES_MAX, Reports, RingTable, ServiceLoad, TABLES_MAX, TABLES_MEMBERS_MAX, Tables,
};
use ringway_ring::FleetParams;
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
        loads.size = loads.size_now();
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
        self.begin(&reports, services.iter().filter_map(|service| service.holds).max(), now);
        if let Some(why) = contradiction {
            answer.refuse("", LoadRefusal::Contradiction, why);
            self.silence(&reports.proxy);
        } else {
            let holders = self.holders(&services, at, now);
            for service in services {
                let name = service.name.clone();
                let told = self.handle_told(&reports.proxy, &service, now);
                let taken =
                    told.and_then(|()| self.handle_service(&reports.proxy, service, (at, revision, &holders), now));
                match taken {
                    Ok(true) => answer.answer.want.push(name),
                    Ok(false) => {}
                    Err((refusal, why)) => {
                        // What is of other members than the ring's is told all the same: most may come to tell of them.
                        if refusal != LoadRefusal::Members {
                            self.drop_told(&reports.proxy, &name);
                        }
                        answer.refuse(&name, refusal, why);
                    }
                }
            }
        }
        if let (Some(reporter), Some(said)) = (self.reporters.get_mut(&reports.proxy), answer.said()) {
            reporter.refused = Some((now, said));
        }
        answer
    }

    /// Notes who reports. `holds`: the table by which it goes, as it says.
    fn begin(&mut self, reports: &Reports, holds: Option<Position>, now: Instant) {
        let before = self.reporters.remove(&reports.proxy);
        let (services, held, refused) =
            before.map_or_else(Default::default, |before| (before.services, before.held, before.refused));
        let refused = refused.filter(|(at, _)| now.saturating_duration_since(*at) < GONE);
        let (instance, seq) = (reports.instance, reports.seq);
        let reporter = Reporter { instance, seq, at: now, services, held, holds, refused };
        self.reporters.insert(reports.proxy.clone(), reporter);
    }

    /// Notes of what a proxy reports, if there is room for it beside what it has told of and all others have.
    fn handle_told(&mut self, proxy: &str, service: &ServiceLoad, now: Instant) -> Result<(), (LoadRefusal, String)> {
        let (digest, members, params) = (service.digest, Members::of(service), self.params(service));
        let next = Told { at: now, digest, members, params, held: Held::of(service) };
        let Some(reporter) = self.reporters.get_mut(proxy) else { return Ok(()) };
        let known = reporter.services.get(&service.name);
        let (was, before) = known.map_or_else(Default::default, |told| (told.held, Some((told.digest, told.members))));
        let (mut sum, count) = (reporter.held, reporter.services.len() + usize::from(known.is_none()));
        sum -= was;
        sum += next.held;
        let full = |why: String| Err((LoadRefusal::Full, why));
        let members_max = self.tables_max.1 / PROXY_PART;
        if sum.members > members_max {
            return full(format!(
                "one proxy tells of {members_max} members at most, and this is {} with it",
                sum.members
            ));
        }
        if sum.loads > self.held_max / PROXY_PART || count > REPORT_SERVICES_MAX {
            return full("one proxy tells of no more".to_owned());
        }
        if self.held - was.loads + next.held.loads + self.size.held() > self.held_max {
            return full("the leader holds as many loads as it can".to_owned());
        }
        self.held = self.held - was.loads + next.held.loads;
        reporter.held = sum;
        reporter.services.insert(service.name.clone(), next);
        if let Some((left, _)) = before.filter(|before| *before != (digest, members)) {
            self.leave(&service.name, left, proxy);
        }
        Ok(())
    }

    /// The service's, where they are the same: most proxies say the same of all services.
    fn params(&self, service: &ServiceLoad) -> Arc<FleetParams> {
        let ring = self.services.get(&service.name).and_then(|known| known.rings.get(&service.digest));
        let known = ring.map(LoadRing::params).filter(|params| ***params == service.params);
        known.map_or_else(|| Arc::new(service.params), Arc::clone)
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
            let mut room = self.room();
            if !room.take(ring.members().count) {
                return Err((LoadRefusal::Full, "the leader has as many rings and members as it can".to_owned()));
            }
            self.size = room.size;
            self.services.entry(service.name.clone()).or_default().rings.insert(service.digest, ring);
        }
        let known = self.services.entry(service.name.clone()).or_default();
        let Some(ring) = known.rings.get_mut(&service.digest) else { return Ok(false) };
        let (told, known) = (Members::of(&service), ring.members());
        if told != known {
            let (told, known) = (told.count, known.count);
            let why = "or others, by the topology or by most proxies of this ring: it counts for nothing";
            return Err((LoadRefusal::Members, format!("it tells of {told} members, and there are {known}, {why}")));
        }
        if let Err(error) = ring.loads.handle_report(proxy, service.report, millis) {
            return Err((LoadRefusal::Absurd, error.to_string()));
        }
        ring.handle_revision(service.revision);
        ring.heard = now;
        Ok(is_credible && ring.handle_in_force(service.holds, service.in_force))
    }

    /// How much there is to work out now.
    fn size_now(&self) -> LoadSize {
        let rings = self.services.values().flat_map(|service| service.rings.values());
        // A table of a ring that is there is counted with it.
        let is_left =
            |name: &str, digest| self.services.get(name).is_none_or(|known| !known.rings.contains_key(&digest));
        let left = self.tables.iter().filter(|(name, digest, _)| is_left(name, *digest));
        LoadSize::of(rings.map(|ring| ring.members().count), left.map(|(.., table)| table.table.shed.len()))
    }

    /// How much there may be to work out, beside what reports take.
    fn room(&self) -> Room {
        let held_max = self.held_max.saturating_sub(self.held);
        Room { size: self.size, tables_max: self.tables_max, held_max }
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

    /// A step; `true`: other tables are published. `at`: the cluster's epoch, and this leader's term; `known`: the members of a service, where
    /// the topology has them.
    pub(super) fn step(&mut self, at: (u64, u64), known: &dyn Fn(&str) -> Option<Members>, now: Instant) -> bool {
        let (epoch, term) = at;
        if self.tables.position.is_some_and(|known| known.epoch != epoch) {
            // A restore: nothing of before holds. Shares go on from what proxies have in force.
            let position = Some(Position { epoch, term, seq: 1 });
            *self = Self::new(Arc::new(Tables { position, services: BTreeMap::new() }), now);
            return true;
        }
        let millis = self.millis(now);
        self.forget_silent(now);
        let (mut room, votes) = (self.room(), votes(&self.reporters, now));
        let position = Position { seq: self.latest(at).seq + 1, epoch, term };
        let mut next: Option<BTreeMap<String, BTreeMap<u64, RingTable>>> = None;
        for (name, service) in &mut self.services {
            let votes = votes.get(name.as_str());
            service.settle(votes, || known(name), &mut room, now);
            let tables = service.step(votes, position, millis, now);
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
        self.size = self.size_now();
        has_changed
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
