//! Where a key goes and why: from the configuration alone, or as a running proxy sees it now.

use super::handoff;
use crate::admin::fleet_table;
use crate::ambient;
use crate::snapshot::handoff_request::Asked;
use crate::snapshot::shadow::{group_of, ring_digest};
use crate::snapshot::{Service, Snapshot, TableStamp};
use crate::upstream::failover::CANDIDATES_MAX;
use ringway_config::model::{Config, Protocol};
use ringway_health::MemberView;
use ringway_ring::{BuildError, FULL_SHARE, Slot, hash_key};
use serde_json::{Value, json};
use thiserror::Error;

/// Where a key goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The service.
    pub service: String,
    /// The policy's name.
    pub policy: &'static str,
    /// XXH3-64 of the key, with the service's seed.
    pub hash: u64,
    /// Ids in the order of the candidate sequence, owner first: what spill, skip and retry follow.
    pub walk: Vec<String>,
    /// The ring's digest.
    pub ring_digest: u64,
    /// What is refused first under overload.
    pub priorities: Priorities,
}

impl Explanation {
    /// As `ringway explain --json` prints it.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "service": self.service,
            "policy": self.policy,
            "hash": format!("{:016x}", self.hash),
            "owner": self.walk.first(),
            "walk": self.walk,
            "ring_digest": format!("{:016x}", self.ring_digest),
            "priority": self.priorities.json(),
        })
    }
}

/// What is refused first under overload: a service's priority, and those of routes that lead to it and have their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Priorities {
    /// Of the service.
    pub service: &'static str,
    /// Listener, number of the route there (the first is 1), and its priority.
    pub routes: Vec<(String, usize, &'static str)>,
}

impl Priorities {
    /// Of the service with this index.
    fn of(config: &Config, service: usize) -> Self {
        let mut routes = Vec::new();
        for listener in &config.listeners {
            let Protocol::Http(http) = &listener.protocol else { continue };
            for (index, route) in http.routes.iter().enumerate() {
                let mut targets = route.split.iter().flat_map(|split| &split.targets);
                let leads_here = route.service == service || targets.any(|target| target.service == service);
                if let Some(priority) = route.priority.filter(|_| leads_here) {
                    routes.push((listener.name.clone(), index + 1, priority.name()));
                }
            }
        }
        Self { service: config.services[service].priority.name(), routes }
    }

    /// As the admin listener says it.
    #[must_use]
    pub fn json(&self) -> Value {
        let route = |(listener, route, priority): &(String, usize, &'static str)| json!({ "listener": listener, "route": route, "priority": priority });
        json!({ "service": self.service, "routes": self.routes.iter().map(route).collect::<Vec<_>>() })
    }
}

/// Why a key cannot be explained.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ExplainError {
    /// No such service.
    #[error("there is no service {wanted:?}; there are {}", .names.join(", "))]
    NoService {
        /// What was asked for.
        wanted: String,
        /// What there is.
        names: Vec<String>,
    },
    /// The policy balances without keys.
    #[error("service {service:?} is balanced without keys (policy {policy}): there is nothing to explain")]
    NoKeys {
        /// The service.
        service: String,
        /// Its policy.
        policy: &'static str,
    },
    /// The ring cannot be built.
    #[error("service {service:?}: {source}")]
    Build {
        /// The service.
        service: String,
        /// Why.
        source: BuildError,
    },
}

/// Explains a key.
///
/// # Errors
/// See [`ExplainError`].
pub fn explain(config: &Config, service: &str, key: &[u8]) -> Result<Explanation, ExplainError> {
    explain_subject(config, service, Subject::Key(key))
}

/// The same, of a key's hash.
///
/// # Errors
/// See [`ExplainError`].
pub fn explain_hash(config: &Config, service: &str, hash: u64) -> Result<Explanation, ExplainError> {
    explain_subject(config, service, Subject::Hash(hash))
}

