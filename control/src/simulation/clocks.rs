//! What clocks say: each member has one of its own, which may run at another speed than time does, and leap.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::time::Duration;

use tokio::time::Instant;

use super::scheduler::{self, Group};

/// The wall clock's first word, in Unix milliseconds.
const WALL_MS: u64 = 1_700_000_000_000;

thread_local! {
    /// What the wall clock said, and when.
    static WALL: Cell<(u64, Option<Instant>)> = const { Cell::new((WALL_MS, None)) };
    /// Of the processes whose clocks are not true.
    static CLOCKS: RefCell<BTreeMap<Group, Clock>> = const { RefCell::new(BTreeMap::new()) };
}

/// All clocks begin anew: a simulation does.
pub(super) fn begin() {
    CLOCKS.with_borrow_mut(BTreeMap::clear);
    WALL.set((WALL_MS, Some(Instant::now())));
}

/// Of a process.
struct Clock {
    /// How fast it runs, in thousandths.
    permille: u64,
    since: Instant,
    leapt: Duration,
}

/// A process's clock runs at this speed, in thousandths.
pub(super) fn run(group: Group, permille: u64) {
    let clock = Clock { permille, since: Instant::now(), leapt: Duration::ZERO };
    CLOCKS.with_borrow_mut(|clocks| {
        let _ = clocks.insert(group, clock);
    });
}

/// A process's clock leaps forward.
pub(super) fn leap(group: Group, by: Duration) {
    CLOCKS.with_borrow_mut(|clocks| {
        if let Some(clock) = clocks.get_mut(&group) {
            clock.leapt += by;
        }
    });
}

fn scaled(duration: Duration, by: u64, over: u64) -> Duration {
    let nanos = duration.as_nanos().saturating_mul(u128::from(by)) / u128::from(over.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// What the clock says of whose task runs.
pub(super) fn now() -> Instant {
    let now = Instant::now();
    CLOCKS.with_borrow(|clocks| match clocks.get(&scheduler::group()) {
        Some(clock) => clock.since + scaled(now - clock.since, clock.permille, 1000) + clock.leapt,
        None => now,
    })
}

/// The same, as the lessor takes it.
pub(super) fn lessors() -> std::time::Instant {
    now().into_std()
}

/// How long something takes that is so long by the clock of whose task runs.
pub(super) fn true_time(duration: Duration) -> Duration {
    CLOCKS.with_borrow(|clocks| match clocks.get(&scheduler::group()) {
        Some(clock) => scaled(duration, 1000, clock.permille),
        None => duration,
    })
}

/// A moment by a member's own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(Instant);

impl Moment {
    pub(super) fn left(self) -> Duration {
        self.0.saturating_duration_since(now())
    }
}

impl openraft::Instant for Moment {
    fn now() -> Self {
        Self(now())
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}

impl AddAssign<Duration> for Moment {
    fn add_assign(&mut self, duration: Duration) {
        self.0 += duration;
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0 - duration)
    }
}

impl SubAssign<Duration> for Moment {
    fn sub_assign(&mut self, duration: Duration) {
        self.0 -= duration;
    }
}

impl Sub<Self> for Moment {
    type Output = Duration;

    fn sub(self, other: Self) -> Duration {
        self.0.saturating_duration_since(other.0)
    }
}

/// Wall time, everybody's, in Unix milliseconds. Members decide nothing by it but where epochs begin.
pub(super) fn wall() -> u64 {
    let (ms, since) = WALL.get();
    ms + since.map_or(0, |since| since.elapsed().as_millis() as u64)
}

/// Somebody sets the wall clock back.
pub(super) fn set_back(by: Duration) {
    WALL.set((wall().saturating_sub(by.as_millis() as u64), Some(Instant::now())));
}
