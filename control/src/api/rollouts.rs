//! Rollouts.

use super::member::Api;
use super::objects::{done, fresh, parse, placed};
use super::request::{Call, bounded, number};
use super::response::{Body, json, problem};
use crate::Code;
use crate::http::Problem;
use crate::state::{Command, Role};
use hyper::Response;
use serde::Deserialize;
use serde_json::{Value, json as value};

pub(super) fn rollout_json(rollout: &crate::state::Rollout) -> Value {
    let refused: Vec<Value> = rollout
        .votes
        .iter()
        .filter_map(|(proxy, vote)| vote.refusal.as_ref().map(|why| value!({ "proxy": proxy, "reason": why })))
        .collect();
    let moved = rollout.votes.values().map(|vote| vote.moved_ppm).max().unwrap_or(0);
    value!({
        "id": rollout.id, "phase": rollout.phase, "percent": rollout.percent(), "policy": rollout.policy,
        "author": rollout.txn.by.author, "note": rollout.txn.by.note, "at_ms": rollout.txn.by.at_ms,
        "participants": rollout.participants.len(), "votes": rollout.votes.len(), "refused": refused,
        "moved_percent": f64::from(moved) / 10_000.0,
        "keys": rollout.changes.iter().map(|change| value!(change.key)).collect::<Vec<_>>(),
    })
}

pub(super) async fn rollouts(api: &Api, ask: &Call<'_>) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Read)?;
    fresh(api, ask).await?;
    let state = api.plane.state();
    let mut list: Vec<Value> = state.rollouts.values().map(rollout_json).collect();
    list.reverse();
    Ok(placed(api, json(&value!({ "rollouts": list }))))
}

pub(super) async fn rollout(api: &Api, ask: &Call<'_>, id: &str) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Read)?;
    fresh(api, ask).await?;
    let id = number(id)?;
    let state = api.plane.state();
    match state.rollouts.get(&id) {
        Some(rollout) => Ok(placed(api, json(&rollout_json(rollout)))),
        None => Err(problem(404, Code::NotFound, format!("there is no rollout {id}"))),
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct AbortBody {
    #[serde(default)]
    reason: String,
}

pub(super) async fn abort(api: &Api, ask: &Call<'_>, id: &str, body: &[u8]) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Operate)?;
    let AbortBody { reason } = if body.is_empty() { AbortBody::default() } else { parse(body)? };
    bounded("reason", &reason)?;
    let reason = if reason.is_empty() { format!("by {}", ask.caller.name) } else { reason };
    done(api, Command::RolloutAbort { id: number(id)?, reason }).await
}
