//! Which path does what.

use super::auth::{hash, role_name};
use super::member::Api;
use super::metrics::metrics;
use super::objects::{self, by, done_json, fresh, parse, placed};
use super::owner;
use super::request::{Ask, bounded, duration_ms};
use super::response::{Body, cut, full, json, problem};
use super::stream;
use crate::Code;
use crate::consensus::{MemberStatus, Status};
use crate::http::Problem;
use crate::plane::{Health, MemberChange, unix_ms};
use crate::state::backup;
use crate::state::{Command, Object, Role, State};
use crate::watch::wire::{Heartbeat, RevisionView, Snapshot};
use bytes::Bytes;
use hyper::{Method, Response, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json as value};
use std::sync::Arc;
use std::time::Duration;

/// A member that has not heard of a leader for this long is not ready.
const READY_AGE: Duration = Duration::from_secs(5);
/// Largest heartbeat: digests of a thousand rings, and some thousand backends that are down.
const HEARTBEAT_BYTES_MAX: usize = 256 << 10;
/// Texts in one are cut off here.
const TEXT_BYTES_MAX: usize = 4096;

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
        ["openapi.json"] => Some(json(&super::openapi::document())),
        _ => None,
    }
}

/// Everything else.
pub(super) async fn route(api: &Arc<Api>, ask: &Ask<'_>, body: Bytes) -> Result<Response<Body>, Problem> {
    let path: Vec<&str> = ask.path.iter().map(String::as_str).collect();
    let rest = |from: usize| path[from..].join("/");
    match (ask.method.as_str(), &path[..]) {
        ("GET", ["metrics"]) => metrics(api, ask),
        ("GET", ["v1", "status"]) => status(api, ask),
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
        ("GET", ["v1", "history"]) => history(api, ask).await,
        ("GET", ["v1", "history", revision]) => revision_at(api, ask, revision).await,
        ("POST", ["v1", "rollback"]) => rollback(api, ask, &body).await,
        ("GET", ["v1", "leases"]) => leases(api, ask).await,
        ("POST", ["v1", "leases"]) => grant(api, ask, &body).await,
        ("POST", ["v1", "leases", "keepalive"]) => keep_alive(api, ask, &body).await,
        ("PUT", ["v1", "leases", id]) => keep_one_alive(api, ask, id).await,
        ("DELETE", ["v1", "leases", id]) => revoke(api, ask, id).await,
        ("GET", ["v1", "locks"]) => locks(api, ask).await,
        ("PUT", ["v1", "locks", name]) => lock(api, ask, name, &body).await,
        ("DELETE", ["v1", "locks", name]) => unlock(api, ask, name).await,
        ("GET", ["v1", "tokens"]) => tokens(api, ask).await,
        ("PUT", ["v1", "tokens", name]) => put_token(api, ask, name, &body).await,
        ("DELETE", ["v1", "tokens", name]) => {
            ask.caller.needs(Role::Admin)?;
            done(api, Command::TokenDelete { name: (*name).to_owned() }).await
        }
        ("GET", ["v1", "proxies"]) => {
            ask.caller.needs(Role::Read)?;
            let fleet = api.plane.fleet().await?;
            let state = api.plane.state();
            Ok(placed(
                api,
                json(&value!({
                    "epoch": state.epoch, "revision": state.revision, "digest": state.digest.to_string(),
                    "proxies": fleet.proxies, "frozen": fleet.frozen, "settled": api.plane.knows_fleet(),
                })),
            ))
        }
        ("PUT", ["v1", "proxies", name]) => {
            ask.caller.needs(Role::Register)?;
            if !crate::state::is_name(name) {
                return Err(problem(400, Code::BadName, "a proxy's name has 1 to 128 letters, digits and `._:-`"));
            }
            if body.len() > HEARTBEAT_BYTES_MAX {
                return Err(problem(
                    413,
                    Code::TooLarge,
                    format!("a heartbeat has more than {} KiB", HEARTBEAT_BYTES_MAX >> 10),
                ));
            }
            let mut heartbeat = parse::<Heartbeat>(&body)?;
            let refusal = heartbeat.vote.as_mut().and_then(|(_, vote)| vote.refusal.as_mut());
            let own = [&mut heartbeat.version, &mut heartbeat.digest, &mut heartbeat.cluster].map(Some);
            let texts = own.into_iter().chain([heartbeat.stuck.as_mut(), refusal]);
            for text in texts.flatten() {
                cut(text, TEXT_BYTES_MAX);
            }
            api.plane.heartbeat((*name).to_owned(), heartbeat).await?;
            Ok(json(&value!({})))
        }
        ("DELETE", ["v1", "proxies", name]) => sign_off(api, ask, name).await,
        ("GET", ["v1", "rollouts"]) => rollouts(api, ask).await,
        ("POST", ["v1", "rollouts"]) => objects::roll_out(api, ask, &body).await,
        ("GET", ["v1", "rollouts", id]) => rollout(api, ask, id).await,
        ("POST", ["v1", "rollouts", id, "abort"]) => abort(api, ask, id, &body).await,
        ("GET", ["v1", "members"]) => members(api, ask).await,
        ("POST", ["v1", "members"]) => join(api, ask, &body).await,
        ("POST", ["v1", "members", id, "promote"]) => change_member(api, ask, MemberChange::Promote(number(id)?)).await,
        ("DELETE", ["v1", "members", id]) => change_member(api, ask, MemberChange::Remove(number(id)?)).await,
        ("POST", ["v1", "transfer"]) => {
            let to: To = parse(&body)?;
            change_member(api, ask, MemberChange::Transfer(to.to)).await
        }
        ("GET", ["v1", "backup"]) => backup(api, ask).await,
        ("POST", ["v1", "restore"]) => restore(api, ask, &body).await,
        (_, ["v1", known, ..]) if super::openapi::is_resource(known) => {
            Err(problem(405, Code::BadMethod, format!("{} is not for this path: see /openapi.json", ask.method)))
        }
        _ => Err(problem(404, Code::UnknownPath, "there is nothing here: see /openapi.json")),
    }
}

