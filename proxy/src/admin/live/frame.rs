//! What is shown of the whole proxy. Objects keyed by name, no nulls, times as seconds of Unix time: so that what has not changed is equal.

use super::numbers::{fields, put, rounded};
use super::service::ServiceView;
use super::window::{WINDOW, Window};
use crate::admin::standing_out;
use crate::ambient;
use crate::apply::handle::ControlHandle;
use crate::overload::Resource;
use crate::snapshot::{Service, Snapshot};
use ringway_config::model::{Priority, Protocol};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

/// Of a version of a service: its level shares, and the share of each backend.
type Shares = (Arc<Service>, Vec<(u8, f64)>, Arc<[f64]>);

/// Backends without traffic that are named.
const OUT_NAMED_MAX: usize = 3;

/// Makes frames, and keeps what is dear to make and seldom changes.
#[derive(Default)]
pub(super) struct Frames {
    /// By service: the version and the shares of its levels that these are of.
    shares: HashMap<String, Shares>,
}

impl Frames {
    /// What all are shown.
    pub(super) fn overview(&mut self, control: &ControlHandle, window: &Window) -> Map<String, Value> {
        let snapshot = control.snapshot();
        self.shares
            .retain(|name, (known, ..)| snapshot.service(name).is_some_and(|service| Arc::ptr_eq(service, known)));
        overview(control, &snapshot, window)
    }

    /// What those who look at a service are shown besides.
    pub(super) fn service(&mut self, control: &ControlHandle, window: &Window, name: &str) -> Option<Value> {
        let snapshot = control.snapshot();
        let service = snapshot.service(name)?;
        let shares = self.shares(service);
        let view = ServiceView {
            service,
            window,
            shares: &shares,
            overrides: &control.overrides(),
            unix_seconds: unix_seconds(),
        };
        Some(view.json())
    }

    /// Shares of the keys, in slot order.
    fn shares(&mut self, service: &Arc<Service>) -> Arc<[f64]> {
        let levels = service.backend_set.level_shares();
        if let Some((known, of, shares)) = self.shares.get(&service.config.name)
            && Arc::ptr_eq(known, service)
            && *of == levels
        {
            return Arc::clone(shares);
        }
        let shares: Arc<[f64]> = service.backend_set.shares().into();
        self.shares.insert(service.config.name.clone(), (Arc::clone(service), levels, Arc::clone(&shares)));
        shares
    }
}

fn unix_seconds() -> f64 {
    ambient::unix_millis() as f64 / 1e3
}

fn overview(control: &ControlHandle, snapshot: &Snapshot, window: &Window) -> Map<String, Value> {
    let at = unix_seconds();
    let mut frame = Map::new();
    frame.insert("at".into(), json!((at * 10.0).round() / 10.0));
    frame.insert("proxy".into(), Value::Object(proxy(control, snapshot, window, at)));
    frame.insert("listeners".into(), listeners(control, snapshot));
    frame.insert("certificates".into(), certificates(snapshot));
    let services = snapshot.services.iter().map(|service| (service.config.name.clone(), sums(service, window)));
    frame.insert("services".into(), Value::Object(services.collect()));
    let events = control.journal().entries();
    let events = events.into_iter().map(|(number, event)| (number.to_string(), Value::clone(&event)));
    frame.insert("events".into(), Value::Object(events.collect()));
    frame
}

fn proxy(control: &ControlHandle, snapshot: &Snapshot, window: &Window, at: f64) -> Map<String, Value> {
    let (came, time) = window.of_all();
    let mut proxy = fields(&came, time);
    let overload = control.overload();
    let known = json!({
        "version": env!("CARGO_PKG_VERSION"), "pid": std::process::id(),
        "started": (at - control.uptime().as_secs_f64()).round() as i64,
        "generation": snapshot.generation, "draining": control.is_draining(), "workers": control.workers(),
        "connections": control.connections(), "overload": overload.stage().name(), "window_seconds": WINDOW.as_secs(),
        "last_reload": control.last_reload().json(),
    });
    proxy.extend(object(known));
    let refused =
        [Priority::Low, Priority::Default, Priority::High].map(|priority| (priority, overload.refused_share(priority)));
    let refused = refused.into_iter().filter(|(_, share)| *share > 0.0);
    let refused: Map<String, Value> =
        refused.map(|(priority, share)| (priority.name().to_owned(), rounded(share))).collect();
    if !refused.is_empty() {
        proxy.insert("overload_refused".into(), Value::Object(refused));
    }
    let used_up = Resource::ALL.map(|resource| (resource, overload.pressure(resource)));
    let used_up = used_up.into_iter().filter(|(_, pressure)| *pressure >= 1.0);
    let used_up: Map<String, Value> =
        used_up.map(|(resource, pressure)| (resource.name().to_owned(), rounded(pressure))).collect();
    if !used_up.is_empty() {
        proxy.insert("used_up".into(), Value::Object(used_up));
    }
    if let Some(topology) = control.topology() {
        let mut of_topology = object(topology.json());
        // An age grows each second; when it was is a fact.
        of_topology.remove("age_seconds");
        if let Some(age) = topology.age {
            of_topology.insert("heard_at".into(), json!((at - age.as_secs_f64()).round() as i64));
        }
        proxy.insert("topology".into(), Value::Object(of_topology));
    }
    proxy
}

