//! Objects: read, changed by compare-and-set, in transactions, in rollouts.

use super::auth::Caller;
use super::member::Api;
use super::owner;
use super::request::{Call, duration_ms};
use super::response::{Body, json, problem};
use crate::Code;
use crate::http::Problem;
use crate::plane::unix_ms;
use crate::state::{
    Applied, Author, Backend, BackendState, Certificate, Command, Condition, Entry, Key, Object, Op, Policy, Role,
    Text, Txn,
};
use bytes::Bytes;
use hyper::{Response, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json as value};

/// How often a change by a registrar is judged again.
const JUDGED_MAX: u32 = 5;

/// A body, strictly.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| problem(400, Code::BadBody, format!("the request's body: {error}")))
}

pub(super) fn key(text: &str) -> Result<Key, Problem> {
    text.parse().map_err(|error: crate::state::KeyError| problem(400, Code::BadName, error.to_string()))
}

/// Registrars change backends; all else takes an operator.
pub(super) fn may_change<'a>(caller: &Caller, mut keys: impl Iterator<Item = &'a Key>) -> Result<(), Problem> {
    let only_backends = keys.all(|key| matches!(key, Key::Backend { .. }));
    caller.needs(if only_backends { Role::Register } else { Role::Operate })
}

pub(super) fn by(ask: &Call<'_>, note: Option<&str>) -> Author {
    let note = note.or(ask.parameter("note")).unwrap_or_default();
    Author { at_ms: unix_ms(), author: ask.caller.name.clone(), note: note.to_owned() }
}

fn request(ask: &Call<'_>) -> Option<String> {
    ask.headers.get("idempotency-key").and_then(|value| value.to_str().ok()).map(str::to_owned)
}

pub(super) fn entry_json(key: &Key, entry: &Entry) -> Value {
    value!({ "key": key, "object": entry.object.redacted(), "created": entry.created, "modified": entry.modified })
}

pub(super) fn done_json(done: &Applied) -> Value {
    value!({ "revision": done.revision, "changed": done.changed, "id": done.id })
}

/// Reads are linearizable unless the caller wants them fast.
pub(super) async fn fresh(api: &Api, ask: &Call<'_>) -> Result<(), Problem> {
    match ask.parameter("consistency") {
        None | Some("linearizable") => Ok(api.plane.barrier().await?),
        Some("stale") => Ok(()),
        Some(other) => {
            Err(problem(400, Code::BadConsistency, format!("{other:?} is neither `linearizable` nor `stale`")))
        }
    }
}

