//! What is held for a time: leases, and locks on them.

use super::apply::Origin;
use super::code::Code;
use super::command::Answer;
use super::model::{Change, Lease, Lock, Object};
use super::txn::{Author, Refusal};
use super::validate::named;
use super::{LEASES_MAX, NOTE_BYTES_MAX, State};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Shortest and longest life of a lease.
pub(crate) const TTL_MS: std::ops::RangeInclusive<u64> = 1000..=86_400_000;

impl State {
    pub(super) fn grant(&mut self, owner: String, ttl_ms: u64) -> Result<u64, Refusal> {
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

    pub(super) fn note_lives(&mut self, origin: Origin, leader: u64, lives: &[(u64, u64)]) -> Answer {
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
    pub(super) fn end_leases(&mut self, by: &Author, ids: &[u64]) -> Answer {
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

    pub(super) fn lock(&mut self, name: String, owner: String, lease: u64) -> Answer {
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

    pub(super) fn unlock(&mut self, name: &str, token: u64) -> Answer {
        match self.locks.get(name) {
            Some(lock) if lock.token == token => {
                self.locks.remove_mut(name);
                Ok(self.done(token, 0))
            }
            Some(lock) => Err(Refusal::new(
                Code::WrongToken,
                format!("lock {name:?} is held by {:?} with a later token than {token}", lock.owner),
            )),
            None => Err(Refusal::new(Code::NotFound, format!("nobody holds lock {name:?}"))),
        }
    }
}
