//! What the fleet's objects are in sums: counted once for each revision, not for each look.

use crate::api::shown::counts;
use crate::state::{Backend, Key, Object, State};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::Bound;

/// See the module.
#[derive(Default)]
pub(super) struct Objects {
    at: Option<(u64, u64)>,
    /// By kind.
    pub(super) counts: Value,
    sums: BTreeMap<String, Sums>,
    /// Revisions that have been counted.
    counted: u64,
}

/// Registered backends of a service.
#[derive(Default, Clone, Copy)]
pub(super) struct Sums {
    pub(super) registered: usize,
    pub(super) ejected: usize,
}

impl Objects {
    pub(super) fn follow(&mut self, state: &State) {
        let at = Some((state.epoch, state.revision));
        if self.at == at {
            return;
        }
        let mut sums: BTreeMap<String, Sums> = BTreeMap::new();
        for (key, entry) in state.objects.iter() {
            let (Key::Backend { service, .. }, Object::Backend(backend)) = (key, &*entry.object) else { continue };
            if !sums.contains_key(service) {
                sums.insert(service.clone(), Sums::default());
            }
            let Some(sums) = sums.get_mut(service) else { continue };
            sums.registered += 1;
            sums.ejected += usize::from(backend.ejected);
        }
        *self = Self { at, counts: counts(state), sums, counted: self.counted + 1 };
    }

    pub(super) fn of(&self, service: &str) -> Sums {
        self.sums.get(service).copied().unwrap_or_default()
    }
}

/// Registered backends of a service, by their ids.
pub(super) fn registered<'s>(state: &'s State, of: &'s str) -> impl Iterator<Item = (&'s str, &'s Backend)> {
    let first = Key::Backend { service: of.to_owned(), id: String::new() };
    let from = state.objects.range((Bound::Included(first), Bound::Unbounded));
    from.map_while(move |(key, entry)| match (key, &*entry.object) {
        (Key::Backend { service, id }, Object::Backend(backend)) if service == of => Some((id.as_str(), backend)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Entry, Text};
    use std::sync::Arc;

    fn entry(object: Object) -> Entry {
        Entry { object: Arc::new(object), created: 1, modified: 1 }
    }

    fn backend(ejected: bool) -> Entry {
        let text = format!("{{ \"address\": \"10.0.0.1:80\", \"ejected\": {ejected} }}");
        entry(Object::Backend(serde_json::from_str(&text).unwrap()))
    }

    #[test]
    fn objects_are_counted_once_for_each_revision() {
        let mut state = State::default();
        state.revision = 1;
        state.objects = [("backend/a/1", false), ("backend/b/1", true), ("backend/b/2", false), ("backend/c/1", false)]
            .map(|(key, ejected)| (key.parse().unwrap(), backend(ejected)))
            .into_iter()
            .chain([(Key::Service("z".into()), entry(Object::Service(Text { text: String::new() })))])
            .collect();
        let mut objects = Objects::default();
        (0..20).for_each(|_| objects.follow(&state));
        assert_eq!(objects.counted, 1);
        assert_eq!((objects.of("b").registered, objects.of("b").ejected, objects.of("none").registered), (2, 1, 0));
        assert_eq!(registered(&state, "b").map(|(id, _)| id).collect::<Vec<_>>(), ["1", "2"]);
        state.revision = 2;
        objects.follow(&state);
        assert_eq!(objects.counted, 2);
    }
}
