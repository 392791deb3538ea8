//! The tables of loads as a proxy knows them, and what it reports. A table is never gone back behind, whichever member is followed.

use super::members::Members;
use super::random::Random;
use crate::Code;
use crate::http::{Api, ApiError, Link};
use crate::loads::{Confirmed, Position, ReportAnswer, Reports, ServiceLoad, Tables, TablesError, TablesLine};
use bytes::Bytes;
use hyper::Method;
use ringway_config::model::MemberUrl;
use ringway_ring::STEP_MILLIS;
use std::collections::BTreeSet;
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
    /// When the leader is last known to have said that these hold; `None`: nobody ever has.
    pub confirmed: Option<Instant>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Loads {
    now: watch::Sender<Arc<FleetTables>>,
    /// As the member has told that is followed now: it may be behind what was known before.
    told: Mutex<Tables>,
    reports: AtomicU64,
}

impl Loads {
    /// The tables as they are known, and as they change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<FleetTables>> {
        self.now.subscribe()
    }

    /// Another stream begins: it tells the whole first.
    pub(crate) fn begin(&self) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Tables::default();
    }

    /// Takes a line. `epoch`: of the topology that is known. An error ends the stream.
    pub(crate) fn handle_line(&self, line: TablesLine, epoch: u64) -> Result<(), TablesError> {
        let told = {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            told.take(line)?;
            told.clone()
        };
        self.now.send_if_modified(|now| {
            let is_later = told.position > now.tables.position && told.position.is_some_and(|at| at.epoch >= epoch);
            if is_later {
                // How old it is, is said next.
                *now = Arc::new(FleetTables { tables: Arc::new(told), confirmed: now.confirmed });
            }
            is_later
        });
        Ok(())
    }

    /// Takes it that tables hold still.
    pub(crate) fn handle_confirmed(&self, confirmed: &Confirmed, now: Instant) {
        if let Some(at) = now.checked_sub(Duration::from_millis(confirmed.age_ms)) {
            self.confirm(confirmed.position, at);
        }
    }

    fn confirm(&self, position: Position, at: Instant) {
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
        let (mut link, mut want, mut refused) = (None, BTreeSet::new(), None);
        let mut backoff = BACKOFF.0;
        loop {
            tokio::time::sleep(SPAN.mul_f64(0.9 + 0.2 * random.unit())).await;
            let Some(member) = list.get(from % list.len().max(1)) else { return std::future::pending().await };
            let services = take(&want);
            if services.is_empty() {
                continue;
            }
            let (proxy, seq) = (name.to_owned(), self.reports.fetch_add(1, Relaxed) + 1);
            let report = Reports { proxy, instance, seq, services };
            match self.send(members, member, &mut link, &report).await {
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
                    let earlier = error.is(Code::UnknownPath) || error.is(Code::BadMethod);
                    tracing::debug!(%member, %error, "a report of loads is lost");
                    tokio::time::sleep(if earlier { EARLIER } else { backoff.mul_f64(random.unit()) }).await;
                    backoff = (backoff * 2).min(BACKOFF.1);
                }
            }
        }
    }

    async fn send(
        &self,
        members: &Members,
        member: &MemberUrl,
        link: &mut Option<(Arc<Api>, Link)>,
        report: &Reports,
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
        let body = report.encode().map_err(|error| lost(&error.to_string()))?;
        let sent = Instant::now();
        let said = api.ask_bytes(&mut open, Method::POST, "/v1/loads", Bytes::from(body));
        let said = tokio::time::timeout(ANSWER_MAX, said).await.map_err(|_| lost("no answer in time"))??;
        *link = Some((api, open));
        let answer: ReportAnswer = serde_json::from_slice(&said).map_err(|error| lost(&error.to_string()))?;
        if let Some(position) = answer.position {
            self.confirm(position, sent);
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loads::ServiceTable;
    use ringway_ring::FleetTable;

    fn at(term: u64, seq: u64) -> Position {
        Position { epoch: 1, term, seq }
    }

    fn tables(position: Position, share: u16) -> Tables {
        let table = Arc::new(FleetTable { shed: vec![0, share], hot: Vec::new() });
        let service = ServiceTable { digest: 1, revision: 1, position, table };
        Tables { position: Some(position), services: [("s".to_owned(), service)].into() }
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
        loads.handle_line(second.line(None), 1).unwrap();
        assert_eq!(known(&loads).0, second.position);
        // Another member, which is behind: what it says first is the past, and its changes lead to the present.
        loads.begin();
        loads.handle_line(first.line(None), 1).unwrap();
        assert_eq!(known(&loads).0, second.position);
        loads.handle_line(third.line(Some(&first)), 1).unwrap();
        assert_eq!(known(&loads).0, third.position);
        assert_eq!(*loads.now.borrow().tables, third);
        let gap = tables(at(1, 9), 1).line(Some(&tables(at(1, 8), 1)));
        assert!(loads.handle_line(gap, 1).is_err());
        // Of a leader before, or of the time before a restore.
        loads.begin();
        loads.handle_line(tables(at(0, 99), 9).line(None), 1).unwrap();
        loads.handle_line(tables(at(2, 1), 9).line(None), 2).unwrap();
        assert_eq!(*loads.now.borrow().tables, third);
        loads.handle_line(tables(at(2, 1), 9).line(None), 1).unwrap();
        assert_eq!(known(&loads).0, Some(at(2, 1)));
    }

    #[test]
    fn only_what_is_known_is_confirmed_and_its_age_only_falls_by_what_is_newer() {
        let loads = Loads::default();
        let now = Instant::now() + Duration::from_secs(100);
        let said = |position, age_ms| loads.handle_confirmed(&Confirmed { position, age_ms }, now);
        loads.handle_line(tables(at(1, 1), 1).line(None), 1).unwrap();
        assert_eq!(known(&loads).1, None);
        said(at(1, 1), 4_000);
        assert_eq!(known(&loads).1, Some(now - Duration::from_secs(4)));
        said(at(1, 2), 0);
        said(at(1, 1), 9_000);
        said(at(1, 1), u64::MAX);
        assert_eq!(known(&loads).1, Some(now - Duration::from_secs(4)));
        said(at(1, 1), 0);
        assert_eq!(known(&loads).1, Some(now));
    }
}
