//! What is shown of one service: its ring, and each backend.

use super::numbers::{fields, put, rounded};
use super::window::Window;
use crate::admin::peak_share::peak_share;
use crate::admin::{hot_keys, standing_out};
use crate::ambient;
use crate::apply::overrides::Overrides;
use crate::snapshot::Service;
use ringway_health::{PanicMode, ServiceHealth};
use ringway_ring::{FULL_SHARE, Slot};
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};

/// A service that somebody looks at.
pub(super) struct ServiceView<'a> {
    pub(super) service: &'a Service,
    pub(super) window: &'a Window,
    /// Of the keys, in slot order.
    pub(super) shares: &'a [f64],
    /// What has been changed at run time.
    pub(super) overrides: &'a Overrides,
    /// Now.
    pub(super) unix_seconds: f64,
}

impl ServiceView<'_> {
    pub(super) fn json(&self) -> Value {
        let (service, now) = (self.service, ambient::now());
        let health = service.live.health();
        let backends = (0..service.backends.len())
            .map(|index| (service.backends[index].config.id.clone(), Value::Object(self.backend(&health, index, now))));
        let mut shown = Map::new();
        shown.insert("name".into(), json!(service.config.name));
        shown.insert("backends".into(), Value::Object(backends.collect()));
        let levels = health.level_shares().iter().map(|&(level, share)| (level_name(level), rounded(share)));
        shown.insert("levels".into(), Value::Object(levels.collect()));
        shown.insert("panic_threshold_percent".into(), json!(service.config.panic_threshold_percent));
        if let Some(text) = self.panic(&health, now) {
            shown.insert("panic".into(), json!({ "text": text }));
        }
        if service.hashes() {
            put(&mut shown, "peak_share_ratio", peak_share(service, self.shares));
        }
        Value::Object(shown)
    }

    /// A backend, without what is as usual: nothing in flight, everything accepted.
    fn backend(&self, health: &ServiceHealth, index: usize, now: Instant) -> Map<String, Value> {
        let backend = &self.service.backends[index];
        let (load, view) = (&backend.state.load, health.view(&backend.config.id, now));
        let (came, time) = self.window.of_backend(&self.service.config.name, &backend.config.id);
        let mut shown = fields(&came, time);
        shown.insert("address".into(), json!(backend.config.address.to_string()));
        if let Some(additional) = backend.config.additional_address {
            shown.insert("additional_address".into(), json!(additional.to_string()));
        }
        shown.insert("weight".into(), json!(backend.config.weight));
        shown.insert("state".into(), json!(view.as_ref().map_or("unknown", |view| view.state)));
        put(&mut shown, "share", self.shares[index]);
        shown.insert("accept".into(), rounded(f64::from(load.active_fraction()) / f64::from(FULL_SHARE)));
        put(&mut shown, "in_flight", f64::from(load.in_flight()));
        let cap = self.service.backend_set.cap(Slot(index as u16));
        if cap < u32::MAX {
            shown.insert("cap".into(), json!(cap));
        }
        if backend.config.tier > 0 {
            shown.insert("tier".into(), json!(backend.config.tier));
        }
        if let Some(zone) = &backend.config.zone {
            shown.insert("zone".into(), json!(zone));
        }
        if let Some(text) = overridden(self.overrides, &self.service.config.name, &backend.config.id) {
            shown.insert("override".into(), json!(text));
        }
        let at = |ago: Duration| json!((self.unix_seconds - ago.as_secs_f64()).round() as i64);
        let since = |since| ("since", at(now.saturating_duration_since(since)));
        if let Some(told) = standing_out::of_backend(self.service, &backend.config.id, since) {
            shown.insert("stands_out".into(), told);
        }
        let Some(view) = view else { return shown };
        put(&mut shown, "ejections", f64::from(view.ejections));
        if let Some((kind, ago)) = view.last_change {
            shown.insert("since".into(), at(ago));
            shown.insert("reason".into(), json!(kind.to_string()));
        } else if let Some(failure) = view.check_failure {
            shown.insert("reason".into(), json!(failure.to_string()));
        }
        if let Some(left) = view.ejected_for {
            shown.insert("ejected_until".into(), json!((self.unix_seconds + left.as_secs_f64()).round() as i64));
        }
        shown
    }

    /// Why health is ignored, with its arithmetic.
    fn panic(&self, health: &ServiceHealth, now: Instant) -> Option<String> {
        let threshold = self.service.config.panic_threshold_percent;
        let reasons: Vec<String> = health
            .lacking()
            .map(|(level, weight, healthy)| {
                let members = self.service.backends.iter().filter(|backend| backend.config.level == level);
                let views = members.filter_map(|backend| Some((backend, health.view(&backend.config.id, now)?)));
                let counted: Vec<(u32, bool)> =
                    views.map(|(backend, view)| (backend.config.weight, view.healthy)).collect();
                arithmetic(&counted, weight, healthy, threshold)
            })
            .collect();
        let what = match self.service.config.panic_mode {
            PanicMode::All => "health is ignored",
            PanicMode::Fail => "requests fail",
        };
        (!reasons.is_empty()).then(|| format!("{}: {what}", reasons.join("; ")))
    }
}

