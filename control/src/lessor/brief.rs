//! The fleet in brief, for pages: a leader has one thread for everything that it decides, and does not copy what nobody needs.

use super::seen::Seen;
use super::{Lessor, PROXY_TTL};
use crate::state::{Key, State};
use crate::watch::wire::{FleetBrief, Heartbeat, ProxyView};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Instant;

/// Kinds of rings that are told of: more than two or three are a fault in themselves.
const KINDS_MAX: usize = 8;
/// Backends that are told of.
const DOWN_MAX: usize = 10_000;

impl Lessor {
    /// The fleet in brief.
    #[must_use]
    pub fn brief(&self, state: &State, now: Instant) -> FleetBrief {
        let time = self.clock.read(now);
        let mut brief =
            FleetBrief { frozen: self.limiter.frozen().clone(), events: self.noted.events(), ..FleetBrief::default() };
        let mut down: BTreeMap<&Key, usize> = BTreeMap::new();
        for (name, standing) in self.noted.standings(&self.proxies, state, time) {
            let Some(seen) = self.proxies.get(name) else { continue };
            let is_there = time.saturating_duration_since(seen.at) < PROXY_TTL;
            if is_there {
                seen.heartbeat.down.iter().for_each(|key| *down.entry(key).or_default() += 1);
            }
            brief.kinds.push(kind(seen, state).filter(|_| is_there));
            brief.proxies.push(ProxyView {
                name: name.clone(),
                heartbeat: without_lists(&seen.heartbeat),
                age_ms: now.saturating_duration_since(seen.heard).as_millis() as u64,
                state: Cow::Borrowed(standing),
                since_ms: Some(self.noted.held(name, standing, time).as_millis() as u64),
                loads: self.loads.seen(name, time),
            });
            if let Some(Some(kind)) = brief.kinds.last()
                && brief.rings.len() < KINDS_MAX
                && !brief.rings.contains_key(kind)
            {
                brief.rings.insert(*kind, seen.heartbeat.rings.clone());
            }
        }
        brief.down = down.into_iter().take(DOWN_MAX).map(|(key, count)| (key.clone(), count)).collect();
        brief
    }
}

/// Rings that can be compared with those of others. A canary's cannot: it has a change that others do not have yet.
fn kind(seen: &Seen, state: &State) -> Option<u64> {
    let heartbeat = &seen.heartbeat;
    let is_current = (heartbeat.epoch, heartbeat.revision) == (state.epoch, state.revision);
    (is_current && heartbeat.canary.is_none()).then_some(seen.rings)
}

fn without_lists(heartbeat: &Heartbeat) -> Heartbeat {
    Heartbeat {
        version: heartbeat.version.clone(),
        epoch: heartbeat.epoch,
        revision: heartbeat.revision,
        digest: heartbeat.digest.clone(),
        rings: BTreeMap::new(),
        stuck: heartbeat.stuck.clone(),
        generation: heartbeat.generation,
        vote: None,
        down: Vec::new(),
        requests: heartbeat.requests,
        failed: heartbeat.failed,
        canary: heartbeat.canary,
        instance: heartbeat.instance,
        cluster: heartbeat.cluster.clone(),
    }
}
