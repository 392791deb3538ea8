//! Members of the control plane, as a page shows them.

use super::when::seconds;
use crate::consensus::{MemberStatus, Status};
use crate::plane::{Health, Plane};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// A member that was heard of within this is there: when exactly is not told, or it would be told each second.
const FRESH: Duration = Duration::from_secs(3);

/// By their ids.
pub(super) fn members(plane: &Plane, at_ms: u64) -> Value {
    let (status, roll) = (plane.status(), plane.roll());
    let unasked = Health::default();
    let shown = |member: &MemberStatus, voter: bool| {
        let health = roll.get(&member.node).unwrap_or(&unasked);
        let mut shown = match member.node == status.id {
            true => own(plane, &status),
            false => other(member, &status, health, at_ms),
        };
        shown["name"] = json!(member.info.name);
        shown["api_address"] = json!(member.info.api_address);
        shown["voter"] = json!(voter);
        shown["leader"] = json!(status.acknowledged_leader().is_some_and(|(node, _)| *node == member.node));
        (member.node.to_string(), shown)
    };
    let voters = status.voters.iter().map(|member| shown(member, true));
    let learners = status.learners.iter().map(|member| shown(member, false));
    Value::Object(voters.chain(learners).collect::<Map<_, _>>())
}

fn own(plane: &Plane, status: &Status) -> Value {
    json!({
        "here": true, "reachable": true, "role": status.role.name(), "term": status.term,
        "last_log": status.last_log, "applied": status.applied, "lag": 0, "disk_bytes": plane.node().disk_bytes(),
        "version": env!("CARGO_PKG_VERSION"),
    })
}

/// What a member that does not answer lacks is known to nobody.
fn other(member: &MemberStatus, status: &Status, health: &Health, at_ms: u64) -> Value {
    let (view, answers) = (health.view.as_ref(), health.answers());
    let lag = member.lag.or(view.map(|view| status.last_log.unwrap_or(0).saturating_sub(view.last_log)));
    json!({
        "reachable": answers, "role": view.filter(|_| answers).map(|view| &view.role), "term": view.map(|view| view.term),
        "last_log": view.map(|view| view.last_log), "applied": view.map(|view| view.applied), "lag": lag.filter(|_| answers),
        "disk_bytes": view.and_then(|view| view.disk_bytes), "version": view.map(|view| &view.version), "why": health.silent,
        "heard_at": health.heard_age().filter(|age| *age > FRESH).map(|age| seconds(at_ms, age)),
    })
}
