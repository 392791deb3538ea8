//! Loads of the fleet, as a leader hears of them, and the tables that follow ([`FleetLoads`] works them out). A service has a table for
//! the ring that most of its proxies have. Soft state: a new leader goes on from what it has relayed, or from what proxies tell it.

use super::trust::Trust;
use crate::loads::{Position, ReportAnswer, Reports, ServiceLoad, ServiceTable, Tables};
use ringway_ring::{FleetLoads, FleetParams, FleetTable};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A proxy that has reported within this time has a say in which ring has a table.
const LIVE: Duration = Duration::from_secs(2);
/// A table of which nobody has reported for so long has gone; and so has what was told of a refusal.
const GONE: Duration = Duration::from_secs(10);
/// Loads of members, by all proxies, that are held at a time: about as many bytes, twice.
const HELD_MAX: usize = 32 << 20;

/// Why a report, or a part of it, is not taken. Each has a name for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadRefusal {
    /// It cannot be read.
    Malformed,
    /// No heartbeat has told of this proxy.
    Unknown,
    /// A later one was taken already.
    Older,
    /// It cannot be of this ring, or of any time.
    Absurd,
    /// It contradicts the proxy's heartbeats.
    Contradiction,
    /// The leader holds as many as it can.
    Full,
}

impl LoadRefusal {
    /// Every one.
    pub const ALL: [Self; 6] =
        [Self::Malformed, Self::Unknown, Self::Older, Self::Absurd, Self::Contradiction, Self::Full];

    /// As in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Older => "older",
            Self::Absurd => "absurd",
            Self::Contradiction => "contradiction",
            Self::Full => "full",
        }
    }
}

/// What is said to a report, and what was refused of it.
#[derive(Debug, Default)]
pub struct LoadsAnswer {
    /// For the proxy.
    pub answer: ReportAnswer,
    /// For the metrics.
    pub refused: Vec<LoadRefusal>,
}

/// See the module.
pub(super) struct Loads {
    began: Instant,
    reporters: BTreeMap<String, Reporter>,
    trust: BTreeMap<String, Trust>,
    services: BTreeMap<String, Service>,
    /// What is published, or what was when this leader began.
    tables: Arc<Tables>,
    held: usize,
    pub(super) held_max: usize,
}

/// A proxy that reports.
struct Reporter {
    instance: u64,
    seq: u64,
    at: Instant,
    /// Services that it has reported of last, and for which ring.
    rings: BTreeMap<String, u64>,
    /// What its report takes here.
    held: usize,
    holds: Option<Position>,
    refused: Option<(Instant, String)>,
}

/// A service that reports tell of, by ring.
#[derive(Default)]
struct Service {
    rings: BTreeMap<u64, OfRing>,
    chosen: Option<u64>,
}

struct OfRing {
    loads: FleetLoads,
    params: FleetParams,
    revision: u64,
    /// Where what was adopted has come from.
    adopted: Option<Position>,
    heard: Instant,
}

