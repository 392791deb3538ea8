//! The tables of loads as a proxy knows them, and what it reports. A table is never gone back behind, whichever member is followed.

use super::members::Members;
use super::random::Random;
use crate::Code;
use crate::http::{Api, ApiError, Link};
use crate::loads::{Confirmed, Position, ReportAnswer, Reports, ReportsError, ServiceLoad, Tables, TablesLine};
use crate::watch::wire::Message;
use bytes::Bytes;
use hyper::Method;
use ringway_config::model::MemberUrl;
use ringway_ring::STEP_MILLIS;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Between two reports, a fifth of it drawn.
const SPAN: Duration = Duration::from_millis(STEP_MILLIS);
/// How long a report may take: the next one says more.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// How long a connection may.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// How long a member, or its leader, is left alone that is of an earlier version.
const EARLIER: Duration = Duration::from_secs(30);
/// First and longest wait after a member that took no report; each is drawn from nothing up to it.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));

/// The tables of loads, as a proxy is to go by them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FleetTables {
    /// The tables.
    pub tables: Arc<Tables>,
    /// When the leader is last known to have said that these hold; `None`: nobody has yet.
    pub confirmed: Option<Instant>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Loads {
    now: watch::Sender<Arc<FleetTables>>,
    /// As the member has told that is followed now: it may be behind what was known before.
    told: Mutex<Told>,
    reports: AtomicU64,
}

/// What the member has told that is followed now.
#[derive(Default)]
struct Told {
    tables: Tables,
    /// A line was not taken: what follows is of no use until all is told again.
    is_lost: bool,
}

impl Told {
    /// A line was not taken.
    fn lose(&mut self, error: &impl Display) {
        if !std::mem::replace(&mut self.is_lost, true) {
            tracing::warn!(%error, "tables of loads are not taken until the whole is told again");
        }
    }
}

