//! What another member asks of this one.

use super::at_work::Plane;
use super::propose::ASK_TIMEOUT;
use super::questions::{Question, Reply, Writing};
use super::views::{FleetView, MemberChange};
use crate::Code;
use crate::consensus::{MemberError, MemberInfo, ProposeError, Proposed, Read, Role};
use crate::lessor::{Kept, Lessor};
use crate::state::{Answer, Command, RULES, Refusal, State, to_bytes};
use std::time::Duration;
use tokio::time::Instant;

impl Plane {
    /// What another member asks of this one, as the leader that it takes it for.
    pub async fn answer(&self, bytes: &[u8]) -> Vec<u8> {
        let (told, writing) = match Question::decode(bytes) {
            Some((ask, writing)) => (self.answer_here(&ask).await, writing),
            None => (Reply::Unknown, Writing::Frozen),
        };
        let told = told.encode(writing);
        // An answer that cannot be written is none: whoever asked takes it for unknown.
        told.unwrap_or_else(|error| {
            tracing::error!(%error, "an answer to a member");
            Vec::new()
        })
    }

    pub(super) async fn answer_here(&self, ask: &Question) -> Reply {
        match ask {
            // What is appended without a quorum may come about much later: it is not begun.
            Question::Propose(_) | Question::Member(_) if self.node.status().role != Role::Leader => Reply::NotLeader,
            Question::Propose(command) if !is_known(command) => refused(&Refusal::new(
                Code::BadBody,
                "the leader does not know what is proposed: its version is an earlier one",
            )),
            Question::Propose(command) => match self.put(command.clone()).await {
                Ok(proposed) => {
                    // Somebody may wait for what follows from it.
                    self.wake.notify_one();
                    Reply::Proposed(proposed.index, proposed.answer)
                }
                Err(error) => unproposed(&error),
            },
            Question::Barrier => match self.node.read_barrier(Read::Index).await {
                Ok(()) => Reply::Barrier(self.published.borrow().index),
                Err(error) => unproposed(&error),
            },
            Question::KeepAlive(ids) => self.keep_alive_here(ids).await,
            Question::Heartbeat(name, heartbeat) => {
                let told = self.kept(|lessor, state, now| {
                    lessor.handle_heartbeat(state, name.clone(), (**heartbeat).clone(), now);
                    Reply::Done
                });
                if heartbeat.vote.is_some() {
                    self.wake.notify_one();
                }
                told
            }
            Question::Fleet => self.fleet_here().map_or(Reply::NotLeader, Reply::Fleet),
            Question::Brief => self.kept(|lessor, state, now| Reply::Brief(Box::new(lessor.brief(state, now)))),
            Question::SignOff(name, instance) => {
                self.kept(|lessor, state, _| match lessor.handle_sign_off(state, name, *instance) {
                    true => Reply::Done,
                    false => Reply::Missing(Vec::new()),
                })
            }
            Question::Rules => Reply::Rules(RULES),
            Question::Removed(node) => Reply::Removed(self.node.has_removed(*node)),
            Question::Status => Reply::Status(self.view()),
            Question::Loads(report) => self.handle_loads(report),
            Question::Tables(known, wait_ms) => self.tables_after(*known, Duration::from_millis(*wait_ms)).await,
            Question::Member(change) => match self.member(change).await {
                Ok(()) => Reply::Done,
                Err(MemberError::Propose(ProposeError::NotLeader { .. })) => Reply::NotLeader,
                Err(error) => Reply::Member(error.to_string()),
            },
        }
    }

    /// Into the log, as leader.
    pub(super) async fn put(&self, command: Vec<u8>) -> Result<Proposed, ProposeError> {
        let began = Instant::now();
        let proposed = self.node.propose(command).await;
        if proposed.is_ok() {
            self.commits.observe(began.elapsed());
        }
        proposed
    }

    /// The fleet, if this member leads.
    #[must_use]
    pub fn fleet_here(&self) -> Option<FleetView> {
        match self.kept(|lessor, state, now| {
            Reply::Fleet(FleetView {
                proxies: lessor.fleet(state, now),
                frozen: lessor.frozen().clone(),
                events: lessor.events(),
            })
        }) {
            Reply::Fleet(fleet) => Some(fleet),
            _ => None,
        }
    }

