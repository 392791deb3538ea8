//! One coarse timer wheel per worker.
//!
//! A connection has one timer for its whole lifetime and moves its deadline many times a request; a runtime timer armed and dropped
//! each time would cost more than the rest of the request's bookkeeping. Here moving a deadline is a store: the wheel visits an entry
//! at the time it was first filed under and files it again if its deadline has moved since.

use crate::planted::{self, Fault};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

/// Resolution: fine enough for time-outs, coarse enough to cost nothing.
pub(crate) const TICK: Duration = Duration::from_millis(50);
const TICKS_PER_SECOND: u64 = 20;
/// Buckets of the wheel: entries with later deadlines are visited once a turn (51 s).
const BUCKETS: u64 = 1024;
const NEVER: u64 = u64::MAX;
/// The deadline of a timer that has fired.
const FIRED: u64 = NEVER - 1;
/// So many times as long as it is the table grows by, and by so many entries at most.
const GROWTH: usize = 15;
const GROWTH_MAX: usize = 1 << 18;
/// The room of so many timers is kept, whether they are in use or not.
const KEPT: usize = 1024;

/// A worker's wheel.
pub(crate) struct Timers {
    started: Instant,
    now: Cell<u64>,
    entries: RefCell<Vec<Entry>>,
    free: RefCell<Vec<u32>>,
    buckets: RefCell<Vec<Vec<u32>>>,
}

struct Entry {
    deadline: u64,
    /// When the wheel visits this entry next.
    visit: u64,
    waker: Option<Waker>,
}

/// A connection's timer. Dropping it frees its entry.
pub(crate) struct Timer {
    timers: Rc<Timers>,
    index: u32,
}

impl Timers {
    pub(crate) fn new(now: Instant) -> Rc<Self> {
        Rc::new(Self {
            started: now,
            now: Cell::new(0),
            entries: RefCell::default(),
            free: RefCell::default(),
            buckets: RefCell::new((0..BUCKETS).map(|_| Vec::new()).collect()),
        })
    }

    /// When the wheel stood at zero.
    #[cfg(test)]
    pub(crate) fn began(&self) -> Instant {
        self.started
    }

    pub(crate) fn timer(self: &Rc<Self>) -> Timer {
        let entry = Entry { deadline: NEVER, visit: NEVER, waker: None };
        let mut entries = self.entries.borrow_mut();
        let index = if let Some(index) = self.free.borrow_mut().pop() {
            entries[index as usize] = entry;
            index
        } else {
            if entries.len() == entries.capacity() {
                // By much: room that has not been used yet takes no memory, while the table of before is not given back at once.
                let more = (GROWTH * entries.len().max(4)).min(GROWTH_MAX);
                entries.reserve_exact(more);
            }
            entries.push(entry);
            (entries.len() - 1) as u32
        };
        Timer { timers: Rc::clone(self), index }
    }

    /// Moves the wheel to `now` and wakes the tasks whose time is up. Called once a tick.
    pub(crate) fn advance(&self, now: Instant) {
        let target = (now.duration_since(self.started).as_millis() / TICK.as_millis()) as u64;
        while self.now.get() < target {
            let tick = self.now.get() + 1;
            self.now.set(tick);
            self.visit(tick);
        }
    }

