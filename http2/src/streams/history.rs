//! What has become of streams that are over: what a frame of one means depends on that (RFC 9113, 5.1).

/// Identifiers of one side that are remembered, from the highest down.
const REMEMBERED: u32 = 512;
const WORDS: usize = REMEMBERED as usize / 32;

/// What has become of a stream that is not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It has not been used yet.
    Idle,
    /// It was passed over when a higher one was opened.
    Unused,
    /// Both sides have ended it.
    Ended,
    ResetByPeer,
    /// The peer may not know yet.
    ResetByUs,
    /// It is so long ago that it is not remembered.
    Forgotten,
}

/// Two bits for each identifier.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// The highest that was opened; 0 before the first.
    last: u32,
    bits: [u64; WORDS],
}

const UNUSED: u64 = 0;
const ENDED: u64 = 1;
const BY_PEER: u64 = 2;
const BY_US: u64 = 3;

fn place(id: u32) -> (usize, u32) {
    let index = (id >> 1) % REMEMBERED;
    (index as usize / 32, index % 32 * 2)
}

impl History {
    pub(crate) fn last(&self) -> u32 {
        self.last
    }

    /// A stream is opened, higher than all before it.
    pub(crate) fn open(&mut self, id: u32) {
        let last = self.last;
        if last > 0 {
            let passed = ((id - last) / 2).saturating_sub(1);
            if passed >= REMEMBERED {
                self.bits = [UNUSED; WORDS];
            } else {
                (1..=passed).for_each(|count| self.set(last + 2 * count, UNUSED));
            }
        }
        self.last = id;
        self.set(id, ENDED);
    }

    pub(crate) fn set_reset(&mut self, id: u32, by_us: bool) {
        if self.remembers(id) {
            self.set(id, if by_us { BY_US } else { BY_PEER });
        }
    }

    pub(crate) fn set_ended(&mut self, id: u32) {
        if self.remembers(id) {
            self.set(id, ENDED);
        }
    }

    fn remembers(&self, id: u32) -> bool {
        id <= self.last && (self.last - id) / 2 < REMEMBERED
    }

    fn set(&mut self, id: u32, fate: u64) {
        let (word, shift) = place(id);
        self.bits[word] = self.bits[word] & !(3 << shift) | fate << shift;
    }

    /// Of a stream that is not open.
    pub(crate) fn fate(&self, id: u32) -> Fate {
        if id > self.last {
            return Fate::Idle;
        }
        if !self.remembers(id) {
            return Fate::Forgotten;
        }
        let (word, shift) = place(id);
        match self.bits[word] >> shift & 3 {
            UNUSED => Fate::Unused,
            ENDED => Fate::Ended,
            BY_PEER => Fate::ResetByPeer,
            _ => Fate::ResetByUs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn it_remembers_the_last_ones_exactly(
            steps in prop::collection::vec((prop_oneof![9 => 0_u32..6, 1 => 0_u32..2000], 0_u8..3), 1..800),
        ) {
            let (mut history, mut model) = (History::default(), BTreeMap::new());
            let mut last = 0;
            for (skips, fate) in steps {
                let id = if last == 0 { 1 } else { last + 2 + 2 * skips };
                history.open(id);
                last = id;
                match fate {
                    0 => history.set_ended(id),
                    1 => history.set_reset(id, true),
                    _ => history.set_reset(id, false),
                }
                model.insert(id, [Fate::Ended, Fate::ResetByUs, Fate::ResetByPeer][usize::from(fate)]);
            }
            prop_assert_eq!(history.fate(last + 2), Fate::Idle);
            for id in (1..=last).rev().step_by(2).take(1200) {
                let expected = if (last - id) / 2 < REMEMBERED {
                    model.get(&id).copied().unwrap_or(Fate::Unused)
                } else {
                    Fate::Forgotten
                };
                // Before the first, nothing was passed over in particular.
                prop_assert_eq!(history.fate(id), expected, "{} of {}", id, last);
            }
        }
    }
}
