//! Proxies, as a page shows them: those that do not agree first, and so many as a page can take.

use super::rates::Rates;
use super::when::seconds;
use crate::state::State;
use crate::watch::wire::{FleetBrief, ProxyView};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Rows that are shown; how many there are stands beside them.
const SHOWN_MAX: usize = 1000;
/// A proxy says that it is there every two seconds: when exactly is told only of those that have not for longer.
const FRESH: Duration = Duration::from_secs(5);
/// Longest text of a proxy's own, in characters.
const TEXT_MAX: usize = 400;

/// By name. `told_at_ms`: when the leader has said so.
pub(super) fn proxies(told: &FleetBrief, state: &State, rates: &Rates, told_at_ms: u64) -> Value {
    let digest = state.digest.to_string();
    let mut shown: Vec<&ProxyView> = told.proxies.iter().collect();
    shown.sort_by_key(|proxy| proxy.state == "synced");
    let rows =
        shown.into_iter().take(SHOWN_MAX).map(|proxy| (proxy.name.clone(), row(proxy, &digest, rates, told_at_ms)));
    Value::Object(rows.collect::<Map<_, _>>())
}

fn row(proxy: &ProxyView, digest: &str, rates: &Rates, told_at_ms: u64) -> Value {
    let (heartbeat, age) = (&proxy.heartbeat, Duration::from_millis(proxy.age_ms));
    let at = |ms: u64| seconds(told_at_ms, Duration::from_millis(ms));
    let rate = rates.of(&proxy.name);
    let requests = rate.map(|rate| rate.requests_per_second).filter(|rate| *rate > 0.0);
    let failed = rate.filter(|rate| rate.failed_percent > 0.0).map(|rate| rate.failed_percent);
    json!({
        "state": proxy.state, "since": proxy.since_ms.map(at), "version": cut(&heartbeat.version),
        "generation": heartbeat.generation, "epoch": heartbeat.epoch, "revision": heartbeat.revision,
        "digest": cut(&heartbeat.digest), "same_digest": heartbeat.canary.is_some() || heartbeat.digest == digest,
        "heard_at": (age > FRESH).then(|| at(proxy.age_ms)), "requests_per_second": requests, "failed_percent": failed,
        "stuck": heartbeat.stuck.as_deref().map(cut), "canary": heartbeat.canary,
        "loads_refused": proxy.loads.as_ref().and_then(|loads| loads.refused.as_deref()).map(cut),
    })
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
