//! Commands, applied.

use super::command::{Answer, Basis, By, Command, Done, Op, Refusal, Txn};
use super::format::{DecodeError, format_of};
use super::model::{Change, Entry, Key, Lease, Lock, Object, Revision, Token, is_name};
use super::rollout::{Phase, Policy, Rollout};
use super::{
    Digest, HISTORY_BYTES_MAX, HISTORY_MAX, LEASES_MAX, NOTE_BYTES_MAX, OBJECTS_BYTES_MAX, OBJECTS_MAX, REQUESTS_MAX,
    ROLLOUTS_MAX, RULES, State, to_bytes, validate,
};
use crate::Code;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Where a command stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The member whose term it belongs to.
    pub leader: u64,
}

/// Who has judged what a command would make of the objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judge {
    /// Nobody yet: this build, as it applies it. Under rules 0 only.
    Build,
    /// Its proposer.
    Proposer,
}

/// What a command would make of a state.
#[derive(Debug)]
pub(crate) enum Trial {
    /// It has been asked before, and is answered as it was.
    Known,
    /// These changes.
    Change {
        /// With them.
        after: Box<State>,
        /// Checked for what a state can check.
        changes: Vec<Change>,
        /// The guards against accidents are off.
        force: bool,
    },
}

/// Largest share of a service's weight that one transaction may take away, in percent, unless forced.
const LOSS_PERCENT_MAX: u64 = 50;
/// Shortest and longest life of a lease.
pub(crate) const TTL_MS: std::ops::RangeInclusive<u64> = 1000..=86_400_000;
/// Numbers above it are not the same number in everybody's JSON.
pub(crate) const EPOCH_MAX: u64 = (1 << 53) - 1;
/// More ids than a cluster gives out between a backup and its restore.
const RESTORE_ID_GAP: u64 = 1 << 32;
/// Ids that belong to an epoch.
const EPOCH_IDS: u64 = 1 << 20;
/// Largest backup that can be restored.
const RESTORE_BYTES_MAX: usize = OBJECTS_BYTES_MAX + HISTORY_BYTES_MAX + (16 << 20);

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
            Command::Init { cluster } => {
                if !self.cluster.is_empty() {
                    return Err(Refusal::new(Code::Initialized, format!("the cluster is {} already", self.cluster)));
                }
                self.cluster = cluster;
                self.epoch = 1;
                Ok(self.done(0, 0))
            }
            Command::Found { cluster, epoch, rules } => {
                let named = self.run(origin, Command::Init { cluster })?;
                self.agree_on(rules)?;
                self.epoch = epoch;
                Ok(named)
            }
            Command::Rules { version } => {
                self.agree_on(version)?;
                Ok(self.done(0, 0))
            }
            Command::Txn(_) | Command::Rollback { .. } | Command::RolloutStart { .. } if self.rules > 0 => {
                Err(Refusal::new(Code::Unjudged, "the members have agreed on other rules meanwhile: ask again"))
            }
            Command::Txn(txn) => self.txn(txn, Judge::Build, None),
            Command::Rollback { by, to } => {
                let txn = self.back(by, to)?;
                self.txn(txn, Judge::Build, None)
            }
            Command::Judged { .. } if self.rules == 0 => {
                Err(Refusal::new(Code::Unjudged, "the members know no rules yet"))
            }
            Command::Judged { basis, command } => match *command {
                Command::Txn(txn) => self.txn(txn, Judge::Proposer, Some(basis)),
                Command::Rollback { by, to } => {
                    let txn = self.back(by, to)?;
                    self.txn(txn, Judge::Proposer, Some(basis))
                }
                Command::RolloutStart { txn, policy, participants } => {
                    self.start_rollout(txn, policy, participants, Some(basis))
                }
                _ => Err(Refusal::new(Code::Unjudged, "this is nothing to be judged")),
            },
            Command::LeaseGrant { owner, ttl_ms } => {
                let id = self.grant(owner, ttl_ms)?;
                Ok(self.done(id, 0))
            }
            Command::LeaseRevoke { by, ids } => self.end_leases(&by, &ids),
            Command::LeaseExpire { leader, at_ms, ids } => {
                if leader != origin.leader {
                    return Err(Refusal::new(
                        Code::Deposed,
                        "the leader that saw the leases expire is not the leader any more",
                    ));
                }
                self.end_leases(&By { at_ms, author: "control plane".into(), note: "no heartbeat".into() }, &ids)
            }
            Command::LockAcquire { name, owner, lease } => self.lock(name, owner, lease),
            Command::LockRelease { name, token } => match self.locks.get(&name) {
                Some(lock) if lock.token == token => {
                    self.locks.remove_mut(&name);
                    Ok(self.done(token, 0))
                }
                Some(lock) => Err(Refusal::new(
                    Code::WrongToken,
                    format!("lock {name:?} is held by {:?} with a later token than {token}", lock.owner),
                )),
                None => Err(Refusal::new(Code::NotFound, format!("nobody holds lock {name:?}"))),
            },
            Command::TokenPut { name, role, hash, expires_at_ms } => {
                named("token", &name)?;
                if self.tokens.size() >= LEASES_MAX && !self.tokens.contains_key(&name) {
                    return Err(Refusal::new(Code::TooMany, format!("there are {LEASES_MAX} tokens already")));
                }
                self.tokens.insert_mut(name, Token { role, hash, expires_at_ms });
                Ok(self.done(0, 0))
            }
            Command::TokenDelete { name } => {
                if !self.tokens.remove_mut(&name) {
                    return Err(Refusal::new(Code::NotFound, format!("there is no token {name:?}")));
                }
                Ok(self.done(0, 0))
            }
            Command::RolloutStart { txn, policy, participants } => self.start_rollout(txn, policy, participants, None),
            Command::RolloutVotes { id, votes } => {
                let mut rollout = self.running(id)?;
                rollout.vote(votes)?;
                self.rollouts.insert_mut(id, rollout);
                Ok(self.done(id, 0))
            }
            Command::RolloutAdvance { id, stage } => {
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
            Command::RolloutCommit { id, at_ms } => self.commit_rollout(id, at_ms),
            Command::RolloutAbort { id, reason } => {
                let mut rollout = self.running(id)?;
                rollout.phase = Phase::Aborted(reason);
                self.rollouts.insert_mut(id, rollout);
                Ok(self.done(id, 0))
            }
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

    fn done(&self, id: u64, changed: usize) -> Done {
        Done { revision: self.revision, id, changed: u32::try_from(changed).unwrap_or(u32::MAX) }
    }

    fn draw_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// All members know these rules.
    fn agree_on(&mut self, rules: u32) -> Result<(), Refusal> {
        if rules <= self.rules {
            return Err(Refusal::new(Code::Known, format!("the members have agreed on rules {} already", self.rules)));
        }
        if rules > RULES {
            // `replica.rs` stops before it comes to this: to go on by other rules would be to go another way.
            return Err(Refusal::new(Code::UnknownRules, format!("rules {rules} are not known to this version")));
        }
        self.rules = rules;
        // What was judged before is judged again.
        (self.configured, self.lost) = (self.revision, self.revision);
        Ok(())
    }

    /// The transaction that makes objects as they were at a revision.
    fn back(&self, by: By, to: u64) -> Result<Txn, Refusal> {
        let ops = self.undo(to)?;
        let note = match by.note.is_empty() {
            true => format!("rollback to {to}"),
            false => format!("rollback to {to}: {}", by.note),
        };
        // What was good once may be taken back in one step: that is what a rollback is for.
        let by = By { note, ..by };
        Ok(Txn { by, request: None, conditions: Vec::new(), ops, force: true })
    }

    /// What a command that is to be judged would do, as far as a state can tell; `None`: it needs no judgement.
    ///
    /// # Errors
    /// Why it does not hold, whatever the judgement.
    pub(crate) fn trial(&self, command: &Command) -> Result<Option<Trial>, Refusal> {
        let txn = match command {
            Command::Txn(txn) | Command::RolloutStart { txn, .. } => Cow::Borrowed(txn),
            Command::Rollback { by, to } => Cow::Owned(self.back(by.clone(), *to)?),
            Command::RolloutCommit { id, .. } => {
                let txn = self.running(*id)?.txn;
                Cow::Owned(Txn { request: None, conditions: Vec::new(), ..txn })
            }
            _ => return Ok(None),
        };
        if self.answered(remembered(&txn)?.as_deref())?.is_some() {
            return Ok(Some(Trial::Known));
        }
        let mut after = Box::new(self.clone());
        let changes = after.change(&txn, Judge::Proposer)?;
        Ok(Some(Trial::Change { after, changes, force: txn.force }))
    }

    fn stands_on(&self, basis: Option<Basis>) -> Result<(), Refusal> {
        let Some(basis) = basis else { return Ok(()) };
        let same = |at: Option<u64>, now: u64| at.is_none_or(|at| at == now);
        if basis.epoch == self.epoch && same(basis.configured, self.configured) && same(basis.lost, self.lost) {
            return Ok(());
        }
        Err(Refusal::new(Code::Moved, "what it was judged by has changed meanwhile: ask again"))
    }

    fn txn(&mut self, txn: Txn, judge: Judge, basis: Option<Basis>) -> Answer {
        let remembered = remembered(&txn)?;
        if let Some(known) = self.answered(remembered.as_deref())? {
            return Ok(known);
        }
        self.stands_on(basis)?;
        if let (Some(rollout), true) = (self.rollout(), txn.ops.iter().any(|op| is_configuration(op.key()))) {
            return Err(Refusal::new(
                Code::RolloutActive,
                format!("rollout {} is under way: wait for its end, or abort it", rollout.id),
            ));
        }
        let changes = self.change(&txn, judge)?;
        if self.rules >= 2 {
            self.collides(&changes)?;
        }
        let done = self.record(txn.by, changes);
        if let Some(request) = remembered {
            self.remember(request, &done);
        }
        Ok(done)
    }

    /// What a rollout under way is about is its own until it is over: else the end of it would undo what was asked for meanwhile.
    ///
    /// # Errors
    /// Something of it would change.
    pub(crate) fn collides(&self, changes: &[Change]) -> Result<(), Refusal> {
        let Some(rollout) = self.rollout() else { return Ok(()) };
        match changes.iter().find(|change| rollout.txn.ops.iter().any(|op| *op.key() == change.key)) {
            Some(change) => Err(Refusal::new(
                Code::RolloutActive,
                format!(
                    "rollout {} is under way, and changes {}: wait for its end, or abort it",
                    rollout.id, change.key
                ),
            )),
            None => Ok(()),
        }
    }

    /// The answer to a named request that was asked before. The same name for something else is a mistake of whoever gives
    /// names, and must not look like success.
    fn answered(&self, remembered: Option<&str>) -> Result<Option<Done>, Refusal> {
        let Some((remembered, (request, _))) = remembered.and_then(|text| Some((text, text.split_once('\0')?))) else {
            return Ok(None);
        };
        if let Some((_, known)) = self.requests.get(remembered) {
            return Ok(Some(known.clone()));
        }
        let named = format!("{request}\0");
        let taken = self.requests.range(named.clone()..).next().is_some_and(|(known, _)| known.starts_with(&named));
        if taken {
            return Err(Refusal::new(
                Code::IdempotencyMismatch,
                format!("the request {request:?} was something else: give each request a name of its own"),
            ));
        }
        Ok(None)
    }

    /// What a transaction changes, checked and done; the revision is the caller's.
    fn change(&mut self, txn: &Txn, judge: Judge) -> Result<Vec<Change>, Refusal> {
        if txn.by.note.len() > NOTE_BYTES_MAX || txn.by.author.len() > NOTE_BYTES_MAX {
            return Err(Refusal::new(Code::TooLarge, format!("a note has at most {NOTE_BYTES_MAX} bytes")));
        }
        if txn.request.as_ref().is_some_and(|request| request.len() > 128 || request.is_empty()) {
            return Err(Refusal::new(Code::BadName, "the request's name has 1 to 128 bytes"));
        }
        for condition in &txn.conditions {
            let modified = self.objects.get(&condition.key).map_or(0, |entry| entry.modified);
            if modified != condition.modified {
                let is =
                    if modified == 0 { "is not there".into() } else { format!("was changed by revision {modified}") };
                return Err(Refusal::new(
                    Code::Stale,
                    format!("{} {is}, not by revision {}: read it again", condition.key, condition.modified),
                ));
            }
        }
        let before = self.clone();
        let next = self.revision + 1;
        let mut touched = BTreeSet::new();
        for op in &txn.ops {
            self.one(op, next, judge)?;
            touched.insert(op.key().clone());
        }
        let changes: Vec<Change> = touched
            .into_iter()
            .filter_map(|key| {
                let (was, is) = (before.objects.get(&key), self.objects.get(&key));
                let (was, is) = (was.map(|entry| &entry.object), is.map(|entry| &entry.object));
                (was != is).then(|| Change { before: was.cloned(), after: is.cloned(), key })
            })
            .collect();
        if self.objects.size() > OBJECTS_MAX || self.objects_bytes > OBJECTS_BYTES_MAX {
            return Err(Refusal::new(
                Code::TooLarge,
                format!("the fleet's objects would exceed {OBJECTS_MAX}, or {} MiB", OBJECTS_BYTES_MAX >> 20),
            ));
        }
        if judge == Judge::Build {
            if changes.iter().any(|change| is_configuration(&change.key)) {
                validate::configuration(self)?;
            }
            if !txn.force {
                guard(&before, self, &changes)?;
            }
        }
        Ok(changes)
    }

    /// What any build can say of one object: how large it is, and whether what it hangs on is there.
    fn admits(&self, key: &Key, object: &Object, judge: Judge) -> Result<(), Refusal> {
        if judge == Judge::Build {
            return validate::object(self, key, object);
        }
        validate::size(key, object)?;
        validate::lease(self, key, object)
    }

    fn one(&mut self, op: &Op, revision: u64, judge: Judge) -> Result<(), Refusal> {
        match op {
            Op::Put { key, object } => {
                if !object.fits(key) {
                    return Err(Refusal::new(Code::WrongKind, format!("{key} is the name of another kind of object")));
                }
                self.admits(key, object, judge)?;
                self.put(key, Arc::new(object.clone()), revision);
            }
            Op::Delete { key } => {
                if !self.objects.contains_key(key) {
                    return Err(Refusal::new(Code::NotFound, format!("{key} is not there")));
                }
                self.delete(key);
            }
            Op::Backend { key, weight, state } => {
                let Some(Object::Backend(backend)) = self.object(key) else {
                    return Err(Refusal::new(Code::NotFound, format!("{key} is not a backend that is registered")));
                };
                let mut backend = backend.clone();
                backend.weight = weight.unwrap_or(backend.weight);
                backend.state = state.unwrap_or(backend.state);
                let object = Object::Backend(backend);
                self.admits(key, &object, judge)?;
                self.put(key, Arc::new(object), revision);
            }
        }
        Ok(())
    }

    fn put(&mut self, key: &Key, object: Arc<Object>, revision: u64) {
        let old = self.objects.get(key);
        if old.is_some_and(|old| old.object == object) {
            return;
        }
        let created = old.map_or(revision, |old| old.created);
        if let Some(old) = old.map(|old| Arc::clone(&old.object)) {
            self.digest.remove(key, &old);
            self.objects_bytes = self.objects_bytes.saturating_sub(old.weight());
        }
        self.digest.add(key, &object);
        self.objects_bytes += object.weight();
        self.objects.insert_mut(key.clone(), Entry { object, created, modified: revision });
    }

    fn delete(&mut self, key: &Key) {
        let Some(old) = self.objects.get(key).map(|entry| Arc::clone(&entry.object)) else { return };
        self.digest.remove(key, &old);
        self.objects_bytes = self.objects_bytes.saturating_sub(old.weight());
        self.objects.remove_mut(key);
    }

    /// A new revision, unless nothing has changed.
    fn record(&mut self, by: By, changes: Vec<Change>) -> Done {
        let changed = changes.len();
        if changed > 0 {
            self.revision += 1;
            self.note(&changes);
            let revision = Revision { at_ms: by.at_ms, author: by.author, note: by.note, changes };
            self.history_bytes += revision.weight();
            self.history.insert_mut(self.revision, revision);
            while self.history.size() > HISTORY_MAX
                || (self.history_bytes > HISTORY_BYTES_MAX && self.history.size() > 1)
            {
                let Some((&oldest, weight)) = self.history.first().map(|(at, revision)| (at, revision.weight())) else {
                    break;
                };
                self.history.remove_mut(&oldest);
                self.history_bytes = self.history_bytes.saturating_sub(weight);
            }
        }
        self.done(0, changed)
    }

    /// Judgements that stand on what has changed hold no more.
    fn note(&mut self, changes: &[Change]) {
        // Members of the build before this one keep no such notes, and snapshots of then have no place for them.
        if self.rules == 0 {
            return;
        }
        let takes = |object: &Option<Arc<Object>>| object.as_deref().map_or(0, takes_traffic);
        if changes.iter().any(|change| is_configuration(&change.key)) {
            self.configured = self.revision;
        }
        if changes.iter().any(|change| takes(&change.before) > takes(&change.after)) {
            self.lost = self.revision;
        }
    }

    fn remember(&mut self, request: String, done: &Done) {
        let order = self.draw_id();
        self.requests.insert_mut(request.clone(), (order, done.clone()));
        self.requests_order.insert_mut(order, request);
        while self.requests.size() > REQUESTS_MAX {
            let Some((&oldest, request)) = self.requests_order.first() else { break };
            let request = request.clone();
            self.requests_order.remove_mut(&oldest);
            self.requests.remove_mut(&request);
        }
    }

    fn grant(&mut self, owner: String, ttl_ms: u64) -> Result<u64, Refusal> {
        if !TTL_MS.contains(&ttl_ms) {
            let ttl = ringway_config::duration_text(std::time::Duration::from_millis(ttl_ms));
            return Err(Refusal::new(Code::BadTtl, format!("{ttl} is no life for a lease: write 1s to 24h")));
        }
        if owner.len() > NOTE_BYTES_MAX {
            return Err(Refusal::new(Code::TooLarge, "the owner's name is too long"));
        }
        if self.leases.size() >= LEASES_MAX {
            return Err(Refusal::new(Code::TooMany, format!("there are {LEASES_MAX} leases already")));
        }
        let id = self.draw_id();
        self.leases.insert_mut(id, Lease { ttl_ms, owner });
        Ok(id)
    }

    fn note_lives(&mut self, origin: Origin, leader: u64, lives: &[(u64, u64)]) -> Answer {
        if self.rules == 0 {
            return Err(Refusal::new(Code::UnknownRules, "not all members know what is left of lives"));
        }
        if leader != origin.leader {
            return Err(Refusal::new(Code::Deposed, "the leader that knew of the leases is not the leader any more"));
        }
        for (id, left_ms) in lives {
            match self.leases.get(id) {
                Some(lease) if *left_ms < lease.ttl_ms => self.lives.insert_mut(*id, *left_ms),
                Some(_) => drop(self.lives.remove_mut(id)),
                None => {}
            }
        }
        Ok(self.done(0, 0))
    }

    /// Leases end, and backends and locks with them.
    fn end_leases(&mut self, by: &By, ids: &[u64]) -> Answer {
        let ids: BTreeSet<u64> = ids.iter().copied().filter(|id| self.leases.contains_key(id)).collect();
        if ids.is_empty() {
            return Err(Refusal::new(Code::NotFound, "there is no such lease"));
        }
        for id in &ids {
            self.leases.remove_mut(id);
            self.lives.remove_mut(id);
        }
        let locks: Vec<String> =
            self.locks.iter().filter(|(_, lock)| ids.contains(&lock.lease)).map(|(name, _)| name.clone()).collect();
        for name in locks {
            self.locks.remove_mut(&name);
        }
        let hangs = |object: &Object| matches!(object, Object::Backend(backend) if backend.lease.is_some_and(|id| ids.contains(&id)));
        let gone: Vec<Change> = self
            .objects
            .iter()
            .filter(|(_, entry)| hangs(&entry.object))
            .map(|(key, entry)| Change { key: key.clone(), before: Some(Arc::clone(&entry.object)), after: None })
            .collect();
        for change in &gone {
            self.delete(&change.key);
        }
        Ok(self.record(by.clone(), gone))
    }

    fn lock(&mut self, name: String, owner: String, lease: u64) -> Answer {
        named("lock", &name)?;
        if owner.len() > NOTE_BYTES_MAX {
            return Err(Refusal::new(Code::TooLarge, format!("an owner has at most {NOTE_BYTES_MAX} bytes")));
        }
        if !self.leases.contains_key(&lease) {
            return Err(Refusal::new(Code::NotFound, format!("there is no lease {lease}: it may have expired")));
        }
        match self.locks.get(&name) {
            // Asked again, perhaps because the first answer was lost.
            Some(lock) if lock.lease == lease && lock.owner == owner => Ok(self.done(lock.token, 0)),
            Some(lock) => Err(Refusal::new(Code::Locked, format!("lock {name:?} is held by {:?}", lock.owner))),
            None if self.locks.size() >= LEASES_MAX => {
                Err(Refusal::new(Code::TooMany, format!("there are {LEASES_MAX} locks already")))
            }
            None => {
                let token = self.draw_id();
                self.locks.insert_mut(name, Lock { owner, lease, token });
                Ok(self.done(token, 0))
            }
        }
    }

    fn running(&self, id: u64) -> Result<Rollout, Refusal> {
        match self.rollouts.get(&id) {
            Some(rollout) if !rollout.phase.is_final() => Ok(rollout.clone()),
            Some(_) => Err(Refusal::new(Code::RolloutOver, format!("rollout {id} is over"))),
            None => Err(Refusal::new(Code::NotFound, format!("there is no rollout {id}"))),
        }
    }

    fn start_rollout(&mut self, txn: Txn, policy: Policy, participants: Vec<String>, basis: Option<Basis>) -> Answer {
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
        let judge = if basis.is_some() { Judge::Proposer } else { Judge::Build };
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

    fn commit_rollout(&mut self, id: u64, at_ms: u64) -> Answer {
        let mut rollout = self.running(id)?;
        let mut txn = rollout.txn.clone();
        // Compare-and-set was for the moment of asking; configuration cannot have changed since.
        txn.conditions.clear();
        txn.by.at_ms = at_ms;
        let mut next = self.clone();
        // Under rules, the leader has judged it once more before it proposed the commit.
        let judge = if self.rules == 0 { Judge::Build } else { Judge::Proposer };
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
        Ok(Done { id, ..done })
    }

    fn restore_chunk(&mut self, number: u32, bytes: Vec<u8>) -> Answer {
        if number == 0 {
            self.restore.clear();
        }
        if number as usize != self.restore.len() {
            return Err(Refusal::new(
                Code::RestoreOrder,
                format!("part {} of the backup comes next", self.restore.len()),
            ));
        }
        let so_far: usize = self.restore.iter().map(|part| part.len()).sum();
        if so_far + bytes.len() > RESTORE_BYTES_MAX {
            self.restore.clear();
            return Err(Refusal::new(Code::TooLarge, format!("a backup has at most {} MiB", RESTORE_BYTES_MAX >> 20)));
        }
        self.restore.push(Arc::new(bytes));
        Ok(self.done(0, 0))
    }

    fn raise_epoch(&mut self, seen: (u64, u64), to: u64) -> Answer {
        if seen <= (self.epoch, self.revision) {
            return Err(Refusal::new(Code::Known, "the cluster has what was seen"));
        }
        if to <= seen.0.max(self.epoch) || to > EPOCH_MAX {
            return Err(Refusal::new(Code::BadEpoch, format!("{to} is no epoch to follow {}", seen.0.max(self.epoch))));
        }
        self.enter_epoch(to);
        Ok(self.done(0, 0))
    }

    fn enter_epoch(&mut self, epoch: u64) {
        self.epoch = epoch;
        if let Some(rollout) = self.rollout().cloned() {
            // What proxies have said of it, they have said of another epoch.
            let phase = Phase::Aborted("the cluster's epoch was raised: start it again".into());
            self.rollouts.insert_mut(rollout.id, Rollout { phase, ..rollout });
        }
    }

    /// Whether a backup of a cluster of this name may be restored here.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn may_restore(&self, name: &str, other_cluster: bool) -> Result<(), Refusal> {
        let pristine = self.revision == 0 && self.objects.is_empty();
        if !pristine && !other_cluster && name != self.cluster {
            return Err(Refusal::new(
                Code::OtherCluster,
                format!(
                    "the backup is of cluster {name:?}, this is {:?}, which has objects of its own: proxies of {name:?} would \
                     not follow it. Restore it into new members, or pass --other-cluster to keep the name {:?}",
                    self.cluster, self.cluster
                ),
            ));
        }
        Ok(())
    }

    /// Proxies follow no other cluster: whose the backup is decides whether they will follow this one.
    fn adopt(&mut self, name: &str, other_cluster: bool) -> Result<(), Refusal> {
        self.may_restore(name, other_cluster)?;
        if !other_cluster {
            self.cluster = name.to_owned();
        }
        Ok(())
    }

    /// Objects, tokens and history become the backup's, and no revision comes twice. A cluster that has nothing yet takes the
    /// backup's name; `known`: the least epoch, and whether the name may differ.
    fn restore_commit(&mut self, by: By, whole: [u8; 32], known: Option<(u64, bool)>) -> Answer {
        let bytes: Vec<u8> = self.restore.iter().flat_map(|part| part.iter().copied()).collect();
        self.restore.clear();
        if *blake3::hash(&bytes).as_bytes() != whole {
            return Err(Refusal::new(
                Code::Damaged,
                "the parts do not make up the backup that was announced: send it again",
            ));
        }
        let old = match bytes.first() {
            // Members of a build that knows no more than these rules cannot read it: nobody may.
            Some(&format) if format > format_of(self.rules) => Err(DecodeError::Format(format)),
            _ => Self::decode(&bytes),
        };
        let old = old.map_err(|error| Refusal::new(Code::Damaged, error.to_string()))?;
        if let Some((epoch, other_cluster)) = known {
            self.adopt(&old.cluster, other_cluster)?;
            if epoch.max(old.epoch).max(self.epoch) >= EPOCH_MAX {
                return Err(Refusal::new(Code::BadEpoch, format!("no epoch is left after {epoch}")));
            }
        }
        let mut changes = Vec::new();
        let keys: BTreeSet<&Key> = self.objects.keys().chain(old.objects.keys()).collect();
        for key in keys {
            let (was, is) = (self.objects.get(key), old.objects.get(key));
            let (was, is) = (was.map(|entry| &entry.object), is.map(|entry| &entry.object));
            if was != is {
                changes.push(Change { key: key.clone(), before: was.cloned(), after: is.cloned() });
            }
        }
        self.objects = old.objects;
        self.objects_bytes = old.objects_bytes;
        self.digest = Digest::default();
        for (key, entry) in self.objects.iter() {
            self.digest.add(key, &entry.object);
        }
        // A cluster that has tokens keeps its own: those that were ended since the backup do not hold again.
        if self.tokens.is_empty() {
            self.tokens = old.tokens;
        }
        // What was answered before is not what would be answered now.
        self.requests = Default::default();
        self.requests_order = Default::default();
        // Holders of leases that are gone find out by their next heartbeat.
        self.leases = old.leases;
        self.lives = Default::default();
        self.locks = Default::default();
        self.rollouts = Default::default();
        self.revision = self.revision.max(old.revision);
        self.epoch = (self.epoch.max(old.epoch) + 1).max(known.map_or(0, |(epoch, _)| epoch));
        // Ids that were given out after the backup are known to nobody here, but to their holders: none comes twice.
        let given = self.next_id.max(old.next_id);
        self.next_id = match self.rules {
            0 | 1 => given.saturating_add(RESTORE_ID_GAP),
            _ => self.ids_of_epoch(given),
        };
        if self.rules > 0 {
            (self.configured, self.lost) = (self.revision, self.revision);
        }
        let note = format!("restored revision {} of cluster {:?}. {}", old.revision, old.cluster, by.note);
        // Even if nothing differs: it is a new epoch.
        let done = self.record(By { note, ..by }, changes);
        Ok(done)
    }

    /// The first state of a cluster that is made of one member's disk: what it has, in an epoch above any before, and not below
    /// `epoch`. Leases and locks stay: their holders live, and others shall not take what they hold. Not a command: it
    /// happens where no log is.
    ///
    /// # Errors
    /// No epoch is left.
    pub(crate) fn found_anew(&mut self, epoch: u64) -> Result<(), Refusal> {
        if self.epoch.max(epoch) >= EPOCH_MAX {
            return Err(Refusal::new(Code::BadEpoch, format!("no epoch is left after {}", self.epoch)));
        }
        self.enter_epoch(self.epoch.saturating_add(1).max(epoch));
        // Ids that were given out and lost with the others' disks are known to their holders: none comes twice.
        self.next_id = self.ids_of_epoch(self.next_id);
        // Who sent them has to begin anew.
        self.restore.clear();
        Ok(())
    }

    /// The first id that this epoch gives out, above those that are known to have been given. Epochs begin with the time in seconds:
    /// what other lives of the cluster have given out since the same backup lies below, unless it was a million in a second.
    fn ids_of_epoch(&self, given: u64) -> u64 {
        match self.epoch.saturating_mul(EPOCH_IDS) {
            first if first > given && self.epoch < EPOCH_MAX / EPOCH_IDS => first,
            _ => given.saturating_add(RESTORE_ID_GAP),
        }
    }

    fn agree(&mut self, at_ms: u64, verdicts: Vec<(Key, bool)>, note: String) -> Answer {
        let mut changes = Vec::new();
        let next = self.revision + 1;
        for (key, down) in verdicts {
            let Some(Object::Backend(backend)) = self.object(&key) else { continue };
            if backend.ejected == down {
                continue;
            }
            let before = self.objects.get(&key).map(|entry| Arc::clone(&entry.object));
            let mut backend = backend.clone();
            backend.ejected = down;
            let after = Arc::new(Object::Backend(backend));
            self.put(&key, Arc::clone(&after), next);
            changes.push(Change { key, before, after: Some(after) });
        }
        Ok(self.record(By { at_ms, author: "agreed health".into(), note }, changes))
    }
}

