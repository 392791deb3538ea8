//! The topologies that came before the one that a proxy has stored, as what each change has replaced: keys that several changes under way have
//! moved are where a proxy that starts anew finds them.

use crate::state::{Key, Object};
use crate::watch::view::View;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Changes that are remembered: as many as may be under way.
const CHANGES_MAX: usize = 8;
/// What they may have replaced in all, in bytes: texts are stored whole.
const BYTES_MAX: usize = 8 << 20;

/// See the module. Oldest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Past {
    cluster: String,
    epoch: u64,
    changes: Vec<Undo>,
}

/// A change, to be taken back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Undo {
    /// The revisions that it led from and to. None in between has been in force here.
    from: u64,
    to: u64,
    /// When that was, in Unix milliseconds, by the clock of the member that made it.
    at_ms: u64,
    /// What was there before; `None`: nothing.
    objects: BTreeMap<Key, Option<Arc<Object>>>,
}

impl Past {
    /// A topology gives way to another. Certificates place no keys.
    pub(super) fn handle_change(&mut self, before: &View, now: &View) {
        if (&self.cluster, self.epoch) != (&now.cluster, now.epoch) {
            *self = Self { cluster: now.cluster.clone(), epoch: now.epoch, changes: Vec::new() };
        }
        if (&before.cluster, before.epoch) != (&now.cluster, now.epoch) || before.revision >= now.revision {
            return;
        }
        // What does not lead here says nothing of it.
        self.changes.retain(|change| change.to <= before.revision);
        if self.changes.last().is_some_and(|last| last.to != before.revision) {
            self.changes.clear();
        }
        let objects = replaced(before, now);
        match (self.changes.last_mut(), now.at_ms) {
            (Some(last), _) if objects.is_empty() => last.to = now.revision,
            (None, _) if objects.is_empty() => {}
            // Nobody knows when.
            (_, None) => self.changes.clear(),
            (_, Some(at_ms)) => {
                self.changes.push(Undo { from: before.revision, to: now.revision, at_ms, objects });
            }
        }
        while self.changes.len() > CHANGES_MAX || self.bytes() > BYTES_MAX {
            self.changes.remove(0);
        }
    }

    fn bytes(&self) -> usize {
        let objects = self.changes.iter().flat_map(|change| change.objects.values().flatten());
        objects.map(|object| object.weight()).sum()
    }

    /// What was in force before this topology, newest first, and when each gave way.
    pub(super) fn before(&self, view: &View) -> Vec<(View, SystemTime)> {
        let mut found: Vec<(View, SystemTime)> = Vec::new();
        if (&self.cluster, self.epoch) != (&view.cluster, view.epoch) {
            return found;
        }
        for change in self.changes.iter().rev() {
            let after = found.last().map_or(view, |(view, _)| view);
            // Of one that was stored before the topology itself could be, nothing holds.
            if change.to > after.revision {
                continue;
            }
            if change.to != after.revision {
                break;
            }
            let mut objects = (*after.objects).clone();
            for (key, object) in &change.objects {
                match object {
                    Some(object) => drop(objects.insert(key.clone(), Arc::clone(object))),
                    None => drop(objects.remove(key)),
                }
            }
            let before =
                View { revision: change.from, objects: Arc::new(objects), rollout: None, at_ms: None, ..after.clone() };
            found.push((before, UNIX_EPOCH + Duration::from_millis(change.at_ms)));
        }
        found
    }
}

