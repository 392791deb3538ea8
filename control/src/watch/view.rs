//! The topology as a proxy has it, kept true by the lines of a watch stream. Pure.

use crate::state::{CONTROL_PLANE, from_objects, is_name};
use crate::state::{Digest, Key, Object, Rollout};
use crate::watch::wire::{Message, Ping, Replaced, RolloutView, Snapshot};
use ringway_config::FleetConfig;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// What a proxy knows of the topology.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// The cluster that it came from.
    pub cluster: String,
    /// Revisions of different epochs are not comparable.
    pub epoch: u64,
    /// Counts changes.
    pub revision: u64,
    /// Of all objects.
    pub digest: Digest,
    /// Everything that the fleet has agreed on. Views of one topology share it.
    pub objects: Arc<BTreeMap<Key, Arc<Object>>>,
    /// The change that is under way.
    pub rollout: Option<RolloutView>,
    /// See [`Snapshot::at_ms`].
    pub at_ms: Option<u64>,
}

/// What a line has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handled {
    /// There is a new topology, or another rollout.
    Changed,
    /// All is as it was.
    Same,
}

/// Why a line is not taken. The stream is to be dropped, and everything asked for anew.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// A delta of something else.
    #[error("a change of revision {previous} in epoch {epoch} does not fit what is known")]
    Gap {
        /// Of the line.
        epoch: u64,
        /// Of the line.
        previous: u64,
    },
    /// The changes do not lead where the member is.
    #[error("the topology's digest is not the member's at revision {0}")]
    Digest(u64),
    /// Another cluster answers.
    #[error("this is cluster {found:?}, not {known:?}: empty the proxy's directory if that is meant")]
    Cluster {
        /// Of the answer.
        found: String,
        /// Of what is in force.
        known: String,
    },
    /// Members that were made anew, and have not been given what they had.
    #[error(
        "the members have no topology yet, this proxy has revision {known} of epoch {known_epoch}: what is in force stays"
    )]
    Nothing {
        /// Of what is in force.
        known_epoch: u64,
        /// Of what is in force.
        known: u64,
    },
    /// Time would run backwards.
    #[error(
        "the members are at {epoch}.{found}, this proxy is ahead of them at {known_epoch}.{known}: what is in force stays"
    )]
    Older {
        /// Of the line.
        epoch: u64,
        /// Of the line.
        found: u64,
        /// Of what is in force.
        known_epoch: u64,
        /// Of what is in force.
        known: u64,
    },
}

impl View {
    /// What a member says. `known` is what is in force: it is never gone back behind.
    ///
    /// # Errors
    /// See [`ViewError`].
    pub fn from_snapshot(snapshot: Snapshot, known: Option<&Self>) -> Result<Self, ViewError> {
        if let Some(known) = known {
            if known.cluster != snapshot.cluster {
                return Err(ViewError::Cluster { found: snapshot.cluster, known: known.cluster.clone() });
            }
            if (snapshot.epoch, snapshot.revision) < (known.epoch, known.revision) {
                let (epoch, found) = (snapshot.epoch, snapshot.revision);
                return Err(ViewError::Older { epoch, found, known_epoch: known.epoch, known: known.revision });
            }
            if snapshot.revision == 0 && known.revision > 0 {
                return Err(ViewError::Nothing { known_epoch: known.epoch, known: known.revision });
            }
        }
        let mut digest = Digest::default();
        for (key, object) in &*snapshot.objects {
            digest.add(key, object);
        }
        // A member of another version may write objects differently: what it says is taken, the difference is seen as
        // drift.
        Ok(Self {
            cluster: snapshot.cluster,
            epoch: snapshot.epoch,
            revision: snapshot.revision,
            digest,
            objects: snapshot.objects,
            rollout: snapshot.rollout,
            at_ms: snapshot.at_ms,
        })
    }

    /// Takes a line.
    ///
    /// # Errors
    /// See [`ViewError`]; the view is as it was.
    pub fn handle(&mut self, message: Message) -> Result<Handled, ViewError> {
        match message {
            Message::Snapshot(snapshot) => {
                let next = Self::from_snapshot(snapshot, Some(self))?;
                let changed = *self != next;
                *self = next;
                Ok(if changed { Handled::Changed } else { Handled::Same })
            }
            Message::Delta(delta) => {
                if delta.epoch == self.epoch && delta.revision <= self.revision {
                    return Ok(Handled::Same);
                }
                if delta.epoch != self.epoch || delta.previous != self.revision {
                    return Err(ViewError::Gap { epoch: delta.epoch, previous: delta.previous });
                }
                let mut next = self.clone();
                next.replace(&delta.changes);
                (next.revision, next.at_ms) = (delta.revision, delta.at_ms);
                if next.digest.to_string() != delta.digest {
                    return Err(ViewError::Digest(delta.revision));
                }
                *self = next;
                Ok(Handled::Changed)
            }
            Message::Rollout(rollout) => {
                let changed = self.rollout != rollout;
                self.rollout = rollout;
                Ok(if changed { Handled::Changed } else { Handled::Same })
            }
            Message::Ping(ping) => self.compare(&ping).map(|()| Handled::Same),
            // Loads are no topology.
            Message::Loads(_) | Message::LoadsConfirmed(_) => Ok(Handled::Same),
        }
    }

