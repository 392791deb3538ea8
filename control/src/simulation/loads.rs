//! Loads: what simulated proxies report of them, truly or not, and the tables that they go by. What `fleet/src/loads.rs` and
//! `proxy/src/snapshot/fleet_bounds.rs` do with a table is done here as they do it.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use ringway_ring::{LOAD_UNIT, LoadReport, Report};
use tokio::time::{Instant, sleep};

use super::Plant;
use super::disk::Random;
use super::faults::{CALM, Cluster, ms};
use super::member::Life;
use super::proxies::Proxy;
use super::tables::{HOT_KEY, Obeyed, PARAMS, Ring, SERVICE};
use crate::client::{FleetTables, Loads};
use crate::consensus::Role;
use crate::loads::{Position, ReportAnswer, Reports, ServiceLoad};
use crate::watch::wire::Message;

/// How long a report may take.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// Requests between two reports, and how many times as many a liar tells of.
const REQUESTS: u64 = 20;
pub(super) const LIE: u64 = 1_000;
/// What a proxy says of a liar begins so.
const LIES: &str = "its reports tell of";
/// Without reports, nobody adds to the log: for so long it is looked at.
const QUIET: Duration = Duration::from_secs(2);
/// When all is well, tables are confirmed as often.
const FRESH: Duration = Duration::from_secs(4);

/// A proxy's part in bounds of the fleet.
pub(super) struct Balance {
    loads: Arc<Loads>,
    /// The tables that were known last.
    known: Option<Position>,
    obeyed: Option<Obeyed>,
    /// What it says is not so, and of a member that has nothing to bear.
    pub(super) lies: bool,
    zone: u64,
    seq: u64,
    /// Requests that it has told of.
    told: u64,
    wanted: bool,
    /// Nothing is under way until then: it says nothing.
    idle_until: Option<Instant>,
    /// What was said last.
    last: Option<Reports>,
}

impl Balance {
    pub(super) fn new(number: u64, lies: bool) -> Self {
        Self {
            loads: Arc::default(),
            known: None,
            obeyed: None,
            lies,
            zone: number / 3,
            seq: 0,
            told: 0,
            wanted: false,
            idle_until: None,
            last: None,
        }
    }

    /// Nobody asks for anything for a while, now and then.
    fn is_idle(&mut self, random: &mut Random, may: bool) -> bool {
        let now = Instant::now();
        if may && self.idle_until.is_none() && random.below(30) == 0 {
            self.idle_until = Some(now + ms(1_000 + random.below(40_000)));
        }
        self.idle_until = self.idle_until.filter(|until| may && *until > now);
        self.idle_until.is_some()
    }
}

