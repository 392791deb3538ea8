//! How many streams were needed at once, while several connections share them: what is needed no more is found out only by counting, since
//! each connection gets a part of the streams.

use crate::net::timer::{Deadline, Timers};
use std::cell::Cell;
use std::time::Duration;

/// Most streams at once within a span of time.
#[derive(Default)]
pub(super) struct Demand {
    most: Cell<usize>,
    since: Cell<Option<Deadline>>,
}

impl Demand {
    /// So many are needed just now.
    #[inline]
    pub(super) fn note(&self, streams: usize) {
        if streams > self.most.get() {
            self.most.set(streams);
        }
    }

    /// Most that were needed in the span that has just ended; `None` while it lasts. `streams` are needed now: the next span begins with
    /// them.
    pub(super) fn most(&self, streams: usize, span: Duration, timers: &Timers) -> Option<usize> {
        self.note(streams);
        let since = self.since.get();
        if since.is_some_and(|since| since >= timers.before(span)) {
            return None;
        }
        self.since.set(Some(timers.now()));
        let most = self.most.replace(streams);
        // Of the time before the first look, nothing is known.
        since.map(|_| most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_most_of_each_span_is_told_at_its_end_and_what_is_under_way_then_belongs_to_the_next() {
        let begin = ambient::now();
        let timers = Timers::new(begin);
        let demand = Demand::default();
        let mut told = Vec::new();
        for second in 0..40_u32 {
            timers.advance(begin + SECOND * second);
            // A short peak at second 3, one that lasts from 15 on, and a fall.
            let now = match second {
                15..25 => 20,
                _ => 2,
            };
            if second == 3 {
                demand.note(50);
            }
            if let Some(most) = demand.most(now, SECOND * 10, &timers) {
                told.push(most);
            }
        }
        assert_eq!(told, [50, 20, 20]);
    }
}