    /// A heartbeat says where the member is: that nothing comes does not mean that nothing is different.
    fn compare(&self, ping: &Ping) -> Result<(), ViewError> {
        if !ping.cluster.is_empty() && ping.cluster != self.cluster {
            return Err(ViewError::Cluster { found: ping.cluster.clone(), known: self.cluster.clone() });
        }
        let (epoch, found) = (ping.epoch, ping.revision);
        if epoch == 0 {
            return Ok(());
        }
        if (epoch, found) < (self.epoch, self.revision) {
            return Err(ViewError::Older { epoch, found, known_epoch: self.epoch, known: self.revision });
        }
        if found == 0 && self.revision > 0 {
            return Err(ViewError::Nothing { known_epoch: self.epoch, known: self.revision });
        }
        if (epoch, found) == (self.epoch, self.revision) && ping.digest != self.digest.to_string() {
            return Err(ViewError::Digest(found));
        }
        Ok(())
    }

    fn replace(&mut self, changes: &[Replaced]) {
        let objects = Arc::make_mut(&mut self.objects);
        for change in changes {
            let old = match &change.object {
                Some(object) => {
                    self.digest.add(&change.key, object);
                    objects.insert(change.key.clone(), Arc::clone(object))
                }
                None => objects.remove(&change.key),
            };
            if let Some(old) = old {
                self.digest.remove(&change.key, &old);
            }
        }
    }

    /// As it will be with the change that is under way.
    #[must_use]
    pub fn candidate(&self) -> Option<Self> {
        let rollout = self.rollout.as_ref()?;
        let mut next = self.clone();
        next.replace(&rollout.changes);
        Some(next)
    }

    /// What holds for a proxy: the topology, with the change under way if the proxy is one of those that go first.
    #[must_use]
    pub fn in_force(&self, proxy: &str) -> Self {
        match &self.rollout {
            Some(rollout) if Rollout::in_cohort(rollout.id, proxy, rollout.percent) => {
                self.candidate().unwrap_or_else(|| self.clone())
            }
            _ => self.clone(),
        }
    }

    /// For putting on top of a file; `place` says where a certificate and its key stand.
    #[must_use]
    pub fn fleet_config(&self, place: impl Fn(&str) -> (PathBuf, PathBuf)) -> FleetConfig {
        self.fleet_config_of(CONTROL_PLANE, place)
    }

    /// As [`View::fleet_config`]; `store` is what findings begin with, before an object's name.
    #[must_use]
    pub fn fleet_config_of(&self, store: &str, place: impl Fn(&str) -> (PathBuf, PathBuf)) -> FleetConfig {
        from_objects(self.objects.iter().map(|(key, object)| (key, &**object)), store, place)
    }

    /// Names of the services that the fleet has a say in.
    #[must_use]
    pub fn certificates(&self) -> Vec<(&str, &crate::state::Certificate)> {
        self.objects
            .iter()
            .filter_map(|(key, object)| match (key, &**object) {
                // Names become names of files.
                (Key::Certificate(name), Object::Certificate(pair)) if is_name(name) => Some((name.as_str(), pair)),
                _ => None,
            })
            .collect()
    }

