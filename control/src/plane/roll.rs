//! Who of the members answers, and how it is: asked by every member of every other, all the time, whether somebody leads or not.

use super::at_work::Plane;
use super::health::Health;
use super::questions::{Question, Reply};
use super::views::MemberView;
use crate::consensus::{MemberInfo, Status};
use crate::transport::CallError;
use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::time::Instant;

/// Between two rolls that nobody asked for.
const PACE: Duration = Duration::from_secs(1);
/// A member that takes longer to say how it is does not answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// The question how a member is, as members' connections carry it.
#[must_use]
pub fn question() -> Vec<u8> {
    Question::Status.encode(0).expect("invariant: a variant without content is a name in JSON")
}

/// What a member says to [`question`]; `None`: it does not know it.
#[must_use]
pub fn read_answer(bytes: &[u8]) -> Option<MemberView> {
    match Reply::decode(bytes) {
        Reply::Status(view) => Some(view),
        _ => None,
    }
}

/// What came of a call, in words for an operator.
pub(crate) fn why_silent(error: &CallError) -> String {
    match error {
        CallError::Dial { source, .. } => source.to_string(),
        CallError::Status { status, .. } if status.as_u16() == 409 => {
            "what answers there is another member, or of another cluster".to_owned()
        }
        CallError::Status { status, .. } => format!("it refuses with status {status}"),
        CallError::Timeout { after, .. } => format!("no answer within {after:?}"),
        error => error.to_string(),
    }
}

impl Plane {
    /// This member, in its own words.
    pub(super) fn view(&self) -> MemberView {
        let (status, state) = (self.status(), self.state());
        MemberView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            role: status.role.name().to_owned(),
            term: status.term,
            leader: status.acknowledged_leader().map(|(node, _)| *node),
            last_log: status.last_log.unwrap_or(0),
            applied: status.applied.unwrap_or(0),
            epoch: state.epoch,
            revision: state.revision,
            disk_bytes: self.node.disk_bytes(),
        }
    }

    /// Asks every other member how it is, all at once.
    pub async fn call_roll(&self) -> BTreeMap<u64, Health> {
        let status = self.status();
        let others = status.voters.iter().chain(&status.learners).filter(|member| member.node != status.id);
        let calls = others.map(|member| async {
            let answer = self.node.ask(member.node, &member.info, question(), PATIENCE);
            // A connection that is being made counts too.
            let answer = tokio::time::timeout(PATIENCE, answer).await;
            (member.node, &member.info, answer)
        });
        let answers = futures_util::future::join_all(calls).await;
        let mut roll = self.roll.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = BTreeMap::new();
        for (node, info, answer) in answers {
            let mut health = roll.remove(&node).unwrap_or_default();
            let before = health.silent.take();
            match answer {
                Ok(Ok(bytes)) => (health.heard, health.view) = (Some(Instant::now()), read_answer(&bytes)),
                Ok(Err(error)) => health.silent = Some(why_silent(&error)),
                Err(_) => health.silent = Some(format!("no answer within {PATIENCE:?}")),
            }
            tell(node, info, &before, &health);
            next.insert(node, health);
        }
        *roll = next.clone();
        next
    }

    /// Calls the roll again and again. Never returns.
    pub async fn call_rolls(&self) {
        loop {
            self.call_roll().await;
            tokio::time::sleep(PACE).await;
        }
    }

    /// What is known of the others.
    #[must_use]
    pub fn roll(&self) -> BTreeMap<u64, Health> {
        self.roll.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every member and what it said when it was last asked, in a line.
    #[must_use]
    pub fn who_answers(&self) -> String {
        let (status, roll) = (self.status(), self.roll());
        let members = status.voters.iter().chain(&status.learners);
        let told = members.map(|member| {
            let MemberInfo { name, peer_address, .. } = &member.info;
            let said = match roll.get(&member.node) {
                _ if member.node == status.id => format!("this member, {} in term {}", status.role.name(), status.term),
                Some(Health { silent: Some(why), .. }) => format!("not reached: {why}"),
                Some(Health { view: Some(view), .. }) => format!("reached, {} in term {}", view.role, view.term),
                Some(Health { heard: Some(_), .. }) => "reached".to_owned(),
                Some(_) | None => "not asked yet".to_owned(),
            };
            format!("{name} ({peer_address}): {said}")
        });
        told.collect::<Vec<_>>().join("; ")
    }

    /// Voters that answer, this one among them, and all of them.
    #[must_use]
    pub fn voters_that_answer(&self, status: &Status, roll: &BTreeMap<u64, Health>) -> (usize, usize) {
        let answers = |node: u64| node == status.id || roll.get(&node).is_some_and(Health::answers);
        (status.voters.iter().filter(|voter| answers(voter.node)).count(), status.voters.len())
    }
}

/// A line when a member begins or ends to answer.
fn tell(node: u64, info: &MemberInfo, before: &Option<String>, now: &Health) {
    match (before, &now.silent) {
        (None, Some(why)) => {
            tracing::warn!(node, name = info.name, address = info.peer_address, why, "a member does not answer");
        }
        (Some(_), None) => tracing::info!(node, name = info.name, "a member answers again"),
        (None, None) | (Some(_), Some(_)) => {}
    }
}
