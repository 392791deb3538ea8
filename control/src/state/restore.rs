//! Backups that become the state, and epochs.

use super::code::Code;
use super::command::Answer;
use super::format::{DecodeError, format_of};
use super::model::{Change, Key};
use super::rollout::{Phase, Rollout};
use super::txn::{Author, Refusal};
use super::{Digest, HISTORY_BYTES_MAX, OBJECTS_BYTES_MAX, State};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Numbers above it are not the same number in everybody's JSON.
pub(crate) const EPOCH_MAX: u64 = (1 << 53) - 1;

/// More ids than a cluster gives out between a backup and its restore.
const RESTORE_ID_GAP: u64 = 1 << 32;

/// Ids that belong to an epoch.
const EPOCH_IDS: u64 = 1 << 20;

/// Largest backup that can be restored.
const RESTORE_BYTES_MAX: usize = OBJECTS_BYTES_MAX + HISTORY_BYTES_MAX + (16 << 20);

impl State {
    pub(super) fn restore_chunk(&mut self, number: u32, bytes: Vec<u8>) -> Answer {
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

    pub(super) fn raise_epoch(&mut self, seen: (u64, u64), to: u64) -> Answer {
        if seen <= (self.epoch, self.revision) {
            return Err(Refusal::new(Code::Known, "the cluster has what was seen"));
        }
        if to <= seen.0.max(self.epoch) || to > EPOCH_MAX {
            return Err(Refusal::new(Code::BadEpoch, format!("{to} is no epoch to follow {}", seen.0.max(self.epoch))));
        }
        self.enter_epoch(to);
        Ok(self.done(0, 0))
    }

    pub(super) fn enter_epoch(&mut self, epoch: u64) {
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
    pub(super) fn adopt(&mut self, name: &str, other_cluster: bool) -> Result<(), Refusal> {
        self.may_restore(name, other_cluster)?;
        if !other_cluster {
            self.cluster = name.to_owned();
        }
        Ok(())
    }

    /// Objects, tokens and history become the backup's, and no revision comes twice. A cluster that has nothing yet takes the
    /// backup's name; `known`: the least epoch, and whether the name may differ.
    pub(super) fn restore_commit(&mut self, by: Author, whole: [u8; 32], known: Option<(u64, bool)>) -> Answer {
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
        let note = format!("restored revision {} of cluster {:?}. {}", old.revision, old.cluster, by.note);
        let changes = self.become_backup(old, known.map_or(0, |(epoch, _)| epoch));
        // Even if nothing differs: it is a new epoch.
        let done = self.record(Author { note, ..by }, changes);
        Ok(done)
    }

    /// Takes over what a backup has, in a new epoch that is `epoch` at least; what differs.
    fn become_backup(&mut self, old: Self, epoch: u64) -> Vec<Change> {
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
        self.epoch = (self.epoch.max(old.epoch) + 1).max(epoch);
        // Ids that were given out after the backup are known to nobody here, but to their holders: none comes twice.
        let given = self.next_id.max(old.next_id);
        self.next_id = match self.rules {
            0 | 1 => given.saturating_add(RESTORE_ID_GAP),
            _ => self.ids_of_epoch(given),
        };
        if self.rules > 0 {
            (self.configured, self.lost) = (self.revision, self.revision);
        }
        changes
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
    pub(super) fn ids_of_epoch(&self, given: u64) -> u64 {
        match self.epoch.saturating_mul(EPOCH_IDS) {
            first if first > given && self.epoch < EPOCH_MAX / EPOCH_IDS => first,
            _ => given.saturating_add(RESTORE_ID_GAP),
        }
    }
}
