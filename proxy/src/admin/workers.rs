//! `/workers`: what each worker has, and how it does. One that does not answer is named, and nobody waits for it for ever.

use super::query::pairs;
use super::reply::{Reply, error, json_value};
use crate::ambient;
use crate::apply::handle::ControlHandle;
use crate::dispatcher::WorkerReport;
use hyper::StatusCode;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Backends that are listed of a worker if nobody says how many, and at most.
const ROWS: usize = 20;
const ROWS_MAX: usize = 1_000;
/// How long a worker may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// All workers, in numbers.
pub(super) async fn all(control: &ControlHandle, query: &str) -> Reply {
    if let Some((name, _)) = pairs(query).next() {
        return error(
            StatusCode::BAD_REQUEST,
            &format!("there is no {name:?} here; ask /workers/0?limit=20 for backends"),
        );
    }
    let workers = reports(control, None, 0).await;
    json_value(StatusCode::OK, &json!({ "workers": workers }))
}

/// One of them, with its listeners and the backends that it has most to do with.
pub(super) async fn one(control: &ControlHandle, number: &str, query: &str) -> Reply {
    let count = control.workers();
    let Some(worker) = number.parse().ok().filter(|worker| *worker < count) else {
        return error(StatusCode::NOT_FOUND, &format!("there is no worker {number:?}; there are 0 to {}", count - 1));
    };
    let rows_max = match limit(query) {
        Ok(rows_max) => rows_max,
        Err(problem) => return error(StatusCode::BAD_REQUEST, &problem),
    };
    let report = reports(control, Some(worker), rows_max).await.pop().unwrap_or_default();
    json_value(StatusCode::OK, &report)
}

fn limit(query: &str) -> Result<usize, String> {
    let mut rows_max = ROWS;
    for (name, value) in pairs(query) {
        if name != "limit" {
            return Err(format!("there is no {name:?}; there is limit"));
        }
        let limit = std::str::from_utf8(&value).ok().and_then(|value| value.parse().ok());
        let limit = limit.filter(|limit| (1..=ROWS_MAX).contains(limit));
        rows_max = limit.ok_or_else(|| format!("limit: write a number from 1 to {ROWS_MAX}"))?;
    }
    Ok(rows_max)
}

/// What workers say, in their order: all of them, or one with its rows.
async fn reports(control: &ControlHandle, only: Option<usize>, rows_max: usize) -> Vec<Value> {
    let workers = only.map_or(0..control.workers(), |only| only..only + 1);
    let answers = control.inspect(workers.clone(), rows_max, ambient::now() + PATIENCE).await;
    let (lags, busy) = (control.overload().ticks.found(), control.overload().busy.ratios());
    let found = lags.zip(busy).skip(workers.start);
    let mut values = Vec::new();
    for ((worker, report), (lag, busy)) in workers.zip(answers).zip(found) {
        let silent = control.overload().ticks.silent(worker, ambient::now());
        let mut value = json!({
            "worker": worker, "answers": report.is_some(), "stuck": lag.is_stuck,
            "silent_seconds": silent.map(|silent| silent.as_secs_f64()),
            "lag_seconds": lag.lag.as_secs_f64(), "busy_ratio": busy, "permits_taken": control.permits_taken(worker),
        });
        if let (Some(value), Some(report)) = (value.as_object_mut(), report) {
            tell(value, &report);
            if only.is_some() {
                tell_rows(value, &report);
            }
        }
        values.push(value);
    }
    values
}

fn tell(value: &mut Map<String, Value>, report: &WorkerReport) {
    let counts = |name: &str, counts: &[(&'static str, &'static str, usize)]| -> Value {
        counts.iter().map(|(kind, state, count)| json!({ name: kind, "state": state, "count": count })).collect()
    };
    let more = json!({
        "generation": report.generation, "draining": report.is_draining, "commands_waiting": report.commands,
        "tasks": report.tasks, "timers": report.timers, "timers_armed": report.timers_armed,
        "connections": report.connections, "connections_early": report.connections_early,
        "connections_by": counts("kind", &report.connections_by),
        "under_way_by": counts("protocol", &report.under_way_by),
        "buffers": {
            "small_kept": report.buffers.small_kept, "large_kept": report.buffers.large_kept,
            "heads_kept": report.buffers.heads_kept, "large_used": report.buffers.large_used,
        },
        "http2": {
            "body_bytes": report.http2_body_bytes, "heads_waiting": report.http2_heads,
            "window_bytes": report.http2_window_bytes, "kept_bytes": report.http2_kept_bytes,
        },
        "replay_bytes": report.replay_bytes, "mirrors": report.mirrors, "compressions": report.compressions,
        "bulk_waiting": report.bulk_waiting, "backends": report.backends,
    });
    if let Value::Object(more) = more {
        value.extend(more);
    }
}

fn tell_rows(value: &mut Map<String, Value>, report: &WorkerReport) {
    let listeners = report.listeners.iter().map(|listener| {
        json!({
            "name": listener.name, "address": listener.address, "kind": listener.kind.name(), "open": listener.is_open,
            "connections": listener.connections, "permits_taken": listener.taken,
        })
    });
    value.insert("listeners".into(), listeners.collect());
    let upstreams = report.upstreams.iter().map(|upstream| {
        json!({
            "service": upstream.service, "backend": upstream.backend, "in_flight": upstream.in_flight,
            "idle": upstream.idle, "shared": upstream.shared, "streams": upstream.streams,
        })
    });
    value.insert("upstreams".into(), upstreams.collect());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_that_can_be_shown() {
        assert_eq!((limit(""), limit("limit=7")), (Ok(ROWS), Ok(7)));
        for query in ["limit=0", "limit=1001", "limit=-1", "limit=", "limit=%ff"] {
            assert!(limit(query).unwrap_err().starts_with("limit: write a number from 1 to"), "{query}");
        }
        assert!(limit("rows=1").is_err());
    }
}
