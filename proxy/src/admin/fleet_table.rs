//! The fleet's table that a service obeys, for the status and for explanations.

use crate::snapshot::{Service, TableStamp};
use ringway_config::model::ShedScope;
use ringway_ring::FRESH_MILLIS;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// What is known of it; `None` where bounds are this proxy's own.
pub(crate) fn of(service: &Service, now: Instant) -> Option<Value> {
    service.config.shed.filter(|shed| shed.scope == ShedScope::Fleet)?;
    let (in_force, bounds) = (service.live.fleet_bounds.in_force(now), &service.live.fleet_bounds);
    let (refused, refusals) = bounds.refused();
    let stamp = in_force.as_ref().map(|(table, _)| table.stamp).unwrap_or_default();
    Some(json!({
        "state": state(in_force.as_ref().map(|(_, age)| *age)),
        "epoch": stamp.epoch, "term": stamp.term, "seq": stamp.seq,
        "age_seconds": in_force.as_ref().map(|(_, age)| age.as_secs_f64()),
        "hot_keys": in_force.as_ref().map(|(table, _)| table.table.hot.len()),
        "slack_min": service.live.total.slack_min(),
        "refused": refused.map(|refusal| refusal.to_string()),
        "refusals": refusals,
    }))
}

fn state(age: Option<Duration>) -> &'static str {
    match age {
        None => "none",
        Some(age) if age < Duration::from_millis(FRESH_MILLIS) => "fresh",
        Some(_) => "fading",
    }
}

/// The table by which backends shed now, if they do by one.
pub(crate) fn stamp(service: &Service, now: Instant) -> Option<TableStamp> {
    service.config.shed.filter(|shed| shed.scope == ShedScope::Fleet)?;
    service.live.fleet_bounds.in_force(now).map(|(table, _)| table.stamp)
}
