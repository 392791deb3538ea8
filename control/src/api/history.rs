//! Revisions, and the way back.

use super::member::Api;
use super::objects::{by, done, fresh, parse, placed};
use super::request::{Call, number};
use super::response::{Body, json, problem};
use crate::Code;
use crate::http::Problem;
use crate::state::{Command, Object, Role};
use crate::watch::wire::RevisionView;
use hyper::Response;
use serde::Deserialize;
use serde_json::{Value, json as value};
use std::sync::Arc;

pub(super) fn revision_json(number: u64, revision: &crate::state::Revision) -> Value {
    let mut shown = revision.clone();
    for change in &mut shown.changes {
        for object in [&mut change.before, &mut change.after].into_iter().flatten() {
            *object = Arc::new(Object::redacted(object));
        }
    }
    value!(RevisionView { revision: number, change: shown })
}

pub(super) async fn history(api: &Api, ask: &Call<'_>) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Read)?;
    fresh(api, ask).await?;
    let limit = ask.parameter("limit").map_or(Ok(20), number)?.min(1000) as usize;
    let state = api.plane.state();
    let skip = state.history.size().saturating_sub(limit);
    let mut shown: Vec<Value> =
        state.history.iter().skip(skip).map(|(number, revision)| revision_json(*number, revision)).collect();
    shown.reverse();
    Ok(placed(api, json(&value!({ "revisions": shown }))))
}

pub(super) async fn revision_at(api: &Api, ask: &Call<'_>, revision: &str) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Read)?;
    fresh(api, ask).await?;
    let wanted = number(revision)?;
    let state = api.plane.state();
    match state.history.get(&wanted) {
        Some(revision) => Ok(placed(api, json(&revision_json(wanted, revision)))),
        None => Err(problem(404, Code::UnknownRevision, format!("revision {wanted} is not remembered"))),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RollbackBody {
    to: u64,
    #[serde(default)]
    note: String,
}

pub(super) async fn rollback(api: &Api, ask: &Call<'_>, body: &[u8]) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Operate)?;
    let RollbackBody { to, note } = parse(body)?;
    done(api, Command::Rollback { by: by(ask, Some(&note)), to }).await
}
