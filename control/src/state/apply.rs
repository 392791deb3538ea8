//! Commands, applied.

use super::change::JudgedBy;
use super::code::Code;
use super::command::{Answer, Basis, Command};
use super::model::Token;
use super::txn::{Author, Refusal};
use super::validate::named;
use super::{LEASES_MAX, RULES, State};

/// Where a command stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The member whose term it belongs to.
    pub leader: u64,
}

impl State {
    /// Applies a command: all of it, or nothing.
    ///
    /// # Errors
    /// Why it does not hold; the state is as it was.
    pub fn apply(&mut self, origin: Origin, command: Command) -> Answer {
        // A clone shares everything; what fails half-way is dropped with it.
        let mut next = self.clone();
        let done = next.run(origin, command)?;
        *self = next;
        Ok(done)
    }

    fn run(&mut self, origin: Origin, command: Command) -> Answer {
        match command {
            Command::Init { cluster } => self.init(cluster),
            Command::Found { cluster, epoch, rules } => self.found(cluster, epoch, rules),
            Command::Rules { version } => {
                self.agree_on(version)?;
                Ok(self.done(0, 0))
            }
            Command::Txn(_) | Command::Rollback { .. } | Command::RolloutStart { .. } if self.rules > 0 => {
                Err(Refusal::new(Code::Unjudged, "the members have agreed on other rules meanwhile: ask again"))
            }
            Command::Txn(txn) => self.txn(txn, JudgedBy::Build, None),
            Command::Rollback { by, to } => {
                let txn = self.back(by, to)?;
                self.txn(txn, JudgedBy::Build, None)
            }
            Command::Judged { .. } if self.rules == 0 => {
                Err(Refusal::new(Code::Unjudged, "the members know no rules yet"))
            }
            Command::Judged { basis, command } => self.judged(basis, *command),
            Command::LeaseGrant { owner, ttl_ms } => {
                let id = self.grant(owner, ttl_ms)?;
                Ok(self.done(id, 0))
            }
            Command::LeaseRevoke { by, ids } => self.end_leases(&by, &ids),
            Command::LeaseExpire { leader, at_ms, ids } => self.expire_leases(leader == origin.leader, at_ms, &ids),
            Command::LockAcquire { name, owner, lease } => self.lock(name, owner, lease),
            Command::LockRelease { name, token } => self.unlock(&name, token),
            Command::TokenPut { name, role, hash, expires_at_ms } => {
                self.put_token(name, Token { role, hash, expires_at_ms })
            }
            Command::TokenDelete { name } => self.delete_token(&name),
            Command::RolloutStart { txn, policy, participants } => self.start_rollout(txn, policy, participants, None),
            Command::RolloutVotes { id, votes } => self.vote(id, votes),
            Command::RolloutAdvance { id, stage } => self.advance_rollout(id, stage),
            Command::RolloutCommit { id, at_ms } => self.commit_rollout(id, at_ms),
            Command::RolloutAbort { id, reason } => self.abort_rollout(id, reason),
            Command::RestoreChunk { number, bytes, .. } => self.restore_chunk(number, bytes),
            Command::RestoreCommit { by, whole } => self.restore_commit(by, whole, None),
            Command::RaiseEpoch { .. } | Command::RestoreAs { .. } if self.rules == 0 => {
                Err(Refusal::new(Code::UnknownRules, "the members know no rules yet"))
            }
            Command::RaiseEpoch { seen, to } => self.raise_epoch(seen, to),
            Command::RestoreAs { by, whole, epoch, other_cluster } => {
                self.restore_commit(by, whole, Some((epoch, other_cluster)))
            }
            // Compared by whoever applies it (`replica.rs`); it changes nothing.
            Command::Checkpoint { .. } => Ok(self.done(0, 0)),
            Command::Agree { at_ms, verdicts, note } => self.agree(at_ms, verdicts, note),
            Command::LeaseLives { leader, lives } => self.note_lives(origin, leader, &lives),
        }
    }

    fn found(&mut self, cluster: String, epoch: u64, rules: u32) -> Answer {
        let named = self.init(cluster)?;
        self.agree_on(rules)?;
        self.epoch = epoch;
        Ok(named)
    }

    /// `leads`: the leader that saw the leases expire leads still.
    fn expire_leases(&mut self, leads: bool, at_ms: u64, ids: &[u64]) -> Answer {
        if !leads {
            let why = "the leader that saw the leases expire is not the leader any more";
            return Err(Refusal::new(Code::Deposed, why));
        }
        self.end_leases(&Author { at_ms, author: "control plane".into(), note: "no heartbeat".into() }, ids)
    }

    fn init(&mut self, cluster: String) -> Answer {
        if !self.cluster.is_empty() {
            return Err(Refusal::new(Code::Initialized, format!("the cluster is {} already", self.cluster)));
        }
        self.cluster = cluster;
        self.epoch = 1;
        Ok(self.done(0, 0))
    }

    /// What its proposer has judged.
    fn judged(&mut self, basis: Basis, command: Command) -> Answer {
        match command {
            Command::Txn(txn) => self.txn(txn, JudgedBy::Proposer, Some(basis)),
            Command::Rollback { by, to } => {
                let txn = self.back(by, to)?;
                self.txn(txn, JudgedBy::Proposer, Some(basis))
            }
            Command::RolloutStart { txn, policy, participants } => {
                self.start_rollout(txn, policy, participants, Some(basis))
            }
            _ => Err(Refusal::new(Code::Unjudged, "this is nothing to be judged")),
        }
    }

    fn put_token(&mut self, name: String, token: Token) -> Answer {
        named("token", &name)?;
        if self.tokens.size() >= LEASES_MAX && !self.tokens.contains_key(&name) {
            return Err(Refusal::new(Code::TooMany, format!("there are {LEASES_MAX} tokens already")));
        }
        self.tokens.insert_mut(name, token);
        Ok(self.done(0, 0))
    }

    fn delete_token(&mut self, name: &str) -> Answer {
        if !self.tokens.remove_mut(name) {
            return Err(Refusal::new(Code::NotFound, format!("there is no token {name:?}")));
        }
        Ok(self.done(0, 0))
    }

    /// All members know these rules.
    fn agree_on(&mut self, rules: u32) -> Result<(), Refusal> {
        if rules <= self.rules {
            return Err(Refusal::new(Code::Known, format!("the members have agreed on rules {} already", self.rules)));
        }
        if rules > RULES {
            // `replica.rs` stops before it comes to this: to go on by other rules would be to diverge.
            return Err(Refusal::new(Code::UnknownRules, format!("rules {rules} are not known to this version")));
        }
        self.rules = rules;
        // What was judged before is judged again.
        (self.configured, self.lost) = (self.revision, self.revision);
        Ok(())
    }
}