    /// What has to be in the log before it may be said is waited for.
    async fn keep_alive_here(&self, ids: &[u64]) -> Reply {
        let began = Instant::now();
        let mut noted = self.kept.subscribe();
        loop {
            noted.borrow_and_update();
            let mut wait = false;
            let told = self.kept(|lessor, state, now| match lessor.handle_keep_alive(state, ids, now) {
                Kept::Missing(missing) => Reply::Missing(missing),
                Kept::Wait => {
                    wait = true;
                    Reply::NotLeader
                }
            });
            // A lease that was granted a moment ago may not be published here yet: that it is not there is said of the whole log.
            if matches!(&told, Reply::Missing(missing) if !missing.is_empty()) {
                return match self.node.read_barrier(Read::Index).await {
                    Ok(()) => self.kept(|lessor, state, now| match lessor.handle_keep_alive(state, ids, now) {
                        Kept::Missing(missing) => Reply::Missing(missing),
                        Kept::Wait => Reply::NotLeader,
                    }),
                    Err(error) => unproposed(&error),
                };
            }
            if !wait {
                return told;
            }
            self.wake.notify_one();
            let Some(left) = ASK_TIMEOUT.checked_sub(began.elapsed()) else { return Reply::NotLeader };
            if !matches!(tokio::time::timeout(left, noted.changed()).await, Ok(Ok(()))) {
                return Reply::NotLeader;
            }
        }
    }

    /// As leader, or not at all. One that was stopped and goes on is none, before it has noticed: another may lead.
    pub(super) fn kept(&self, act: impl FnOnce(&mut Lessor, &State, std::time::Instant) -> Reply) -> Reply {
        let state = self.state();
        let status = self.node.status();
        match &mut *self.lessor() {
            Some((term, lessor)) if status.role == Role::Leader && status.term == *term => {
                act(lessor, &state, (self.clock)())
            }
            _ => Reply::NotLeader,
        }
    }

    async fn member(&self, change: &MemberChange) -> Result<(), MemberError> {
        match change {
            MemberChange::Join { node, info, voter, replace } => {
                let info =
                    MemberInfo { name: info.0.clone(), peer_address: info.1.clone(), api_address: info.2.clone() };
                let known = self.node.status();
                if !known.voters.iter().chain(&known.learners).any(|member| member.node == *node) {
                    self.node.add_learner(*node, info).await?;
                }
                match replace {
                    Some(old) => self.node.replace(*old, *node).await,
                    None if *voter && !known.voters.iter().any(|member| member.node == *node) => {
                        self.node.promote(*node).await
                    }
                    None => Ok(()),
                }
            }
            MemberChange::Promote(node) => self.node.promote(*node).await,
            MemberChange::Remove(node) => self.node.remove(*node).await,
            MemberChange::Transfer(to) => self.node.transfer(*to).await,
        }
    }
}

fn unproposed(error: &ProposeError) -> Reply {
    match error {
        ProposeError::NotLeader { .. } | ProposeError::Unavailable | ProposeError::Stopped => Reply::NotLeader,
        ProposeError::TooLarge { .. } => refused(&Refusal::new(Code::TooLarge, error.to_string())),
        _ => Reply::Unknown,
    }
}

/// Nothing was put into the log.
fn refused(refusal: &Refusal) -> Reply {
    let answer: Answer = Err(refusal.clone());
    to_bytes(&answer).map_or(Reply::Unknown, |answer| Reply::Proposed(0, answer))
}

/// Whether this build can apply it. A member stops at an entry that it does not know, so what one call brings must not be in the log of
/// all before it has been read.
fn is_known(command: &[u8]) -> bool {
    match postcard::from_bytes(command) {
        Ok(Command::Rules { version: rules } | Command::Found { rules, .. }) => rules <= RULES,
        Ok(_) => true,
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_stop_every_member_is_not_put_into_the_log() {
        let known = |command: &Command| is_known(&to_bytes(command).unwrap());
        assert!(known(&Command::Rules { version: RULES }) && !known(&Command::Rules { version: RULES + 1 }));
        assert!(!known(&Command::Found { cluster: "c".into(), epoch: 1, rules: RULES + 1 }));
        assert!(known(&Command::LockRelease { name: "l".into(), token: 1 }));
        for bytes in [&b""[..], &[250, 7], &[0, 200, 1], &b"{}"[..]] {
            assert!(!is_known(bytes), "{bytes:?}");
        }
    }
}
