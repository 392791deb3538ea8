//! What several answers show of the state, as JSON.

use crate::state::{Key, Rollout, State};
use serde_json::{Value, json as value};
use std::collections::BTreeMap;

pub(super) fn rollout_json(rollout: &Rollout) -> Value {
    rollout_shown(rollout, usize::MAX)
}

/// `listed_max`: so many refusals and keys are named.
pub(super) fn rollout_shown(rollout: &Rollout, listed_max: usize) -> Value {
    let refused: Vec<Value> = rollout
        .votes
        .iter()
        .filter_map(|(proxy, vote)| vote.refusal.as_ref().map(|why| value!({ "proxy": proxy, "reason": why })))
        .take(listed_max)
        .collect();
    let moved = rollout.votes.values().map(|vote| vote.moved_ppm).max().unwrap_or(0);
    value!({
        "id": rollout.id, "phase": rollout.phase, "percent": rollout.percent(), "policy": rollout.policy,
        "author": rollout.txn.by.author, "note": rollout.txn.by.note, "at_ms": rollout.txn.by.at_ms,
        "participants": rollout.participants.len(), "votes": rollout.votes.len(), "refused": refused,
        "moved_percent": f64::from(moved) / 10_000.0,
        "keys": rollout.changes.iter().take(listed_max).map(|change| value!(change.key)).collect::<Vec<_>>(),
    })
}

/// A summary of the fleet's objects, for the status.
pub(super) fn counts(state: &State) -> Value {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for key in state.objects.keys() {
        let kind = match key {
            Key::Document(_) => "documents",
            Key::Service(_) => "services",
            Key::Certificate(_) => "certificates",
            Key::Backend { .. } => "backends",
        };
        *counts.entry(kind).or_default() += 1;
    }
    value!(counts)
}
