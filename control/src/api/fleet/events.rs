//! What has happened lately: revisions, rollouts, proxies, leaders. By names that do not change, so that what is told once is not told again.

use super::differences::Differences;
use crate::plane::Plane;
use crate::state::{Phase, Rollout, State};
use crate::watch::wire::FleetBrief;
use serde_json::{Map, Value, json};

/// Rollouts that are told of.
const ROLLOUTS_MAX: usize = 20;
/// Objects that are named of each.
const KEYS_MAX: usize = 12;

pub(super) fn events(plane: &Plane, state: &State, told: &FleetBrief, differences: &Differences) -> Value {
    let mut events = Map::new();
    for (number, event) in differences.iter() {
        events.insert(format!("revision {number}"), event.clone());
    }
    for (id, of) in state.rollouts.iter().skip(state.rollouts.size().saturating_sub(ROLLOUTS_MAX)) {
        events.insert(format!("rollout {id}"), rollout(*id, of));
    }
    for event in &told.events {
        let told = json!({ "kind": "proxy", "at": at(event.at_ms), "to": event.what, "proxy": event.proxy, "text": event.why });
        events.insert(format!("proxy {} {}", event.at_ms, event.number), told);
    }
    for seen in plane.leaders() {
        let text = format!("{} leads in term {}", seen.name, seen.term);
        let told = json!({ "kind": "leader", "at": at(seen.at_ms), "to": "leader", "member": seen.name, "text": text });
        events.insert(format!("leader {} {}", seen.term, seen.at_ms), told);
    }
    Value::Object(events)
}

fn rollout(id: u64, of: &Rollout) -> Value {
    let (to, text) = match &of.phase {
        Phase::Preparing => {
            ("preparing", format!("{} of {} proxies have prepared it", of.votes.len(), of.participants.len()))
        }
        Phase::Stage(_) => ("under way", format!("in force for {} % of the proxies", of.percent())),
        Phase::Committed(revision) => ("committed", format!("in force for all, as revision {revision}")),
        Phase::Aborted(why) => ("aborted", format!("nothing has changed: {why}")),
    };
    let mut keys: Vec<String> = of.changes.iter().take(KEYS_MAX).map(|change| change.key.to_string()).collect();
    if of.changes.len() > KEYS_MAX {
        keys.push(format!("and {} more", of.changes.len() - KEYS_MAX));
    }
    json!({
        "kind": "rollout", "at": at(of.txn.by.at_ms), "to": to, "rollout": id, "by": of.txn.by.author, "note": of.txn.by.note,
        "text": text, "changes": keys,
    })
}

fn at(ms: u64) -> f64 {
    ms as f64 / 1000.0
}
