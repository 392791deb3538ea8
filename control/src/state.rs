//! What the fleet agrees on, as a pure machine: a command goes in, an answer comes out, and equal commands in equal order
//! make equal states. No clock (times are data in commands), no randomness, no floats.
//!
//! The maps are persistent: a clone shares everything that has not changed, so readers, watchers and snapshots take the
//! state as it was at one revision without stopping anybody.

mod apply;
pub mod backup;
mod change;
mod code;
mod command;
mod digest;
mod encode;
mod format;
mod guard;
mod holding;
pub(crate) mod judge;
mod model;
pub(crate) mod parsed;
mod restore;
mod rollout;
mod rollouts;
mod traffic;
mod txn;
mod validate;
mod written;

pub use apply::Origin;
pub(crate) use change::Trial;
pub use code::Code;
pub use command::{Answer, Applied, Basis, Command};
pub use digest::Digest;
pub use encode::EncodeError;
pub(crate) use encode::to_bytes;
pub use format::DecodeError;
pub(crate) use holding::TTL_MS;
pub(crate) use model::RULES_TWO_ADDRESSES;
pub use model::{
    Backend, BackendState, Certificate, Change, Entry, Key, KeyError, Lease, Lock, NAME_BYTES_MAX, Object, Revision,
    Role, TEXT_BYTES_MAX, Text, Token, is_name,
};
pub(crate) use restore::EPOCH_MAX;
pub use rollout::{Observed, Phase, Policy, Rollout, Step, Vote};
pub(crate) use traffic::{is_configuration, takes_traffic};
pub use txn::{Author, Condition, Op, Refusal, Txn};
pub use validate::fleet_config;
pub(crate) use validate::{CONTROL_PLANE, MAIN, backend_of_fleet, from_objects, invalid, object as check_object};

use rpds::RedBlackTreeMapSync as Map;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Revisions that are remembered, at most.
pub const HISTORY_MAX: usize = 1000;
/// Memory for remembered revisions, in bytes; the oldest go first.
pub const HISTORY_BYTES_MAX: usize = 16 << 20;
/// Memory for objects, in bytes.
pub const OBJECTS_BYTES_MAX: usize = 64 << 20;
/// Objects at most.
pub const OBJECTS_MAX: usize = 100_000;
/// Leases, locks and tokens at most, each.
pub const LEASES_MAX: usize = 100_000;
/// Longest note, reason or owner, in bytes.
pub(crate) const NOTE_BYTES_MAX: usize = 4096;
/// Named requests whose answers are kept.
const REQUESTS_MAX: usize = 10_000;
/// Rollouts that are remembered.
const ROLLOUTS_MAX: usize = 20;
/// The rules of [`State::apply`] that this build knows, see [`State::rules`]. Whoever changes what a command does, whom it is
/// refused to, or what a limit is, adds a number here, and leaves what the numbers before it do as it was.
///
/// * 0: what commands were before rules had numbers: apply reads YAML, by the checks of its own build.
/// * 1: apply judges nothing that a later build may judge otherwise; whoever proposes has judged, see [`Command::Judged`].
/// * 2: what a rollout under way changes is changed by nothing else, even if that was judged before the rollout began; after a
///   restore, ids begin with the epoch.
/// * 3: a backend may have two addresses (`additional_address`), which builds of rules 2 would judge to be none.
pub const RULES: u32 = 3;

