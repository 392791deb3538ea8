//! What is done with a request whose key is handed from backend to backend.

use crate::worker::View;
use ringway_ring::Slot;
use std::rc::Rc;

/// What is done with a request whose key a change under way has moved.
pub(crate) struct Handed {
    /// The version that the slots are of.
    pub(crate) view: Rc<View>,
    pub(crate) next: Slot,
    pub(crate) previous: Slot,
    pub(crate) outcome: Outcome,
    /// Bytes of the line that tells of the previous owner, where the head has one: its last.
    pub(super) told: usize,
}

/// Who was to serve it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The previous owner.
    Previous,
    /// The previous owner, while the next one got a copy.
    Copied,
    /// The next owner.
    Moved,
}

impl Outcome {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Previous => "previous",
            Self::Copied => "copied",
            Self::Moved => "moved",
        }
    }
}

impl Handed {
    pub(crate) fn new(view: &Rc<View>, (previous, next): (Slot, Slot), outcome: Outcome) -> Self {
        Self { view: Rc::clone(view), next, previous, outcome, told: 0 }
    }

    /// The backend that was to serve it.
    pub(super) fn server(&self) -> Slot {
        match self.outcome {
            Outcome::Previous | Outcome::Copied => self.previous,
            Outcome::Moved => self.next,
        }
    }
}
