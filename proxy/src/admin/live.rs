//! `/live`: what the page shows, as server-sent events. A whole frame first, then once a second what has changed of it, as a merge
//! patch (RFC 7396). Numbers are sampled once for all who look, and not at all while nobody does.

mod frame;
mod numbers;
mod patch;
mod service;
mod stream;
mod window;

use crate::ambient;
use crate::apply::handle::ControlHandle;
use frame::Frames;
use hyper::body::Bytes;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
pub(super) use stream::Stream;
use tokio::sync::Notify;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::MissedTickBehavior;
use window::Window;

/// Streams at once, a part of the admin listener's connections: others have room left.
const LOOKERS_MAX: usize = 24;
/// Messages that wait for a client. One that reads more slowly is told nothing until there is room, and then everything anew.
const WAITING_MAX: usize = 4;
/// A client that has read nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(30);
const EVERY: Duration = Duration::from_secs(1);

/// Whether who looks still may.
pub(super) type StillMay = Box<dyn Fn(&ControlHandle) -> bool + Send>;

/// All who look at this proxy.
pub(crate) struct Live {
    control: ControlHandle,
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
    sender: mpsc::Sender<Bytes>,
    /// Knows no frame that a patch could change.
    wants_frame: bool,
    /// Since when there has been no room for what it is to be told.
    stalled: Option<Instant>,
    still_may: StillMay,
}

/// What is told to those who look at one service, or at none.
#[derive(Default)]
struct Told {
    frame: Value,
    /// The frame as a message, and what has changed in it; made once, for all.
    whole: Option<Bytes>,
    patch: Option<Bytes>,
}

impl Live {
    pub(crate) fn new(control: ControlHandle) -> Arc<Self> {
        Arc::new(Self { control, state: Mutex::default(), newcomer: Notify::new() })
    }

    /// Begins a stream; `None`: there are as many as may be.
    pub(super) fn look(self: &Arc<Self>, service: Option<String>, still_may: StillMay) -> Option<Stream> {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let mut state = self.state();
        state.lookers.retain(|looker| !looker.sender.is_closed());
        if state.lookers.len() >= LOOKERS_MAX {
            return None;
        }
        state.lookers.push(Looker { service, sender, wants_frame: true, stalled: None, still_may });
        if !std::mem::replace(&mut state.is_sampled, true) {
            drop(tokio::spawn(Arc::clone(self).sample()));
        }
        drop(state);
        self.newcomer.notify_one();
        Some(Stream::new(receiver))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs for as long as somebody looks.
    async fn sample(self: Arc<Self>) {
        let (mut window, mut frames) = (Window::default(), Frames::default());
        let mut told: HashMap<Option<String>, Told> = HashMap::new();
        let mut generation = self.control.snapshot().generation;
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_due = tokio::select! {
                _ = ticks.tick() => true,
                () = self.newcomer.notified() => false,
            };
            let mut state = self.state();
            let newest = self.control.snapshot().generation;
            let access_may_have_changed = std::mem::replace(&mut generation, newest) != newest;
            state.lookers.retain(|looker| {
                !looker.sender.is_closed() && (!access_may_have_changed || (looker.still_may)(&self.control))
            });
            if state.lookers.is_empty() {
                state.is_sampled = false;
                return;
            }
            let wanted: HashSet<Option<String>> = state.lookers.iter().map(|looker| looker.service.clone()).collect();
            if is_due {
                window.take(self.control.counters(), &wanted.iter().flatten().cloned().collect(), ambient::now());
            }
            told.retain(|service, _| wanted.contains(service));
            for service in wanted {
                if is_due || !told.contains_key(&service) {
                    let frame = frames.frame(&self.control, &window, service.as_deref());
                    told.entry(service).or_default().renew(frame);
                }
            }
            let now = ambient::now();
            state
                .lookers
                .retain_mut(|looker| told.get_mut(&looker.service).is_some_and(|told| looker.tell(told, is_due, now)));
        }
    }
}

impl Told {
    fn renew(&mut self, frame: Value) {
        let changed = patch::between(&self.frame, &frame);
        self.patch = Some(message("change", &changed));
        self.whole = None;
        self.frame = frame;
    }

    fn whole(&mut self) -> Bytes {
        let frame = &self.frame;
        self.whole.get_or_insert_with(|| message("frame", frame)).clone()
    }
}

impl Looker {
    /// Whether it is still there. `is_due`: those who have a frame are told what has changed.
    fn tell(&mut self, told: &mut Told, is_due: bool, now: Instant) -> bool {
        let next = match (self.wants_frame, is_due) {
            (true, _) if self.sender.capacity() == 0 => None,
            (true, _) => Some(told.whole()),
            (false, true) => told.patch.clone(),
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

/// An event of a stream. JSON has no line ends of its own.
fn message(event: &str, data: &Value) -> Bytes {
    Bytes::from(format!("event: {event}\ndata: {data}\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn looker() -> (Looker, mpsc::Receiver<Bytes>) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let still_may = Box::new(|_: &ControlHandle| true);
        (Looker { service: None, sender, wants_frame: true, stalled: None, still_may }, receiver)
    }

    fn event(bytes: Option<Bytes>) -> String {
        let text = String::from_utf8(bytes.unwrap().to_vec()).unwrap();
        text.lines().next().unwrap().to_owned() + " " + text.lines().nth(1).unwrap()
    }

    #[tokio::test]
    async fn one_that_reads_slowly_gets_a_whole_frame_when_it_reads_again_and_nothing_piles_up() {
        let (mut looker, mut receiver) = looker();
        let (mut told, now) = (Told::default(), ambient::now());
        for number in 0..20 {
            told.renew(json!({ "n": number }));
            assert!(looker.tell(&mut told, true, now));
        }
        assert_eq!(receiver.len(), WAITING_MAX);
        assert_eq!(event(receiver.recv().await), "event: frame data: {\"n\":0}");
        for number in 1..WAITING_MAX {
            assert_eq!(event(receiver.recv().await), format!("event: change data: {{\"n\":{number}}}"));
        }
        told.renew(json!({ "n": 20 }));
        assert!(looker.tell(&mut told, true, now));
        assert_eq!(event(receiver.recv().await), "event: frame data: {\"n\":20}");
        told.renew(json!({ "n": 21 }));
        assert!(looker.tell(&mut told, false, now), "between two ticks only newcomers are told");
        assert!(receiver.try_recv().is_err());
    }

    #[tokio::test]
    async fn one_that_reads_nothing_for_long_is_given_up() {
        let (mut looker, _receiver) = looker();
        let (mut told, now) = (Told::default(), ambient::now());
        told.renew(json!({}));
        (0..=WAITING_MAX).for_each(|_| assert!(looker.tell(&mut told, true, now)));
        assert!(looker.tell(&mut told, true, now + PATIENCE - Duration::from_secs(1)));
        assert!(!looker.tell(&mut told, true, now + PATIENCE));
    }
}
