//! Callgrind's file of counts.

/// What the file counts altogether: instructions, and those of them that lock the bus (atomic read-modify-write), which is 0 where
/// these are not counted. `None`: it is no such file, or it was not written to its end.
#[must_use]
pub fn totals(text: &str) -> Option<Counts> {
    let line = text.lines().find_map(|line| line.strip_prefix("totals: "))?;
    let mut numbers = line.split_whitespace().map(str::parse::<u64>);
    let instructions = numbers.next()?.ok()?;
    let locked = numbers.next().transpose().ok()?.unwrap_or(0);
    Some(Counts { instructions, locked })
}

/// Instructions, and those of them that lock the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// All of them.
    pub instructions: u64,
    /// Atomic read-modify-write.
    pub locked: u64,
}

impl Counts {
    /// More than any count.
    pub(super) const MAX: Self = Self { instructions: u64::MAX, locked: u64::MAX };

    /// The least of each.
    pub(super) fn min(self, other: Self) -> Self {
        Self { instructions: self.instructions.min(other.instructions), locked: self.locked.min(other.locked) }
    }

    /// The counts of the so many threads that do most, together. `None`: there are not so many.
    pub(super) fn of_most(mut threads: Vec<Self>, count: usize) -> Option<Self> {
        threads.sort_unstable_by_key(|counts| std::cmp::Reverse(counts.instructions));
        let most = threads.get(..count)?.iter();
        let none = Self { instructions: 0, locked: 0 };
        Some(most.fold(none, |sum, counts| Self {
            instructions: sum.instructions + counts.instructions,
            locked: sum.locked + counts.locked,
        }))
    }

    /// What each of so many requests adds.
    pub(super) fn of_each(self, without: Self, requests: u64) -> Self {
        let each = |with: u64, without: u64| with.saturating_sub(without) / requests;
        Self { instructions: each(self.instructions, without.instructions), locked: each(self.locked, without.locked) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threads_that_do_most_are_counted() {
        let counts = |instructions| Counts { instructions, locked: 1 };
        let threads = || vec![counts(3), counts(40), counts(0), counts(50)];
        assert_eq!(Counts::of_most(threads(), 2), Some(Counts { instructions: 90, locked: 2 }));
        assert_eq!(Counts::of_most(threads(), 5), None);
    }

    #[test]
    fn the_total_is_read_and_without_one_nothing_was_counted() {
        let counts = |instructions, locked| Some(Counts { instructions, locked });
        assert_eq!(totals("events: Ir\n\nfn=(1) main\n0 10\n+3 5\n\ntotals: 15\n"), counts(15, 0));
        assert_eq!(totals("events: Ir Ge\n\nfn=(1) main\n0 10 1\n+3 5\n\ntotals: 15 1\n"), counts(15, 1));
        assert_eq!(totals("events: Ir\n\nfn=(1) main\n0 10\n"), None);
        assert_eq!(totals("totals: many\n"), None);
        assert_eq!(totals("totals: 15 many\n"), None);
        assert_eq!(totals(""), None);
    }
}
