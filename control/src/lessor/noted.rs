//! How proxies stand to what was agreed on, since when, and what has become of them lately: for people, nothing is decided by it.

use super::ahead;
use super::drift::Drift;
use super::seen::{PROXY_TTL, Seen};
use crate::state::State;
use crate::watch::wire::ProxyEvent;
use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Events that are remembered.
const EVENTS_MAX: usize = 256;
/// Between two looks at all proxies.
const PACE: Duration = Duration::from_secs(1);
/// Every proxy is behind for a moment after each revision: that is told of those that stay so.
const BEHIND_FOR: Duration = Duration::from_secs(5);
/// Longest reason, in characters.
const WHY_MAX: usize = 256;

/// See the module. Times are the lessor's own.
pub(super) struct Noted {
    began: Instant,
    looked: Option<Instant>,
    proxies: BTreeMap<String, Stands>,
    /// What is to be told at the next look.
    pending: Vec<(String, &'static str, String)>,
    events: VecDeque<ProxyEvent>,
    last: u64,
    drift: Drift,
}

struct Stands {
    standing: &'static str,
    since: Instant,
    /// What was told of it last.
    told: &'static str,
}

impl Noted {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            began: now,
            looked: None,
            proxies: BTreeMap::new(),
            pending: Vec::new(),
            events: VecDeque::new(),
            last: 0,
            drift: Drift::default(),
        }
    }

    /// It has ended in order.
    pub(super) fn handle_left(&mut self, name: &str) {
        self.note(name, "left", "it ended in order".into());
        self.proxies.remove(name);
    }

    /// Something else has become of it.
    pub(super) fn note(&mut self, name: &str, what: &'static str, why: String) {
        if self.pending.len() < EVENTS_MAX {
            self.pending.push((name.to_owned(), what, why));
        }
    }

    /// For how long a proxy has stood so.
    pub(super) fn held(&self, name: &str, standing: &str, now: Instant) -> Duration {
        let stands = self.proxies.get(name).filter(|stands| stands.standing == standing);
        stands.map_or(Duration::ZERO, |stands| now.saturating_duration_since(stands.since))
    }

    pub(super) fn events(&self) -> Vec<ProxyEvent> {
        self.events.iter().cloned().collect()
    }

    /// Looks at all of them, once a second.
    pub(super) fn handle_tick(&mut self, proxies: &BTreeMap<String, Seen>, state: &State, at_ms: u64, now: Instant) {
        if self.looked.is_some_and(|at| now.saturating_duration_since(at) < PACE) {
            return;
        }
        self.looked = Some(now);
        for (name, what, why) in std::mem::take(&mut self.pending) {
            self.tell(at_ms, &name, what, why);
        }
        self.proxies.retain(|name, _| proxies.contains_key(name));
        // Those that a new leader hears of first were there before it.
        let begins = now.saturating_duration_since(self.began) < PROXY_TTL;
        let mut drift = std::mem::take(&mut self.drift);
        for (name, standing) in standings(proxies, state, &mut drift, now) {
            let Some(seen) = proxies.get(name) else { continue };
            let Some(stands) = self.proxies.get_mut(name) else {
                // How one stands that is new here is told next, if it does not agree.
                self.proxies.insert(name.clone(), Stands { standing, since: now, told: "synced" });
                if !begins {
                    self.tell(at_ms, name, "came", format!("version {}", seen.heartbeat.version));
                }
                continue;
            };
            if stands.standing != standing {
                (stands.standing, stands.since) = (standing, now);
            }
            let passes = standing == "behind" && now.saturating_duration_since(stands.since) < BEHIND_FOR;
            if stands.told != standing && !passes {
                stands.told = standing;
                self.tell(at_ms, name, standing, why(standing, seen, state));
            }
        }
        self.drift = drift;
    }

    /// How each proxy stands now.
    pub(super) fn standings<'p>(
        &self,
        proxies: &'p BTreeMap<String, Seen>,
        state: &State,
        now: Instant,
    ) -> BTreeMap<&'p String, &'static str> {
        // Nothing is compared again that the last look at all of them has compared.
        standings(proxies, state, &mut self.drift.clone(), now)
    }

    fn tell(&mut self, at_ms: u64, name: &str, what: &'static str, why: String) {
        if self.events.len() >= EVENTS_MAX {
            self.events.pop_front();
        }
        self.last += 1;
        let why = if why.chars().count() > WHY_MAX { why.chars().take(WHY_MAX).chain(['…']).collect() } else { why };
        let (proxy, what) = (name.to_owned(), Cow::Borrowed(what));
        self.events.push_back(ProxyEvent { number: self.last, at_ms, proxy, what, why });
    }
}

fn why(standing: &str, seen: &Seen, state: &State) -> String {
    let heartbeat = &seen.heartbeat;
    match standing {
        "stuck" => heartbeat.stuck.clone().unwrap_or_default(),
        "offline" => format!("not heard of for {} s", PROXY_TTL.as_secs()),
        "behind" | "ahead" => format!(
            "it has revision {} of epoch {}, the fleet revision {} of epoch {}",
            heartbeat.revision, heartbeat.epoch, state.revision, state.epoch
        ),
        "drifted" if heartbeat.digest != state.digest.to_string() => {
            format!(
                "of revision {}, its objects have the digest {}, those of the fleet {}",
                state.revision, heartbeat.digest, state.digest
            )
        }
        "drifted" => "its rings are not those that most proxies have".to_owned(),
        _ => format!("it agrees with revision {}", state.revision),
    }
}

/// How each proxy stands. `now`: by the lessor's clock.
fn standings<'p>(
    proxies: &'p BTreeMap<String, Seen>,
    state: &State,
    drift: &mut Drift,
    now: Instant,
) -> BTreeMap<&'p String, &'static str> {
    let digest = state.digest.to_string();
    let standing = |seen: &Seen| {
        let heartbeat = &seen.heartbeat;
        if now.saturating_duration_since(seen.at) >= PROXY_TTL {
            "offline"
        } else if heartbeat.stuck.is_some() {
            "stuck"
        } else if ahead::is_ahead(state, heartbeat) {
            "ahead"
        } else if (heartbeat.epoch, heartbeat.revision) != (state.epoch, state.revision) {
            "behind"
        } else if heartbeat.canary.is_none() && heartbeat.digest != digest {
            "drifted"
        } else {
            "synced"
        }
    };
    let mut standings: BTreeMap<&String, &'static str> =
        proxies.iter().map(|(name, seen)| (name, standing(seen))).collect();
    let synced = standings.iter().filter(|(_, standing)| **standing == "synced");
    drift.follow(synced.filter_map(|(name, _)| proxies.get(*name)));
    for (name, standing) in &mut standings {
        if *standing == "synced" && proxies.get(*name).is_some_and(|seen| drift.has_drifted(seen)) {
            *standing = "drifted";
        }
    }
    standings
}