fn listeners(control: &ControlHandle, snapshot: &Snapshot) -> Value {
    let (addresses, fullness) = (control.addresses(), control.fullness(ambient::now()));
    let listener = |listener: &ringway_config::model::Listener| {
        let protocol = match listener.protocol {
            Protocol::Http(_) => "http",
            Protocol::Tcp(_) => "tcp",
            Protocol::Udp(_) => "udp",
        };
        let address = addresses.get(&listener.name).unwrap_or(&listener.address);
        let full = fullness.get(&listener.name);
        let shown = json!({
            "address": address.to_string(), "protocol": protocol, "tls": listener.tls.is_some(),
            "connections": full.map_or(0, |full| full.taken), "full": full.is_some_and(|full| full.is_full),
        });
        (listener.name.clone(), shown)
    };
    Value::Object(snapshot.config.listeners.iter().map(listener).collect())
}

fn certificates(snapshot: &Snapshot) -> Value {
    let certificates = snapshot.certificates.iter().map(|end| {
        let file = end.path.display().to_string();
        let shown = json!({
            "used_by": end.used_by, "name": end.name, "file": file, "not_after": end.validity.not_after,
            "state": end.validity.standing(ambient::time_of_day()).as_str(),
        });
        (format!("{} {} {file}", end.used_by, end.name), shown)
    });
    Value::Object(certificates.collect())
}

/// A service in sums.
fn sums(service: &Service, window: &Window) -> Value {
    let (came, time) = window.of_service(&service.config.name);
    let mut sums = fields(&came, time);
    let now = ambient::now();
    let health = service.live.health();
    let is_up = |id: &str| health.view(id, now).is_some_and(|view| matches!(view.state, "up" | "degraded" | "unknown"));
    let ids = service.backends.iter().map(|backend| &*backend.config.id);
    let out: Vec<&str> = ids.filter(|id| !is_up(id)).collect();
    let up = service.backends.len() - out.len();
    let panic = health.is_panic();
    drop(health);
    sums.insert("policy".into(), json!(service.config.policy.name()));
    sums.insert("backends".into(), json!(service.backends.len()));
    sums.insert("up".into(), json!(up));
    if !out.is_empty() {
        sums.insert("out".into(), json!(named(&out)));
    }
    if panic {
        sums.insert("panic".into(), json!(true));
    }
    if let Some(told) = standing_out::of_service(service) {
        sums.insert("stands_out".into(), told);
    }
    if let Some(digest) = service.ring_digest() {
        sums.insert("ring_digest".into(), json!(format!("{digest:016x}")));
    }
    put(&mut sums, "in_flight", service.live.total.sum() as f64);
    put(&mut sums, "waiting", f64::from(service.live.line.waiting()));
    let (moved, _) = *service.live.moved.lock().unwrap_or_else(PoisonError::into_inner);
    put(&mut sums, "moved_percent", moved * 100.0);
    if service.config.hot_keys.is_some() {
        sums.insert("counts_keys".into(), json!(true));
        sums.insert("hot_keys".into(), super::service::hot_keys(service, unix_seconds()));
    }
    Value::Object(sums)
}

/// A few of them by their names, and how many more there are.
fn named(ids: &[&str]) -> String {
    let (first, more) = ids.split_at(ids.len().min(OUT_NAMED_MAX));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    first.join(", ") + &more
}

/// The fields of an object, without those that are null.
fn object(value: Value) -> Map<String, Value> {
    let Value::Object(fields) = value else { return Map::new() };
    let known = fields.into_iter().filter(|(_, value)| !value.is_null());
    known.map(|(name, value)| (name, if value.is_object() { Value::Object(object(value)) } else { value })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::source::Source;
    use crate::apply::testing;

    const FILE: &str = "listeners: [ { name: web, address: \"127.0.0.1:0\", service: s } ]\n\
        services:\n  - name: s\n    balance: { hash_key: [ { path: {} } ], hot_keys: {} }\n    health: { tcp: {}, initial: down }\n\
        \x20   backends: [ { id: a, address: \"127.0.0.1:1\" }, { id: \"<b>\", address: \"127.0.0.1:2\", drain: true } ]\n";

    fn has_null(value: &Value) -> bool {
        match value {
            Value::Object(fields) => fields.values().any(has_null),
            other => other.is_null(),
        }
    }

    #[tokio::test]
    async fn a_frame_says_all_without_nulls_and_two_of_a_quiet_proxy_differ_in_their_time_alone() {
        let (control, _receivers) = testing::control(Source::Memory);
        control.apply(testing::config(FILE)).unwrap();
        control.show_topology(Box::new(Default::default));
        let control = ControlHandle::new(Arc::new(control));
        let (mut frames, window) = (Frames::default(), Window::default());
        let mut look = || {
            let mut frame = frames.overview(&control, &window);
            frame.insert("service".into(), frames.service(&control, &window, "s").unwrap());
            Value::Object(frame)
        };
        let first = look();
        assert!(!has_null(&first), "{first:#}");
        let backends = &first["service"]["backends"];
        assert_eq!((&backends["a"]["state"], &backends["<b>"]["state"]), (&json!("unknown"), &json!("drained")));
        assert_eq!(first["services"]["s"]["backends"], 2);
        assert_eq!(first["services"]["s"]["out"], "<b>");
        assert_eq!(named(&["a", "b", "c", "d", "e"]), "a, b, c and 2 more");
        assert!(first["listeners"]["web"]["address"].as_str().unwrap().starts_with("127.0.0.1:"));
        let [first, second] = [first, look()].map(|frame| {
            let mut fields = object(frame);
            fields.remove("at");
            // When it has started is a difference of two clocks, and may be a second off.
            if let Some(Value::Object(proxy)) = fields.get_mut("proxy") {
                proxy.remove("started");
            }
            fields
        });
        assert_eq!(first, second);
        assert!(frames.service(&control, &window, "nowhere").is_none());
    }
}