    fn visit(&self, tick: u64) {
        let due = std::mem::take(&mut self.buckets.borrow_mut()[(tick % BUCKETS) as usize]);
        for &index in &due {
            let waker = {
                let mut entries = self.entries.borrow_mut();
                let Some(entry) = entries.get_mut(index as usize).filter(|entry| entry.visit == tick) else {
                    // Filed again elsewhere since, reused by another connection, or freed.
                    continue;
                };
                entry.visit = NEVER;
                if entry.deadline >= FIRED {
                    continue;
                }
                if entry.deadline > tick {
                    entry.visit = entry.deadline.min(tick + BUCKETS - 1);
                    self.buckets.borrow_mut()[(entry.visit % BUCKETS) as usize].push(index);
                    continue;
                }
                entry.deadline = FIRED;
                entry.waker.take()
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Frees the room of a busier time, as far as no timer in use stands in it.
    pub(crate) fn trim(&self) {
        let (mut entries, mut free) = (self.entries.borrow_mut(), self.free.borrow_mut());
        if entries.capacity() <= KEPT || free.len() < entries.len() / 4 * 3 {
            return;
        }
        let mut is_free = vec![false; entries.len()];
        free.iter().for_each(|index| is_free[*index as usize] = true);
        let len = is_free.iter().rposition(|is_free| !is_free).map_or(0, |last| last + 1);
        // What the buckets still know of the others leads nowhere, or to a successor that is not due.
        entries.truncate(len);
        entries.shrink_to(2 * len);
        free.retain(|index| (*index as usize) < len);
        free.shrink_to(2 * len);
    }

    /// Timers in use.
    pub(crate) fn in_use(&self) -> usize {
        self.entries.borrow().len() - self.free.borrow().len()
    }

    /// Timers with a deadline.
    pub(crate) fn armed(&self) -> usize {
        self.entries.borrow().iter().filter(|entry| entry.deadline < FIRED).count()
    }

    /// Wakes every connection, so that each sees that the worker is draining.
    pub(crate) fn wake_all(&self) {
        let wakers: Vec<Waker> = self.entries.borrow().iter().filter_map(|entry| entry.waker.clone()).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The time now, as the wheel knows it.
    pub(crate) fn now(&self) -> Deadline {
        Deadline(self.now.get())
    }

    /// Milliseconds since the wheel began, to the tick.
    pub(crate) fn millis(&self) -> u64 {
        self.now.get() * TICK.as_millis() as u64
    }

    /// `age` ago.
    pub(crate) fn before(&self, age: Duration) -> Deadline {
        let ticks = u64::try_from(age.as_millis() / TICK.as_millis()).unwrap_or(NEVER);
        Deadline(self.now.get().saturating_sub(ticks))
    }

    /// A point in time on the wheel, for [`Timer::set_before`].
    pub(crate) fn deadline(&self, after: Duration) -> Deadline {
        self.deadline_in(ticks(after))
    }

    fn deadline_in(&self, ticks: u64) -> Deadline {
        // The tick under way has begun already: one more makes sure that the whole time has passed.
        Deadline(self.now.get().saturating_add(ticks).saturating_add(1))
    }
}

/// Ticks of so much time.
#[inline]
fn ticks(after: Duration) -> u64 {
    let whole = after.as_secs().saturating_mul(TICKS_PER_SECOND);
    whole.saturating_add(u64::from(after.subsec_nanos().div_ceil(TICK.subsec_nanos())))
}

/// How long a timer runs: a fourth of a `Duration`, for who keeps it. Zero is for ever, nothing is longer than six years.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(u32);

impl From<Duration> for Span {
    #[inline]
    fn from(after: Duration) -> Self {
        Self(ticks(after).min(u32::MAX.into()) as u32)
    }
}

/// A point in time on the wheel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deadline(u64);

impl Deadline {
    pub(crate) const NEVER: Self = Self(NEVER);

    /// How long after `earlier` this is.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        TICK.saturating_mul(u32::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(u32::MAX))
    }
}

impl Timer {
    /// Fires `after` from now, and no longer when it would have before.
    #[inline]
    pub(crate) fn set(&self, after: Duration) {
        self.set_before(after, Deadline::NEVER);
    }

    /// As [`Timer::set`].
    #[inline]
    pub(crate) fn set_span(&self, after: Span) {
        self.file(if after.0 == 0 { NEVER } else { self.timers.deadline_in(after.0.into()).0 });
    }

    /// As [`Timer::set`], but never later than `limit`. Zero is no limit of its own.
    #[inline]
    pub(crate) fn set_before(&self, after: Duration, limit: Deadline) {
        self.file(if after.is_zero() { limit.0 } else { self.timers.deadline(after).min(limit).0 });
    }

    #[inline]
    fn file(&self, deadline: u64) {
        let mut entries = self.timers.entries.borrow_mut();
        let entry = &mut entries[self.index as usize];
        entry.deadline = if planted::is_planted(Fault::TimerLost) { NEVER } else { deadline };
        if deadline < entry.visit {
            let now = self.timers.now.get();
            entry.visit = deadline.clamp(now + 1, now + BUCKETS - 1);
            self.timers.buckets.borrow_mut()[(entry.visit % BUCKETS) as usize].push(self.index);
        }
    }

    /// Fires `after` from now at the latest.
    pub(crate) fn shorten(&self, after: Duration) {
        let deadline = Deadline(self.timers.entries.borrow()[self.index as usize].deadline);
        if deadline.0 != FIRED {
            // Zero would be no limit.
            self.set_before(after.max(Duration::from_millis(1)), deadline);
        }
    }

    /// The time now, as the wheel knows it.
    pub(crate) fn now(&self) -> Deadline {
        self.timers.now()
    }

    /// Whether the deadline has passed; if not, the task is woken when it does.
    #[inline]
    pub(crate) fn poll_fired(&self, context: &Context<'_>) -> bool {
        let mut entries = self.timers.entries.borrow_mut();
        let entry = &mut entries[self.index as usize];
        if entry.deadline == FIRED {
            return true;
        }
        if planted::is_planted(Fault::BusyLoop) {
            context.waker().wake_by_ref();
        }
        match &entry.waker {
            Some(waker) if waker.will_wake(context.waker()) => {}
            _ => entry.waker = Some(context.waker().clone()),
        }
        false
    }

    pub(crate) fn deadline(&self, after: Duration) -> Deadline {
        if after.is_zero() { Deadline::NEVER } else { self.timers.deadline(after) }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let mut entries = self.timers.entries.borrow_mut();
        let entry = &mut entries[self.index as usize];
        (entry.deadline, entry.visit, entry.waker) = (NEVER, NEVER, None);
        self.timers.free.borrow_mut().push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fired(timer: &Timer) -> bool {
        timer.poll_fired(&Context::from_waker(Waker::noop()))
    }

    #[test]
    fn fires_after_its_time_and_not_before() {
        let start = crate::ambient::now();
        let timers = Timers::new(start);
        let timer = timers.timer();
        timer.set(Duration::from_secs(70));
        timers.advance(start + Duration::from_secs(69));
        assert!(!fired(&timer));
        timers.advance(start + Duration::from_millis(70_200));
        assert!(fired(&timer));
    }

    #[test]
    fn each_connection_has_a_small_entry() {
        assert!(size_of::<Entry>() <= 32 && size_of::<Timer>() <= 16, "{}", size_of::<Entry>());
    }

    #[test]
    fn a_span_fires_when_its_duration_does() {
        let start = crate::ambient::now();
        let timers = Timers::new(start);
        for millis in [1, 49, 50, 51, 999, 1_000, 1_001, 51_200, 75_000] {
            let (one, other) = (timers.timer(), timers.timer());
            one.set(Duration::from_millis(millis));
            other.set_span(Duration::from_millis(millis).into());
            let deadline = |timer: &Timer| timers.entries.borrow()[timer.index as usize].deadline;
            assert_eq!(deadline(&one), deadline(&other), "{millis}");
        }
        let never = timers.timer();
        never.set_span(Duration::ZERO.into());
        assert_eq!(timers.armed(), 0);
        never.set_span(Duration::MAX.into());
        timers.advance(start + Duration::from_secs(3_600));
        assert!(!fired(&never) && timers.armed() == 1);
    }

    #[test]
    fn deadline_moves_both_ways() {
        let start = crate::ambient::now();
        let timers = Timers::new(start);
        let timer = timers.timer();
        timer.set(Duration::from_secs(60));
        timer.set(Duration::from_secs(1));
        timer.set(Duration::from_secs(2));
        timers.advance(start + Duration::from_millis(1_500));
        assert!(!fired(&timer));
        timer.set(Duration::from_secs(1));
        timers.advance(start + Duration::from_millis(2_600));
        assert!(fired(&timer));
        timer.set(Duration::from_secs(10));
        assert!(!fired(&timer));
    }

    #[test]
    fn shortened_deadline_is_never_later_than_before() {
        let start = crate::ambient::now();
        let timers = Timers::new(start);
        let (timer, near) = (timers.timer(), timers.timer());
        timer.set(Duration::from_secs(60));
        near.set(Duration::from_secs(1));
        timer.shorten(Duration::from_secs(5));
        near.shorten(Duration::from_secs(5));
        timers.advance(start + Duration::from_secs(2));
        assert!(!fired(&timer) && fired(&near));
        near.shorten(Duration::from_secs(5));
        assert!(fired(&near));
        timers.advance(start + Duration::from_secs(6));
        assert!(fired(&timer));
        timer.set(Duration::ZERO);
        timer.shorten(Duration::ZERO);
        timers.advance(start + Duration::from_secs(7));
        assert!(fired(&timer));
    }

    #[test]
    fn room_of_a_burst_is_freed_and_timers_that_come_after_it_fire_in_their_time() {
        let start = crate::ambient::now();
        let timers = Timers::new(start);
        let stays = timers.timer();
        stays.set(Duration::from_secs(3));
        let burst: Vec<Timer> = (0..5_000).map(|_| timers.timer()).collect();
        burst.iter().for_each(|timer| timer.set(Duration::from_secs(2)));
        timers.trim();
        assert_eq!((timers.in_use(), timers.armed()), (5_001, 5_001));
        drop(burst);
        timers.trim();
        assert!(timers.entries.borrow().capacity() < 10 && timers.free.borrow().capacity() < 10);
        assert_eq!((timers.in_use(), timers.armed()), (1, 1));
        let next: Vec<Timer> = (0..10).map(|_| timers.timer()).collect();
        next.iter().for_each(|timer| timer.set(Duration::from_secs(4)));
        timers.advance(start + Duration::from_millis(3_500));
        assert!(fired(&stays) && !next.iter().any(fired));
        timers.advance(start + Duration::from_secs(5));
        assert!(next.iter().all(fired));
    }

    #[test]
    fn place_of_a_dropped_timer_never_fires_its_successor() {
        let start = crate::ambient::now();
        let timers = Timers::new(start);
        let first = timers.timer();
        first.set(Duration::from_secs(1));
        drop(first);
        let second = timers.timer();
        second.set(Duration::from_secs(5));
        timers.advance(start + Duration::from_secs(2));
        assert!(!fired(&second));
        timers.advance(start + Duration::from_secs(6));
        assert!(fired(&second));
    }
}