pub(super) fn explain_subject(
    config: &Config,
    service: &str,
    subject: Subject<'_>,
) -> Result<Explanation, ExplainError> {
    let names = || config.services.iter().map(|service| service.name.clone()).collect();
    let index = config.services.iter().position(|candidate| candidate.name == service);
    let index = index.ok_or_else(|| ExplainError::NoService { wanted: service.to_owned(), names: names() })?;
    let found = &config.services[index];
    if !found.policy.hashes() {
        return Err(ExplainError::NoKeys { service: service.to_owned(), policy: found.policy.name() });
    }
    let build = |source| ExplainError::Build { service: service.to_owned(), source };
    let group = group_of(found).map_err(build)?;
    let mut ids: Vec<&str> = found.backends.iter().map(|backend| backend.id.as_str()).collect();
    ids.sort_unstable();
    let hash = subject.hash(found.policy.seed());
    let drained: Vec<&str> =
        found.backends.iter().filter(|backend| backend.drain).map(|backend| backend.id.as_str()).collect();
    let walk = group.sequence(hash).into_iter().map(|slot| ids[usize::from(slot.0)]);
    let walk = walk.filter(|id| !drained.contains(id)).map(str::to_owned).collect();
    // The candidates are those of today, without those that drain; the ring is that of all members.
    let ring_digest = ring_digest(found).map_err(build)?.unwrap_or_default();
    let (policy, priorities) = (found.policy.name(), Priorities::of(config, index));
    Ok(Explanation { service: service.to_owned(), policy, hash, walk, ring_digest, priorities })
}

/// Explains where a key of a running service goes now, and why: every backend of its candidate sequence, with what speaks for and
/// against it. `None` without such a service; without keys the sequence is empty. `asked`: the request, where it is known.
pub(crate) fn live(snapshot: &Snapshot, service: &str, key: Subject<'_>, asked: Option<Asked>) -> Option<Value> {
    let index = snapshot.config.services.iter().position(|candidate| candidate.name == service)?;
    let service = snapshot.service(service)?;
    let hash = key.hash(service.seed());
    let now = ambient::now();
    let looks_for_hot = service.config.hot_keys.is_some();
    let owners = if looks_for_hot { service.live.hot_table.load().get(&hash).copied().unwrap_or(0) } else { 0 };
    let sequence = service.backend_set.sequence(hash);
    let turns = turns(service, &sequence, hash);
    let handed = handoff::of_key(service, hash, asked, now).filter(|_| owners <= 1);
    let is_held = handed.as_ref().and_then(|(_, slot)| *slot);
    let chosen =
        is_held.as_ref().or(turns.first()).map(|slot| service.backends[usize::from(slot.0)].config.id.as_str());
    // Workers report failures under its lock: it is not held while all is written out.
    let (panic, views) = {
        let health = service.live.health();
        let view = |slot: &Slot| health.view(&service.backends[usize::from(slot.0)].config.id, now);
        (health.is_panic(), sequence.iter().map(view).collect::<Vec<_>>())
    };
    let shed_by = fleet_table::stamp(service, now);
    let candidates = Candidates { service, panic, views: &views, turns: &turns, owners, hash, shed_by };
    let walk: Vec<Value> = sequence.iter().enumerate().map(|(index, &slot)| candidates.json(index, slot)).collect();
    Some(json!({
        "service": service.config.name,
        "policy": service.config.policy.name(),
        "priority": Priorities::of(&snapshot.config, index).json(),
        "generation": snapshot.generation,
        "ring_digest": service.ring_digest().map(|digest| format!("{digest:016x}")),
        "hash": format!("{hash:016x}"),
        "owner": walk.first().map(|first| first["id"].clone()),
        "backend": chosen,
        "panic": panic,
        "hot_owners": owners,
        "fleet_table": fleet_table::of(service, now),
        "handoff": handed.map(|(json, _)| json),
        "in_flight": service.live.total.sum(),
        "walk": walk,
    }))
}

/// The backends of a key's sequence, with what speaks for and against each.
struct Candidates<'a> {
    service: &'a Service,
    /// Health is ignored.
    panic: bool,
    /// What is known of each, in the order of the sequence.
    views: &'a [Option<MemberView>],
    turns: &'a [Slot],
    /// How many backends share the key, if it is hot.
    owners: u16,
    hash: u64,
    /// The fleet's table by which backends shed; none: they shed by what this proxy sees.
    shed_by: Option<TableStamp>,
}

