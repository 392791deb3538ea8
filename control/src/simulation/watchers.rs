//! Who watches: streams as the product feeds them, carried line by line by an ordered, slow connection that breaks, and checked
//! line by line before anybody folds them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::clients::Record;
use super::disk::Random;
use super::member::Life;
use super::{Plant, world::World};
use crate::api::Wanted;
use crate::client::SILENCE_MAX;
use crate::state::State;
use crate::watch::view::{View, ViewError};
use crate::watch::wire::{Message, Snapshot};

/// Every so many changes, a planted fault.
const PLANT_EVERY: u64 = 7;

/// A place in the history of objects.
pub(super) type Place = (u64, u64);

/// A watch stream of a member's.
pub(super) struct Stream {
    world: World,
    who: String,
    life: Life,
    lines: mpsc::Receiver<bytes::Bytes>,
    /// Where the one who watches is, by all that the member has said.
    at: Option<Place>,
    changes: u64,
    /// A line that is said again, by a planted fault.
    again: Option<Message>,
}

impl Stream {
    pub(super) fn open(record: &Record, who: &str, life: &Life, from: Option<Place>, loads: bool) -> Self {
        // As a connection has it: one line is on its way.
        let (sender, lines) = mpsc::channel(1);
        let feed = crate::api::feed(Arc::clone(&life.plane), from, Wanted { events: false, loads }, sender);
        drop(record.scheduler.spawn(life.group, feed));
        record.world.note(format_args!("{who} watches m{} from {from:?}", life.id));
        record.world.count("watch streams");
        let (world, who, life) = (record.world.clone(), who.to_owned(), life.clone());
        Self { world, who, life, lines, at: from, changes: 0, again: None }
    }

    /// The next line; `None`: it has ended, or gone silent.
    pub(super) async fn next(&mut self) -> Option<Message> {
        let message = match self.again.take() {
            Some(message) => message,
            None => self.receive().await?,
        };
        self.check(&message);
        if self.changes.is_multiple_of(PLANT_EVERY)
            && matches!(message, Message::Delta(_))
            && self.world.has(Plant::LineTwice)
        {
            self.again = Some(message.clone());
        }
        Some(message)
    }

    async fn receive(&mut self) -> Option<Message> {
        loop {
            let text = timeout(SILENCE_MAX, self.lines.recv()).await.ok()??;
            let message = match serde_json::from_slice(&text) {
                Ok(message) => message,
                Err(error) => {
                    self.violation(format_args!("says what is no line: {error}"));
                    return None;
                }
            };
            if matches!(message, Message::Delta(_)) {
                self.changes += 1;
                if self.changes.is_multiple_of(PLANT_EVERY) && self.world.has(Plant::LineLost) {
                    continue;
                }
            }
            return Some(message);
        }
    }

    fn violation(&self, what: fmt::Arguments<'_>) {
        self.world.violation(format_args!("m{} {what}, to {}", self.life.id, self.who));
    }

    /// No gap, no repetition, nothing backwards, whoever reads it.
    fn check(&mut self, message: &Message) {
        let at = self.at;
        match message {
            Message::Snapshot(snapshot) => {
                let place = (snapshot.epoch, snapshot.revision);
                self.world.note(format_args!("{} is told all of {place:?} by m{}", self.who, self.life.id));
                if at.is_some_and(|at| place <= at) {
                    self.violation(format_args!("tells all of {place:?} after {at:?}"));
                }
                self.at = Some(place);
            }
            Message::Delta(delta) => {
                let (from, place) = ((delta.epoch, delta.previous), (delta.epoch, delta.revision));
                self.world.note(format_args!("{} is told {from:?}-{place:?} by m{}", self.who, self.life.id));
                if at != Some(from) || place <= from {
                    self.violation(format_args!("tells the change from {from:?} to {place:?} after {at:?}"));
                }
                self.at = Some(place);
                self.world.count("changes told to watchers");
            }
            Message::Ping(ping) => {
                let place = (ping.epoch, ping.revision);
                // One that is in no cluster yet says so.
                if !ping.cluster.is_empty() && at.is_none_or(|at| place > at) {
                    self.violation(format_args!("is at {place:?} and has told nothing after {at:?}"));
                }
            }
            // It is of the moment: told again wherever a stream begins.
            Message::Rollout(_) | Message::Loads(_) | Message::LoadsConfirmed(_) => {}
        }
    }
}

impl Record {
    /// Follows the topology by any member, from anywhere that was, and leaves when it likes.
    pub(super) async fn watch(self, name: String, mut random: Random) {
        let mut known: Option<Known> = None;
        loop {
            let wait = if self.stopped() { 50 } else { random.below(400) };
            sleep(Duration::from_millis(wait)).await;
            let Some(life) = self.serving(&mut random) else { continue };
            if !self.stopped() {
                match random.below(8) {
                    0 => known = None,
                    1 => known = self.world.past(random.below(u64::MAX)).or(known),
                    _ => {}
                }
            }
            let era = self.world.era();
            let from = known.as_ref().map(|known| (known.view.epoch, known.view.revision));
            let mut stream = Stream::open(&self, &name, &life, from, false);
            let mut left = random.below(60);
            while left > 0 || self.stopped() {
                left = left.saturating_sub(1);
                let Some(message) = stream.next().await else { break };
                if let Err(error) = self.fold(&name, &mut known, message, era) {
                    // Of another life of the cluster, anything may be known; of this one, all that is told fits.
                    if known.take().is_some_and(|known| known.era == era) {
                        self.world.violation(format_args!("{name} cannot take what m{} says: {error}", life.id));
                    }
                    break;
                }
                self.saw(&name, known.as_ref().map(|known| known.view.clone()));
                if !self.stopped() {
                    // One line in many is read late: what comes meanwhile comes together.
                    let pace = if random.below(20) == 0 { random.below(2_000) } else { random.below(30) };
                    sleep(Duration::from_millis(pace)).await;
                }
            }
        }
    }

    fn fold(&self, name: &str, slot: &mut Option<Known>, message: Message, era: u64) -> Result<(), ViewError> {
        let told = matches!(message, Message::Snapshot(_) | Message::Delta(_));
        match (slot.as_mut(), message) {
            (Some(known), message) => match known.view.handle(message) {
                // A member that lags says where it is.
                Err(ViewError::Older { .. }) if !told && known.era == era => {}
                handled => drop(handled?),
            },
            (None, Message::Snapshot(snapshot)) => {
                *slot = Some(Known { era, view: View::from_snapshot(snapshot, None)? });
            }
            (None, _) => {}
        }
        if let Some(known) = slot.as_mut().filter(|_| told) {
            known.era = era;
            self.world.check_view(name, &known.view);
        }
        Ok(())
    }
}

/// What a watcher knows, and of which life of the cluster.
pub(super) struct Known {
    pub(super) era: u64,
    pub(super) view: View,
}

/// A state as somebody who watches knows it.
pub(super) fn view_of(state: &State) -> Option<View> {
    View::from_snapshot(Snapshot { rollout: None, ..Snapshot::of(state) }, None).ok()
}