fn replaced(before: &View, now: &View) -> BTreeMap<Key, Option<Arc<Object>>> {
    let same = |a: &Arc<Object>, b: &Arc<Object>| Arc::ptr_eq(a, b) || a == b;
    // Both are in the order of their keys, and nearly all of them alike.
    let (mut olds, mut news) = (before.objects.iter().peekable(), now.objects.iter().peekable());
    let mut replaced = BTreeMap::new();
    loop {
        let order = match (olds.peek(), news.peek()) {
            (Some(old), Some(new)) => old.0.cmp(new.0),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => break,
        };
        let old = if order.is_le() { olds.next() } else { None };
        let new = if order.is_ge() { news.next() } else { None };
        let Some((key, _)) = old.or(new) else { break };
        let is_same = old.zip(new).is_some_and(|(old, new)| same(old.1, new.1));
        if !is_same && !matches!(key, Key::Certificate(_)) {
            replaced.insert(key.clone(), old.map(|(_, object)| Arc::clone(object)));
        }
    }
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::wire::Snapshot;

    fn view(revision: u64, backends: &[(&str, u32)]) -> View {
        let object = |weight: u32| -> Object {
            serde_json::from_value(serde_json::json!({ "backend": { "address": "10.0.0.1:1", "weight": weight } }))
                .unwrap()
        };
        let objects =
            backends.iter().map(|(id, weight)| (format!("backend/s/{id}").parse().unwrap(), Arc::new(object(*weight))));
        let snapshot = Snapshot {
            cluster: "c".into(),
            epoch: 1,
            revision,
            digest: String::new(),
            objects: Arc::new(objects.collect()),
            rollout: None,
            at_ms: Some(revision * 1_000),
        };
        View::from_snapshot(snapshot, None).unwrap()
    }

    /// Revision, objects and milliseconds.
    type Told = (u64, Arc<BTreeMap<Key, Arc<Object>>>, u64);

    fn told(past: &Past, view: &View) -> Vec<Told> {
        let millis = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        past.before(view).into_iter().map(|(view, at)| (view.revision, view.objects, millis(at))).collect()
    }

    #[test]
    fn what_was_in_force_before_comes_back_with_its_times_also_from_disk() {
        let views = [
            view(1, &[("a", 100)]),
            view(2, &[("a", 100), ("b", 100)]),
            view(3, &[("a", 50), ("b", 100)]),
            // Nothing that places keys.
            view(5, &[("a", 50), ("b", 100)]),
            view(6, &[("b", 100), ("c", 7)]),
        ];
        let mut past = Past::default();
        views.windows(2).for_each(|pair| past.handle_change(&pair[0], &pair[1]));
        let past: Past = serde_json::from_slice(&serde_json::to_vec(&past).unwrap()).unwrap();
        let objects = |at: usize| Arc::clone(&views[at].objects);
        let expected = vec![(5, objects(3), 6_000), (2, objects(1), 3_000), (1, objects(0), 2_000)];
        assert_eq!(told(&past, &views[4]), expected);
        // The last one was not stored: what was stored is as before.
        assert_eq!(told(&past, &views[3]), expected[1..]);
        assert_eq!(told(&past, &view(7, &[("b", 100)])), [], "it has come by ways that nobody knows");
        assert_eq!(told(&past, &View { epoch: 2, ..views[4].clone() }), []);
        // A gap, another epoch: what leads nowhere is forgotten.
        let mut gap = past.clone();
        gap.handle_change(&view(8, &[("x", 1)]), &view(9, &[]));
        assert_eq!(told(&gap, &view(9, &[])).len(), 1);
        let later = View { epoch: 2, ..view(9, &[]) };
        gap.handle_change(&view(9, &[]), &later);
        assert_eq!(gap.changes, []);
        // Nobody knows when it was.
        let mut unknown = past;
        unknown.handle_change(&views[4], &View { at_ms: None, ..view(7, &[("b", 100)]) });
        assert_eq!(unknown.changes, []);
    }

    #[test]
    fn eight_changes_are_remembered_and_so_many_bytes() {
        let mut past = Past::default();
        for revision in 1..100 {
            past.handle_change(
                &view(revision, &[("a", revision as u32)]),
                &view(revision + 1, &[("a", revision as u32 + 1)]),
            );
        }
        let told = told(&past, &view(100, &[("a", 100)]));
        assert_eq!(
            told.iter().map(|(revision, ..)| *revision).collect::<Vec<_>>(),
            (92..100).rev().collect::<Vec<_>>()
        );
        let text = |size: usize| Arc::new(Object::Document(crate::state::Text { text: "#".repeat(size) }));
        let of = |revision: u64, size: usize| {
            let mut view = view(revision, &[]);
            Arc::make_mut(&mut view.objects).insert("document/main".parse().unwrap(), text(size));
            view
        };
        let mut past = Past::default();
        for revision in 1..4 {
            past.handle_change(
                &of(revision, (3 << 20) + revision as usize),
                &of(revision + 1, (3 << 20) + revision as usize + 1),
            );
        }
        assert_eq!(past.changes.len(), 2);
    }

    proptest::proptest! {
        #[test]
        fn what_a_change_has_replaced_put_back_gives_what_was(
            before in proptest::collection::btree_map(0..12_u8, 1..4_u32, 0..12),
            now in proptest::collection::btree_map(0..12_u8, 1..4_u32, 0..12),
        ) {
            let of = |revision, backends: &BTreeMap<u8, u32>| {
                let named: Vec<(String, u32)> = backends.iter().map(|(id, weight)| (format!("b{id}"), *weight)).collect();
                view(revision, &named.iter().map(|(id, weight)| (id.as_str(), *weight)).collect::<Vec<_>>())
            };
            let differ = (0..12_u8).filter(|id| before.get(id) != now.get(id)).count();
            let (before, now) = (of(1, &before), of(2, &now));
            let mut past = Past::default();
            past.handle_change(&before, &now);
            proptest::prop_assert_eq!(past.changes.iter().map(|change| change.objects.len()).sum::<usize>(), differ);
            let found = past.before(&now);
            proptest::prop_assert_eq!(found.len(), usize::from(differ > 0));
            proptest::prop_assert!(found.iter().all(|(found, _)| found.objects == before.objects));
        }
    }
}
