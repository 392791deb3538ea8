//! A key that a change under way has moved: who has had it, who is to have it, and what would be done now.

use crate::snapshot::Service;
use ringway_ring::{HandoffTurn, Hash, Slot};
use serde_json::{Value, json};
use std::time::Instant;

/// What is done with a key, and the backend that it goes to for that. `None`: nothing is.
pub(super) fn of_key(service: &Service, hash: Hash, now: Instant) -> Option<(Value, Option<Slot>)> {
    if service.config.affinity_cookie.is_some() {
        return None;
    }
    let moving = service.handoff.look(hash, now)?;
    let id = |slot: Slot| service.backends[usize::from(slot.0)].config.id.as_str();
    let (previous, next) = (moving.previous.0, moving.next);
    let serves = service.may_ask_again(previous);
    let (turn, text, goes_to) = match moving.turn {
        _ if !serves => ("moved", "its previous owner cannot be asked: it goes as if nothing had moved", None),
        HandoffTurn::Previous => ("previous", "it stays with its previous owner for now", Some(previous)),
        HandoffTurn::First => {
            let text = "its next GET goes to its previous owner for the last time, while its next owner gets a copy";
            ("copied", text, Some(previous))
        }
        HandoffTurn::Next => ("moved", "it has been handed over, and its next owner is told who had it", None),
    };
    let json = json!({ "previous": id(previous), "next": id(next), "turn": turn, "text": text });
    Some((json, goes_to))
}