/// The state after some commands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The cluster's name; empty before the first command.
    pub cluster: String,
    /// Raised by each restore: revisions of different epochs are not comparable.
    pub epoch: u64,
    /// Counts changes of objects.
    pub revision: u64,
    /// Of all objects.
    pub digest: Digest,
    /// What proxies are told.
    pub objects: Map<Key, Entry>,
    /// About what the objects take, in bytes.
    pub objects_bytes: usize,
    /// By id.
    pub leases: Map<u64, Lease>,
    /// By name.
    pub locks: Map<String, Lock>,
    /// By name.
    pub tokens: Map<String, Token>,
    /// By revision.
    pub history: Map<u64, Revision>,
    /// About what the history takes, in bytes.
    pub history_bytes: usize,
    /// Answers to named requests, and the order in which they came.
    requests: Map<String, (u64, Applied)>,
    requests_order: Map<u64, String>,
    /// By id; at most the last one is not over.
    pub rollouts: Map<u64, Rollout>,
    /// Ids of leases, rollouts and fencing tokens are drawn from here.
    pub next_id: u64,
    /// Parts of a backup that is being restored.
    restore: Vec<Arc<Vec<u8>>>,
    /// The rules by which commands are applied: all members know them. Raised by [`Command::Rules`], never lowered.
    pub rules: u32,
    /// The revision that changed an object other than a backend last.
    pub configured: u64,
    /// The revision by which a backend took less traffic last, or none any more.
    pub lost: u64,
    /// What is left of leases' lives, in milliseconds, where it is less than the whole: see [`Command::LeaseLives`].
    pub lives: Map<u64, u64>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            cluster: String::new(),
            epoch: 0,
            revision: 0,
            digest: Digest::default(),
            objects: Map::new_sync(),
            objects_bytes: 0,
            leases: Map::new_sync(),
            locks: Map::new_sync(),
            tokens: Map::new_sync(),
            history: Map::new_sync(),
            history_bytes: 0,
            requests: Map::new_sync(),
            requests_order: Map::new_sync(),
            rollouts: Map::new_sync(),
            next_id: 1,
            restore: Vec::new(),
            rules: 0,
            configured: 0,
            lost: 0,
            lives: Map::new_sync(),
        }
    }
}

impl State {
    /// The object under a key.
    #[must_use]
    pub fn object(&self, key: &Key) -> Option<&Object> {
        self.objects.get(key).map(|entry| &*entry.object)
    }

    /// The rollout that is under way.
    #[must_use]
    pub fn rollout(&self) -> Option<&Rollout> {
        self.rollouts.last().map(|(_, rollout)| rollout).filter(|rollout| !rollout.phase.is_final())
    }

    /// Backends of a service, by id.
    pub fn backends<'a>(&'a self, service: &'a str) -> impl Iterator<Item = (&'a str, &'a Entry, &'a Backend)> {
        let first = Key::Backend { service: service.to_owned(), id: String::new() };
        self.objects.range(first..).map_while(move |(key, entry)| match (key, &*entry.object) {
            (Key::Backend { service: of, id }, Object::Backend(backend)) if of == service => {
                Some((id.as_str(), entry, backend))
            }
            _ => None,
        })
    }

    /// What has changed between two revisions that are remembered, oldest first. `None`: they are not, any more.
    #[must_use]
    pub fn changes_since(&self, revision: u64) -> Option<Vec<(u64, &Revision)>> {
        if revision > self.revision {
            return None;
        }
        let found: Vec<(u64, &Revision)> =
            self.history.range(revision + 1..).map(|(revision, change)| (*revision, change)).collect();
        (found.len() as u64 == self.revision - revision).then_some(found)
    }

    /// The operations that make objects as they were at a revision.
    ///
    /// # Errors
    /// It is not remembered.
    pub fn undo(&self, to: u64) -> Result<Vec<Op>, Refusal> {
        let Some(changes) = self.changes_since(to) else {
            let oldest = self.history.first().map_or(self.revision, |(revision, _)| revision - 1);
            return Err(Refusal::new(
                Code::UnknownRevision,
                format!("revision {to} is not remembered: choose one from {oldest} to {}", self.revision),
            ));
        };
        let mut wanted: std::collections::BTreeMap<&Key, Option<&Arc<Object>>> = std::collections::BTreeMap::new();
        for (_, revision) in &changes {
            for change in &revision.changes {
                // The first change after the revision tells what was there before.
                wanted.entry(&change.key).or_insert(change.before.as_ref());
            }
        }
        let ops = wanted.into_iter().filter_map(|(key, object)| match (object, self.object(key)) {
            (Some(old), now) if now != Some(&**old) => Some(Op::Put { key: key.clone(), object: (**old).clone() }),
            (None, Some(_)) => Some(Op::Delete { key: key.clone() }),
            _ => None,
        });
        Ok(ops.collect())
    }
}

#[cfg(test)]
mod tests;