    /// The reverse of [`View::from_snapshot`].
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            cluster: self.cluster.clone(),
            epoch: self.epoch,
            revision: self.revision,
            digest: self.digest.to_string(),
            objects: Arc::clone(&self.objects),
            rollout: self.rollout.clone(),
            at_ms: self.at_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Author, Command, Op, Origin, State, Txn};
    use crate::watch::wire::Delta;

    fn state() -> State {
        let mut state = State::default();
        state.apply(Origin { leader: 1 }, Command::Init { cluster: "c".into() }).unwrap();
        state
    }

    fn put(state: &mut State, id: &str, port: u16) -> Message {
        let object = serde_json::from_str(&format!("{{\"backend\":{{\"address\":\"10.0.0.1:{port}\"}}}}")).unwrap();
        let op = Op::Put { key: format!("backend/api/{id}").parse().unwrap(), object };
        let txn = Txn { by: Author::default(), request: None, conditions: Vec::new(), ops: vec![op], force: false };
        let previous = state.revision;
        state.apply(Origin { leader: 1 }, Command::Txn(txn)).unwrap();
        let change = &state.history.get(&state.revision).unwrap().changes;
        Message::Delta(Delta {
            epoch: state.epoch,
            previous,
            revision: state.revision,
            digest: state.digest.to_string(),
            changes: change.iter().map(Replaced::of).collect(),
            at_ms: state.history.get(&state.revision).map(|revision| revision.at_ms),
        })
    }

    #[test]
    fn deltas_lead_where_the_state_is() {
        let mut state = state();
        let mut view = View::from_snapshot(Snapshot::of(&state), None).unwrap();
        for (id, port) in [("a", 1), ("b", 2), ("a", 3)] {
            let line = serde_json::to_string(&put(&mut state, id, port)).unwrap();
            assert_eq!(view.handle(serde_json::from_str(&line).unwrap()), Ok(Handled::Changed));
            assert_eq!(view, View::from_snapshot(Snapshot::of(&state), Some(&view)).unwrap());
        }
        let ping = Message::Ping(Ping::of(&state, None));
        assert_eq!(view.handle(ping), Ok(Handled::Same));
    }

    #[test]
    fn a_view_knows_when_its_revision_was_made_by_whatever_line_and_not_from_who_does_not_say() {
        let mut state = state();
        let mut view = View::from_snapshot(Snapshot::of(&state), None).unwrap();
        let line = put(&mut state, "a", 1);
        view.handle(line).unwrap();
        let made = state.history.get(&1).map(|revision| revision.at_ms);
        assert!(made.is_some());
        assert_eq!((view.at_ms, View::from_snapshot(Snapshot::of(&state), None).unwrap().at_ms), (made, made));
        assert_eq!(view.snapshot().at_ms, made, "a proxy keeps it on its disk");
        // A member of an earlier version.
        let Message::Delta(delta) = put(&mut state, "b", 1) else { unreachable!() };
        let text = serde_json::to_string(&Message::Delta(Delta { at_ms: None, ..delta })).unwrap();
        assert!(!text.contains("at_ms"));
        view.handle(serde_json::from_str(&text).unwrap()).unwrap();
        assert_eq!(view.at_ms, None);
    }

    #[test]
    fn gaps_lies_and_the_past_are_not_taken() {
        let mut state = state();
        let start = View::from_snapshot(Snapshot::of(&state), None).unwrap();
        let first = put(&mut state, "a", 1);
        let second = put(&mut state, "b", 2);
        let mut view = start.clone();
        assert_eq!(view.handle(second.clone()), Err(ViewError::Gap { epoch: 1, previous: 1 }));
        let Message::Delta(mut lie) = first.clone() else { unreachable!() };
        lie.digest = "0".into();
        assert_eq!(view.handle(Message::Delta(lie)), Err(ViewError::Digest(1)));
        assert_eq!(view, start);
        view.handle(first.clone()).unwrap();
        view.handle(second).unwrap();
        assert_eq!(view.handle(first), Ok(Handled::Same), "said twice");
        let old = start.snapshot();
        assert!(matches!(view.handle(Message::Snapshot(old)), Err(ViewError::Older { .. })));
        let mut other = view.snapshot();
        other.cluster = "d".into();
        assert!(matches!(view.handle(Message::Snapshot(other)), Err(ViewError::Cluster { .. })));
        let mut restored = view.snapshot();
        (restored.epoch, restored.revision) = (2, 3);
        assert_eq!(view.handle(Message::Snapshot(restored)), Ok(Handled::Changed));
    }

    #[test]
    fn a_sign_of_life_tells_a_member_that_is_behind_another_cluster_and_other_objects() {
        let mut state = state();
        let start = state.clone();
        put(&mut state, "a", 1);
        let mut view = View::from_snapshot(Snapshot::of(&state), None).unwrap();
        assert!(matches!(view.handle(Message::Ping(Ping::of(&start, None))), Err(ViewError::Older { .. })));
        let ping = Ping { digest: "other".into(), ..Ping::of(&state, None) };
        assert_eq!(view.handle(Message::Ping(ping)), Err(ViewError::Digest(1)));
        let ping = Ping { cluster: "other".into(), ..Ping::of(&state, None) };
        assert!(matches!(view.handle(Message::Ping(ping)), Err(ViewError::Cluster { .. })));
        let old = serde_json::from_str("{\"ping\":{\"revision\":0,\"leader_age_ms\":null}}").unwrap();
        assert_eq!(view.handle(old), Ok(Handled::Same), "an earlier version says less");
    }

    #[test]
    fn a_rollout_holds_for_its_cohort_only() {
        let mut state = state();
        put(&mut state, "a", 1);
        let mut view = View::from_snapshot(Snapshot::of(&state), None).unwrap();
        let key: Key = "backend/api/a".parse().unwrap();
        let changes = vec![Replaced { key: key.clone(), object: None }];
        let rollout = |percent| Message::Rollout(Some(RolloutView { id: 3, percent, changes: changes.clone() }));
        view.handle(rollout(0)).unwrap();
        assert!(view.in_force("p").objects.contains_key(&key));
        assert!(!view.candidate().unwrap().objects.contains_key(&key));
        view.handle(rollout(100)).unwrap();
        assert!(!view.in_force("p").objects.contains_key(&key));
        view.handle(Message::Rollout(None)).unwrap();
        assert!(view.in_force("p").objects.contains_key(&key));
    }
}
