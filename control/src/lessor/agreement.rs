//! Health that the fleet agrees on.

use super::{Lessor, PROXY_TTL, Seen};
use crate::state::{Command, Key, Object, State};
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

/// Largest share of a service's registered backends that agreed health takes out, in percent; one always may be.
const EJECTED_PERCENT_MAX: usize = 30;

impl Lessor {
    /// What a majority of the live proxies sees down is down for all; what a majority sees up, or nobody sees, is not.
    pub(super) fn agree(&mut self, state: &State, at_ms: u64, now: Instant) -> Option<Command> {
        // A leader that has just begun has heard of few: their majority is nobody's.
        if now - self.since < PROXY_TTL {
            return None;
        }
        self.standing.follow(state);
        let standing = &self.standing;
        let live: Vec<&Seen> = self.proxies.values().filter(|seen| now - seen.at < PROXY_TTL).collect();
        let quorum = live.len() / 2 + 1;
        let mut down: BTreeMap<&Key, usize> = BTreeMap::new();
        for seen in &live {
            for key in &seen.heartbeat.down {
                *down.entry(key).or_default() += 1;
            }
        }
        let mut verdicts: Vec<(Key, bool)> = Vec::new();
        let mut taken: HashMap<&str, usize> = HashMap::new();
        for key in &standing.ejected {
            let Key::Backend { service, .. } = key else { continue };
            if !live.is_empty() && down.get(key).copied().unwrap_or(0) < quorum {
                verdicts.push((key.clone(), false));
            } else {
                *taken.entry(service).or_default() += 1;
            }
        }
        // One proxy alone is no quorum: what it sees is its own.
        if live.len() > 1 {
            for (key, _) in down.iter().filter(|(_, count)| **count >= quorum) {
                let (Key::Backend { service, .. }, Some(Object::Backend(backend))) = (key, state.object(key)) else {
                    continue;
                };
                let taken = taken.entry(service).or_default();
                let most = (standing.all.get(service).copied().unwrap_or(0) * EJECTED_PERCENT_MAX / 100).max(1);
                if !backend.ejected && *taken < most {
                    *taken += 1;
                    verdicts.push(((*key).clone(), true));
                }
            }
        }
        let note = format!("{} of {} proxies make a quorum", quorum, live.len());
        (!verdicts.is_empty()).then_some(Command::Agree { at_ms, verdicts, note })
    }
}
