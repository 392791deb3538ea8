//! What an operator changes while the proxy runs: backends, keys that are spread, and all of it back to the file.

use super::access::Caller;
use super::reply::{Reply, error, json_value, text};
use crate::ambient;
use crate::apply::change::{ChangeError, Wish};
use crate::apply::handle::ControlHandle;
use crate::apply::outcome::{Applied, ReloadError};
use crate::apply::overrides::{Author, BackendChange, BackendOverride, Overrides, Set};
use hyper::StatusCode;
use hyper::header::{ACCEPT, HeaderMap};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What holds of every change that is made here.
const NOTE: &str = "lasts until the process ends";

/// Makes a change, and says what came of it. `saved_into`: the file that whoever asks writes it into.
pub(super) async fn change(
    control: &ControlHandle,
    caller: &Caller,
    wish: Result<Wish, String>,
    saved_into: Option<&str>,
) -> Reply {
    let wish = match wish {
        Ok(wish) => wish,
        Err(problem) => return error(StatusCode::UNPROCESSABLE_ENTITY, &problem),
    };
    let author = author(caller);
    let changing = control.clone();
    let done = tokio::task::spawn_blocking(move || changing.change_blocking(&wish, &author)).await;
    let Ok(outcome) = done else {
        return error(StatusCode::INTERNAL_SERVER_ERROR, "the change has ended before its time");
    };
    match outcome {
        Ok(mut applied) => {
            applied.warnings.extend(saved_into.and_then(|file| other_file(control, file)));
            json_value(StatusCode::OK, &made(&applied))
        }
        // A page asks again where force is for it: the code says so.
        Err(problem @ ChangeError::NothingLeft { .. }) => {
            json_value(code(&problem), &json!({ "error": problem.to_string(), "code": "nothing_left" }))
        }
        Err(problem) => error(code(&problem), &problem.to_string()),
    }
}

/// That a file is not the one that this proxy reads, if it is not: what is written there says nothing to it.
fn other_file(control: &ControlHandle, file: &str) -> Option<String> {
    let own = control.file()?;
    let own = own.canonicalize().unwrap_or_else(|_| own.to_owned());
    (own != Path::new(file))
        .then(|| format!("the proxy reads {}, and not {file}: it knows nothing of what is saved there", own.display()))
}

fn made(applied: &Applied) -> Value {
    let moved = applied.moved.iter();
    let moved: Vec<Value> =
        moved.map(|(service, moved)| json!({ "service": service, "percent": moved.moved * 100.0 })).collect();
    json!({
        "generation": applied.generation, "changes": applied.diff.changes, "moved": moved,
        "overridden": applied.overridden, "warnings": applied.warnings, "note": NOTE,
    })
}