/// A proxy's own word that it ends; or an operator's, that it does not come back.
async fn sign_off(api: &Api, ask: &Ask<'_>, name: &str) -> Result<Response<Body>, Problem> {
    let instance = ask.parameter("instance").map(number).transpose()?;
    ask.caller.needs(if instance.is_some() { Role::Register } else { Role::Operate })?;
    api.plane.sign_off(name.to_owned(), instance).await?;
    Ok(json(&value!({})))
}

fn number(text: &str) -> Result<u64, Problem> {
    text.parse().map_err(|_| problem(400, Code::BadNumber, format!("{text:?} is not a number")))
}

async fn done(api: &Api, command: Command) -> Result<Response<Body>, Problem> {
    Ok(json(&done_json(&api.plane.propose(&command).await?)))
}

fn status(api: &Api, ask: &Ask<'_>) -> Result<Response<Body>, Problem> {
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
            "objects": objects::counts(&state),
            "objects_bytes": state.objects_bytes, "leases": state.leases.size(), "locks": state.locks.size(),
            "watchers": api.plane.hub.watchers(),
            "rollout": state.rollout().map(rollout_json),
        })),
    ))
}

/// `GET /v1/topology[?after=EPOCH.REVISION&wait=30s]`: the whole, as soon as it is later than `after`.
async fn topology(api: &Api, ask: &Ask<'_>) -> Result<Response<Body>, Problem> {
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

fn revision_json(number: u64, revision: &crate::state::Revision) -> Value {
    let mut shown = revision.clone();
    for change in &mut shown.changes {
        for object in [&mut change.before, &mut change.after].into_iter().flatten() {
            *object = Arc::new(Object::redacted(object));
        }
    }
    value!(RevisionView { revision: number, change: shown })
}

async fn history(api: &Api, ask: &Ask<'_>) -> Result<Response<Body>, Problem> {
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

async fn revision_at(api: &Api, ask: &Ask<'_>, revision: &str) -> Result<Response<Body>, Problem> {
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

async fn rollback(api: &Api, ask: &Ask<'_>, body: &[u8]) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Operate)?;
    let RollbackBody { to, note } = parse(body)?;
    done(api, Command::Rollback { by: by(ask, Some(&note)), to }).await
}

async fn leases(api: &Api, ask: &Ask<'_>) -> Result<Response<Body>, Problem> {
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

async fn grant(api: &Api, ask: &Ask<'_>, body: &[u8]) -> Result<Response<Body>, Problem> {
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

async fn keep_alive(api: &Api, ask: &Ask<'_>, body: &[u8]) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Register)?;
    let KeepBody { ids } = parse(body)?;
    let state = api.plane.state();
    ids.iter().try_for_each(|id| owner::lease(ask, &state, *id))?;
    let missing = api.plane.keep_alive(ids).await?;
    Ok(json(&value!({ "missing": missing })))
}

async fn keep_one_alive(api: &Api, ask: &Ask<'_>, id: &str) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Register)?;
    let id = number(id)?;
    owner::lease(ask, &api.plane.state(), id)?;
    if api.plane.keep_alive(vec![id]).await?.is_empty() {
        return Ok(json(&value!({})));
    }
    Err(problem(404, Code::NotFound, format!("there is no lease {id}: it may have expired")))
}

async fn revoke(api: &Api, ask: &Ask<'_>, id: &str) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Register)?;
    let id = number(id)?;
    owned_now(api, ask, |state| owner::lease(ask, state, id)).await?;
    done(api, Command::LeaseRevoke { by: by(ask, None), ids: vec![id] }).await
}

/// Whether the caller may, by what the members have now: ids are given once, so that it stays so.
async fn owned_now(api: &Api, ask: &Ask<'_>, may: impl Fn(&State) -> Result<(), Problem>) -> Result<(), Problem> {
    if ask.caller.role == Role::Register {
        api.plane.barrier().await?;
        may(&api.plane.state())?;
    }
    Ok(())
}

async fn locks(api: &Api, ask: &Ask<'_>) -> Result<Response<Body>, Problem> {
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

async fn lock(api: &Api, ask: &Ask<'_>, name: &str, body: &[u8]) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Register)?;
    let LockBody { lease, owner } = parse(body)?;
    let owner = owner.unwrap_or_else(|| ask.caller.name.clone());
    owned_now(api, ask, |state| owner::lease(ask, state, lease)).await?;
    let done = api.plane.propose(&Command::LockAcquire { name: name.to_owned(), owner, lease }).await?;
    Ok(json(&value!({ "token": done.id })))
}

async fn unlock(api: &Api, ask: &Ask<'_>, name: &str) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Register)?;
    let token =
        ask.parameter("token").ok_or_else(|| problem(400, Code::NoToken, "write `?token=` with the fencing token"))?;
    let token = number(token)?;
    owned_now(api, ask, |state| owner::lock(ask, state, name)).await?;
    done(api, Command::LockRelease { name: name.to_owned(), token }).await
}

async fn tokens(api: &Api, ask: &Ask<'_>) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Admin)?;
    fresh(api, ask).await?;
    let state = api.plane.state();
    let list: Vec<Value> = state
        .tokens
        .iter()
        .map(|(name, token)| value!({ "name": name, "role": role_name(token.role), "expires_at_ms": token.expires_at_ms }))
        .collect();
    Ok(placed(api, json(&value!({ "tokens": list }))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenBody {
    role: Role,
    #[serde(default)]
    ttl: Option<String>,
}

/// The token's text is made here, shown once, and kept by nobody.
async fn put_token(api: &Api, ask: &Ask<'_>, name: &str, body: &[u8]) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Admin)?;
    let TokenBody { role, ttl } = parse(body)?;
    let ttl = match ttl {
        None => None,
        Some(ttl) => Some(
            duration_ms(&ttl).ok_or_else(|| problem(400, Code::BadTtl, format!("{ttl:?} is no time: write `24h`")))?,
        ),
    };
    let mut random = [0; 32];
    // 256 bits of the system's randomness, by way of TLS's provider.
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    provider
        .secure_random
        .fill(&mut random)
        .map_err(|_| problem(500, Code::Internal, "the system has no randomness"))?;
    let text = format!("rwt_{}", blake3::Hash::from(random).to_hex());
    let expires_at_ms = ttl.map(|ttl| unix_ms().saturating_add(ttl));
    api.plane.propose(&Command::TokenPut { name: name.to_owned(), role, hash: hash(&text), expires_at_ms }).await?;
    Ok(json(&value!({ "name": name, "role": role_name(role), "token": text, "expires_at_ms": expires_at_ms })))
}

fn rollout_json(rollout: &crate::state::Rollout) -> Value {
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

async fn rollouts(api: &Api, ask: &Ask<'_>) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Read)?;
    fresh(api, ask).await?;
    let state = api.plane.state();
    let mut list: Vec<Value> = state.rollouts.values().map(rollout_json).collect();
    list.reverse();
    Ok(placed(api, json(&value!({ "rollouts": list }))))
}

async fn rollout(api: &Api, ask: &Ask<'_>, id: &str) -> Result<Response<Body>, Problem> {
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

async fn abort(api: &Api, ask: &Ask<'_>, id: &str, body: &[u8]) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Operate)?;
    let AbortBody { reason } = if body.is_empty() { AbortBody::default() } else { parse(body)? };
    bounded("reason", &reason)?;
    let reason = if reason.is_empty() { format!("by {}", ask.caller.name) } else { reason };
    done(api, Command::RolloutAbort { id: number(id)?, reason }).await
}

/// One member, as the one that answers sees it: what a member that does not answer lacks is known to nobody.
fn member_json(member: &MemberStatus, status: &Status, health: Option<&Health>, voter: bool) -> Value {
    let leader = status.acknowledged_leader().is_some_and(|(node, _)| *node == member.node);
    let mut shown = value!({
        "node": member.node, "name": member.info.name, "peer_address": member.info.peer_address,
        "api_address": member.info.api_address, "voter": voter, "leader": leader,
    });
    let own = status.last_log.unwrap_or(0);
    let told = match health {
        None => value!({
            "reachable": true, "last_heard_ms": 0, "role": status.role.name(), "term": status.term, "lag": 0,
            "version": env!("CARGO_PKG_VERSION"), "why": null,
        }),
        Some(health) => {
            let view = health.view.as_ref();
            let answers = health.answers();
            // Only the leader knows what a follower has on its disk; from others it is what the member says of itself.
            let lag = member.lag.or(view.map(|view| own.saturating_sub(view.last_log))).filter(|_| answers);
            value!({
                "reachable": answers, "last_heard_ms": health.heard_age().map(|age| age.as_millis() as u64),
                "role": view.filter(|_| answers).map(|view| &view.role), "term": view.map(|view| view.term), "lag": lag,
                "version": view.map(|view| &view.version), "why": health.silent,
            })
        }
    };
    if let (Some(shown), Value::Object(told)) = (shown.as_object_mut(), told) {
        shown.extend(told);
    }
    shown
}

async fn members(api: &Api, ask: &Ask<'_>) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Read)?;
    // Who led may have gone while the others were asked.
    let roll = api.plane.call_roll().await;
    let status = api.plane.status();
    let unasked = Health::default();
    let health = |node: u64| (node != status.id).then(|| roll.get(&node).unwrap_or(&unasked));
    let voters = status.voters.iter().map(|member| member_json(member, &status, health(member.node), true));
    let learners = status.learners.iter().map(|member| member_json(member, &status, health(member.node), false));
    let list: Vec<Value> = voters.chain(learners).collect();
    let (answering, all) = api.plane.voters_that_answer(&status, &roll);
    let cluster = api.plane.state().cluster.clone();
    Ok(placed(
        api,
        json(&value!({
            "cluster": cluster, "term": status.term, "answered_by": status.id, "members": list,
            "leader": status.acknowledged_leader().map(|(node, info)| value!({ "node": node, "name": info.name })),
            "quorum": { "voters": all, "reachable": answering, "needed": all / 2 + 1 },
        })),
    ))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JoinBody {
    node: u64,
    name: String,
    peer_address: String,
    api_address: String,
    #[serde(default = "yes")]
    voter: bool,
    #[serde(default)]
    replace: Option<u64>,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct To {
    to: u64,
}

async fn join(api: &Api, ask: &Ask<'_>, body: &[u8]) -> Result<Response<Body>, Problem> {
    let JoinBody { node, name, peer_address, api_address, voter, replace } = parse(body)?;
    for (what, text) in [("member's name", &name), ("peer address", &peer_address), ("API address", &api_address)] {
        bounded(what, text)?;
    }
    let info = (name, peer_address, api_address);
    change_member(api, ask, MemberChange::Join { node, info, voter, replace }).await
}

async fn change_member(api: &Api, ask: &Ask<'_>, change: MemberChange) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Admin)?;
    api.plane.change_members(change).await?;
    Ok(json(&value!({})))
}

async fn backup(api: &Api, ask: &Ask<'_>) -> Result<Response<Body>, Problem> {
    // Certificates' keys are in it.
    ask.caller.needs(Role::Admin)?;
    fresh(api, ask).await?;
    let state = api.plane.state();
    let bytes = tokio::task::spawn_blocking(move || backup::write(&state)).await;
    let failed = |why: String| problem(500, Code::Internal, format!("the backup could not be made: {why}"));
    let bytes = bytes.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
    Ok(placed(api, full(StatusCode::OK, "application/octet-stream", bytes)))
}

async fn restore(api: &Api, ask: &Ask<'_>, body: &Bytes) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Admin)?;
    let bytes = body.clone();
    let read = tokio::task::spawn_blocking(move || backup::read(&bytes)).await;
    let backup = read
        .map_err(|error| problem(500, Code::Internal, error.to_string()))?
        .map_err(|error| problem(422, Code::Damaged, format!("this is no backup, or it is damaged: {error}")))?;
    let cluster = &backup.state.cluster;
    let other_cluster = ask.flag("other_cluster")?;
    // What this member has may be old: it is asked whether it may be before anything is in the log.
    api.plane.barrier().await?;
    let now = api.plane.state();
    if backup.state.rules > now.rules {
        let (of_backup, of_members) = (backup.state.rules, now.rules);
        let why = format!(
            "the backup is by rules {of_backup}, the members have agreed on rules {of_members}: not all of them could read it; \
             upgrade them all, and ask again"
        );
        return Err(problem(409, Code::UnknownRules, why));
    }
    match now.rules {
        0 if *cluster != now.cluster && !other_cluster => {
            let why = format!(
                "the backup is of cluster {cluster:?}, this is {:?}: pass --other-cluster if it is meant",
                now.cluster
            );
            return Err(problem(409, Code::OtherCluster, why));
        }
        0 => {}
        _ => now.may_restore(cluster, other_cluster)?,
    }
    let epoch = api.plane.next_epoch(backup.state.epoch).await?;
    for part in backup.parts() {
        api.plane.propose(&part).await?;
    }
    let whole = backup.checksum;
    let by = by(ask, None);
    done(
        api,
        match now.rules {
            0 => Command::RestoreCommit { by, whole },
            _ => Command::RestoreAs { by, whole, epoch, other_cluster },
        },
    )
    .await
}
