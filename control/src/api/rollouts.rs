//! Rollouts.

use super::member::Api;
use super::objects::{done, fresh, parse, placed};
use super::request::{Call, bounded, number};
use super::response::{Body, json, problem};
use super::shown::rollout_json;
use crate::Code;
use crate::http::Problem;
use crate::state::{Command, Role};
use hyper::Response;
use serde::Deserialize;
use serde_json::{Value, json as value};

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
