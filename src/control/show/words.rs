//! One thing in a line: a rollout, a member, a change, an object.

use super::table::{span, text};
use ringway_control::state::Object;
use serde_json::{Value, json};

pub(in crate::control) fn rollout_line(rollout: &Value) -> String {
    let phase = &rollout["phase"];
    let id = &rollout["id"];
    if let Some(revision) = phase.get("committed") {
        return format!("rollout {id}: in force for all, revision {revision}");
    }
    if let Some(reason) = phase.get("aborted") {
        return format!("rollout {id}: aborted, nothing has changed: {}", text(reason));
    }
    if phase.get("stage").is_some() {
        return format!("rollout {id}: in force for {} % of the proxies, watched", rollout["percent"]);
    }
    format!("rollout {id}: {} of {} proxies have prepared it", rollout["votes"], rollout["participants"])
}

/// A member that does not answer is none of what it may have been.
pub(super) fn member_row(member: &Value) -> Vec<String> {
    let vote = if member["voter"] == json!(true) { "voter" } else { "learner" };
    let role = match (member["leader"] == json!(true), member["reachable"].as_bool()) {
        (true, _) => "leader".to_owned(),
        (_, Some(false)) => format!("{vote}, unreachable"),
        _ => vote.to_owned(),
    };
    let heard = match (member["reachable"].as_bool(), member["last_heard_ms"].as_u64()) {
        (None, _) => "-".to_owned(),
        (Some(_), Some(ms)) => format!("{} ago", span(ms)),
        (Some(_), None) => "never".to_owned(),
    };
    let known = |value: &Value| if value.is_null() { "-".to_owned() } else { text(value) };
    let mut cells = vec![text(&member["node"]), text(&member["name"]), role];
    cells.extend([&member["api_address"], &member["peer_address"], &member["lag"], &member["term"]].map(known));
    cells.extend([heard, known(&member["version"])]);
    cells
}

pub(super) fn change_word(change: &Value) -> String {
    let word = match (change["before"].is_null(), change["after"].is_null()) {
        (true, _) => "made",
        (_, true) => "removed",
        _ => "changed",
    };
    format!("{} {word}", text(&change["key"]))
}

/// An object as a line of a table.
pub(super) fn summary(object: &Object) -> String {
    match object {
        Object::Document(text) | Object::Service(text) => format!("{} lines", text.text.lines().count()),
        Object::Certificate(_) => "certificate and key".into(),
        Object::Backend(backend) => {
            let more = backend.additional_address.as_ref().map(|more| format!(" or {more}")).unwrap_or_default();
            let state = backend.state.name();
            let mut text = format!("{}{more}, weight {}, {state}", backend.address, backend.weight);
            if backend.tier > 0 {
                text.push_str(&format!(", tier {}", backend.tier));
            }
            if let Some(zone) = &backend.zone {
                text.push_str(&format!(", zone {zone}"));
            }
            if backend.ejected {
                text.push_str(", ejected by the fleet");
            }
            if let Some(lease) = backend.lease {
                text.push_str(&format!(", lease {lease}"));
            }
            text
        }
    }
}
