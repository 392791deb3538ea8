//! Which level (tier, zone) has how many of the keys, from how healthy each is.

/// A level's weight, and how much of it is healthy; and the same with what is drained, which panics nobody and is lost all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LevelHealth {
    pub(crate) level: u8,
    pub(crate) weight: u64,
    pub(crate) healthy: u64,
    pub(crate) built_for: u64,
    pub(crate) carried: u64,
}

/// Shares of the levels, most preferred first, 0 to 1.
///
/// A level can carry what takes keys of what it was built for, times the overprovisioning factor, all of the keys at most; what it
/// cannot carry goes to the next. What is drained is as lost to a level as what is down. If all together cannot carry everything, each gets its part of what they can; if none can carry
/// anything, the first gets all. Source: Envoy's priority levels.
pub(crate) fn shares(levels: &[LevelHealth], overprovisioning_percent: u32) -> (Vec<(u8, f64)>, bool) {
    let factor = f64::from(overprovisioning_percent.max(100)) / 100.0;
    let capacity: Vec<f64> = levels
        .iter()
        .map(|level| match level.built_for {
            0 => 0.0,
            built_for => (level.carried as f64 / built_for as f64 * factor).min(1.0),
        })
        .collect();
    let sum: f64 = capacity.iter().sum();
    let suffices = sum >= 1.0 - 1e-9;
    let mut left = 1.0;
    let shares = levels
        .iter()
        .zip(&capacity)
        .enumerate()
        .map(|(index, (level, &capacity))| {
            let share: f64 = if suffices {
                capacity.min(left)
            } else if sum > 0.0 {
                capacity / sum
            } else if index == 0 {
                1.0
            } else {
                0.0
            };
            left = f64::max(left - share, 0.0);
            (level.level, share)
        })
        .collect();
    (shares, suffices)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(levels: &[(u64, u64)]) -> (Vec<f64>, bool) {
        let levels: Vec<LevelHealth> = levels
            .iter()
            .enumerate()
            .map(|(level, &(built_for, carried))| LevelHealth {
                level: level as u8,
                built_for,
                carried,
                ..LevelHealth::default()
            })
            .collect();
        let (shares, suffices) = shares(&levels, 140);
        (shares.into_iter().map(|(_, share)| (share * 100.0).round()).collect(), suffices)
    }

    #[test]
    fn keys_go_down_the_levels_as_health_goes() {
        // The table of Envoy's documentation.
        assert_eq!(of(&[(100, 100), (100, 100)]), (vec![100.0, 0.0], true));
        assert_eq!(of(&[(100, 72), (100, 72)]), (vec![100.0, 0.0], true));
        assert_eq!(of(&[(100, 71), (100, 71)]), (vec![99.0, 1.0], true));
        assert_eq!(of(&[(100, 50), (100, 50)]), (vec![70.0, 30.0], true));
        assert_eq!(of(&[(100, 25), (100, 100)]), (vec![35.0, 65.0], true));
        assert_eq!(of(&[(100, 25), (100, 25)]), (vec![50.0, 50.0], false));
        assert_eq!(of(&[(100, 0), (100, 0), (100, 0)]), (vec![100.0, 0.0, 0.0], false));
        assert_eq!(of(&[(0, 0), (100, 100)]), (vec![0.0, 100.0], true));
    }
}
