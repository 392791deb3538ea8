//! What a change of membership moves: exactly, by interval arithmetic, not by sampling.

use crate::ring::Ring;
use std::collections::BTreeMap;

/// The whole circle, in places.
const CIRCLE: f64 = (1_u64 << 48) as f64;

/// What moves between two rings.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Movement {
    /// Share of the key space that changes its owner, 0 to 1.
    pub moved: f64,
    /// From whom to whom, largest first.
    pub moves: Vec<Move>,
}

/// One flow of keys.
#[derive(Debug, Clone, PartialEq)]
pub struct Move {
    /// The owner before.
    pub from: String,
    /// The owner after.
    pub to: String,
    /// Share of the key space, 0 to 1.
    pub share: f64,
}

/// Compares two rings; `ids` are in slot order. A ring without points owns nothing: nothing moves to or from it.
#[must_use]
pub fn movement(old: &Ring, old_ids: &[&str], new: &Ring, new_ids: &[&str]) -> Movement {
    let (old_len, new_len) = (old.points(), new.points());
    if old_len == 0 || new_len == 0 {
        return Movement::default();
    }
    let mut flows: BTreeMap<(u16, u16), u64> = BTreeMap::new();
    let (mut at_old, mut at_new) = (0, 0);
    let mut begin = 0;
    // Between two neighbouring points of either ring all keys have one old and one new owner: those of the next points.
    while at_old < old_len || at_new < new_len {
        let next_old = (at_old < old_len).then(|| old.place_at(at_old));
        let next_new = (at_new < new_len).then(|| new.place_at(at_new));
        let end = next_old.into_iter().chain(next_new).min().unwrap_or(begin) + 1;
        let owners = (old.owner_at(at_old % old_len), new.owner_at(at_new % new_len));
        *flows.entry(owners).or_default() += end - begin;
        begin = end;
        while at_old < old_len && old.place_at(at_old) < end {
            at_old += 1;
        }
        while at_new < new_len && new.place_at(at_new) < end {
            at_new += 1;
        }
    }
    *flows.entry((old.owner_at(0), new.owner_at(0))).or_default() += (1 << 48) - begin;

    let mut movement = Movement::default();
    let mut moved = 0;
    for ((from, to), places) in flows {
        let (from, to) = (old_ids[usize::from(from)], new_ids[usize::from(to)]);
        if from != to && places > 0 {
            moved += places;
            movement.moves.push(Move { from: from.into(), to: to.into(), share: places as f64 / CIRCLE });
        }
    }
    movement.moved = moved as f64 / CIRCLE;
    movement.moves.sort_by(|a, b| b.share.total_cmp(&a.share));
    movement
}
