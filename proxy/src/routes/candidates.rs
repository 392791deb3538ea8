//! Lists of routes that may be a request's, as they are laid out.

use super::by_field::{self, ByField};
use super::prefix_forest::small;
use ringway_config::model::Route;
use std::collections::BTreeMap;

/// In place of a list's length: it is told apart by a field.
pub(super) const BY_FIELD: u32 = u32::MAX;
/// In a list of candidates: host and path are all that the route asks for.
pub(super) const SURE: u32 = 1 << 31;

/// A range of the candidates; or, of [`BY_FIELD`] candidates, the number of the field's list.
#[derive(Clone, Copy, Default)]
pub(super) struct List {
    pub(super) start: u32,
    pub(super) len: u32,
}

/// Lists of candidates that are laid out.
pub(super) struct Lists<'r> {
    routes: &'r [Route],
    many: usize,
    pub(super) candidates: Vec<u32>,
    pub(super) by_field: Vec<ByField<List>>,
    pub(super) tested: usize,
}

impl<'r> Lists<'r> {
    pub(super) fn new(routes: &'r [Route], many: usize) -> Self {
        let candidates = Vec::with_capacity(routes.len());
        Self { routes, many, candidates, by_field: Vec::new(), tested: 0 }
    }

    /// Lays out a list. It ends with the first that takes all: nobody comes further.
    pub(super) fn add(&mut self, indices: impl Iterator<Item = usize>) -> List {
        let routes = self.routes;
        let is_sure = |index: usize| routes[index].methods.is_empty() && routes[index].headers.is_empty();
        let mut reached = Vec::new();
        for index in indices {
            reached.push(index);
            if is_sure(index) {
                break;
            }
        }
        let Some(name) = by_field::told_by(&reached, routes, self.many) else {
            let list = self.lay_out(&reached);
            self.tested += reached.iter().filter(|index| !is_sure(**index)).count();
            return list;
        };
        let mut groups: BTreeMap<&[u8], Vec<usize>> = BTreeMap::new();
        let mut others = Vec::new();
        for index in reached {
            match by_field::value(&routes[index], name) {
                Some(value) => groups.entry(value).or_default().push(index),
                None => others.push(index),
            }
        }
        let most = groups.values().map(Vec::len).max().unwrap_or_default();
        self.tested += most + others.iter().filter(|index| !is_sure(**index)).count();
        let by_value = groups.into_iter().map(|(value, group)| (value.into(), self.lay_out(&group))).collect();
        let rest = self.lay_out(&others);
        self.by_field.push(ByField { name: name.to_owned(), by_value, rest });
        List { start: small(self.by_field.len() - 1), len: BY_FIELD }
    }

    fn lay_out(&mut self, indices: &[usize]) -> List {
        let start = self.candidates.len();
        for index in indices {
            let route = &self.routes[*index];
            let entry = small(*index);
            assert!(entry < SURE, "invariant: a configuration has fewer than 2^31 routes");
            let is_sure = route.methods.is_empty() && route.headers.is_empty();
            self.candidates.push(if is_sure { entry | SURE } else { entry });
        }
        List { start: small(start), len: small(self.candidates.len() - start) }
    }
}
