//! Leases and locks.

use super::member::Api;
use super::objects::{by, done, fresh, parse, placed};
use super::owner;
use super::request::{Call, bounded, duration_ms, number};
use super::response::{Body, json, problem};
use crate::Code;
use crate::http::Problem;
use crate::state::{Command, Role, State};
use hyper::Response;
use serde::Deserialize;
use serde_json::{Value, json as value};

pub(super) async fn leases(api: &Api, ask: &Call<'_>) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Read)?;
    fresh(api, ask).await?;
    let state = api.plane.state();
    let list: Vec<Value> = state
        .leases
        .iter()
        .map(|(id, lease)| {
            let (words, caller) = owner::parts(&lease.owner);
            value!({ "id": id, "ttl_ms": lease.ttl_ms, "owner": words, "caller": caller })
        })
        .collect();
    Ok(placed(api, json(&value!({ "leases": list }))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GrantBody {
    ttl: String,
    #[serde(default)]
    owner: Option<String>,
}

pub(super) async fn grant(api: &Api, ask: &Call<'_>, body: &[u8]) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Register)?;
    let GrantBody { ttl, owner } = parse(body)?;
    let ttl_ms =
        duration_ms(&ttl).ok_or_else(|| problem(400, Code::BadTtl, format!("{ttl:?} is no time: write `10s`")))?;
    let words = owner.as_deref().unwrap_or(&ask.caller.name);
    bounded("owner", words)?;
    done(api, Command::LeaseGrant { owner: owner::lease_owner(words, &ask.caller.name), ttl_ms }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeepBody {
    ids: Vec<u64>,
}

pub(super) async fn keep_alive(api: &Api, ask: &Call<'_>, body: &[u8]) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Register)?;
    let KeepBody { ids } = parse(body)?;
    let state = api.plane.state();
    ids.iter().try_for_each(|id| owner::lease(ask, &state, *id))?;
    let missing = api.plane.keep_alive(ids).await?;
    Ok(json(&value!({ "missing": missing })))
}

pub(super) async fn keep_one_alive(api: &Api, ask: &Call<'_>, id: &str) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Register)?;
    let id = number(id)?;
    owner::lease(ask, &api.plane.state(), id)?;
    if api.plane.keep_alive(vec![id]).await?.is_empty() {
        return Ok(json(&value!({})));
    }
    Err(problem(404, Code::NotFound, format!("there is no lease {id}: it may have expired")))
}

pub(super) async fn revoke(api: &Api, ask: &Call<'_>, id: &str) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Register)?;
    let id = number(id)?;
    owned_now(api, ask, |state| owner::lease(ask, state, id)).await?;
    done(api, Command::LeaseRevoke { by: by(ask, None), ids: vec![id] }).await
}

/// Whether the caller may, by what the members have now: ids are given once, so that it stays so.
pub(super) async fn owned_now(
    api: &Api,
    ask: &Call<'_>,
    may: impl Fn(&State) -> Result<(), Problem>,
) -> Result<(), Problem> {
    if ask.caller.role == Role::Register {
        api.plane.barrier().await?;
        may(&api.plane.state())?;
    }
    Ok(())
}

pub(super) async fn locks(api: &Api, ask: &Call<'_>) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Read)?;
    fresh(api, ask).await?;
    let state = api.plane.state();
    let list: Vec<Value> = state
        .locks
        .iter()
        .map(|(name, lock)| value!({ "name": name, "owner": lock.owner, "lease": lock.lease, "token": lock.token }))
        .collect();
    Ok(placed(api, json(&value!({ "locks": list }))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LockBody {
    lease: u64,
    #[serde(default)]
    owner: Option<String>,
}

pub(super) async fn lock(api: &Api, ask: &Call<'_>, name: &str, body: &[u8]) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Register)?;
    let LockBody { lease, owner } = parse(body)?;
    let owner = owner.unwrap_or_else(|| ask.caller.name.clone());
    owned_now(api, ask, |state| owner::lease(ask, state, lease)).await?;
    let done = api.plane.propose(&Command::LockAcquire { name: name.to_owned(), owner, lease }).await?;
    Ok(json(&value!({ "token": done.id })))
}

pub(super) async fn unlock(api: &Api, ask: &Call<'_>, name: &str) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Register)?;
    let token =
        ask.parameter("token").ok_or_else(|| problem(400, Code::NoToken, "write `?token=` with the fencing token"))?;
    let token = number(token)?;
    owned_now(api, ask, |state| owner::lock(ask, state, name)).await?;
    done(api, Command::LockRelease { name: name.to_owned(), token }).await
}
