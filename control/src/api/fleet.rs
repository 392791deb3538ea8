//! `/v1/live`: the fleet, as a page shows it. The leader is asked once a second for all who look here, and not at all while nobody does.

mod differences;
mod events;
mod members;
mod objects;
mod proxies;
mod rates;
mod reading;
mod services;
mod when;

use super::shown::rollout_shown;
use crate::plane::{Plane, unix_ms};
use crate::state::State;
use crate::watch::wire::FleetBrief;
use differences::Differences;
use objects::Objects;
use rates::Rates;
use reading::Reading;
use ringway_config::Diagnostics;
use ringway_page::{Source, Stream};
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use when::seconds;

/// A leader that does not answer within this is not waited for: what it has said before is shown as old.
const PATIENCE: Duration = Duration::from_millis(900);
/// It is left alone for so many times as long as its last answer took: a large fleet is not copied without a pause.
const REST: u32 = 4;
/// Rollouts that are shown.
const ROLLOUTS_MAX: usize = 10;
/// Proxies that refuse one, and objects that it changes, which are shown of each.
const LISTED_MAX: usize = 50;

/// All who look at the fleet here.
pub(super) struct Live {
    looks: Arc<ringway_page::Live<Fleet>>,
    plane: Arc<Plane>,
    reading: Arc<Reading>,
}

/// Why nobody begins to look.
pub(super) enum Refused {
    /// There are as many as may be.
    Busy,
    /// There is no such service.
    Unknown,
}

/// The fleet, for as long as somebody looks.
pub(super) struct Fleet {
    plane: Arc<Plane>,
    me: String,
    told: FleetBrief,
    /// When that was, in Unix milliseconds; `None`: nothing has been told yet.
    told_at_ms: Option<u64>,
    /// The term that it was told in.
    told_in: u64,
    /// Why nothing newer is there.
    silent: Option<String>,
    ask_next: Option<Instant>,
    rates: Rates,
    objects: Objects,
    /// These two are there for as long as the member is.
    differences: Arc<Mutex<Differences>>,
    reading: Arc<Reading>,
}

impl Live {
    pub(super) fn new(plane: Arc<Plane>, me: String) -> Self {
        let (differences, reading) = (Arc::default(), Arc::new(Reading::default()));
        let (looked_at, read) = (Arc::clone(&plane), Arc::clone(&reading));
        let begin = move || Fleet {
            plane: Arc::clone(&looked_at),
            me: me.clone(),
            told: FleetBrief::default(),
            told_at_ms: None,
            told_in: 0,
            silent: None,
            ask_next: None,
            rates: Rates::default(),
            objects: Objects::default(),
            differences: Arc::clone(&differences),
            reading: Arc::clone(&read),
        };
        Self { looks: ringway_page::Live::new(begin), plane, reading }
    }

    /// Begins a stream.
    pub(super) fn look(
        &self,
        service: Option<String>,
        is_known: bool,
        still_may: ringway_page::StillMay,
    ) -> Result<Stream, Refused> {
        if service.as_deref().is_some_and(|name| !self.reading.may_be_there(&self.plane.state(), name)) {
            return Err(Refused::Unknown);
        }
        self.looks.look(service, is_known, still_may).ok_or(Refused::Busy)
    }
}

impl Source for Fleet {
    async fn sample(&mut self, _: &HashSet<String>) {
        let began = Instant::now();
        if self.ask_next.is_none_or(|next| next <= began) {
            match tokio::time::timeout(PATIENCE, self.plane.brief()).await {
                Ok(Ok(told)) => {
                    self.take(told);
                    let now = Instant::now();
                    self.ask_next = Some(now + (now - began) * REST);
                }
                Ok(Err(error)) => self.silent = Some(error.to_string()),
                Err(_) => self.silent = Some(format!("the leader has not answered within {PATIENCE:?}")),
            }
        }
        self.reading.follow(&self.plane).await;
    }

    fn common(&mut self) -> Map<String, Value> {
        let (state, at_ms) = (self.plane.state(), unix_ms());
        self.objects.follow(&state);
        let read = self.reading.configuration();
        let shown =
            services::Shown { state: &state, objects: &self.objects, told: &self.told, configuration: read.as_deref() };
        let mut fleet = self.overview(&state, at_ms);
        fleet["services"] = json!(shown.count());
        fleet["unreadable"] = json!(read.as_deref().and_then(|read| read.as_ref().err()).map(unreadable));
        let proxies = proxies::proxies(&self.told, &state, &self.rates, self.told_at_ms.unwrap_or(at_ms));
        let mut differences = self.differences.lock().unwrap_or_else(PoisonError::into_inner);
        differences.follow(&state);
        let fields = [
            ("at", json!((at_ms / 100) as f64 / 10.0)),
            ("fleet", fleet),
            ("members", members::members(&self.plane, at_ms)),
            ("proxies", proxies),
            ("services", shown.overview()),
            ("rollouts", rollouts(&state)),
            ("events", events::events(&self.plane, &state, &self.told, &differences)),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), without_nulls(value))).collect()
    }

    fn service(&mut self, name: &str) -> Option<Value> {
        let (state, read) = (self.plane.state(), self.reading.configuration());
        let shown =
            services::Shown { state: &state, objects: &self.objects, told: &self.told, configuration: read.as_deref() };
        shown.one(name).map(without_nulls)
    }
}

impl Fleet {
    fn take(&mut self, told: FleetBrief) {
        self.silent = None;
        // Whom a new leader has not heard of yet has not gone: what the one before has said is shown until it has settled.
        let term = self.plane.status().term;
        if term != self.told_in && !self.plane.knows_fleet() && told.proxies.len() < self.told.proxies.len() {
            self.told.events = told.events;
            return;
        }
        (self.told, self.told_at_ms, self.told_in) = (told, Some(unix_ms()), term);
        self.rates.take(&self.told.proxies, Instant::now());
    }

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
            "frozen": self.told.frozen, "objects": self.objects.counts, "objects_bytes": state.objects_bytes,
            "leases": state.leases.size(), "locks": state.locks.size(),
        })
    }
}

/// What is wrong and where; what stands there is for those who ask for the text.
fn unreadable(found: &Diagnostics) -> String {
    let told = found.0.first().map(|first| format!("{} in {}:{}:{}", first.code, first.file, first.line, first.column));
    let more = found.0.len().saturating_sub(1);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    format!("{}{more}", told.unwrap_or_default())
}

fn rollouts(state: &State) -> Value {
    let newest = state.rollouts.iter().skip(state.rollouts.size().saturating_sub(ROLLOUTS_MAX));
    let shown = newest.map(|(id, rollout)| {
        let mut shown = rollout_shown(rollout, LISTED_MAX);
        shown["changes"] = json!(rollout.changes.len());
        shown["refusals"] = json!(rollout.votes.values().filter(|vote| vote.refusal.is_some()).count());
        // The phase as a word, and what belongs to it beside it.
        let (word, at_revision, why) = match &rollout.phase {
            crate::state::Phase::Preparing => ("preparing", None, None),
            crate::state::Phase::Stage(_) => ("stage", None, None),
            crate::state::Phase::Committed(revision) => ("committed", Some(revision), None),
            crate::state::Phase::Aborted(why) => ("aborted", None, Some(why)),
        };
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
