//! Which path does what.

use super::auth::role_name;
use super::member::Api;
use super::metrics::metrics;
use super::objects::{self, done, fresh, parse, placed};
use super::request::{Call, duration_ms, number};
use super::response::{Body, full, json, problem};
use super::shown::{counts, rollout_json};
use super::stream;
use super::{backups, history, holding, loads, members, openapi, proxies, rollouts, tokens};
use crate::Code;
use crate::http::Problem;
use crate::plane::MemberChange;
use crate::state::{Command, Role};
use crate::watch::wire::Snapshot;
use bytes::Bytes;
use hyper::{Method, Response, StatusCode, header};
use serde_json::json as value;
use std::sync::Arc;
use std::time::Duration;

/// A member that has not heard of a leader for this long is not ready.
const READY_AGE: Duration = Duration::from_secs(5);

/// Paths that need no credentials.
pub(super) fn open(api: &Api, method: &Method, path: &[String]) -> Option<Response<Body>> {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    if !matches!(*method, Method::GET | Method::HEAD) {
        return None;
    }
    match path[..] {
        ["healthz"] => Some(full(StatusCode::OK, "text/plain", "ok\n")),
        ["readyz"] => Some(match api.plane.leader_age() {
            _ if api.plane.is_removed() => {
                full(StatusCode::SERVICE_UNAVAILABLE, "text/plain", "this member was removed\n")
            }
            Some(age) if age < READY_AGE && !api.plane.state().cluster.is_empty() => {
                full(StatusCode::OK, "text/plain", "ready\n")
            }
            _ => full(StatusCode::SERVICE_UNAVAILABLE, "text/plain", "no leader is followed\n"),
        }),
        ["openapi.json"] => Some(json(&openapi::document())),
        _ => None,
    }
}

/// Everything else.
pub(super) async fn route(api: &Arc<Api>, ask: &Call<'_>, body: Bytes) -> Result<Response<Body>, Problem> {
    let path: Vec<&str> = ask.path.iter().map(String::as_str).collect();
    let rest = |from: usize| path[from..].join("/");
    match (ask.method.as_str(), &path[..]) {
        ("GET", ["metrics"]) => metrics(api, ask),
        ("GET", ["v1", "status"]) => status(api, ask),
        ("GET", ["v1", "whoami"]) => Ok(whoami(ask)),
        ("GET", ["v1", "live"]) => stream::live(api, ask),
        ("GET", ["v1", "topology"]) => topology(api, ask).await,
        ("GET", ["v1", "watch"]) => {
            ask.caller.needs(Role::Register)?;
            stream::watch(api, ask)
        }
        ("GET", ["v1", "objects"]) => objects::list(api, ask).await,
        ("GET", ["v1", "objects", ..]) => objects::get(api, ask, &rest(2)).await,
        ("PUT", ["v1", "objects", ..]) => objects::put(api, ask, &rest(2), &body).await,
        ("PATCH", ["v1", "objects", ..]) => objects::patch(api, ask, &rest(2), &body).await,
        ("DELETE", ["v1", "objects", ..]) => objects::delete(api, ask, &rest(2)).await,
        ("POST", ["v1", "txn"]) => objects::transact(api, ask, &body).await,
        ("POST", ["v1", "check"]) => objects::check(api, ask, &body).await,
        ("GET", ["v1", "history"]) => history::history(api, ask).await,
        ("GET", ["v1", "history", revision]) => history::revision_at(api, ask, revision).await,
        ("POST", ["v1", "rollback"]) => history::rollback(api, ask, &body).await,
        ("GET", ["v1", "leases"]) => holding::leases(api, ask).await,
        ("POST", ["v1", "leases"]) => holding::grant(api, ask, &body).await,
        ("POST", ["v1", "leases", "keepalive"]) => holding::keep_alive(api, ask, &body).await,
        ("PUT", ["v1", "leases", id]) => holding::keep_one_alive(api, ask, id).await,
        ("DELETE", ["v1", "leases", id]) => holding::revoke(api, ask, id).await,
        ("GET", ["v1", "locks"]) => holding::locks(api, ask).await,
        ("PUT", ["v1", "locks", name]) => holding::lock(api, ask, name, &body).await,
        ("DELETE", ["v1", "locks", name]) => holding::unlock(api, ask, name).await,
        ("GET", ["v1", "tokens"]) => tokens::tokens(api, ask).await,
        ("PUT", ["v1", "tokens", name]) => tokens::put_token(api, ask, name, &body).await,
        ("DELETE", ["v1", "tokens", name]) => {
            ask.caller.needs(Role::Admin)?;
            done(api, Command::TokenDelete { name: (*name).to_owned() }).await
        }
        ("GET", ["v1", "proxies"]) => proxies::proxies(api, ask).await,
        ("PUT", ["v1", "proxies", name]) => proxies::heartbeat(api, ask, name, &body).await,
        ("DELETE", ["v1", "proxies", name]) => proxies::sign_off(api, ask, name).await,
        ("GET", ["v1", "loads"]) => loads::tables(api, ask).await,
        ("POST", ["v1", "loads"]) => loads::report(api, ask, &body).await,
        ("GET", ["v1", "rollouts"]) => rollouts::rollouts(api, ask).await,
        ("POST", ["v1", "rollouts"]) => objects::roll_out(api, ask, &body).await,
        ("GET", ["v1", "rollouts", id]) => rollouts::rollout(api, ask, id).await,
        ("POST", ["v1", "rollouts", id, "abort"]) => rollouts::abort(api, ask, id, &body).await,
        _ => route_member(api, ask, &path, &body).await,
    }
}

