//! Cycles in a graph of files: the groups in which everyone reaches everyone, and the shortest way round in each.

use crate::paths::Edges;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The groups of two or more files that reach each other, largest first.
pub(crate) fn knots(edges: &Edges) -> Vec<BTreeSet<usize>> {
    let after = successors(edges);
    let reach: BTreeMap<usize, BTreeSet<usize>> = after.keys().map(|&from| (from, reachable(&after, from))).collect();
    let mut knots = BTreeSet::new();
    for (&from, to) in &reach {
        let knot: BTreeSet<usize> =
            to.iter().copied().filter(|other| reach.get(other).is_some_and(|back| back.contains(&from))).collect();
        if knot.contains(&from) {
            knots.insert(knot);
        }
    }
    let mut knots: Vec<BTreeSet<usize>> = knots.into_iter().collect();
    knots.sort_by_key(|knot| std::cmp::Reverse(knot.len()));
    knots
}

/// The shortest way from a file of a knot back to itself, the first file at both ends.
pub(crate) fn shortest(edges: &Edges, knot: &BTreeSet<usize>) -> Vec<usize> {
    let after = successors(edges);
    knot.iter().filter_map(|&start| way_round(&after, start)).min_by_key(Vec::len).unwrap_or_default()
}

fn successors(edges: &Edges) -> BTreeMap<usize, BTreeSet<usize>> {
    let mut after: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for &(from, to) in edges.keys() {
        after.entry(from).or_default().insert(to);
    }
    after
}

fn reachable(after: &BTreeMap<usize, BTreeSet<usize>>, from: usize) -> BTreeSet<usize> {
    let mut seen = BTreeSet::new();
    let mut next = vec![from];
    while let Some(at) = next.pop() {
        for &to in after.get(&at).into_iter().flatten() {
            if seen.insert(to) {
                next.push(to);
            }
        }
    }
    seen
}

fn way_round(after: &BTreeMap<usize, BTreeSet<usize>>, start: usize) -> Option<Vec<usize>> {
    let mut before = BTreeMap::new();
    let mut next = VecDeque::from([start]);
    while let Some(at) = next.pop_front() {
        for &to in after.get(&at).into_iter().flatten() {
            if to == start {
                let mut way = vec![start, at];
                while let Some(&previous) = before.get(way.last()?) {
                    way.push(previous);
                }
                way.reverse();
                return Some(way);
            }
            if let Entry::Vacant(entry) = before.entry(to) {
                entry.insert(at);
                next.push_back(to);
            }
        }
    }
    None
}