impl Loads {
    /// The tables as they are known, and as they change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<FleetTables>> {
        self.now.subscribe()
    }

    /// Another stream begins: it tells the whole first.
    pub(crate) fn begin(&self) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Told::default();
    }

    /// Takes a line. `epoch`: of the topology that is known. One that cannot be taken leaves what is known as it is, which then ages; the
    /// topology, which comes on the same stream, is not to suffer from it.
    pub(crate) fn handle_line(&self, line: TablesLine, epoch: u64) {
        let told = {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.is_lost && line.from.is_some() {
                return;
            }
            if let Err(error) = told.tables.take(line) {
                told.lose(&error);
                return;
            }
            told.is_lost = false;
            told.tables.clone()
        };
        self.now.send_if_modified(|now| {
            let is_later = told.position > now.tables.position && told.position.is_some_and(|at| at.epoch >= epoch);
            if is_later {
                // How old it is, is said next: until then, nobody knows.
                *now = Arc::new(FleetTables { tables: Arc::new(told), confirmed: None });
            }
            is_later
        });
    }

    /// A line of the watch stream; `None`: it is of loads, in a form of another release's. The topology, which comes on the same stream, goes on.
    pub(crate) fn read(&self, line: &[u8]) -> Result<Option<Message>, String> {
        match serde_json::from_slice(line) {
            Ok(message) => Ok(Some(message)),
            Err(error) if line.starts_with(b"{\"loads") => {
                self.told.lock().unwrap_or_else(PoisonError::into_inner).lose(&error);
                Ok(None)
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Takes it that tables hold still.
    pub(crate) fn handle_confirmed(&self, confirmed: &Confirmed, now: Instant) {
        if let Some(at) = now.checked_sub(Duration::from_millis(confirmed.age_ms)) {
            self.confirm(confirmed.position, at);
        }
    }

    /// The tables at this place held at this time, by the leader's word.
    pub(crate) fn confirm(&self, position: Position, at: Instant) {
        self.now.send_if_modified(|now| {
            let is_news = now.tables.position == Some(position) && now.confirmed < Some(at);
            if is_news {
                *now = Arc::new(FleetTables { tables: Arc::clone(&now.tables), confirmed: Some(at) });
            }
            is_news
        });
    }

    /// Reports what `take` says, four times a second, as long as it says something. `take` is told of which services the leader wants
    /// to know what is in force here. A report that does not come through is lost. Never returns.
    pub(super) async fn report(
        &self,
        members: &Members,
        (name, instance): (&str, u64),
        take: impl Fn(&BTreeSet<String>) -> Vec<ServiceLoad>,
    ) {
        let mut random = Random::new(name);
        let list = members.api.load().members().to_vec();
        let mut from = random.below(list.len().max(1));
        let (mut link, mut want, mut refused, mut unsent) = (None, BTreeSet::new(), None, BTreeSet::new());
        let mut backoff = BACKOFF.0;
        loop {
            tokio::time::sleep(SPAN.mul_f64(0.9 + 0.2 * random.unit())).await;
            let Some(member) = list.get(from % list.len().max(1)) else { return std::future::pending().await };
            let services = take(&want);
            if services.is_empty() {
                continue;
            }
            let (bodies, left_out) = self.bodies((name, instance), services);
            for (service, error) in left_out {
                if unsent.insert(service.clone()) {
                    tracing::warn!(service, %error, "the loads of a service cannot be reported: it balances alone");
                }
            }
            match self.send(members, member, &mut link, bodies).await {
                Ok(answer) => {
                    backoff = BACKOFF.0;
                    want = answer.want.into_iter().collect();
                    let why = answer.refused.into_iter().next();
                    if why.is_some() && why != refused {
                        tracing::warn!(?why, "the fleet does not take what is reported of loads");
                    }
                    refused = why;
                }
                Err(error) => {
                    link = None;
                    from += 1;
                    // An earlier release does not know reports, or knows another form of them.
                    let earlier =
                        [Code::UnknownPath, Code::BadMethod, Code::BadBody].iter().any(|code| error.is(*code));
                    tracing::debug!(%member, %error, "a report of loads is lost");
                    tokio::time::sleep(if earlier { EARLIER } else { backoff.mul_f64(random.unit()) }).await;
                    backoff = (backoff * 2).min(BACKOFF.1);
                }
            }
        }
    }

    /// As many reports as it takes, and the services that none can tell of.
    fn bodies(
        &self,
        (name, instance): (&str, u64),
        services: Vec<ServiceLoad>,
    ) -> (Vec<Bytes>, Vec<(String, ReportsError)>) {
        let (mut bodies, mut left_out) = (Vec::new(), Vec::new());
        let mut pending = vec![services];
        while let Some(services) = pending.pop() {
            let (proxy, seq) = (name.to_owned(), self.reports.fetch_add(1, Relaxed) + 1);
            let mut report = Reports { proxy, instance, seq, services };
            match report.encode_checked() {
                Ok(bytes) => bodies.push(Bytes::from(bytes)),
                Err(error) if report.services.len() < 2 => {
                    left_out.extend(report.services.pop().map(|service| (service.name, error)));
                }
                Err(_) => {
                    pending.push(report.services.split_off(report.services.len() / 2));
                    pending.push(report.services);
                }
            }
        }
        (bodies, left_out)
    }

    /// Sends reports one after the other; the answer is to all of them.
    async fn send(
        &self,
        members: &Members,
        member: &MemberUrl,
        link: &mut Option<(Arc<Api>, Link)>,
        bodies: Vec<Bytes>,
    ) -> Result<ReportAnswer, ApiError> {
        let lost = |reason: &str| ApiError::Unreachable { member: member.to_string(), reason: reason.to_owned() };
        let (api, mut open) = match link.take() {
            Some(open) => open,
            None => {
                let api = members.renewed();
                let connected = tokio::time::timeout(CONNECT_MAX, api.connect(member)).await;
                let connected = connected.map_err(|_| lost("no connection in time"))??;
                (api, connected)
            }
        };
        let mut all = ReportAnswer::default();
        for body in bodies {
            let sent = Instant::now();
            let said = api.ask_bytes(&mut open, Method::POST, "/v1/loads", body);
            let said = tokio::time::timeout(ANSWER_MAX, said).await.map_err(|_| lost("no answer in time"))??;
            let answer: ReportAnswer = serde_json::from_slice(&said).map_err(|error| lost(&error.to_string()))?;
            if let Some(position) = answer.position {
                self.confirm(position, sent);
            }
            all.want.extend(answer.want);
            all.refused.extend(answer.refused);
        }
        *link = Some((api, open));
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loads::RingTable;
    use ringway_ring::{FleetParams, FleetTable, LoadReport, ShedParams};

    fn at(term: u64, seq: u64) -> Position {
        Position { epoch: 1, term, seq }
    }

    fn tables(position: Position, share: u16) -> Tables {
        let table = Arc::new(FleetTable { shed: vec![0, share], hot: Vec::new() });
        let ring = RingTable { revision: 1, position, table };
        Tables { position: Some(position), services: [("s".to_owned(), [(1, ring)].into())].into() }
    }

    fn known(loads: &Loads) -> (Option<Position>, Option<Instant>) {
        let now = loads.now.borrow();
        (now.tables.position, now.confirmed)
    }

    #[test]
    fn what_a_member_that_is_behind_says_is_followed_until_it_is_news() {
        let loads = Loads::default();
        let (first, second, third) = (tables(at(1, 5), 1), tables(at(1, 6), 2), tables(at(1, 7), 3));
        loads.begin();
        loads.handle_line(second.line(None), 1);
        assert_eq!(known(&loads).0, second.position);
        // Another member, which is behind: what it says first is the past, and its changes lead to the present.
        loads.begin();
        loads.handle_line(first.line(None), 1);
        assert_eq!(known(&loads).0, second.position);
        loads.handle_line(third.line(Some(&first)), 1);
        assert_eq!(known(&loads).0, third.position);
        assert_eq!(*loads.now.borrow().tables, third);
        let gap = tables(at(1, 9), 1).line(Some(&tables(at(1, 8), 1)));
        loads.handle_line(gap, 1);
        assert_eq!(*loads.now.borrow().tables, third);
        // Of a leader before, or of the time before a restore.
        loads.begin();
        loads.handle_line(tables(at(0, 99), 9).line(None), 1);
        loads.handle_line(tables(at(2, 1), 9).line(None), 2);
        assert_eq!(*loads.now.borrow().tables, third);
        loads.handle_line(tables(at(2, 1), 9).line(None), 1);
        assert_eq!(known(&loads).0, Some(at(2, 1)));
    }

    #[test]
    fn only_what_is_known_is_confirmed_and_its_age_only_falls_by_what_is_newer() {
        let loads = Loads::default();
        let now = Instant::now() + Duration::from_secs(100);
        let said = |position, age_ms| loads.handle_confirmed(&Confirmed { position, age_ms }, now);
        loads.handle_line(tables(at(1, 1), 1).line(None), 1);
        assert_eq!(known(&loads).1, None);
        said(at(1, 1), 4_000);
        assert_eq!(known(&loads).1, Some(now - Duration::from_secs(4)));
        said(at(1, 2), 0);
        said(at(1, 1), 9_000);
        said(at(1, 1), u64::MAX);
        assert_eq!(known(&loads).1, Some(now - Duration::from_secs(4)));
        said(at(1, 1), 0);
        assert_eq!(known(&loads).1, Some(now));
        // Of what comes next, nobody knows how old it is before it is said.
        loads.handle_line(tables(at(1, 2), 1).line(None), 1);
        assert_eq!(known(&loads), (Some(at(1, 2)), None));
    }

    #[test]
    fn after_a_line_that_is_not_taken_all_that_follows_waits_for_the_whole() {
        let loads = Loads::default();
        let (first, second, third) = (tables(at(1, 1), 1), tables(at(1, 2), 2), tables(at(1, 3), 3));
        loads.begin();
        loads.handle_line(first.line(None), 1);
        let mut bad = second.line(Some(&first));
        bad.services.get_mut("s").unwrap().insert("x".into(), None);
        loads.handle_line(bad, 1);
        loads.handle_line(second.line(Some(&first)), 1);
        assert_eq!(*loads.now.borrow().tables, first, "it may have missed something");
        loads.handle_line(third.line(None), 1);
        assert_eq!(*loads.now.borrow().tables, third);
        // Nor one of a form that is not known here.
        assert_eq!(loads.read(b"{\"loads\":{\"form\":\"of tomorrow\"}}\n"), Ok(None));
        assert_eq!(loads.read(b"{\"loads_confirmed\":7}\n"), Ok(None));
        assert!(
            loads.read(b"{\"topology\":7}\n").is_err() && matches!(loads.read(b"{\"rollout\":null}\n"), Ok(Some(_)))
        );
        loads.handle_line(tables(at(1, 4), 4).line(Some(&third)), 1);
        assert_eq!(*loads.now.borrow().tables, third);
        loads.handle_line(third.line(None), 1);
        let fourth = tables(at(1, 4), 4);
        loads.handle_line(fourth.line(Some(&third)), 1);
        assert_eq!(*loads.now.borrow().tables, fourth);
    }

    #[test]
    fn what_is_too_large_for_a_report_goes_in_several_and_what_no_report_can_hold_is_left_out() {
        let service = |name: String, members: usize| ServiceLoad {
            name,
            digest: 1,
            members_digest: 1,
            revision: 0,
            params: FleetParams { shed: ShedParams { target: 1.2, share_max: 0.9 }, hot: None },
            report: LoadReport { span_millis: 250, loads: vec![1; members], ..LoadReport::default() },
            holds: None,
            in_force: None,
        };
        let loads = Loads::default();
        let mut services: Vec<ServiceLoad> = (0..5).map(|index| service(index.to_string(), 60_000)).collect();
        services.insert(2, service("huge".into(), 200_000));
        let (bodies, left_out) = loads.bodies(("p", 7), services);
        let reports: Vec<Reports> = bodies.iter().map(|body| Reports::decode(body).unwrap()).collect();
        let told: Vec<&str> = reports.iter().flat_map(|report| &report.services).map(|s| s.name.as_str()).collect();
        assert_eq!(told, ["0", "1", "2", "3", "4"]);
        assert!(reports.windows(2).all(|pair| pair[0].seq < pair[1].seq), "each counts");
        assert_eq!(left_out.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["huge"]);
        assert!(matches!(left_out[0].1, ReportsError::TooMuch { .. }), "{left_out:?}");
    }
}