/// The state's place, on every answer that shows a part of it.
pub(super) fn placed(api: &Api, mut response: Response<Body>) -> Response<Body> {
    let state = api.plane.state();
    let age = api.plane.leader_age().map_or(u64::MAX, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    let headers = response.headers_mut();
    for (name, value) in
        [("ringway-epoch", state.epoch), ("ringway-revision", state.revision), ("ringway-leader-age-ms", age)]
    {
        headers.insert(name, value.into());
    }
    response
}

/// `GET /v1/objects[?prefix=]`.
pub(super) async fn list(api: &Api, ask: &Call<'_>) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Read)?;
    fresh(api, ask).await?;
    let prefix = ask.parameter("prefix").unwrap_or_default();
    let state = api.plane.state();
    let found = state.objects.iter().filter(|(key, _)| key.to_string().starts_with(prefix));
    let objects: Vec<Value> = found.map(|(key, entry)| entry_json(key, entry)).collect();
    Ok(placed(api, json(&value!({ "epoch": state.epoch, "revision": state.revision, "objects": objects }))))
}

/// `GET /v1/objects/KEY`.
pub(super) async fn get(api: &Api, ask: &Call<'_>, name: &str) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Read)?;
    let key = key(name)?;
    fresh(api, ask).await?;
    let state = api.plane.state();
    let entry = state.objects.get(&key).ok_or_else(|| problem(404, Code::NotFound, format!("{key} is not there")))?;
    let mut response = json(&entry_json(&key, entry));
    if let Ok(tag) = header::HeaderValue::from_str(&format!("\"{}\"", entry.modified)) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(placed(api, response))
}

/// What `If-Match: "REVISION"` and `If-None-Match: *` ask for.
fn conditions(ask: &Call<'_>, key: &Key) -> Result<Vec<Condition>, Problem> {
    let bad = || {
        problem(400, Code::BadCondition, "write `If-Match: \"REVISION\"`, or `If-None-Match: *` for what is not there")
    };
    if let Some(tag) = ask.header(header::IF_MATCH) {
        let modified = tag.trim().trim_matches('"').parse().map_err(|_| bad())?;
        return Ok(vec![Condition { key: key.clone(), modified }]);
    }
    match ask.header(header::IF_NONE_MATCH) {
        Some("*") => Ok(vec![Condition { key: key.clone(), modified: 0 }]),
        Some(_) => Err(bad()),
        None => Ok(Vec::new()),
    }
}

fn forced(ask: &Call<'_>) -> Result<bool, Problem> {
    let force = ask.flag("force")?;
    if force {
        ask.caller.needs(Role::Operate)?;
    }
    Ok(force)
}

async fn change(api: &Api, ask: &Call<'_>, key: &Key, op: Op) -> Result<Applied, Problem> {
    may_change(&ask.caller, std::iter::once(key))?;
    let txn = Txn {
        by: by(ask, None),
        request: request(ask),
        conditions: conditions(ask, key)?,
        ops: vec![op],
        force: forced(ask)?,
    };
    propose(api, ask, txn).await
}

/// Proposes what the caller may do. If the objects have changed hands between the judgement and the change, it is judged again.
async fn propose(api: &Api, ask: &Call<'_>, mut txn: Txn) -> Result<Applied, Problem> {
    owner::sign(ask, &mut txn.ops);
    for attempt in 1.. {
        let held = owner::judged(api, ask, txn.request.is_some(), &txn.ops, &txn.conditions).await?;
        let ours = !held.is_empty();
        let mut asked = txn.clone();
        asked.conditions.extend(held);
        match api.plane.propose(&Command::Txn(asked)).await.map_err(Problem::from) {
            Err(problem) if problem.is(Code::Stale) && ours && attempt < JUDGED_MAX => api.plane.barrier().await?,
            done => return done,
        }
    }
    unreachable!("invariant: the last attempt is answered")
}

/// `PUT /v1/objects/KEY`. Documents and services may be sent as YAML, as they are.
pub(super) async fn put(api: &Api, ask: &Call<'_>, name: &str, body: &Bytes) -> Result<Response<Body>, Problem> {
    let key = key(name)?;
    let yaml = ask.header(header::CONTENT_TYPE).is_some_and(|kind| kind.contains("yaml"));
    let text = || -> Result<Text, Problem> {
        if yaml {
            let text = std::str::from_utf8(body).map_err(|_| problem(400, Code::BadBody, "the text is not UTF-8"))?;
            return Ok(Text { text: text.to_owned() });
        }
        parse(body)
    };
    let object = match &key {
        Key::Document(_) => Object::Document(text()?),
        Key::Service(_) => Object::Service(text()?),
        Key::Certificate(_) => Object::Certificate(parse::<Certificate>(body)?),
        Key::Backend { .. } => Object::Backend(parse::<Backend>(body)?),
    };
    let object = match (object, ask.parameter("ttl")) {
        (Object::Backend(backend), Some(ttl)) => return register(api, ask, key, backend, ttl).await,
        (object, _) => object,
    };
    let done = change(api, ask, &key.clone(), Op::Put { key, object }).await?;
    Ok(json(&done_json(&done)))
}

/// A backend with a lease of its own. Asked again with the same content, it is a heartbeat.
async fn register(
    api: &Api,
    ask: &Call<'_>,
    key: Key,
    mut backend: Backend,
    ttl: &str,
) -> Result<Response<Body>, Problem> {
    may_change(&ask.caller, std::iter::once(&key))?;
    let ttl_ms =
        duration_ms(ttl).ok_or_else(|| problem(400, Code::BadTtl, format!("{ttl:?} is no time: write `ttl=10s`")))?;
    let state = api.plane.state();
    if let Some(Object::Backend(known)) = state.object(&key)
        && owner::object(ask, &state, &key).is_ok()
        && let Some(lease) =
            known.lease.filter(|lease| state.leases.get(lease).is_some_and(|lease| lease.ttl_ms == ttl_ms))
        && api.plane.keep_alive(vec![lease]).await?.is_empty()
    {
        backend.lease = Some(lease);
        // Drained by an operator, it stays so, however often it says that it is there.
        (backend.state, backend.ejected) = (known.state, known.ejected);
        if backend == *known {
            return Ok(json(&value!({ "revision": state.revision, "changed": 0, "lease": lease })));
        }
    }
    let mut granted = None;
    if backend.lease.is_none() {
        let grant = Command::LeaseGrant { owner: owner::lease_owner(&key.to_string(), &ask.caller.name), ttl_ms };
        granted = Some(api.plane.propose(&grant).await?.id);
        backend.lease = granted;
    }
    let lease = backend.lease;
    let done = change(api, ask, &key.clone(), Op::Put { key, object: Object::Backend(backend) }).await;
    // A refusal: nothing hangs on the lease that was granted for this. Of any other failure, nobody knows; and a lease that
    // was there before holds what was there before.
    if let (Err(problem), Some(lease)) = (&done, granted)
        && !problem.is(Code::UnknownOutcome)
    {
        // If this fails as well, it expires by itself.
        let _ =
            api.plane.propose(&Command::LeaseRevoke { by: by(ask, Some("not registered")), ids: vec![lease] }).await;
    }
    let done = done?;
    Ok(json(&value!({ "revision": done.revision, "changed": done.changed, "lease": lease })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Patch {
    weight: Option<u32>,
    state: Option<BackendState>,
}

/// `PATCH /v1/objects/backend/SERVICE/ID`.
pub(super) async fn patch(api: &Api, ask: &Call<'_>, name: &str, body: &Bytes) -> Result<Response<Body>, Problem> {
    let key = key(name)?;
    let Patch { weight, state } = parse(body)?;
    let done = change(api, ask, &key.clone(), Op::Backend { key, weight, state }).await?;
    Ok(json(&done_json(&done)))
}

/// `DELETE /v1/objects/KEY`.
pub(super) async fn delete(api: &Api, ask: &Call<'_>, name: &str) -> Result<Response<Body>, Problem> {
    let key = key(name)?;
    let lease = match api.plane.state().object(&key) {
        Some(Object::Backend(backend)) => backend.lease,
        _ => None,
    };
    let done = change(api, ask, &key.clone(), Op::Delete { key }).await?;
    // What else hangs on it, hangs on.
    let shared = |id: u64| {
        let state = api.plane.state();
        let other = |object: &Object| matches!(object, Object::Backend(other) if other.lease == Some(id));
        state.objects.values().any(|entry| other(&entry.object)) || state.locks.values().any(|lock| lock.lease == id)
    };
    if let Some(id) = lease.filter(|id| !shared(*id)) {
        // Else it expires by itself.
        let _ = api.plane.propose(&Command::LeaseRevoke { by: by(ask, None), ids: vec![id] }).await;
    }
    Ok(json(&done_json(&done)))
}

/// Several changes, all or none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TxnBody {
    #[serde(default)]
    conditions: Vec<Condition>,
    ops: Vec<Op>,
    #[serde(default)]
    note: String,
    #[serde(default)]
    force: bool,
    /// For rollouts.
    #[serde(default)]
    policy: Option<Policy>,
}

fn txn(ask: &Call<'_>, body: &[u8]) -> Result<(Txn, Option<Policy>), Problem> {
    let body: TxnBody = parse(body)?;
    may_change(&ask.caller, body.ops.iter().map(Op::key))?;
    if body.force {
        ask.caller.needs(Role::Operate)?;
    }
    let by = by(ask, Some(&body.note));
    let txn = Txn { by, request: request(ask), conditions: body.conditions, ops: body.ops, force: body.force };
    Ok((txn, body.policy))
}

/// `POST /v1/txn`.
pub(super) async fn transact(api: &Api, ask: &Call<'_>, body: &[u8]) -> Result<Response<Body>, Problem> {
    let (txn, policy) = txn(ask, body)?;
    if policy.is_some() {
        return Err(problem(400, Code::BadBody, "a policy is for `POST /v1/rollouts`"));
    }
    Ok(json(&done_json(&propose(api, ask, txn).await?)))
}

/// `POST /v1/check`: what a transaction would do, without doing it.
pub(super) async fn check(api: &Api, ask: &Call<'_>, body: &[u8]) -> Result<Response<Body>, Problem> {
    let (mut txn, _) = txn(ask, body)?;
    owner::sign(ask, &mut txn.ops);
    fresh(api, ask).await?;
    owner::judged(api, ask, txn.request.is_some(), &txn.ops, &txn.conditions).await?;
    let changes = api.plane.check(&Command::Txn(txn)).await?;
    let redacted = |object: &Option<std::sync::Arc<Object>>| object.as_ref().map(|object| object.redacted());
    let changes: Vec<Value> = changes
        .iter()
        .map(|change| value!({ "key": change.key, "before": redacted(&change.before), "after": redacted(&change.after) }))
        .collect();
    Ok(placed(api, json(&value!({ "valid": true, "changes": changes }))))
}

/// `POST /v1/rollouts`.
pub(super) async fn roll_out(api: &Api, ask: &Call<'_>, body: &[u8]) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Operate)?;
    let (txn, policy) = txn(ask, body)?;
    let participants = api.plane.live_proxies().await?;
    let count = participants.len();
    let command = Command::RolloutStart { txn, policy: policy.unwrap_or_default(), participants };
    let done = api.plane.propose(&command).await?;
    if done.id == 0 {
        return Ok(json(&value!({ "revision": done.revision, "changed": 0, "id": null })));
    }
    Ok(json(&value!({ "revision": done.revision, "changed": done.changed, "id": done.id, "participants": count })))
}

pub(super) async fn done(api: &Api, command: Command) -> Result<Response<Body>, Problem> {
    Ok(json(&done_json(&api.plane.propose(&command).await?)))
}
