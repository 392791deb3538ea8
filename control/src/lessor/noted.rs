//! How proxies stand to what was agreed on, since when, and what has become of them lately: for people, nothing is decided by it.

use super::ahead;
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
    left: Vec<String>,
    events: VecDeque<ProxyEvent>,
    last: u64,
}

struct Stands {
    standing: &'static str,
    since: Instant,
    /// What was told of it last.
    told: &'static str,
}

impl Noted {
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, looked: None, proxies: BTreeMap::new(), left: Vec::new(), events: VecDeque::new(), last: 0 }
    }

    /// It has ended in order.
    pub(super) fn handle_left(&mut self, name: &str) {
        if self.left.len() < EVENTS_MAX {
            self.left.push(name.to_owned());
        }
        self.proxies.remove(name);
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
        for name in std::mem::take(&mut self.left) {
            self.tell(at_ms, &name, "left", "it ended in order".into());
        }
        self.proxies.retain(|name, _| proxies.contains_key(name));
        // Those that a new leader hears of first were there before it.
        let begins = now.saturating_duration_since(self.began) < PROXY_TTL;
        for (name, standing) in standings(proxies, state, now) {
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
pub(super) fn standings<'p>(
    proxies: &'p BTreeMap<String, Seen>,
    state: &State,
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
    mark_ring_drift(proxies, &mut standings);
    standings
}

/// Proxies on one revision whose rings differ: those that are not as most are have drifted.
fn mark_ring_drift(proxies: &BTreeMap<String, Seen>, standings: &mut BTreeMap<&String, &'static str>) {
    let rings = |name: &String| {
        let heartbeat = &proxies.get(name)?.heartbeat;
        heartbeat.canary.is_none().then_some(&heartbeat.rings)
    };
    let synced = standings.iter().filter(|(_, standing)| **standing == "synced");
    let synced: Vec<(&String, &BTreeMap<String, String>)> =
        synced.filter_map(|(name, _)| Some((*name, rings(name)?))).collect();
    // As a rule all have the same.
    if synced.windows(2).all(|pair| pair[0].1 == pair[1].1) {
        return;
    }
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (service, digest) in synced.iter().flat_map(|(_, rings)| rings.iter()) {
        *counts.entry((service, digest)).or_default() += 1;
    }
    let mut most: BTreeMap<&str, usize> = BTreeMap::new();
    for ((service, _), count) in &counts {
        let most = most.entry(service).or_default();
        *most = (*most).max(*count);
    }
    for (name, rings) in synced {
        let differs = rings.iter().any(|(service, digest)| {
            let own = counts.get(&(service.as_str(), digest.as_str())).copied().unwrap_or(0);
            most.get(service.as_str()).is_some_and(|most| *most > own)
        });
        if differs {
            standings.insert(name, "drifted");
        }
    }
}
