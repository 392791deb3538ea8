//! The hot keys of a service: by their hashes, since the keys themselves are nobody's to read.

use crate::snapshot::Service;
use std::sync::PoisonError;

/// A key that is hot, whoever has found that out: this proxy, or the fleet.
pub(super) struct HotKey<'s> {
    pub(super) hash: u64,
    /// What this proxy has seen of it, of all; `None`: too little.
    pub(super) share: Option<f64>,
    /// Ids of the backends that serve it.
    pub(super) owners: Vec<&'s str>,
}

/// Those that no operator has spread by hand, most of what is seen first.
pub(super) fn of(service: &Service) -> Vec<HotKey<'_>> {
    if service.config.hot_keys.is_none() {
        return Vec::new();
    }
    let table = service.live.hot_table.load();
    let by_hand = |hash: &u64| service.config.spread.iter().any(|spread| spread.hash == *hash);
    let hot = service.live.hot.lock().unwrap_or_else(PoisonError::into_inner);
    let found = table.iter().filter(|(hash, _)| !by_hand(hash));
    let mut keys: Vec<(u64, u16, Option<f64>)> =
        found.map(|(hash, owners)| (*hash, *owners, hot.keys().get(hash).map(|key| key.share))).collect();
    drop(hot);
    keys.sort_by(|(one, _, a), (other, _, b)| b.unwrap_or(0.0).total_cmp(&a.unwrap_or(0.0)).then(one.cmp(other)));
    let key = |(hash, owners, share): (u64, u16, Option<f64>)| {
        let owners = service.backend_set.sequence(hash).into_iter().take(usize::from(owners));
        let owners = owners.map(|slot| service.backends[usize::from(slot.0)].config.id.as_str()).collect();
        HotKey { hash, share, owners }
    };
    keys.into_iter().map(key).collect()
}