/// The weight with which an object takes traffic; 0: it takes none, or is nothing that could.
pub(crate) fn takes_traffic(object: &Object) -> u32 {
    match object {
        Object::Backend(backend) if backend.state == super::BackendState::Ready => backend.weight,
        _ => 0,
    }
}

/// Whether a change of it is shown to proxies before it holds, when it is rolled out.
pub(crate) fn is_configuration(key: &Key) -> bool {
    !matches!(key, Key::Backend { .. })
}

/// Under what a named request's answer is kept: its name, and a hash of what was asked, by whom.
fn remembered(txn: &Txn) -> Result<Option<String>, Refusal> {
    let Some(request) = &txn.request else { return Ok(None) };
    let asked = to_bytes(&(&txn.by.author, &txn.conditions, &txn.ops, txn.force))
        .map_err(|error| Refusal::new(Code::Internal, error.to_string()))?;
    Ok(Some(format!("{request}\0{}", blake3::hash(&asked).to_hex())))
}

fn named(what: &str, name: &str) -> Result<(), Refusal> {
    if is_name(name) {
        return Ok(());
    }
    Err(Refusal::new(
        Code::BadName,
        format!("{name:?} is no name for a {what}: write 1 to 128 letters, digits and `._:-`"),
    ))
}

/// Accidents that have taken fleets down: one transaction that empties a service or takes most of it away.
fn guard(before: &State, after: &State, changes: &[Change]) -> Result<(), Refusal> {
    let takes = |object: &Option<Arc<Object>>| object.as_deref().is_some_and(|object| takes_traffic(object) > 0);
    // Only what takes traffic now and will not can be a loss: registering thousands looks at none of the others.
    let services: BTreeSet<&str> = changes
        .iter()
        .filter(|change| takes(&change.before) && !takes(&change.after))
        .filter_map(|change| match &change.key {
            Key::Backend { service, .. } => Some(service.as_str()),
            _ => None,
        })
        .collect();
    for service in services {
        // Registered ones alone first, because they are at hand; what a document says takes reading it.
        let registered = loss(service, &registered(before, service), &registered(after, service));
        if registered.is_err() {
            loss(service, &with_documents(before, service), &with_documents(after, service))?;
        }
    }
    Ok(())
}

