//! In which sum of what a service carries a member's requests are counted.

/// Levels of a service at most: 8 tiers, each of the own zone and of others.
pub const LEVELS_MAX: usize = 16;
/// One for each level, and one for what is on members that are not eligible, or no members any more.
pub(crate) const SUMS: usize = LEVELS_MAX + 1;

/// One of the sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sum(pub(crate) u8);

impl Sum {
    /// Of members that take no keys.
    pub(crate) const ELSEWHERE: Self = Self(LEVELS_MAX as u8);

    /// Of a level's eligible members.
    #[inline]
    pub(crate) fn of_level(key: u8) -> Self {
        Self(key % LEVELS_MAX as u8)
    }

    #[inline]
    pub(crate) fn index(self) -> usize {
        usize::from(self.0).min(LEVELS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_has_its_sum_and_everything_else_has_one_more() {
        for level in 0..LEVELS_MAX {
            assert_eq!(Sum::of_level(level as u8).index(), level);
            assert_eq!(Sum::of_level((level + LEVELS_MAX) as u8).index(), level, "there are no more");
        }
        assert_eq!((Sum::ELSEWHERE.index(), Sum(255).index(), SUMS), (LEVELS_MAX, LEVELS_MAX, LEVELS_MAX + 1));
    }
}