impl Proxy {
    pub(super) fn balance(&self) -> MutexGuard<'_, Balance> {
        self.balance.lock().unwrap()
    }

    /// The ring that is in force here, and the revision.
    fn ring(&self) -> Option<(Ring, u64)> {
        let zone = self.balance().zone;
        let revision = self.stand().applied.as_ref()?.revision;
        Some((Ring::at(revision, zone), revision))
    }

    /// Another stream begins.
    pub(super) fn begin_tables(&self) {
        let mut balance = self.balance();
        if self.record.world.has(Plant::TablesForgotten) {
            balance.loads = Arc::default();
        }
        balance.loads.begin();
    }

    /// A line of a watch stream; `false`: it is not of loads.
    pub(super) fn take_tables(&self, message: &Message) -> bool {
        let loads = Arc::clone(&self.balance().loads);
        match message {
            Message::Loads(line) => {
                let epoch = self.client.topology().known().map_or(0, |view| view.epoch);
                loads.handle_line(line.clone(), epoch);
            }
            Message::LoadsConfirmed(confirmed) => {
                let mut confirmed = confirmed.clone();
                if self.record.world.has(Plant::AgesBeginAnew) {
                    confirmed.age_ms = 0;
                }
                loads.handle_confirmed(&confirmed, Instant::now().into_std());
            }
            _ => return false,
        }
        self.record.world.count("lines of loads");
        let known = Arc::clone(&loads.subscribe().borrow());
        let before = std::mem::replace(&mut self.balance().known, known.tables.position);
        self.record.knows_tables(self.client.name(), before, &known);
        self.obey();
        true
    }

    /// Goes by what is known, as far as it is for this ring and newer than what is in force.
    fn obey(&self) {
        let Some((own, _)) = self.ring() else { return };
        let mut balance = self.balance();
        let known: Arc<FleetTables> = Arc::clone(&balance.loads.subscribe().borrow());
        let (Some(position), Some(confirmed)) = (known.tables.position, known.confirmed) else { return };
        let table = match self.record.world.has(Plant::TablesOfOtherRings) {
            true => known.tables.iter().map(|(.., table)| table).next(),
            false => known.tables.of(SERVICE, own.digest),
        };
        let Some(table) = table.filter(|table| known.tables.is_in_force(table)) else { return };
        let confirmed = Instant::from_std(confirmed);
        if balance.obeyed.as_ref().is_some_and(|obeyed| (obeyed.position, obeyed.confirmed) >= (position, confirmed)) {
            return;
        }
        let obeyed = Obeyed { position, ring: own, table: Arc::clone(&table.table), confirmed };
        balance.obeyed = Some(obeyed.clone());
        drop(balance);
        self.record.look_at_tables();
        let (who, uneven) = (self.client.name(), self.record.uneven);
        self.record.world.count("tables obeyed");
        self.record.world.with_tables(|tables, _| tables.check_obeyed(who, own, &obeyed, uneven));
    }

    /// As [`Client::report_loads`](crate::client::Client::report_loads).
    pub(super) async fn tell_loads(self, mut random: Random) {
        let mut from = random.below(5) as usize;
        loop {
            sleep(ms(225 + random.below(50))).await;
            let Some(reports) = self.next_report(&mut random) else { continue };
            let members = self.record.listed();
            let Some(life) = members.get(from % members.len().max(1)) else { continue };
            let Ok(bytes) = reports.encode() else {
                return self.record.world.violation("a report has no form");
            };
            let (plane, sent) = (Arc::clone(&life.plane), Instant::now());
            match self.record.ask(life, ANSWER_MAX, async move { plane.report_loads(bytes).await }).await {
                Some(Ok(answer)) => self.hear(life, &answer, sent),
                _ => {
                    from += 1;
                    sleep(ms(random.below(500))).await;
                }
            }
        }
    }

    fn next_report(&self, random: &mut Random) -> Option<Reports> {
        let (ring, revision) = self.ring()?;
        let requests = self.requests.fetch_add(REQUESTS, Relaxed) + REQUESTS;
        let mut balance = self.balance();
        balance.seq += 1;
        if balance.is_idle(random, !self.record.stopped()) {
            let mut again = balance.last.clone().filter(|_| self.record.world.has(Plant::ReportsWithoutEnd))?;
            again.seq = balance.seq;
            // What has ended since is told by nobody.
            again.services.iter_mut().for_each(|service| service.report.requests = 0);
            return Some(again);
        }
        let told = requests - std::mem::replace(&mut balance.told, requests);
        let (busy, told) = if balance.lies { (ring.slandered(), told * LIE) } else { (ring.busy(), told) };
        let loads = (0..ring.members()).map(|member| LOAD_UNIT * if member == busy { 200 } else { 10 });
        let seen = Report { requests: 10_000, total: 10_000, keys: vec![(HOT_KEY, 4_000)] };
        let obeyed = balance.obeyed.as_ref();
        let in_force = obeyed.filter(|obeyed| balance.wanted && obeyed.ring == ring);
        let service = ServiceLoad {
            name: SERVICE.to_owned(),
            digest: ring.digest,
            members_digest: ring.members_digest(),
            revision,
            params: PARAMS,
            report: LoadReport { span_millis: 250, requests: told as u32, loads: loads.collect(), seen },
            holds: obeyed.map(|obeyed| obeyed.position),
            in_force: in_force.map(|obeyed| (*obeyed.table).clone()),
        };
        let (proxy, instance, seq) = (self.client.name().to_owned(), self.instance, balance.seq);
        let reports = Reports { proxy, instance, seq, services: vec![service] };
        balance.last = Some(reports.clone());
        self.record.world.with_tables(|tables, _| {
            tables.reported(&reports.proxy);
            Ok(())
        });
        Some(reports)
    }

    fn hear(&self, life: &Life, answer: &ReportAnswer, sent: Instant) {
        let world = &self.record.world;
        world.count("reports of loads");
        let mut balance = self.balance();
        balance.wanted = answer.want.iter().any(|service| service == SERVICE);
        if let Some(why) = answer.refused.values().find(|why| why.starts_with(LIES)) {
            world.count("reports that are not believed");
            if !balance.lies {
                let name = self.client.name();
                world.violation(format_args!("{name} does not lie, and is told by m{}: {why}", life.id));
            }
        }
        if let Some(position) = answer.position {
            balance.loads.confirm(position, sent.into_std());
        }
        drop(balance);
        self.obey();
    }

    /// Why its part in the fleet's bounds is not yet what it is to be when all is well.
    fn unsettled(&self, leader: (u64, u64), refused: Option<&str>) -> Option<String> {
        let (name, own) = (self.client.name(), self.ring().map(|(ring, _)| ring));
        let balance = self.balance();
        if balance.lies {
            let is_named = refused.is_some_and(|why| why.starts_with(LIES));
            return (!is_named).then(|| format!("{name} lies, and is told of as {refused:?}"));
        }
        let is_settled = balance.obeyed.as_ref().is_some_and(|obeyed| {
            obeyed.position.leader() == leader
                && Some(obeyed.ring) == own
                && obeyed.confirmed.elapsed() < FRESH
                && obeyed.ring.is_reached_by(&obeyed.table)
        });
        (!is_settled).then(|| format!("{name} goes by {:?}, and knows {:?}", balance.obeyed, balance.known))
    }
}