/// Backends that take traffic, with their weights.
type Weights = BTreeMap<String, u64>;

fn registered(state: &State, service: &str) -> Weights {
    let takes = |backend: &super::Backend| backend.state == super::BackendState::Ready && backend.weight > 0;
    let list = state.backends(service).filter(|(_, _, backend)| takes(backend));
    list.map(|(id, _, backend)| (id.to_owned(), u64::from(backend.weight))).collect()
}

fn with_documents(state: &State, service: &str) -> Weights {
    let fleet = validate::fleet_config(state, |_| Default::default());
    let Ok(loaded) = ringway_config::check_fleet(&fleet) else { return registered(state, service) };
    match loaded.config.services.iter().find(|known| known.name == service) {
        Some(known) => known
            .backends
            .iter()
            .filter(|backend| !backend.drain && backend.weight > 0)
            .map(|backend| (backend.id.clone(), u64::from(backend.weight)))
            .collect(),
        // The proxies' own files have it: what else is in it is not known here.
        None => registered(state, service),
    }
}

/// What leaves is counted by the weight that it had: another weight is no loss as long as it takes traffic.
fn loss(service: &str, before: &Weights, after: &Weights) -> Result<(), Refusal> {
    let had: u64 = before.values().sum();
    let stays: u64 = before.iter().filter(|(id, _)| after.contains_key(*id)).map(|(_, weight)| weight).sum();
    let comes: u64 = after.iter().filter(|(id, _)| !before.contains_key(*id)).map(|(_, weight)| weight).sum();
    let has = stays + comes;
    if had > 0 && after.is_empty() {
        return Err(Refusal::new(
            Code::GuardEmpty,
            format!("nothing of {service:?} would take traffic any more: force it if it is meant"),
        ));
    }
    if had.saturating_sub(has) * 100 > had * LOSS_PERCENT_MAX {
        return Err(Refusal::new(
            Code::GuardLoss,
            format!(
                "{service:?} would lose {} % of its weight at once, more than {LOSS_PERCENT_MAX} %: take smaller steps, \
                 or force it",
                (had - has) * 100 / had
            ),
        ));
    }
    Ok(())
}
