//! A number that says where a ring's points lie and whose they are.

use super::circle::{Circle, SLOT_MASK, owner};
use super::roster::{Roster, Slots};
use xxhash_rust::xxh3::Xxh3;

/// Bytes that are hashed at once.
const BUFFER: usize = 1 << 14;
/// Ids that are shorter are copied in one go, with what follows them.
const LABEL_ROOM: usize = 32;

/// A member's id, as it is hashed.
struct Label<'a> {
    id: &'a str,
    /// Filled up with NUL.
    begin: [u8; LABEL_ROOM],
}

impl<'a> Label<'a> {
    fn new(id: &'a str) -> Self {
        let mut begin = [0; LABEL_ROOM];
        let len = id.len().min(LABEL_ROOM);
        begin[..len].copy_from_slice(&id.as_bytes()[..len]);
        Self { id, begin }
    }
}

/// XXH3-64 over (point as u64 LE, id, NUL) of every entry, in order.
pub(super) fn of(circle: &Circle, slots: &Slots, roster: &Roster) -> u64 {
    let label = |&rank: &u16| Label::new(roster.member(usize::from(rank)).id);
    let labels: Vec<Label<'_>> = slots.ranks().iter().map(label).collect();
    let mut hasher = Xxh3::new();
    let mut bytes = vec![0; BUFFER + 8 + LABEL_ROOM];
    let mut at = 0;
    for entry in circle.entries() {
        bytes[at..at + 8].copy_from_slice(&(entry & !SLOT_MASK).to_le_bytes());
        at += 8;
        let label = &labels[usize::from(owner(entry))];
        if label.id.len() < LABEL_ROOM {
            bytes[at..at + LABEL_ROOM].copy_from_slice(&label.begin);
            at += label.id.len() + 1;
        } else {
            hasher.update(&bytes[..at]);
            hasher.update(label.id.as_bytes());
            (bytes[0], at) = (0, 1);
        }
        if at >= BUFFER {
            hasher.update(&bytes[..at]);
            at = 0;
        }
    }
    hasher.update(&bytes[..at]);
    hasher.digest()
}