/// What concerns the control plane itself.
async fn route_member(api: &Arc<Api>, ask: &Call<'_>, path: &[&str], body: &Bytes) -> Result<Response<Body>, Problem> {
    match (ask.method.as_str(), path) {
        ("GET", ["v1", "members"]) => members::members(api, ask).await,
        ("POST", ["v1", "members"]) => members::join(api, ask, body).await,
        ("POST", ["v1", "members", id, "promote"]) => {
            members::change_member(api, ask, MemberChange::Promote(number(id)?)).await
        }
        ("DELETE", ["v1", "members", id]) => members::change_member(api, ask, MemberChange::Remove(number(id)?)).await,
        ("POST", ["v1", "transfer"]) => {
            let to: members::To = parse(body)?;
            members::change_member(api, ask, MemberChange::Transfer(to.to)).await
        }
        ("GET", ["v1", "backup"]) => backups::backup(api, ask).await,
        ("POST", ["v1", "restore"]) => backups::restore(api, ask, body).await,
        (_, ["v1", known, ..]) if openapi::is_resource(known) => {
            Err(problem(405, Code::BadMethod, format!("{} is not for this path: see /openapi.json", ask.method)))
        }
        _ => Err(problem(404, Code::UnknownPath, "there is nothing here: see /openapi.json")),
    }
}

fn whoami(ask: &Call<'_>) -> Response<Body> {
    let (name, role, via) = (&ask.caller.name, role_name(ask.caller.role), ask.caller.via);
    json(&value!({ "name": name, "role": role, "via": via }))
}

fn status(api: &Api, ask: &Call<'_>) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Read)?;
    let (state, status) = (api.plane.state(), api.plane.status());
    Ok(placed(
        api,
        json(&value!({
            "version": env!("CARGO_PKG_VERSION"),
            "cluster": state.cluster, "identity": api.identity,
            "epoch": state.epoch, "revision": state.revision, "digest": state.digest.to_string(),
            "member": {
                "node": status.id, "name": api.me.name, "role": status.role.name(), "term": status.term,
                "last_log": status.last_log, "committed": status.committed, "applied": status.applied,
                "snapshot": status.snapshot,
                "quorum_age_ms": status.quorum_age.map(|age| age.as_millis() as u64),
            },
            "leader": status.acknowledged_leader().map(|(node, info)| value!({
                "node": node, "name": info.name, "api_address": info.api_address,
            })),
            "leader_age_ms": api.plane.leader_age().map(|age| age.as_millis() as u64),
            "objects": counts(&state),
            "objects_bytes": state.objects_bytes, "leases": state.leases.size(), "locks": state.locks.size(),
            "watchers": api.plane.hub.watchers(),
            "rollout": state.rollout().map(rollout_json),
        })),
    ))
}

/// `GET /v1/topology[?after=EPOCH.REVISION&wait=30s]`: the whole, as soon as it is later than `after`.
async fn topology(api: &Api, ask: &Call<'_>) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Register)?;
    let after = ask.parameter("after");
    let state = match after {
        None => {
            fresh(api, ask).await?;
            api.plane.state()
        }
        Some(after) => {
            let bad = || problem(400, Code::BadPosition, "write `after=EPOCH.REVISION`");
            let (epoch, revision) = after.split_once('.').ok_or_else(bad)?;
            let after: (u64, u64) = (epoch.parse().map_err(|_| bad())?, revision.parse().map_err(|_| bad())?);
            let wait = ask.parameter("wait").map_or(Some(30_000), duration_ms).ok_or_else(bad)?.min(35_000);
            let mut now = api.plane.hub.subscribe();
            let later = now.wait_for(|now| (now.epoch, now.revision) > after);
            match tokio::time::timeout(Duration::from_millis(wait), later).await {
                Ok(Ok(now)) => Arc::clone(&now.state),
                // Nothing has happened: the client asks again from where it is.
                _ => {
                    let mut response = full(StatusCode::NOT_MODIFIED, "application/json", "");
                    response.headers_mut().remove(header::CONTENT_TYPE);
                    return Ok(placed(api, response));
                }
            }
        }
    };
    let text = serde_json::to_string(&Snapshot::of(&state))
        .map_err(|error| problem(500, Code::Internal, error.to_string()))?;
    let mut response = full(StatusCode::OK, "application/json", text);
    if let Ok(tag) = header::HeaderValue::from_str(&format!("\"{}.{}\"", state.epoch, state.revision)) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(placed(api, response))
}