impl Candidates<'_> {
    fn json(&self, index: usize, slot: Slot) -> Value {
        let backend = &self.service.backends[usize::from(slot.0)];
        let load = &backend.state.load;
        let id = backend.config.id.as_str();
        let (in_flight, cap) = (load.in_flight(), self.service.backend_set.cap(slot));
        let view = self.views.get(index).and_then(Option::as_ref);
        let turn = self.turns.iter().position(|turn| *turn == slot).map(|turn| turn + 1);
        let is_eligible = load.active_fraction() > 0 && backend.config.weight > 0;
        let verdict = match turn {
            _ if !is_eligible => "not eligible".into(),
            Some(1) => self.verdict(1, index, self.panic && load.is_doubted()).into(),
            Some(turn) => match self.sheds(slot) {
                Some(sheds) => format!("{sheds}; next if those before cannot"),
                None => self.verdict(turn, index, self.panic && load.is_doubted()).into(),
            },
            None if in_flight >= cap && load.in_flight_max() <= cap => {
                "full: at the limit that follows its latency".into()
            }
            None if in_flight >= cap => "full".into(),
            None => "not tried: so many come before it".to_owned(),
        };
        json!({
            "id": id,
            "turn": turn,
            "verdict": verdict,
            "state": view.map_or("unknown", |view| view.state),
            "why": view.and_then(|view| view.last_change.as_ref()).map(|(kind, _)| kind.to_string()),
            "tier": backend.config.tier,
            "zone": backend.config.zone,
            "in_flight": in_flight,
            "cap": (cap < u32::MAX).then_some(cap),
            "concurrency_limit": (load.limit() < u32::MAX).then(|| load.limit()),
            "accept_share": f64::from(load.active_fraction()) / f64::from(FULL_SHARE),
            "shed_share": f64::from(load.shed()) / f64::from(FULL_SHARE),
        })
    }

    /// In words, that a backend passes this key on because it has too much load; `None`: it does not, or it would not take it in any case.
    fn sheds(&self, slot: Slot) -> Option<String> {
        let load = &self.service.backends[usize::from(slot.0)].state.load;
        let set = &self.service.backend_set;
        let is_whole = load.active_fraction() == FULL_SHARE && load.shed() > 0 && self.owners < 2;
        (is_whole && !set.accepts(slot, self.hash)).then(|| match self.shed_by {
            Some(TableStamp { epoch, term, seq }) => {
                format!("sheds this key, by the fleet's table {epoch}.{term}.{seq}")
            }
            None => "sheds this key: it has more than its share".to_owned(),
        })
    }

    /// Of one that is tried. `doubted`: only because there is panic.
    fn verdict(&self, turn: usize, index: usize, doubted: bool) -> &'static str {
        match turn {
            1 if doubted => "takes it (panic: nobody who is up can, so health is ignored)",
            1 if self.owners > 1 => "takes it (hot: the less loaded of two of its owners)",
            1 => "takes it",
            _ if doubted => "next if those before cannot (panic: it is tried although it is down)",
            _ if index < usize::from(self.owners) => "also an owner: the key is hot",
            _ => "next if those before cannot",
        }
    }
}

/// The backends that would be tried for a key, in this order, if each of them failed: level by level those that take it, then those
/// that are kept from it by no more than a ramp or shedding, then those that are believed to be down, in panic.
fn turns(service: &Service, sequence: &[Slot], hash: u64) -> Vec<Slot> {
    let able = |slot: &Slot| {
        let backend = &service.backends[usize::from(slot.0)];
        let load = &backend.state.load;
        backend.config.weight > 0 && load.active_fraction() > 0 && load.in_flight() < service.backend_set.cap(*slot)
    };
    let level = |slot: Slot| service.backend_set.level(slot);
    let mut turns: Vec<Slot> = Vec::new();
    for of_level in sequence.chunk_by(|a, b| level(*a) == level(*b)) {
        let (takes, others): (Vec<Slot>, Vec<Slot>) =
            of_level.iter().filter(|slot| able(slot)).partition(|slot| service.backend_set.accepts(**slot, hash));
        let doubted = |slot: &Slot| service.backends[usize::from(slot.0)].state.load.is_doubted();
        let (doubted, ramped): (Vec<Slot>, Vec<Slot>) = others.into_iter().partition(doubted);
        turns.extend(takes.into_iter().chain(ramped).chain(doubted));
    }
    turns.truncate(CANDIDATES_MAX as usize);
    turns
}

/// What is explained: a key, or its hash as a log shows it.
pub(crate) enum Subject<'a> {
    /// The key's bytes.
    Key(&'a [u8]),
    /// The hash.
    Hash(u64),
}