fn code(problem: &ChangeError) -> StatusCode {
    match problem {
        ChangeError::NoService { .. } | ChangeError::NoBackend { .. } => StatusCode::NOT_FOUND,
        ChangeError::Fleet(_) | ChangeError::Refused(ReloadError::Draining | ReloadError::NoFile) => {
            StatusCode::CONFLICT
        }
        ChangeError::Absurd(_) | ChangeError::NothingLeft { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        ChangeError::Refused(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// What is to become of a backend: `{ "drain": true, "weight": null }`; with `"force": true` also where nothing takes traffic then.
pub(super) fn of_backend(service: &str, backend: &str, body: &Value) -> Result<Wish, String> {
    let fields = fields(body, &["drain", "maintenance", "weight", "force", "file"])?;
    let boolean = |name: &str| match fields.get(name) {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(None)),
        Some(Value::Bool(value)) => Ok(Some(Some(*value))),
        Some(_) => Err(format!("`{name}` is true, false, or null (as in the file)")),
    };
    let weight = match fields.get("weight") {
        None => None,
        Some(Value::Null) => Some(None),
        Some(value) => {
            let weight = value.as_u64().and_then(|weight| u32::try_from(weight).ok());
            Some(Some(weight.ok_or("`weight` is a whole number from 0 to 1600, or null (as in the file)")?))
        }
    };
    let change = BackendChange { drain: boolean("drain")?, maintenance: boolean("maintenance")?, weight };
    if change == BackendChange::default() {
        return Err("write what is to change: `drain`, `maintenance`, `weight`".into());
    }
    let force = match fields.get("force") {
        None => false,
        Some(force) => force.as_bool().ok_or("`force` is true or false")?,
    };
    if fields.get("file").is_some_and(|file| !file.is_string()) {
        return Err("`file` is the path of the file that the change is saved into".into());
    }
    Ok(Wish::Backend { service: service.to_owned(), backend: backend.to_owned(), change, force })
}

/// A key that is to be spread: `{ "key": "alice", "owners": 3, "for_seconds": 600 }`, or `hash` (16 hex digits) for `key`; with
/// `"end": true` instead of numbers, one that is not to be spread any longer.
pub(super) fn of_key(control: &ControlHandle, service: &str, body: &Value) -> Result<Wish, String> {
    let fields = fields(body, &["key", "hash", "owners", "for_seconds", "end"])?;
    let seed = control.snapshot().service(service).map_or(0, |service| service.seed());
    let hash = match (fields.get("key"), fields.get("hash")) {
        (Some(Value::String(key)), None) => ringway_ring::hash_key(key.as_bytes(), seed),
        (None, Some(Value::String(hex))) if hex.len() == 16 => {
            u64::from_str_radix(hex, 16).map_err(|_| "`hash` is 16 hex digits".to_owned())?
        }
        _ => return Err("write `key`, or `hash` (16 hex digits)".into()),
    };
    match fields.get("end") {
        None => {}
        Some(Value::Bool(true)) if !fields.contains_key("owners") && !fields.contains_key("for_seconds") => {
            return Ok(Wish::EndSpread { service: service.to_owned(), hash });
        }
        Some(_) => return Err("`end` is true, and then there is no `owners` nor `for_seconds`".into()),
    }
    let number = |name: &str| fields.get(name).and_then(Value::as_u64);
    let owners = number("owners").and_then(|owners| u16::try_from(owners).ok()).ok_or("`owners` is a whole number")?;
    let seconds = number("for_seconds").ok_or("`for_seconds` is a whole number")?;
    Ok(Wish::Spread { service: service.to_owned(), hash, owners, duration: Duration::from_secs(seconds) })
}

/// Who wants it, and when.
pub(super) fn author(caller: &Caller) -> Author {
    Author { by: caller.by.clone(), at: ambient::time_of_day() }
}

/// The fields of a body; those that nobody knows are none that are passed over.
pub(super) fn fields<'b>(body: &'b Value, known: &[&str]) -> Result<&'b Map<String, Value>, String> {
    let fields = body.as_object().ok_or_else(|| format!("write an object with `{}`", known.join("`, `")))?;
    match fields.keys().find(|name| !known.contains(&name.as_str())) {
        Some(unknown) => Err(format!("there is no field {unknown:?}; there are `{}`", known.join("`, `"))),
        None => Ok(fields),
    }
}

/// All runtime changes in force.
pub(super) fn overrides(overrides: &Overrides, now: Instant) -> Value {
    let backends = overrides.backends.iter().flat_map(|((service, backend), of)| {
        let drain = of.drain.as_ref().map(|set| entry("drain", set, json!(set.value)));
        let maintenance = of.maintenance.as_ref().map(|set| entry("maintenance", set, json!(set.value)));
        let weight = of.weight.as_ref().map(|set| entry("weight", set, json!(set.value)));
        [drain, maintenance, weight].into_iter().flatten().map(move |mut entry| {
            entry["service"] = json!(service);
            entry["backend"] = json!(backend);
            entry
        })
    });
    let spreads = overrides.spreads.iter().map(|((service, hash), set)| {
        let mut entry = entry("owners", set, json!(set.value.owners));
        entry["service"] = json!(service);
        entry["hash"] = json!(format!("{hash:016x}"));
        entry["seconds_left"] = json!(set.value.until.saturating_duration_since(now).as_secs_f64());
        entry
    });
    json!({ "overrides": backends.chain(spreads).collect::<Vec<_>>(), "note": NOTE })
}

/// The configuration in force, as a file, or as JSON for who asks for that.
pub(super) async fn config(control: &ControlHandle, fields: &HeaderMap) -> Reply {
    let asked = control.clone();
    let Ok(effective) = tokio::task::spawn_blocking(move || asked.effective_blocking()).await else {
        return error(StatusCode::INTERNAL_SERVER_ERROR, "it cannot be written out");
    };
    let Some(effective) = effective else {
        return error(StatusCode::CONFLICT, "the configuration in force was made in memory: there is no text of it");
    };
    let wants_json = fields.get_all(ACCEPT).iter().any(|value| {
        value.to_str().is_ok_and(|value| value.split(',').any(|kind| kind.trim().starts_with("application/json")))
    });
    if wants_json {
        json_value(StatusCode::OK, &effective.json())
    } else {
        text(StatusCode::OK, "application/yaml", effective.yaml())
    }
}

/// What was changed of a backend, in the status.
pub(super) fn of_status(of: &BackendOverride) -> Value {
    json!({
        "drain": of.drain.as_ref().map(|set| set.value), "maintenance": of.maintenance.as_ref().map(|set| set.value),
        "weight": of.weight.as_ref().map(|set| set.value),
    })
}

fn entry<T>(field: &str, set: &Set<T>, value: Value) -> Value {
    json!({ "field": field, "value": value, "by": set.by, "unix_seconds": unix_seconds(set.at) })
}

/// Seconds of Unix time.
pub(super) fn unix_seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
