//! What the fleet's objects are together: read elsewhere, and not at every revision. Meanwhile, what was read before is shown.

use crate::plane::Plane;
use crate::state::{Key, State};
use ringway_config::{Diagnostics, Loaded};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// After each millisecond of reading the fleet's texts, nothing is read for so long: where they are large and change all the time, they are
/// shown as they were a while ago.
const REST: Duration = Duration::from_millis(9);
/// Small ones are there by then.
const WAIT: Duration = Duration::from_millis(50);

type Read = Arc<Result<Loaded, Diagnostics>>;

/// See the module.
#[derive(Default)]
pub(super) struct Reading(Mutex<Known>);

#[derive(Default)]
struct Known {
    configuration: Option<Read>,
    /// Epoch and revision that it is of.
    at: Option<(u64, u64)>,
    next: Option<Instant>,
    under_way: Option<UnderWay>,
}

struct UnderWay {
    at: (u64, u64),
    began: Instant,
    task: JoinHandle<Option<Read>>,
}

impl Reading {
    /// To be called now and then: begins to read where there is something new, and takes in what has been read.
    pub(super) async fn follow(&self, plane: &Arc<Plane>) {
        let Some(mut under_way) = self.begun(plane) else { return };
        let Ok(read) = tokio::time::timeout(WAIT, &mut under_way.task).await else {
            self.known().under_way = Some(under_way);
            return;
        };
        let mut known = self.known();
        known.at = Some(under_way.at);
        known.next =
            Some(Instant::now() + REST * u32::try_from(under_way.began.elapsed().as_millis()).unwrap_or(u32::MAX));
        if let Ok(Some(read)) = read {
            known.configuration = Some(read);
        }
    }

    /// What was read last.
    pub(super) fn configuration(&self) -> Option<Read> {
        self.known().configuration.clone()
    }

    /// Whether there is such a service, as far as is known by now.
    pub(super) fn may_be_there(&self, state: &State, name: &str) -> bool {
        let read = self.configuration();
        let Some(Ok(loaded)) = read.as_deref() else { return true };
        state.objects.contains_key(&Key::Service(name.to_owned()))
            || loaded.config.services.iter().any(|service| service.name == name)
    }

    fn begun(&self, plane: &Arc<Plane>) -> Option<UnderWay> {
        let (mut known, now, state) = (self.known(), Instant::now(), plane.state());
        let at = (state.epoch, state.revision);
        let rests = known.next.is_some_and(|next| next > now);
        if known.under_way.is_none() && known.at != Some(at) && !rests {
            let plane = Arc::clone(plane);
            let task = tokio::spawn(async move { plane.configuration().await });
            return Some(UnderWay { at, began: now, task });
        }
        known.under_way.take()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
