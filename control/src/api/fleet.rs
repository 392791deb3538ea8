//! `/v1/live`: the fleet, as a page shows it. The leader is asked once a second for all who look here, and not at all while nobody does.

mod differences;
mod events;
mod members;
mod proxies;
mod rates;
mod services;
mod when;

use super::shown::{counts, rollout_json};
use crate::plane::{FleetView, Plane, unix_ms};
use crate::state::State;
use differences::Differences;
use rates::Rates;
use ringway_config::{Diagnostics, Loaded};
use ringway_page::Source;
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use when::seconds;

/// All who look at the fleet here.
pub(super) type Live = ringway_page::Live<Fleet>;

/// A leader that does not answer within this is not waited for: what it has said before is shown as old.
const PATIENCE: Duration = Duration::from_millis(900);
/// After each millisecond of reading the fleet's texts, nothing is read for so long: where they are large and change all the time, they are
/// shown as they were a while ago.
const READ_REST: Duration = Duration::from_millis(9);
/// Rollouts that are shown.
const ROLLOUTS_MAX: usize = 10;
/// Proxies that refuse one, and objects that it changes, which are shown of each.
const LISTED_MAX: usize = 50;

/// The fleet, for as long as somebody looks.
pub(super) struct Fleet {
    plane: Arc<Plane>,
    me: String,
    told: FleetView,
    /// When that was, in Unix milliseconds; `None`: nothing has been told yet.
    told_at_ms: Option<u64>,
    /// Why nothing newer is there.
    silent: Option<String>,
    rates: Rates,
    differences: Differences,
    /// What the fleet's objects are together.
    configuration: Option<Arc<Result<Loaded, Diagnostics>>>,
    read_at: Option<(u64, u64)>,
    read_next: Option<Instant>,
}

pub(super) fn live(plane: Arc<Plane>, me: String) -> Arc<Live> {
    Live::new(move || Fleet {
        plane: Arc::clone(&plane),
        me: me.clone(),
        told: FleetView::default(),
        told_at_ms: None,
        silent: None,
        rates: Rates::default(),
        differences: Differences::default(),
        configuration: None,
        read_at: None,
        read_next: None,
    })
}

impl Source for Fleet {
    async fn sample(&mut self, _: &HashSet<String>) {
        match tokio::time::timeout(PATIENCE, self.plane.fleet()).await {
            Ok(Ok(told)) => {
                (self.told, self.told_at_ms, self.silent) = (told, Some(unix_ms()), None);
                self.rates.take(&self.told.proxies, Instant::now());
            }
            Ok(Err(error)) => self.silent = Some(error.to_string()),
            Err(_) => self.silent = Some(format!("the leader has not answered within {PATIENCE:?}")),
        }
        let state = self.plane.state();
        self.differences.follow(&state);
        let at = Some((state.epoch, state.revision));
        let began = Instant::now();
        if self.read_at != at && self.read_next.is_none_or(|next| next <= began) {
            self.configuration = self.plane.configuration().await;
            self.read_at = at;
            self.read_next = Some(Instant::now() + READ_REST * (began.elapsed().as_millis() as u32));
        }
    }

    fn common(&mut self) -> Map<String, Value> {
        let (state, at_ms) = (self.plane.state(), unix_ms());
        let shown = services::Shown { state: &state, told: &self.told, configuration: self.configuration.as_deref() };
        let proxies = proxies::proxies(&self.told, &state, &self.rates, self.told_at_ms.unwrap_or(at_ms));
        let fields = [
            ("at", json!((at_ms / 100) as f64 / 10.0)),
            ("fleet", self.overview(&state, at_ms)),
            ("members", members::members(&self.plane, at_ms)),
            ("proxies", proxies),
            ("services", shown.overview()),
            ("rollouts", rollouts(&state)),
            ("events", events::events(&self.plane, &state, &self.told, &self.differences)),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), without_nulls(value))).collect()
    }

    fn service(&mut self, name: &str) -> Option<Value> {
        let state = self.plane.state();
        let shown = services::Shown { state: &state, told: &self.told, configuration: self.configuration.as_deref() };
        shown.one(name).map(without_nulls)
    }
}

impl Fleet {
    fn overview(&self, state: &State, at_ms: u64) -> Value {
        let (plane, proxies) = (&self.plane, &self.told.proxies);
        let status = plane.status();
        let (answering, voters) = plane.voters_that_answer(&status, &plane.roll());
        let agree = proxies.iter().filter(|proxy| proxy.state == "synced").count();
        json!({
            "cluster": state.cluster, "epoch": state.epoch, "revision": state.revision, "digest": state.digest.to_string(),
            "version": env!("CARGO_PKG_VERSION"), "answered_by": self.me, "term": status.term,
            "leader": status.acknowledged_leader().map(|(_, info)| &info.name),
            "led_since": status.acknowledged_leader().and_then(|_| plane.led_for()).map(|time| seconds(at_ms, time)),
            "quorum": { "voters": voters, "reachable": answering, "needed": voters / 2 + 1 },
            "settled": plane.knows_fleet(), "silent": self.silent, "told_at": self.told_at_ms.map(|at| at / 1000),
            "proxies": proxies.len(), "agree": agree, "requests_per_second": self.rates.all(),
            "frozen": self.told.frozen, "objects": counts(state), "objects_bytes": state.objects_bytes,
            "leases": state.leases.size(), "locks": state.locks.size(),
            "unreadable": self.configuration.as_deref().and_then(|read| read.as_ref().err()).map(ToString::to_string),
        })
    }
}

fn rollouts(state: &State) -> Value {
    let newest = state.rollouts.iter().skip(state.rollouts.size().saturating_sub(ROLLOUTS_MAX));
    let shown = newest.map(|(id, rollout)| {
        let mut shown = rollout_json(rollout);
        // The phase as a word, and what belongs to it beside it.
        let (word, at_revision, why) = match &rollout.phase {
            crate::state::Phase::Preparing => ("preparing", None, None),
            crate::state::Phase::Stage(_) => ("stage", None, None),
            crate::state::Phase::Committed(revision) => ("committed", Some(revision), None),
            crate::state::Phase::Aborted(why) => ("aborted", None, Some(why)),
        };
        for field in ["refused", "keys"] {
            if let Some(list) = shown[field].as_array_mut() {
                list.truncate(LISTED_MAX);
            }
        }
        shown["phase"] = json!(word);
        shown["revision"] = json!(at_revision);
        shown["why"] = json!(why);
        (id.to_string(), shown)
    });
    Value::Object(shown.collect())
}

/// A merge patch means by a null that a field is gone: there is none in a frame.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let known = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(known.map(|(name, value)| (name, without_nulls(value))).collect())
        }
        other => other,
    }
}
