//! A key that a change under way has moved: who has had it, who is to have it, and what would be done now.

use crate::snapshot::Service;
use ringway_config::model::{HandoffCopy, SafeMethod};
use ringway_ring::{HandoffTurn, Hash, Slot, is_copied};
use serde_json::{Value, json};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// What decides beside the key's turn.
#[derive(Clone, Copy)]
struct Owners {
    /// The previous one may be asked.
    previous_serves: bool,
    /// The next one takes new keys.
    next_takes: bool,
    /// It has a place for a copy, and so has the service.
    has_place: bool,
}

/// What would be done with the key's next request.
struct Told {
    turn: &'static str,
    text: String,
    /// It goes to the previous owner.
    is_held: bool,
}

/// What is done with a key, and the backend that it goes to for that. `None`: nothing is.
pub(super) fn of_key(service: &Service, hash: Hash, now: Instant) -> Option<(Value, Option<Slot>)> {
    let config = service.config.handoff.as_ref().filter(|_| service.config.affinity_cookie.is_none())?;
    let moving = service.handoff.look(hash, now)?;
    let id = |slot: Slot| service.backends[usize::from(slot.0)].config.id.as_str();
    let (previous, next) = (moving.previous.0, moving.next);
    let load = &service.backends[usize::from(next.0)].state.load;
    let owners = Owners {
        previous_serves: service.may_ask_again(previous),
        next_takes: !load.is_doubted() && load.active_fraction() > 0,
        has_place: load.in_flight() < service.backend_set.cap(next)
            && service.live.handoff_copies.load(Relaxed) < config.copy.in_flight_max,
    };
    let told = tell(moving.turn, &config.copy, is_copied(hash, config.copy.percent), owners);
    let json = json!({ "previous": id(previous), "next": id(next), "turn": told.turn, "text": told.text });
    Some((json, told.is_held.then_some(previous)))
}

fn tell(turn: HandoffTurn, copy: &HandoffCopy, is_copied: bool, owners: Owners) -> Told {
    let stays = |text: &str| Told { turn: "previous", text: text.to_owned(), is_held: true };
    let moves = |text: &str| Told { turn: "moved", text: text.to_owned(), is_held: false };
    match turn {
        _ if !owners.previous_serves => moves("its previous owner cannot be asked: it goes as if nothing had moved"),
        HandoffTurn::Previous => stays("it stays with its previous owner for now"),
        HandoffTurn::Next if !owners.next_takes => {
            moves("it has been handed over, but its next owner takes nothing now: it goes on along its sequence")
        }
        HandoffTurn::Next => moves("it has been handed over, and its next owner is told who had it"),
        HandoffTurn::First if !is_copied && !owners.next_takes => moves(
            "its next request hands it over without a copy (`copy.percent`), but its next owner takes nothing now: it goes on along its sequence",
        ),
        HandoffTurn::First if !is_copied => {
            moves("its next request hands it over without a copy (`copy.percent`): its next owner is told who had it")
        }
        HandoffTurn::First if !owners.next_takes => {
            stays("its time has come, but its next owner takes nothing now, not even a copy: it stays for now")
        }
        HandoffTurn::First if !owners.has_place => {
            stays("its time has come, but there is no place for a copy now: it stays for now")
        }
        HandoffTurn::First if copy.methods.is_empty() => {
            stays("its time has come, but `copy.methods` has none: requests that change nothing stay")
        }
        HandoffTurn::First => {
            let methods: Vec<&str> = copy.methods.iter().map(|method| name_of(*method)).collect();
            let methods = methods.join(" or ");
            let text = format!(
                "its next {methods} goes to its previous owner for the last time, while its next owner gets a copy"
            );
            Told { turn: "copied", text, is_held: true }
        }
    }
}

fn name_of(method: SafeMethod) -> &'static str {
    match method {
        SafeMethod::Get => "GET",
        SafeMethod::Head => "HEAD",
        SafeMethod::Options => "OPTIONS",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: Owners = Owners { previous_serves: true, next_takes: true, has_place: true };

    fn told(
        turn: HandoffTurn,
        methods: &[SafeMethod],
        is_copied: bool,
        owners: Owners,
    ) -> (&'static str, bool, String) {
        let copy = HandoffCopy { methods: methods.to_vec(), percent: 50, in_flight_max: 1, credentials: false };
        let Told { turn, text, is_held } = tell(turn, &copy, is_copied, owners);
        (turn, is_held, text)
    }

    #[test]
    fn what_is_said_is_what_would_be_done_whoever_cannot_be_asked() {
        use HandoffTurn::{First, Next, Previous};
        let (get, all) = ([SafeMethod::Get], [SafeMethod::Get, SafeMethod::Head, SafeMethod::Options]);
        let (down, full) = (Owners { next_takes: false, ..WELL }, Owners { has_place: false, ..WELL });
        let gone = Owners { previous_serves: false, ..WELL };
        let cases: [(_, &[SafeMethod], _, _, _, _); 12] = [
            (Previous, &get, true, WELL, ("previous", true), "stays with its previous owner"),
            (Previous, &get, true, down, ("previous", true), "stays with its previous owner"),
            (First, &get, true, WELL, ("copied", true), "its next GET goes"),
            (First, &all, true, WELL, ("copied", true), "its next GET or HEAD or OPTIONS goes"),
            (First, &[], true, WELL, ("previous", true), "`copy.methods` has none"),
            (First, &get, false, WELL, ("moved", false), "without a copy (`copy.percent`): its next owner is told"),
            (First, &get, false, down, ("moved", false), "`copy.percent`), but its next owner takes nothing now"),
            (First, &get, true, down, ("previous", true), "not even a copy"),
            (First, &get, true, full, ("previous", true), "no place for a copy"),
            (Next, &get, true, WELL, ("moved", false), "its next owner is told"),
            (Next, &get, true, down, ("moved", false), "its next owner takes nothing now"),
            (First, &get, true, gone, ("moved", false), "its previous owner cannot be asked"),
        ];
        for (turn, methods, is_copied, owners, (word, is_held), part) in cases {
            let said = told(turn, methods, is_copied, owners);
            assert!((said.0, said.1) == (word, is_held) && said.2.contains(part), "{said:?}: {part}");
        }
    }
}
