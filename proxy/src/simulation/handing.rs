//! Hand-off of keys as the scripts see it: what backends may be told, and what holds of keys and copies at any time.

use super::ledger::Ledger;
use super::random::Random;
use super::setup::{SERVICES, backend_address, backend_id};
use super::world::World;
use crate::ambient;
use crate::snapshot::Service;
use crate::snapshot::handoff::Window;
use ringway_ring::{HandoffTurn, Slot, hash_key};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::Duration;

pub(super) const COPY: &str = "x-ringway-handoff";
/// Nothing of its name says whose it is.
pub(super) const PREVIOUS: &str = "x-before";
/// What some clients say, of what nobody but Ringway says.
pub(super) const FORGED: &str = "evil 10.0.0.1:80";
/// Changes of a service under way at once.
const WINDOWS_MAX: usize = 8;
/// Keys that clients ask for.
pub(super) const KEYS: u64 = 9;

/// What is known of keys on their way.
#[derive(Default)]
pub(super) struct Handing {
    /// How a service places keys, and those of which it was seen that they had gone over, with their next owners.
    services: BTreeMap<String, (String, BTreeMap<u64, String>)>,
    windows: Vec<(String, Weak<Window>)>,
}

impl Handing {
    /// A version has come into force.
    pub(super) fn handle_change(&mut self, services: &[Arc<Service>]) {
        for service in services {
            let config = &service.config;
            let members: Vec<_> = config.backends.iter().map(|backend| (&backend.id, backend.drain)).collect();
            let placed = format!("{:?} {members:?}", config.policy);
            let known = self.services.entry(config.name.clone()).or_default();
            if known.0 != placed {
                *known = (placed, BTreeMap::new());
            }
            self.windows.extend(service.handoff.watched().into_iter().map(|window| (config.name.clone(), window)));
        }
        self.windows.retain(|(_, window)| window.strong_count() > 0);
        self.windows.sort_by_key(|(_, window)| window.as_ptr() as usize);
        self.windows.dedup_by_key(|(_, window)| window.as_ptr() as usize);
    }
}

/// A backend has got a request. `true`: it is a copy, which nobody waits for.
pub(super) fn handle_told(
    ledger: &mut Ledger,
    (backend, service): (&str, &str),
    (id, method): (u64, &str),
    (copy, previous): (Option<&str>, Option<&str>),
) -> bool {
    let index = SERVICES.iter().position(|name| *name == service).unwrap_or(SERVICES.len());
    let is_one = |text: &str| {
        let mut all = (0..8).filter(|at| index < SERVICES.len() && backend_id(index, *at) != backend);
        all.any(|at| text == format!("{} {}", backend_id(index, at), backend_address(index, at)))
    };
    if previous.is_some_and(|text| !is_one(text)) {
        ledger.violation(&format!("{backend} is told with request {id} of a previous owner {previous:?}"));
    }
    let Some(word) = copy else { return false };
    let known = ledger.records.get_mut(&id).map(|record| {
        record.copies += 1;
        (record.copies, record.service, record.body)
    });
    if (word, method, known) != ("copy", "GET", Some((1, service, 0))) || previous.is_none() {
        let what = format!("{backend} has got a copy {word:?} of {method} {id}: {known:?}, of {previous:?}");
        ledger.violation(&what);
    }
    ledger.tell(&format!("{backend} has a copy of request {id}, of {previous:?}"));
    ledger.count("copies");
    true
}

/// What a backend makes of a copy.
#[derive(Debug, Clone, Copy)]
pub(super) enum CopyFate {
    Answered,
    Failed,
    Cut,
    Never,
}

impl CopyFate {
    /// `faults` percent of them go wrong; and how long it takes.
    pub(super) fn draw(random: &mut Random, faults: u64) -> (Self, Duration) {
        let fate =
            if random.chance(faults) { random.pick(&[Self::Failed, Self::Cut, Self::Never]) } else { Self::Answered };
        (fate, random.millis(2_500))
    }
}

/// At any time between two steps.
pub(super) fn at_any_time(world: &World, wrong: &mut Vec<String>) {
    for service in &world.snapshot().services {
        let Some(handoff) = &service.config.handoff else { continue };
        let name = &service.config.name;
        let (copies, most) = (service.live.handoff_copies.load(Relaxed), handoff.copy.in_flight_max);
        if copies > most {
            wrong.push(format!("{name}: {copies} copies are under way, and {most} may be"));
        }
        let mut handing = world.handing();
        let kept = handing.windows.iter().filter(|(of, window)| of == name && window.strong_count() > 0).count();
        if kept > WINDOWS_MAX + copies as usize {
            wrong.push(format!("{name}: {kept} windows are kept"));
        }
        if let Some((_, gone)) = handing.services.get_mut(name) {
            follow(service, gone, wrong);
        }
    }
}

/// No key that has gone over goes back.
fn follow(service: &Service, gone: &mut BTreeMap<u64, String>, wrong: &mut Vec<String>) {
    let (name, now) = (&service.config.name, ambient::now());
    let id = |slot: Slot| service.backends[usize::from(slot.0)].config.id.clone();
    for key in 0..KEYS {
        let hash = hash_key(key.to_string().as_bytes(), service.seed());
        let Some(moving) = service.handoff.look(hash, now, false) else {
            gone.remove(&key);
            continue;
        };
        let (previous, next) = (id(moving.previous.0), id(moving.next));
        if moving.turn == HandoffTurn::Next {
            gone.insert(key, next);
        } else if gone.get(&key) == Some(&next) {
            wrong.push(format!("{name}: key {key} has gone over to {next}, and goes back to {previous}"));
        }
    }
}

/// Nothing is left of a change that is over.
pub(super) fn at_rest(world: &World, wrong: &mut Vec<String>) {
    for service in &world.snapshot().services {
        // As its driver does, in time.
        service.handoff.poll(ambient::now());
        let (name, copies) = (&service.config.name, service.live.handoff_copies.load(Relaxed));
        if service.live.handoff_changes.get().is_some_and(|changes| !changes.is_empty()) {
            wrong.push(format!("{name}: changes of keys are under way in the end"));
        }
        if service.handoff.is_open() || copies > 0 {
            let open = service.handoff.is_open();
            wrong.push(format!("{name}: {copies} copies of handed keys, and windows are open {open} in the end"));
        }
    }
    let handing = world.handing();
    let kept: Vec<&String> =
        handing.windows.iter().filter(|(_, window)| window.strong_count() > 0).map(|(name, _)| name).collect();
    if !kept.is_empty() {
        wrong.push(format!("windows of {kept:?} are kept in the end"));
    }
}
