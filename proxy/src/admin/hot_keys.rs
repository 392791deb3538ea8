//! The hot keys of a service: by their hashes, since the keys themselves are nobody's to read.

use crate::ambient;
use crate::snapshot::Service;
use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// A key that is hot, whoever has found that out: this proxy, the fleet, or an operator who has spread it.
pub(super) struct HotKey<'s> {
    pub(super) hash: u64,
    /// What this proxy has seen of it, of all; `None`: too little.
    pub(super) share: Option<f64>,
    /// Ids of the backends that serve it.
    pub(super) owners: Vec<&'s str>,
    /// Until when an operator has spread it, if one has.
    pub(super) by_hand_until: Option<Instant>,
}

impl HotKey<'_> {
    /// For how long an operator has spread it from now on.
    pub(super) fn by_hand(&self) -> Option<Duration> {
        self.by_hand_until.map(|until| until.saturating_duration_since(ambient::now()))
    }
}

/// All of them, most of what is seen first.
pub(super) fn of(service: &Service) -> Vec<HotKey<'_>> {
    if service.config.hot_keys.is_none() {
        return Vec::new();
    }
    let now = ambient::now();
    let table = service.live.hot_table.load();
    let mut found: BTreeMap<u64, (u16, Option<Instant>)> =
        table.iter().map(|(hash, owners)| (*hash, (*owners, None))).collect();
    let spread = service.config.spread.iter().filter(|spread| spread.until > now);
    found.extend(spread.map(|spread| (spread.hash, (spread.owners, Some(spread.until)))));
    let hot = service.live.hot.lock().unwrap_or_else(PoisonError::into_inner);
    let key = |(hash, (owners, by_hand_until)): (u64, (u16, Option<Instant>))| {
        let owners = service.backend_set.sequence(hash).into_iter().take(usize::from(owners));
        let owners = owners.map(|slot| service.backends[usize::from(slot.0)].config.id.as_str()).collect();
        HotKey { hash, share: hot.keys().get(&hash).map(|key| key.share), owners, by_hand_until }
    };
    let mut keys: Vec<HotKey<'_>> = found.into_iter().map(key).collect();
    drop(hot);
    keys.sort_by(|one, other| other.share.unwrap_or(0.0).total_cmp(&one.share.unwrap_or(0.0)));
    keys
}
