//! Rollouts, from their start to their end.

use super::change::{JudgedBy, remembered};
use super::code::Code;
use super::command::{Answer, Applied, Basis};
use super::rollout::{Phase, Policy, Rollout, Vote};
use super::txn::{Refusal, Txn};
use super::{ROLLOUTS_MAX, State};
use std::collections::BTreeMap;

impl State {
    pub(super) fn running(&self, id: u64) -> Result<Rollout, Refusal> {
        match self.rollouts.get(&id) {
            Some(rollout) if !rollout.phase.is_final() => Ok(rollout.clone()),
            Some(_) => Err(Refusal::new(Code::RolloutOver, format!("rollout {id} is over"))),
            None => Err(Refusal::new(Code::NotFound, format!("there is no rollout {id}"))),
        }
    }

    pub(super) fn start_rollout(
        &mut self,
        txn: Txn,
        policy: Policy,
        participants: Vec<String>,
        basis: Option<Basis>,
    ) -> Answer {
        let remembered = remembered(&txn)?;
        if let Some(known) = self.answered(remembered.as_deref())? {
            return Ok(known);
        }
        self.stands_on(basis)?;
        if let Some(rollout) = self.rollout() {
            return Err(Refusal::new(Code::RolloutActive, format!("rollout {} is under way", rollout.id)));
        }
        let rising = policy.stages_percent.windows(2).all(|pair| pair[0] < pair[1]);
        if !rising || policy.stages_percent.iter().any(|percent| !(1..=100).contains(percent)) {
            return Err(Refusal::new(Code::BadPolicy, "stages are rising shares from 1 to 100 percent"));
        }
        if !(1..=100).contains(&policy.quorum_percent) {
            return Err(Refusal::new(Code::BadPolicy, "the quorum is 1 to 100 percent"));
        }
        // Tried on a copy: what is wrong is refused before any proxy hears of it.
        let judge = if basis.is_some() { JudgedBy::Proposer } else { JudgedBy::Build };
        let changes = self.clone().change(&txn, judge)?;
        if changes.is_empty() {
            return Ok(self.done(0, 0));
        }
        let changed = changes.len();
        let id = self.draw_id();
        let phase = Phase::Preparing;
        let rollout = Rollout { id, txn, changes, policy, participants, votes: BTreeMap::new(), phase };
        self.rollouts.insert_mut(id, rollout);
        while self.rollouts.size() > ROLLOUTS_MAX {
            let Some((&oldest, _)) = self.rollouts.first() else { break };
            self.rollouts.remove_mut(&oldest);
        }
        let done = self.done(id, changed);
        if let Some(request) = remembered {
            self.remember(request, &done);
        }
        Ok(done)
    }

    pub(super) fn commit_rollout(&mut self, id: u64, at_ms: u64) -> Answer {
        let mut rollout = self.running(id)?;
        let mut txn = rollout.txn.clone();
        // Compare-and-set was for the moment of asking; configuration cannot have changed since.
        txn.conditions.clear();
        txn.by.at_ms = at_ms;
        let mut next = self.clone();
        // Under rules, the leader has judged it once more before it proposed the commit.
        let judge = if self.rules == 0 { JudgedBy::Build } else { JudgedBy::Proposer };
        let changes = match next.change(&txn, judge) {
            Ok(changes) => changes,
            Err(refusal) => {
                // What has changed since leaves no room for it: it ends here, or the leader would ask for ever.
                rollout.phase = Phase::Aborted(format!("it does not fit what has changed meanwhile: {refusal}"));
                self.rollouts.insert_mut(id, rollout);
                return Ok(self.done(id, 0));
            }
        };
        *self = next;
        let done = self.record(txn.by, changes);
        rollout.phase = Phase::Committed(self.revision);
        self.rollouts.insert_mut(id, rollout);
        Ok(Applied { id, ..done })
    }

    pub(super) fn vote(&mut self, id: u64, votes: BTreeMap<String, Vote>) -> Answer {
        let mut rollout = self.running(id)?;
        rollout.vote(votes)?;
        self.rollouts.insert_mut(id, rollout);
        Ok(self.done(id, 0))
    }

    pub(super) fn advance_rollout(&mut self, id: u64, stage: u32) -> Answer {
        let mut rollout = self.running(id)?;
        let expected = match rollout.phase {
            Phase::Stage(now) => now + 1,
            _ => 0,
        };
        if stage != expected || stage as usize >= rollout.policy.stages_percent.len() {
            return Err(Refusal::new(Code::WrongStage, format!("rollout {id} goes to stage {expected} next")));
        }
        rollout.phase = Phase::Stage(stage);
        self.rollouts.insert_mut(id, rollout);
        Ok(self.done(id, 0))
    }

    pub(super) fn abort_rollout(&mut self, id: u64, reason: String) -> Answer {
        let mut rollout = self.running(id)?;
        rollout.phase = Phase::Aborted(reason);
        self.rollouts.insert_mut(id, rollout);
        Ok(self.done(id, 0))
    }
}
