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
    fired: bool,
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
        let entry = Entry { deadline: NEVER, visit: NEVER, fired: false, waker: None };
        let mut entries = self.entries.borrow_mut();
        let index = if let Some(index) = self.free.borrow_mut().pop() {
            entries[index as usize] = entry;
            index
        } else {
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
                let entry = &mut self.entries.borrow_mut()[index as usize];
                if entry.visit != tick {
                    // Filed again elsewhere since, or reused by another connection.
                    continue;
                }
                entry.visit = NEVER;
                if entry.deadline == NEVER {
                    continue;
                }
                if entry.deadline > tick {
                    entry.visit = entry.deadline.min(tick + BUCKETS - 1);
                    self.buckets.borrow_mut()[(entry.visit % BUCKETS) as usize].push(index);
                    continue;
                }
                entry.fired = true;
                entry.deadline = NEVER;
                entry.waker.take()
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Timers in use.
    pub(crate) fn in_use(&self) -> usize {
        self.entries.borrow().len() - self.free.borrow().len()
    }

    /// Timers with a deadline.
    pub(crate) fn armed(&self) -> usize {
        self.entries.borrow().iter().filter(|entry| entry.deadline != NEVER).count()
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
        // The tick under way has begun already: one more makes sure that the whole time has passed.
        let ticks = after.as_secs().saturating_mul(TICKS_PER_SECOND);
        let ticks = ticks.saturating_add(u64::from(after.subsec_nanos().div_ceil(TICK.subsec_nanos())));
        Deadline(self.now.get().saturating_add(ticks).saturating_add(1))
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

    /// As [`Timer::set`], but never later than `limit`. Zero is no limit of its own.
    #[inline]
    pub(crate) fn set_before(&self, after: Duration, limit: Deadline) {
        let deadline = if after.is_zero() { limit.0 } else { self.timers.deadline(after).min(limit).0 };
        let mut entries = self.timers.entries.borrow_mut();
        let entry = &mut entries[self.index as usize];
        entry.deadline = if planted::is_planted(Fault::TimerLost) { NEVER } else { deadline };
        entry.fired = false;
        if deadline < entry.visit {
            let now = self.timers.now.get();
            entry.visit = deadline.clamp(now + 1, now + BUCKETS - 1);
            self.timers.buckets.borrow_mut()[(entry.visit % BUCKETS) as usize].push(self.index);
        }
    }

    /// Fires `after` from now at the latest.
    pub(crate) fn shorten(&self, after: Duration) {
        let (fired, deadline) = {
            let entry = &self.timers.entries.borrow()[self.index as usize];
            (entry.fired, Deadline(entry.deadline))
        };
        if !fired {
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
        if entry.fired {
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
