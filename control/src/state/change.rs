//! Changes of objects: tried, checked, done, recorded.

use super::code::Code;
use super::command::{Answer, Applied, Basis, Command};
use super::encode::to_bytes;
use super::guard::guard;
use super::model::{Change, Entry, Key, Object, Revision};
use super::traffic::{is_configuration, takes_traffic};
use super::txn::{Author, Op, Refusal, Txn};
use super::{
    HISTORY_BYTES_MAX, HISTORY_MAX, NOTE_BYTES_MAX, OBJECTS_BYTES_MAX, OBJECTS_MAX, REQUESTS_MAX, State, validate,
};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Which build has judged what a command would make of the objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JudgedBy {
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

impl State {
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
        let changes = after.change(&txn, JudgedBy::Proposer)?;
        Ok(Some(Trial::Change { after, changes, force: txn.force }))
    }

    pub(super) fn stands_on(&self, basis: Option<Basis>) -> Result<(), Refusal> {
        let Some(basis) = basis else { return Ok(()) };
        let same = |at: Option<u64>, now: u64| at.is_none_or(|at| at == now);
        if basis.epoch == self.epoch && same(basis.configured, self.configured) && same(basis.lost, self.lost) {
            return Ok(());
        }
        Err(Refusal::new(Code::Moved, "what it was judged by has changed meanwhile: ask again"))
    }

    pub(super) fn txn(&mut self, txn: Txn, judge: JudgedBy, basis: Option<Basis>) -> Answer {
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
    pub(super) fn answered(&self, remembered: Option<&str>) -> Result<Option<Applied>, Refusal> {
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
    pub(super) fn change(&mut self, txn: &Txn, judge: JudgedBy) -> Result<Vec<Change>, Refusal> {
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
        if judge == JudgedBy::Build {
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
    pub(super) fn admits(&self, key: &Key, object: &Object, judge: JudgedBy) -> Result<(), Refusal> {
        if judge == JudgedBy::Build {
            return validate::object(self, key, object);
        }
        validate::size(key, object)?;
        validate::lease(self, key, object)
    }

    pub(super) fn one(&mut self, op: &Op, revision: u64, judge: JudgedBy) -> Result<(), Refusal> {
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

    pub(super) fn put(&mut self, key: &Key, object: Arc<Object>, revision: u64) {
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

    pub(super) fn delete(&mut self, key: &Key) {
        let Some(old) = self.objects.get(key).map(|entry| Arc::clone(&entry.object)) else { return };
        self.digest.remove(key, &old);
        self.objects_bytes = self.objects_bytes.saturating_sub(old.weight());
        self.objects.remove_mut(key);
    }

    /// A new revision, unless nothing has changed.
    pub(super) fn record(&mut self, by: Author, changes: Vec<Change>) -> Applied {
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
    pub(super) fn note(&mut self, changes: &[Change]) {
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

    pub(super) fn remember(&mut self, request: String, done: &Applied) {
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

    pub(super) fn agree(&mut self, at_ms: u64, verdicts: Vec<(Key, bool)>, note: String) -> Answer {
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
        Ok(self.record(Author { at_ms, author: "agreed health".into(), note }, changes))
    }

    pub(super) fn draw_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    pub(super) fn done(&self, id: u64, changed: usize) -> Applied {
        Applied { revision: self.revision, id, changed: u32::try_from(changed).unwrap_or(u32::MAX) }
    }

    /// The transaction that makes objects as they were at a revision.
    pub(super) fn back(&self, by: Author, to: u64) -> Result<Txn, Refusal> {
        let ops = self.undo(to)?;
        let note = match by.note.is_empty() {
            true => format!("rollback to {to}"),
            false => format!("rollback to {to}: {}", by.note),
        };
        // What was good once may be taken back in one step: that is what a rollback is for.
        let by = Author { note, ..by };
        Ok(Txn { by, request: None, conditions: Vec::new(), ops, force: true })
    }
}

/// Under what a named request's answer is kept: its name, and a hash of what was asked, by whom.
pub(super) fn remembered(txn: &Txn) -> Result<Option<String>, Refusal> {
    let Some(request) = &txn.request else { return Ok(None) };
    let asked = to_bytes(&(&txn.by.author, &txn.conditions, &txn.ops, txn.force))
        .map_err(|error| Refusal::new(Code::Internal, error.to_string()))?;
    Ok(Some(format!("{request}\0{}", blake3::hash(&asked).to_hex())))
}