impl Subject<'_> {
    /// Its hash, under this seed.
    fn hash(self, seed: u64) -> u64 {
        match self {
            Self::Key(key) => hash_key(key, seed),
            Self::Hash(hash) => hash,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Registry;
    use std::sync::Arc;

    /// One service of four backends that is in force: one drains, another has no weight.
    fn in_force() -> Snapshot {
        let text = "listeners: [ { name: web, address: \"127.0.0.1:0\", service: s } ]\n\
                    services:\n  - name: s\n    balance: { hash_key: [ { path: {} } ] }\n    backends:\n\
                    \x20     - { id: a, address: \"127.0.0.1:1\" }\n      - { id: b, address: \"127.0.0.1:2\" }\n\
                    \x20     - { id: c, address: \"127.0.0.1:3\", drain: true }\n      - { id: d, address: \"127.0.0.1:4\" }\n";
        let loaded = ringway_config::load_str("test.yaml", text, &|_| None).unwrap_or_else(|error| panic!("{error}"));
        let registry = Registry::default();
        let snapshot = registry.prepare(Arc::new(loaded.config), 1, 1, ambient::now()).unwrap();
        registry.commit(&snapshot, ambient::now());
        registry.settle(&snapshot);
        snapshot
    }

    /// Id, turn and verdict of each candidate of a key.
    fn candidates(snapshot: &Snapshot, key: &[u8]) -> Vec<(String, Option<u64>, String)> {
        let live = live(snapshot, "s", Subject::Key(key), None).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let of = |one: &Value| (text(&one["id"]), one["turn"].as_u64(), text(&one["verdict"]));
        live["walk"].as_array().unwrap().iter().map(of).collect()
    }

    #[test]
    fn what_is_explained_of_a_running_service_is_what_its_file_says_while_all_are_up() {
        let snapshot = in_force();
        for number in 0..50 {
            let key = format!("key-{number}");
            let cold = explain(&snapshot.config, "s", key.as_bytes()).unwrap();
            let able: Vec<_> =
                candidates(&snapshot, key.as_bytes()).into_iter().filter(|(_, turn, _)| turn.is_some()).collect();
            assert_eq!(able.iter().map(|(id, ..)| id.clone()).collect::<Vec<_>>(), cold.walk, "{key}");
            assert_eq!((able[0].1, able[0].2.as_str()), (Some(1), "takes it"));
            assert_eq!(able[1].2, "next if those before cannot");
        }
        assert!(live(&snapshot, "t", Subject::Key(b"k"), None).is_none());
    }

    #[test]
    fn a_backend_that_takes_nothing_is_passed_over_and_says_why() {
        let snapshot = in_force();
        let first = candidates(&snapshot, b"k").into_iter().find(|(_, turn, _)| *turn == Some(1)).unwrap().0;
        let service = &snapshot.services[0];
        service.backends[usize::from(service.slot_of(&first).unwrap().0)].state.load.set_active_fraction(0);
        let after = candidates(&snapshot, b"k");
        let of = |id: &str| after.iter().find(|(known, ..)| known == id).unwrap();
        assert_eq!((of(&first).1, of(&first).2.as_str()), (None, "not eligible"));
        assert_eq!(after.iter().filter(|(_, turn, _)| *turn == Some(1)).count(), 1);
    }

    #[test]
    fn a_backend_at_the_limit_that_follows_its_latency_is_passed_over_and_says_so() {
        let snapshot = in_force();
        let service = &snapshot.services[0];
        let first = candidates(&snapshot, b"k").into_iter().find(|(_, turn, _)| *turn == Some(1)).unwrap().0;
        let slot = service.slot_of(&first).unwrap();
        service.backends[usize::from(slot.0)].state.load.set_limit(1);
        service.backend_set.resume(slot, 0);
        let walk = live(&snapshot, "s", Subject::Key(b"k"), None).unwrap()["walk"].clone();
        let of = walk.as_array().unwrap().iter().find(|one| one["id"] == first.as_str()).unwrap().clone();
        assert_eq!(
            (&of["verdict"], &of["concurrency_limit"], &of["turn"]),
            (&json!("full: at the limit that follows its latency"), &json!(1), &json!(null))
        );
    }

    #[test]
    fn panic_and_hot_keys_have_verdicts_of_their_own() {
        let snapshot = in_force();
        let service = &snapshot.services[0];
        let candidates =
            |owners| Candidates { service, panic: false, views: &[], turns: &[], owners, hash: 7, shed_by: None };
        for (owners, turn, index, doubted, begins) in [
            (0, 1, 0, true, "takes it (panic"),
            (3, 1, 0, false, "takes it (hot"),
            (0, 1, 0, false, "takes it"),
            (0, 2, 1, true, "next if those before cannot (panic"),
            (3, 2, 2, false, "also an owner"),
            (3, 4, 3, false, "next if those before cannot"),
        ] {
            let verdict = candidates(owners).verdict(turn, index, doubted);
            assert!(verdict.starts_with(begins), "{verdict}: {begins}");
        }
    }
}