impl Cluster {
    /// When all is well, all who do not lie go by the table that follows from what they say, and those who lie are named; and nothing of
    /// it is in the log.
    pub(super) async fn loads_settle(&mut self) {
        let began = Instant::now();
        while self.world.is_good() {
            let Some(why) = self.loads_unsettled().await else { break };
            if began.elapsed() > CALM {
                self.world.violation(format_args!("loads are not even when all is well: {why}"));
            }
            self.pass(ms(100)).await;
        }
        let index =
            |cluster: &Self| cluster.record.listed().iter().map(|life| life.plane.published().borrow().index).max();
        let before = (index(self), self.world.counted_of("reports of loads"));
        self.pass(QUIET).await;
        let after = (index(self), self.world.counted_of("reports of loads"));
        if self.world.is_good() && (after.0 != before.0 || after.1 == before.1) {
            self.world.violation(format_args!("the log moves with reports of loads: {before:?}, then {after:?}"));
        }
    }

    async fn loads_unsettled(&mut self) -> Option<String> {
        let lives = self.record.listed();
        let Some(leader) = lives.iter().find(|life| life.status().role == Role::Leader) else {
            return Some("nobody leads".to_owned());
        };
        let at = (leader.plane.state().epoch, leader.status().term);
        let plane = Arc::clone(&leader.plane);
        let Some(Ok(fleet)) = self.record.ask(leader, CALM, async move { plane.fleet().await }).await else {
            return Some("the fleet is not told of".to_owned());
        };
        let proxies: Vec<Proxy> = self.record.proxies.lock().unwrap().values().cloned().collect();
        proxies.iter().find_map(|proxy| {
            let told = fleet.proxies.iter().find(|told| told.name == proxy.client.name());
            let loads = told.and_then(|told| told.loads.as_ref());
            proxy.unsettled(at, loads.and_then(|loads| loads.refused.as_deref()))
        })
    }
}
