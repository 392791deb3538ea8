//! Loads of the fleet: reports find the leader, which makes tables of them; the others relay these while anybody watches them here.

use super::at_work::{Plane, changed};
use super::error::PlaneError;
use super::propose::ASK_TIMEOUT;
use super::questions::{Question, Reply};
use super::views::TablesTold;
use crate::Code;
use crate::consensus::{MemberInfo, Role, Status};
use crate::lessor::{LoadRefusal, LoadsAnswer};
use crate::loads::{Position, ReportAnswer, Reports, Tables};
use crate::state::Refusal;
use ringway_ring::STEP_MILLIS;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Between two steps.
const STEP: Duration = Duration::from_millis(STEP_MILLIS);
/// How long a report may take to the leader: after that, another one says more.
const REPORT_MAX: Duration = Duration::from_secs(1);
/// How long the leader waits for other tables before it says that those which are known hold.
const WAIT: Duration = Duration::from_secs(2);
/// And how long its answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Between two questions to a leader that has not answered, and to one of an earlier version.
const AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// When the tables were known to hold, by an answer to what was `asked` then. The answer's way counts as age: what is kept from coming
/// is not young.
fn held_at(asked: Instant, now: Instant, told: &TablesTold) -> Option<Instant> {
    let waited = Duration::from_millis(told.waited_ms.unwrap_or(0)).min(now.saturating_duration_since(asked));
    (asked + waited).checked_sub(Duration::from_millis(told.age_ms?))
}

impl Plane {
    /// A proxy's report of its loads, as it came; it finds the leader, or is lost.
    ///
    /// # Errors
    /// [`PlaneError::NoLeader`]; a refusal where it cannot be read, or the leader is of an earlier version.
    pub async fn report_loads(&self, bytes: Vec<u8>) -> Result<ReportAnswer, PlaneError> {
        self.loads.reports.fetch_add(1, Relaxed);
        self.loads.bytes.fetch_add(bytes.len() as u64, Relaxed);
        let status = self.node.status();
        let told = match &status.leader {
            Some((leader, info)) if *leader != status.id => {
                self.ask_once(*leader, info, &Question::Loads(bytes), REPORT_MAX).await?
            }
            Some(_) => self.handle_loads(&bytes),
            None => Reply::NotLeader,
        };
        match told {
            Reply::Loads(answer) => Ok(*answer),
            Reply::Refused(refusal) => Err(refusal.into()),
            Reply::Unknown => {
                Err(Refusal::new(Code::UnknownPath, "the leader is of an earlier version: it has no tables of loads")
                    .into())
            }
            _ => Err(PlaneError::NoLeader),
        }
    }

    /// [`Reply::Unknown`]: it was asked, and does not know what.
    async fn ask_once(
        &self,
        leader: u64,
        info: &MemberInfo,
        ask: &Question,
        wait: Duration,
    ) -> Result<Reply, PlaneError> {
        let question = ask.encode(self.state().rules)?;
        // Given up by whoever waits, and not by the connection: others may have asked on it what is not to be of unknown outcome.
        let answer = tokio::time::timeout(wait, self.node.ask(leader, info, question, ASK_TIMEOUT)).await;
        Ok(match answer {
            Ok(Ok(answer)) => Reply::decode(&answer),
            Ok(Err(_)) | Err(_) => Reply::NotLeader,
        })
    }

    /// As leader: takes a report in.
    pub(super) fn handle_loads(&self, bytes: &[u8]) -> Reply {
        let reports = match Reports::decode(bytes) {
            Ok(reports) => reports,
            Err(error) => {
                self.loads.count(LoadRefusal::Malformed);
                return Reply::Refused(Refusal::new(Code::BadBody, error.to_string()));
            }
        };
        let term = self.node.status().term;
        let mut refused = Vec::new();
        let reply = self.kept(|lessor, state, now| {
            let LoadsAnswer { answer, refused: what } = lessor.handle_loads(state, reports, term, now);
            refused = what;
            Reply::Loads(Box::new(answer))
        });
        refused.into_iter().for_each(|refusal| self.loads.count(refusal));
        self.loads.reported.notify_one();
        reply
    }

    /// As leader: proxies whose reports count, and whether what these take is added up rightly.
    #[cfg(test)]
    pub(crate) fn load_reporters(&self) -> Option<(Vec<String>, bool)> {
        let term = self.node.status().term;
        self.lessor().as_ref().filter(|(of, _)| *of == term).map(|(_, lessor)| lessor.load_reporters())
    }

    /// As leader: the tables, once they are later than those that are known.
    pub(super) async fn tables_after(&self, known: Option<Position>, wait: Duration) -> Reply {
        let began = (self.clock)();
        let mut now = self.loads.hub.subscribe();
        let later = now.wait_for(|now| now.position > known);
        let _ = tokio::time::timeout(wait.min(WAIT), later).await;
        if self.node.status().role != Role::Leader {
            return Reply::NotLeader;
        }
        let now = (self.clock)();
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Reply::Tables(Box::new(TablesTold {
            position: self.loads.hub.now().position,
            line: self.loads.line(known),
            age_ms: self.loads.hub.age(now).map(millis),
            waited_ms: Some(millis(now.saturating_duration_since(began))),
        }))
    }