impl Loads {
    /// `before`: what this member has relayed last.
    pub(super) fn new(before: Arc<Tables>, now: Instant) -> Self {
        let (reporters, trust, services) = <_>::default();
        Self { began: now, reporters, trust, services, tables: before, held: 0, held_max: HELD_MAX }
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether there is nothing to be worked out.
    pub(super) fn is_idle(&self) -> bool {
        self.services.is_empty() && self.tables.services.is_empty()
    }

    pub(super) fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// It reports no more.
    pub(super) fn forget(&mut self, proxy: &str) {
        self.trust.remove(proxy);
        let Some(reporter) = self.reporters.remove(proxy) else { return };
        self.held -= reporter.held;
        for (name, digest) in &reporter.rings {
            self.leave(name, *digest, proxy);
        }
    }

    fn leave(&mut self, service: &str, digest: u64, proxy: &str) {
        let Some(known) = self.services.get_mut(service) else { return };
        let Some(ring) = known.rings.get_mut(&digest) else { return };
        ring.loads.forget(proxy);
        // The chosen one stays for a while: proxies go by its table.
        if ring.loads.proxies() == 0 && known.chosen != Some(digest) {
            known.rings.remove(&digest);
        }
    }

    /// Requests that have ended at a proxy since it started, by its heartbeat. What has become of it, and why, if that is something new.
    pub(super) fn handle_heartbeat(&mut self, proxy: &str, requests: u64) -> Option<(&'static str, String)> {
        let trust = self.trust.get_mut(proxy)?;
        trust.handle_heartbeat(requests).then(|| match trust.contradiction() {
            Some(why) => ("loads_refused", why.to_owned()),
            None => ("loads_taken", "its reports agree with its heartbeats again".to_owned()),
        })
    }

    /// Takes in what a proxy reports that heartbeats have told of. `at`: the cluster's epoch, and this leader's term.
    pub(super) fn handle_report(&mut self, mut reports: Reports, at: (u64, u64), now: Instant) -> LoadsAnswer {
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
        let refused = self.begin(&reports, &services, now);
        if let Some(why) = contradiction {
            answer.refuse("", LoadRefusal::Contradiction, why);
            self.silence(&reports.proxy);
        } else if let Some((refusal, why)) = refused {
            answer.refuse("", refusal, why);
            self.silence(&reports.proxy);
        } else {
            for service in services {
                self.handle_service(&reports.proxy, service, at, now, &mut answer);
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

    /// Notes who reports of what; what it does not report of any more is left.
    fn begin(&mut self, reports: &Reports, services: &[ServiceLoad], now: Instant) -> Option<(LoadRefusal, String)> {
        let rings: BTreeMap<String, u64> =
            services.iter().map(|service| (service.name.clone(), service.digest)).collect();
        let held: usize = services.iter().map(held_by).sum();
        let holds = services.iter().filter_map(|service| service.holds).max();
        let (instance, seq) = (reports.instance, reports.seq);
        let before = self.reporters.remove(&reports.proxy);
        let (had, refused) = before.map_or_else(Default::default, |before| {
            self.held -= before.held;
            (before.rings, before.refused.filter(|(at, _)| now.saturating_duration_since(*at) < GONE))
        });
        for (name, digest) in had.iter().filter(|(name, digest)| rings.get(*name) != Some(*digest)) {
            self.leave(name, *digest, &reports.proxy);
        }
        let is_full = self.held + held > self.held_max;
        let (rings, held) = if is_full { (had, 0) } else { (rings, held) };
        self.held += held;
        let reporter = Reporter { instance, seq, at: now, rings, held, holds, refused };
        self.reporters.insert(reports.proxy.clone(), reporter);
        is_full.then(|| (LoadRefusal::Full, "the leader holds as many loads as it can".to_owned()))
    }

    /// What it has said counts for nothing, and what it says next is compared anew.
    fn silence(&mut self, proxy: &str) {
        let rings = self.reporters.get_mut(proxy).map(|reporter| std::mem::take(&mut reporter.rings));
        for (name, digest) in rings.iter().flatten() {
            self.leave(name, *digest, proxy);
        }
    }

    fn handle_service(
        &mut self,
        proxy: &str,
        service: ServiceLoad,
        at: (u64, u64),
        now: Instant,
        answer: &mut LoadsAnswer,
    ) {
        let millis = self.millis(now);
        let before = self.tables.services.get(&service.name).filter(|table| table.digest == service.digest);
        let before = self.tables.position.zip(before.map(|before| &before.table));
        let members = service.report.loads.len();
        let known = self.services.entry(service.name.clone()).or_default();
        let ring = known.rings.entry(service.digest).or_insert_with(|| OfRing::new(&service, before, now));
        if service.revision >= ring.revision {
            (ring.revision, ring.params) = (service.revision, service.params);
        }
        if let Err(error) = ring.loads.handle_report(proxy, service.report, millis) {
            answer.refuse(&service.name, LoadRefusal::Absurd, error.to_string());
            return self.drop_empty(&service.name);
        }
        ring.heard = now;
        // What was in force under an earlier leader, or for the members that were before: shares go on from there.
        let later =
            service.holds.filter(|held| (held.epoch == at.0 && held.term <= at.1) && Some(*held) > ring.adopted);
        match (later, service.in_force) {
            (Some(held), Some(table)) if ring.loads.wants_table() && table.shed.len() == members => {
                ring.loads.adopt(table);
                ring.adopted = Some(held);
            }
            (Some(_), _) if ring.loads.wants_table() => answer.answer.want.push(service.name),
            _ => {}
        }
    }

    /// Of a service that nobody could be heard of.
    fn drop_empty(&mut self, service: &str) {
        if let Some(known) = self.services.get_mut(service) {
            let chosen = known.chosen;
            known.rings.retain(|digest, ring| ring.loads.proxies() > 0 || chosen == Some(*digest));
        }
    }

    /// A step; `true`: other tables are published. `at`: the cluster's epoch, and this leader's term.
    pub(super) fn step(&mut self, at: (u64, u64), now: Instant) -> bool {
        let (epoch, term) = at;
        if self.tables.position.is_some_and(|known| known.epoch != epoch) {
            // A restore: nothing of before holds.
            let position = Some(Position { epoch, term, seq: 1 });
            *self = Self::new(Arc::new(Tables { position, services: BTreeMap::new() }), now);
            return true;
        }
        let millis = self.millis(now);
        self.forget_silent(now);
        let votes = votes(&self.reporters, now);
        let seq = self.tables.position.filter(|known| (known.epoch, known.term) == at).map_or(0, |known| known.seq);
        let position = Position { epoch, term, seq: seq + 1 };
        let mut next: Option<BTreeMap<String, ServiceTable>> = None;
        for (name, service) in &mut self.services {
            if let Some(table) = service.step(votes.get(name.as_str()), position, millis, now) {
                next.get_or_insert_with(|| self.tables.services.clone()).insert(name.clone(), table);
            }
        }
        // What an earlier leader has published holds until somebody could have reported of it.
        let is_new = now.saturating_duration_since(self.began) < GONE;
        let gone = |name: &String| !is_new && !self.services.contains_key(name);
        if self.tables.services.keys().any(gone) {
            next.get_or_insert_with(|| self.tables.services.clone()).retain(|name, _| !gone(name));
        }
        let Some(services) = next else { return false };
        self.tables = Arc::new(Tables { position: Some(position), services });
        true
    }

    fn forget_silent(&mut self, now: Instant) {
        let is_gone = |at: Instant| now.saturating_duration_since(at) >= GONE;
        let gone: Vec<String> =
            self.reporters.iter().filter(|(_, of)| is_gone(of.at)).map(|(name, _)| name.clone()).collect();
        gone.iter().for_each(|name| self.forget(name));
        self.services.retain(|_, service| {
            service.rings.retain(|_, ring| ring.loads.proxies() > 0 || !is_gone(ring.heard));
            !service.rings.is_empty()
        });
    }

    /// How a proxy reports: for how long it has not, of how many services, by which table it goes, and why it was refused lately.
    pub(super) fn seen(&self, proxy: &str, now: Instant) -> Option<crate::watch::wire::ProxyLoads> {
        let reporter = self.reporters.get(proxy)?;
        let refused = reporter.refused.as_ref().filter(|(at, _)| now.saturating_duration_since(*at) < GONE);
        Some(crate::watch::wire::ProxyLoads {
            age_ms: u64::try_from(now.saturating_duration_since(reporter.at).as_millis()).unwrap_or(u64::MAX),
            services: reporter.rings.len(),
            holds: reporter.holds,
            refused: refused.map(|(_, why)| why.clone()),
        })
    }
}

/// What a report takes, in loads: its keys, and what there is of every service, too.
fn held_by(service: &ServiceLoad) -> usize {
    service.report.loads.len() + service.report.seen.keys.len() * 8 + 32
}

/// By service and ring, the proxies that have it.
fn votes(reporters: &BTreeMap<String, Reporter>, now: Instant) -> BTreeMap<&str, BTreeMap<u64, usize>> {
    let mut votes: BTreeMap<&str, BTreeMap<u64, usize>> = BTreeMap::new();
    let live = reporters.values().filter(|reporter| now.saturating_duration_since(reporter.at) < LIVE);
    for (service, digest) in live.flat_map(|reporter| &reporter.rings) {
        *votes.entry(service).or_default().entry(*digest).or_default() += 1;
    }
    votes
}

impl Service {
    /// The table that is new, if one is.
    fn step(
        &mut self,
        votes: Option<&BTreeMap<u64, usize>>,
        position: Position,
        millis: u64,
        now: Instant,
    ) -> Option<ServiceTable> {
        let chosen = self.chosen;
        // Of as many, the one that has the table already, and then the one of the latest revision.
        let rank = |digest: &u64, count: usize| {
            (count, chosen == Some(*digest), self.rings.get(digest).map(|ring| ring.revision))
        };
        let most = votes?.iter().max_by_key(|(digest, count)| rank(digest, **count)).map(|(digest, _)| *digest)?;
        let ring = self.rings.get_mut(&most)?;
        let changed = ring.loads.step(&ring.params, millis);
        // Until its first step the table of before holds, of whichever ring that is.
        if ring.loads.wants_table() || !changed && chosen == Some(most) {
            return None;
        }
        ring.heard = now;
        self.chosen = Some(most);
        let table = Arc::new(FleetTable::clone(ring.loads.table()));
        Some(ServiceTable { digest: most, revision: ring.revision, position, table })
    }
}

impl OfRing {
    /// Goes on from the table of this ring that is known here.
    fn new(service: &ServiceLoad, before: Option<(Position, &Arc<FleetTable>)>, now: Instant) -> Self {
        let mut loads = FleetLoads::new(service.report.loads.len());
        if let Some((_, table)) = before {
            loads.adopt(FleetTable::clone(table));
        }
        let adopted = before.map(|(position, _)| position);
        Self { loads, params: service.params, revision: service.revision, adopted, heard: now }
    }
}

impl LoadsAnswer {
    /// What a report is told that is not taken at all.
    pub(crate) fn refused(refusal: LoadRefusal, why: String) -> Self {
        let mut answer = Self::default();
        answer.refuse("", refusal, why);
        answer
    }

    fn refuse(&mut self, service: &str, refusal: LoadRefusal, why: String) {
        self.answer.refused.insert(service.to_owned(), why);
        self.refused.push(refusal);
    }
}
