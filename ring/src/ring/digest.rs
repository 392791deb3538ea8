//! A number that says where a ring's points lie and whose they are.

use super::circle::{Circle, SLOT_MASK, owner};
use super::roster::{Roster, Slots};
use xxhash_rust::xxh3::Xxh3;

/// Bytes that are hashed at once.
const BUFFER: usize = 1 << 14;
/// Ids that are shorter are copied in one go, with what follows them.
const LABEL_ROOM: usize = 32;
/// Of an entry whose id is that short.
const ENTRY_ROOM: usize = 8 + LABEL_ROOM;

/// Members' ids as they are hashed, by slot.
struct Labels {
    /// Filled up with NUL; none of an id that is longer.
    begins: Vec<[u8; LABEL_ROOM]>,
    /// Bytes with the NUL behind it; of a longer one none.
    lens: Vec<u8>,
}

impl Labels {
    fn new(slots: &Slots, roster: &Roster) -> Self {
        let label = |&rank: &u16| {
            let mut begin = [0; LABEL_ROOM];
            let id = roster.member(usize::from(rank)).id.as_bytes();
            if id.len() >= LABEL_ROOM {
                return (begin, 0);
            }
            begin[..id.len()].copy_from_slice(id);
            (begin, id.len() as u8 + 1)
        };
        let (begins, lens) = slots.ranks().iter().map(label).unzip();
        Self { begins, lens }
    }
}

/// XXH3-64 over (point as u64 LE, id, NUL) of every entry, in order.
pub(super) fn of(circle: &Circle, slots: &Slots, roster: &Roster) -> u64 {
    let labels = Labels::new(slots, roster);
    let mut hasher = Xxh3::new();
    let mut bytes = [0; BUFFER + ENTRY_ROOM];
    let mut at = 0;
    for entries in circle.blocks_of_entries() {
        for &entry in entries {
            let slot = usize::from(owner(entry));
            // Arrays, so that each is one move.
            if let Some((point, rest)) = bytes[at..].split_first_chunk_mut::<8>()
                && let Some(label) = rest.first_chunk_mut::<LABEL_ROOM>()
            {
                *point = (entry & !SLOT_MASK).to_le_bytes();
                *label = labels.begins[slot];
            }
            at += 8 + usize::from(labels.lens[slot]);
            if labels.lens[slot] == 0 {
                hasher.update(&bytes[..at]);
                hasher.update(roster.member(usize::from(slots.rank(slot as u16))).id.as_bytes());
                (bytes[0], at) = (0, 1);
            }
            if at >= BUFFER {
                hasher.update(&bytes[..at]);
                at = 0;
            }
        }
    }
    hasher.update(&bytes[..at]);
    hasher.digest()
}
