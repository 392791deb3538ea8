//! What is done with a request whose key is handed from backend to backend.

use crate::snapshot::handoff_copy::ChangeOfKey;
use crate::worker::View;
use ringway_ring::{HandoffDecision, HandoffWay, Slot};
use std::rc::Rc;

/// What is done with a request whose key a change under way has moved.
pub(crate) struct Handed {
    /// The version that the slots are of.
    pub(crate) view: Rc<View>,
    pub(crate) next: Slot,
    pub(crate) previous: Slot,
    /// Where it was to go.
    pub(crate) way: HandoffWay,
    /// The key is the previous owner's, wherever the request goes.
    pub(crate) stays: bool,
    /// It may change something there.
    pub(crate) change: Option<ChangeOfKey>,
    /// Bytes of the line that tells of the previous owner, where the head has one: its last.
    pub(super) told: usize,
}

impl Handed {
    pub(crate) fn new(view: &Rc<View>, (previous, next): (Slot, Slot), decision: HandoffDecision) -> Self {
        let (way, stays) = (decision.way(), decision.stays());
        Self { view: Rc::clone(view), next, previous, way, stays, change: None, told: 0 }
    }

    /// The backend that was to serve it.
    pub(super) fn server(&self) -> Slot {
        match self.way {
            HandoffWay::Previous | HandoffWay::Copied => self.previous,
            HandoffWay::Next | HandoffWay::Sequence => self.next,
        }
    }
}
