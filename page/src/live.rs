//! What a page shows, as server-sent events. A whole frame first, then once a second what has changed of it, as a merge patch (RFC 7396).
//! Frames are made once for all who look, and not at all while nobody does.

use crate::source::Source;
use crate::stream::Stream;
use crate::told::Told;
use bytes::Bytes;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::{Instant, MissedTickBehavior};

/// Streams at once, a part of the connections of a process: others have room left.
const LOOKERS_MAX: usize = 24;
/// Messages that wait for a client. One that reads more slowly is told nothing until there is room, and then everything anew.
const WAITING_MAX: usize = 4;
/// A client that has read nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(30);
const EVERY: Duration = Duration::from_secs(1);

/// Whether who looks still may.
pub type StillMay = Box<dyn Fn() -> bool + Send>;

/// All who look at this process.
pub struct Live<S> {
    begin: Box<dyn Fn() -> S + Send + Sync>,
    state: Mutex<State>,
    newcomer: Notify,
}

#[derive(Default)]
struct State {
    lookers: Vec<Looker>,
    /// A task samples for them.
    is_sampled: bool,
}

/// Who looks.
struct Looker {
    /// The service whose backends are wanted, if any.
    service: Option<String>,
    is_known: bool,
    sender: mpsc::Sender<Bytes>,
    /// Knows no frame that a patch could change.
    wants_frame: bool,
    /// Since when there has been no room for what it is to be told.
    stalled: Option<Instant>,
    still_may: StillMay,
}

/// A task that samples. Whatever ends it, a panic too: those who looked are let go, and who comes next begins another.
struct Sampling<S> {
    live: Arc<Live<S>>,
    /// It has ended because nobody looks any more; others may look by now, and another task samples for them.
    is_over: bool,
}

impl<S> Drop for Sampling<S> {
    fn drop(&mut self) {
        if !self.is_over {
            *self.live.state.lock().unwrap_or_else(PoisonError::into_inner) = State::default();
        }
    }
}

impl<S: Source> Live<S> {
    /// `begin`: makes the source when somebody begins to look.
    pub fn new(begin: impl Fn() -> S + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { begin: Box::new(begin), state: Mutex::default(), newcomer: Notify::new() })
    }

    /// Begins a stream; `None`: there are as many as may be. Who is known, because they have shown who they are, takes the place of one who is
    /// not where there is no other: of the oldest. In a runtime.
    pub fn look(self: &Arc<Self>, service: Option<String>, is_known: bool, still_may: StillMay) -> Option<Stream> {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let mut state = self.state();
        state.lookers.retain(|looker| !looker.sender.is_closed());
        if state.lookers.len() >= LOOKERS_MAX {
            let stranger = state.lookers.iter().position(|looker| !looker.is_known).filter(|_| is_known)?;
            state.lookers.remove(stranger);
        }
        state.lookers.push(Looker { service, is_known, sender, wants_frame: true, stalled: None, still_may });
        if !std::mem::replace(&mut state.is_sampled, true) {
            drop(tokio::spawn(Arc::clone(self).sample((self.begin)())));
        }
        drop(state);
        self.newcomer.notify_one();
        Some(Stream::new(receiver))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs for as long as somebody looks.
    async fn sample(self: Arc<Self>, mut source: S) {
        let mut sampling = Sampling { live: Arc::clone(&self), is_over: false };
        let mut told = Told::default();
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first comes at once: there is no frame before the first sample.
        ticks.tick().await;
        let mut is_due = true;
        loop {
            let Some(wanted) = self.wanted(is_due) else {
                sampling.is_over = true;
                return;
            };
            if is_due {
                source.sample(&wanted).await;
            }
            // Elsewhere: a member has one thread, for everything that it decides.
            let made = tokio::task::spawn_blocking(move || {
                told.renew(&mut source, wanted, is_due);
                (source, told)
            });
            let Ok(made) = made.await else { return };
            (source, told) = made;
            let now = Instant::now();
            self.state().lookers.retain_mut(|looker| looker.tell(&told, is_due, now));
            is_due = tokio::select! {
                _ = ticks.tick() => true,
                () = self.newcomer.notified() => false,
            };
        }
    }

    /// Services that are looked at; `None`: nobody looks any more, and this was the last look. `is_due`: those who may not any more are
    /// let go.
    fn wanted(&self, is_due: bool) -> Option<HashSet<String>> {
        let mut state = self.state();
        state.lookers.retain(|looker| !looker.sender.is_closed() && (!is_due || (looker.still_may)()));
        state.is_sampled = !state.lookers.is_empty();
        state.is_sampled.then(|| state.lookers.iter().filter_map(|looker| looker.service.clone()).collect())
    }
}