    /// The tables as the leader has them, whole.
    ///
    /// # Errors
    /// [`PlaneError::NoLeader`].
    pub async fn tables(&self) -> Result<TablesTold, PlaneError> {
        let status = self.node.status();
        let told = match &status.leader {
            Some((leader, info)) if *leader != status.id => {
                self.ask_once(*leader, info, &Question::Tables(None, 0), ANSWER_MAX).await?
            }
            Some(_) => self.tables_after(None, Duration::ZERO).await,
            None => Reply::NotLeader,
        };
        match told {
            Reply::Tables(told) => Ok(*told),
            Reply::Unknown => Ok(TablesTold::default()),
            _ => Err(PlaneError::NoLeader),
        }
    }

    /// Makes tables while this member leads, and relays the leader's while anybody watches them here.
    pub(super) async fn work_on_loads(&self) -> Infallible {
        let mut status = self.node.watch_status();
        loop {
            let now = self.node.status();
            let has_work = match &now.leader {
                _ if now.role == Role::Leader => self.step_loads(now.term),
                Some((leader, info)) if *leader != now.id && self.loads.hub.is_watched() => {
                    tokio::select! {
                        biased;
                        () = self.leadership_changed(&mut status, now.term, *leader) => {}
                        () = self.relay(*leader, info) => {}
                    }
                    continue;
                }
                _ => false,
            };
            if has_work {
                tokio::time::sleep(STEP).await;
                continue;
            }
            tokio::select! {
                biased;
                () = changed(&mut status) => {}
                () = self.loads.reported.notified() => {}
                () = self.loads.hub.looked() => {}
            }
            // Whatever it was, it may come often.
            tokio::time::sleep(STEP).await;
        }
    }

    /// Returns once another member leads, or none does, or in another term.
    async fn leadership_changed(&self, status: &mut watch::Receiver<Status>, term: u64, leader: u64) {
        loop {
            changed(status).await;
            let now = self.node.status();
            if now.term != term || now.leader.is_none_or(|(id, _)| id != leader) {
                return;
            }
        }
    }

    /// As leader of this term. `false`: nobody reports.
    fn step_loads(&self, term: u64) -> bool {
        let state = self.state();
        let at = (self.clock)();
        let mut lessor = self.lessor();
        let Some((_, lessor)) = lessor.as_mut().filter(|(of, _)| *of == term) else { return false };
        if lessor.step_loads(&state, term, at) {
            let (tables, _) = lessor.tables();
            self.loads.remember(tables);
            if self.loads.hub.show(Arc::clone(tables), at) {
                self.loads.published.fetch_add(1, Relaxed);
            }
        }
        let (tables, has_work) = lessor.tables();
        if tables.position.is_some_and(|position| position.term == term) {
            self.loads.hub.confirm(tables.position, at);
        }
        has_work
    }

    /// Asks the leader once for what it has later.
    async fn relay(&self, leader: u64, info: &MemberInfo) {
        let known = self.loads.hub.now();
        let ask = Question::Tables(known.position, u64::try_from(WAIT.as_millis()).unwrap_or(u64::MAX));
        let asked = (self.clock)();
        let told = match self.ask_once(leader, info, &ask, ANSWER_MAX).await {
            Ok(Reply::Tables(told)) => told,
            Ok(Reply::Unknown) => return tokio::time::sleep(AGAIN.1).await,
            _ => return tokio::time::sleep(AGAIN.0).await,
        };
        let at = held_at(asked, (self.clock)(), &told);
        let taken = match (told.line, at) {
            (None, at) => {
                at.into_iter().for_each(|at| self.loads.hub.confirm(told.position, at));
                true
            }
            (Some(_), None) => false,
            (Some(line), Some(at)) => {
                let mut next = Tables::clone(&known);
                match next.take(line) {
                    Ok(()) => self.loads.hub.show(Arc::new(next), at),
                    Err(error) => {
                        tracing::warn!(%error, leader, "the leader's load tables are not taken");
                        false
                    }
                }
            }
        };
        if !taken {
            tokio::time::sleep(AGAIN.0).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_was_long_on_its_way_is_as_old() {
        let asked = Instant::now() + Duration::from_secs(100);
        let at = |millis| asked + Duration::from_millis(millis);
        let told = |age_ms, waited_ms| TablesTold { age_ms, waited_ms, ..TablesTold::default() };
        assert_eq!(held_at(asked, at(4_000), &told(Some(0), Some(1_000))), Some(at(1_000)));
        assert_eq!(held_at(asked, at(4_000), &told(Some(300), Some(1_000))), Some(at(700)));
        assert_eq!(
            held_at(asked, at(4_000), &told(Some(0), None)),
            Some(asked),
            "it does not say how long it has waited"
        );
        assert_eq!(
            held_at(asked, at(500), &told(Some(0), Some(u64::MAX))),
            Some(at(500)),
            "it cannot be younger than now"
        );
        assert_eq!(held_at(asked, at(500), &told(None, Some(1))), None);
    }
}