/// `3 of 8 healthy = 37 % < 50 %`: in backends where these count alike, else in weight. `members`: the weight of each, and whether it
/// is healthy.
fn arithmetic(members: &[(u32, bool)], weight: u64, healthy: u64, threshold: u32) -> String {
    let percent = (healthy * 100).checked_div(weight).unwrap_or_default();
    let up = members.iter().filter(|(_, is_healthy)| *is_healthy).count() as u64;
    let counts_alike = up * weight == healthy * members.len() as u64;
    if counts_alike {
        return format!("{up} of {} healthy = {percent} % < {threshold} %", members.len());
    }
    format!("{healthy} of {weight} in weight healthy = {percent} % < {threshold} %")
}

/// What has been changed of a backend at run time, and by whom.
fn overridden(overrides: &Overrides, service: &str, backend: &str) -> Option<String> {
    let of = overrides.backends.get(&(service.to_owned(), backend.to_owned()))?;
    let drain = of.drain.as_ref().map(|set| format!("drain {} by {}", set.value, set.by));
    let maintenance = of.maintenance.as_ref().map(|set| format!("maintenance {} by {}", set.value, set.by));
    let weight = of.weight.as_ref().map(|set| format!("weight {} by {}", set.value, set.by));
    let set: Vec<String> = [drain, maintenance, weight].into_iter().flatten().collect();
    (!set.is_empty()).then(|| set.join(", "))
}

fn level_name(level: u8) -> String {
    format!("tier {}, {}", level / 2, if level.is_multiple_of(2) { "own zone" } else { "other zones" })
}

/// The hot keys, by hash.
pub(super) fn hot_keys(service: &Service, unix_seconds: f64) -> Value {
    let keys = hot_keys::of(service).into_iter().map(|key| {
        let mut told = Map::new();
        told.insert("owners".into(), json!(key.owners));
        put(&mut told, "share", key.share);
        if let Some(left) = key.by_hand() {
            told.insert("by_hand_until".into(), json!((unix_seconds + left.as_secs_f64()).round() as i64));
        }
        (format!("{:016x}", key.hash), Value::Object(told))
    });
    Value::Object(keys.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_is_told_in_backends_where_they_count_alike_and_else_in_weight() {
        let alike = [
            (100, true),
            (100, true),
            (100, true),
            (100, false),
            (100, false),
            (100, false),
            (100, false),
            (100, false),
        ];
        assert_eq!(arithmetic(&alike, 800, 300, 50), "3 of 8 healthy = 37 % < 50 %");
        assert_eq!(
            arithmetic(&[(300, false), (100, true)], 400, 100, 50),
            "100 of 400 in weight healthy = 25 % < 50 %"
        );
        assert_eq!(arithmetic(&[], 0, 0, 50), "0 of 0 healthy = 0 % < 50 %");
    }
}