impl Looker {
    /// Whether it is still there. `is_due`: those who have a frame are told what has changed.
    fn tell(&mut self, told: &Told, is_due: bool, now: Instant) -> bool {
        // Who has come meanwhile is told next.
        let Some(messages) = told.of(self.service.as_deref()) else { return true };
        let next = match (self.wants_frame, is_due) {
            (true, _) if self.sender.capacity() == 0 => None,
            (true, _) => Some(messages.whole.clone()),
            (false, true) => Some(messages.patch.clone()),
            (false, false) => return true,
        };
        let sent = next.map_or(Err(TrySendError::Full(Bytes::new())), |next| self.sender.try_send(next));
        self.wants_frame = sent.is_err();
        match sent {
            Ok(()) => self.stalled = None,
            Err(TrySendError::Full(_)) => {
                let since = *self.stalled.get_or_insert(now);
                return now.saturating_duration_since(since) < PATIENCE;
            }
            Err(TrySendError::Closed(_)) => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use serde_json::{Map, Value, json};
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

    fn looker() -> (Looker, mpsc::Receiver<Bytes>) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (
            Looker {
                service: None,
                is_known: false,
                sender,
                wants_frame: true,
                stalled: None,
                still_may: Box::new(|| true),
            },
            receiver,
        )
    }

    fn event(bytes: Option<Bytes>) -> String {
        let text = String::from_utf8(bytes.unwrap().to_vec()).unwrap();
        text.lines().next().unwrap().to_owned() + " " + text.lines().nth(1).unwrap()
    }

    /// Shows a number.
    struct Number(u64);

    impl Source for Number {
        async fn sample(&mut self, _: &HashSet<String>) {}

        fn common(&mut self) -> Map<String, Value> {
            Map::from_iter([("n".to_owned(), json!(self.0))])
        }

        fn service(&mut self, _: &str) -> Option<Value> {
            None
        }
    }

    fn renew(told: &mut Told, number: u64) {
        told.renew(&mut Number(number), HashSet::new(), true);
    }

    #[tokio::test]
    async fn one_that_reads_slowly_gets_a_whole_frame_when_it_reads_again_and_nothing_piles_up() {
        let (mut looker, mut receiver) = looker();
        let (mut told, now) = (Told::default(), Instant::now());
        for number in 0..20 {
            renew(&mut told, number);
            assert!(looker.tell(&told, true, now));
        }
        assert_eq!(receiver.len(), WAITING_MAX);
        assert_eq!(event(receiver.recv().await), "event: frame data: {\"n\":0}");
        for number in 1..WAITING_MAX {
            assert_eq!(event(receiver.recv().await), format!("event: change data: {{\"n\":{number}}}"));
        }
        renew(&mut told, 20);
        assert!(looker.tell(&told, true, now));
        assert_eq!(event(receiver.recv().await), "event: frame data: {\"n\":20}");
        renew(&mut told, 21);
        assert!(looker.tell(&told, false, now), "between two ticks only newcomers are told");
        assert!(receiver.try_recv().is_err());
    }

    #[tokio::test]
    async fn one_that_reads_nothing_for_long_is_given_up() {
        let (mut looker, _receiver) = looker();
        let (mut told, now) = (Told::default(), Instant::now());
        renew(&mut told, 0);
        (0..=WAITING_MAX).for_each(|_| assert!(looker.tell(&told, true, now)));
        assert!(looker.tell(&told, true, now + PATIENCE - Duration::from_secs(1)));
        assert!(!looker.tell(&told, true, now + PATIENCE));
    }

    struct Counting(Arc<AtomicU64>);

    impl Source for Counting {
        async fn sample(&mut self, _: &HashSet<String>) {
            self.0.fetch_add(1, Relaxed);
        }

        fn common(&mut self) -> Map<String, Value> {
            Map::from_iter([("samples".to_owned(), json!(self.0.load(Relaxed)))])
        }

        fn service(&mut self, name: &str) -> Option<Value> {
            Some(json!({ "name": name }))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_sampled_while_nobody_looks_and_who_may_no_more_is_let_go() {
        let (samples, may) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(true)));
        let counted = Arc::clone(&samples);
        let live = Live::new(move || Counting(Arc::clone(&counted)));
        let still_may = Arc::clone(&may);
        let mut first = live.look(None, false, Box::new(move || still_may.load(Relaxed))).unwrap();
        let mut other = live.look(Some("s".into()), false, Box::new(|| true)).unwrap();
        let next = async |stream: &mut Stream| {
            let frame = stream.frame().await?.unwrap();
            Some(event(Some(frame.into_data().unwrap())))
        };
        assert_eq!(next(&mut first).await.unwrap(), "event: frame data: {\"samples\":1}");
        assert_eq!(next(&mut other).await.unwrap(), "event: frame data: {\"samples\":1,\"service\":{\"name\":\"s\"}}");
        assert_eq!(next(&mut first).await.unwrap(), "event: change data: {\"samples\":2}");
        may.store(false, Relaxed);
        while next(&mut first).await.is_some() {}
        drop(other);
        // Longer than anybody is sampled for once nobody looks.
        tokio::time::sleep(EVERY * 3).await;
        let then = samples.load(Relaxed);
        tokio::time::sleep(EVERY * 10).await;
        assert_eq!(samples.load(Relaxed), then);
        let streams: Vec<_> = (0..LOOKERS_MAX).map(|_| live.look(None, false, Box::new(|| true)).unwrap()).collect();
        assert!(live.look(None, false, Box::new(|| true)).is_none(), "there are {} already", streams.len());
        // Who is known has the place of the oldest who is not, as long as there is one.
        let known: Vec<_> = (0..LOOKERS_MAX).map(|_| live.look(None, true, Box::new(|| true)).unwrap()).collect();
        assert!(live.look(None, true, Box::new(|| true)).is_none(), "{} who are known", known.len());
        for mut stream in streams {
            while next(&mut stream).await.is_some() {}
        }
    }

    /// Panics where it is told to.
    struct Falls(Arc<AtomicU64>);

    impl Source for Falls {
        async fn sample(&mut self, _: &HashSet<String>) {
            assert!(self.0.load(Relaxed) != 1, "in a sample");
        }

        fn common(&mut self) -> Map<String, Value> {
            assert!(self.0.load(Relaxed) != 2, "in a frame");
            Map::new()
        }

        fn service(&mut self, _: &str) -> Option<Value> {
            None
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_ends_streams_and_those_who_come_next_are_told_all_the_same() {
        let falls = Arc::new(AtomicU64::new(0));
        let at = Arc::clone(&falls);
        let live = Live::new(move || Falls(Arc::clone(&at)));
        for place in [1, 2] {
            falls.store(place, Relaxed);
            let mut streams: Vec<_> =
                (0..LOOKERS_MAX).map(|_| live.look(None, false, Box::new(|| true)).unwrap()).collect();
            for stream in &mut streams {
                assert!(stream.frame().await.is_none(), "it ends, and does not wait for ever");
            }
            falls.store(0, Relaxed);
            let mut next = live.look(None, false, Box::new(|| true)).unwrap();
            assert!(next.frame().await.is_some());
            drop(next);
            tokio::time::sleep(EVERY * 3).await;
        }
    }
}
