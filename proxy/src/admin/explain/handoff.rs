//! A key that a change under way has moved: who has had it, who is to have it, and what would be done now.

use crate::snapshot::Service;
use crate::snapshot::connections::{copies_max, places_beside};
use crate::snapshot::handoff::Moving;
use crate::snapshot::handoff_copy::ChangeOfKey;
use crate::snapshot::handoff_request::Asked;
use ringway_config::model::{Handoff, SafeMethod};
use ringway_ring::{
    CopyPlace, HandoffDecision, HandoffFacts, HandoffRequest, HandoffWay, Hash, HeldShare, PreviousOwner, Slot,
    is_copied,
};
use serde_json::{Value, json};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// What there is of a key, without taking any of it.
struct Facts<'a> {
    service: &'a Service,
    config: &'a Handoff,
    hash: Hash,
    moving: &'a Moving,
    asked: Option<Asked>,
    now: Instant,
}

impl HandoffFacts for Facts<'_> {
    fn previous(&mut self) -> PreviousOwner {
        self.service.previous_owner(self.moving.previous.0, self.hash)
    }

    fn next_takes(&mut self) -> bool {
        self.service.backend_set.accepts(self.moving.next, self.hash)
    }

    fn request(&mut self) -> HandoffRequest {
        match self.asked {
            Some(asked) => asked.of_key(self.hash, self.config),
            // The next one that is copied, if any is.
            None if !is_copied(self.hash, self.config.copy.percent) => HandoffRequest::Alone,
            None if self.config.copy.methods.is_empty() => HandoffRequest::Read,
            None => HandoffRequest::Copied,
        }
    }

    fn is_changing(&mut self) -> bool {
        ChangeOfKey::count(&self.service.live, self.hash) > 0
    }

    fn reserve_copy(&mut self) -> CopyPlace {
        let (service, next) = (self.service, self.moving.next);
        if self.moving.window.as_ref().is_some_and(|window| window.waits(self.hash, self.now)) {
            return CopyPlace::Waits;
        }
        if self.moving.window.as_ref().is_some_and(|window| window.is_copying(self.hash)) {
            return CopyPlace::UnderWay;
        }
        let has_place = service.backend_set.has_room_handed((next, HeldShare::default()))
            && service.has_room_for_copy(next)
            && service.live.connected.held() < places_beside(&service.config)
            && copies_max(&service.config).is_some_and(|most| service.live.handoff_copies.load(Relaxed) < most);
        if has_place { CopyPlace::Reserved } else { CopyPlace::Full }
    }

    fn reserve_previous(&mut self) -> bool {
        self.service.backend_set.has_room_handed(self.moving.previous)
    }
}

/// What is done with a key, and the backend that it goes to for that. `None`: nothing is. `asked`: the request, where one is known.
pub(super) fn of_key(
    service: &Service,
    hash: Hash,
    asked: Option<Asked>,
    now: Instant,
) -> Option<(Value, Option<Slot>)> {
    let config = service.config.handoff.as_ref().filter(|_| service.config.affinity_cookie.is_none())?;
    let changes = asked.is_some_and(Asked::is_change);
    let moving = service.handoff.look(hash, now, changes)?;
    let id = |slot: Slot| service.backends[usize::from(slot.0)].config.id.as_str();
    let (previous, next) = (moving.previous.0, moving.next);
    let decision = HandoffDecision::of(moving.turn, &mut Facts { service, config, hash, moving: &moving, asked, now });
    let way = decision.way();
    let text = text(decision, config, asked.is_some());
    let is_held = matches!(way, HandoffWay::Previous | HandoffWay::Copied);
    let json = json!({ "previous": id(previous), "next": id(next), "turn": way.name(), "text": text });
    Some((json, is_held.then_some(previous)))
}

/// `is_known`: of a request that is known, not of whichever comes next.
fn text(decision: HandoffDecision, config: &Handoff, is_known: bool) -> String {
    let text = match decision {
        HandoffDecision::PreviousLost => "its previous owner cannot be asked: it goes as if nothing had moved",
        HandoffDecision::PreviousDeclines => {
            "its previous owner sheds it, or does not take it yet: it goes as if nothing had moved"
        }
        HandoffDecision::NextDeclines => {
            "it has been handed over, but its next owner does not take it now: it goes on along its sequence"
        }
        HandoffDecision::NotDue => "it stays with its previous owner for now",
        HandoffDecision::NextTakesNothing => {
            "its time has come, but its next owner does not take it now: it stays for now, whatever is asked"
        }
        HandoffDecision::NotCopied if is_known => {
            "its time has come, but such requests are not copied (`copy.methods`) and change nothing: it stays for now"
        }
        HandoffDecision::NotCopied => {
            "its time has come, but `copy.methods` has none: requests that change nothing stay"
        }
        HandoffDecision::CopyUnderWay => "its time has come, and a copy is on its way: it stays until that is answered",
        HandoffDecision::NoPlaceForCopy => "its time has come, but there is no place for a copy now: it stays for now",
        HandoffDecision::CopyWaits => {
            "its time has come, but the last copies brought its next owner nothing: it stays, and the next copy waits a while"
        }
        HandoffDecision::ChangeUnderWay => {
            "its time has come, but something changes it at its previous owner: it stays until that is done"
        }
        HandoffDecision::Copied => {
            let methods: Vec<&str> = config.copy.methods.iter().map(|method| name_of(*method)).collect();
            let asked = if is_known { "request".to_owned() } else { methods.join(" or ") };
            return format!(
                "its next {asked} goes to its previous owner, while its next owner gets a copy, and has the key once it has answered that"
            );
        }
        HandoffDecision::HandedOver => "it has been handed over, and its next owner is told who had it",
        HandoffDecision::HandedAlone if is_known => {
            "this request hands it over without a copy: its next owner is told who had it"
        }
        HandoffDecision::HandedAlone => {
            "its next request hands it over without a copy (`copy.percent`): its next owner is told who had it"
        }
        HandoffDecision::HandedByItself => {
            "its previous owner is full: its next request hands it over, and its next owner is told who had it"
        }
        HandoffDecision::PreviousFull => {
            "its previous owner is full: it goes on along its sequence, and stays its own; its next owner is told"
        }
    };
    text.to_owned()
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
    use ringway_config::model::HandoffCopy;
    use std::time::Duration;

    #[test]
    fn the_methods_that_are_copied_are_named_unless_the_request_is_known() {
        let copy = HandoffCopy {
            methods: vec![SafeMethod::Get, SafeMethod::Head, SafeMethod::Options],
            percent: 50,
            in_flight_max: 1,
            credentials: false,
        };
        let config = Handoff { window: Duration::from_secs(1), copy, header: "x".to_owned() };
        assert!(text(HandoffDecision::Copied, &config, false).starts_with("its next GET or HEAD or OPTIONS goes"));
        assert!(text(HandoffDecision::Copied, &config, true).starts_with("its next request goes"));
        assert!(text(HandoffDecision::NotCopied, &config, false).contains("`copy.methods` has none"));
    }
}
