//! What becomes of a request whose key a change has moved: decided here for the data path, and for whoever asks what it would be.
//!
//! Where nothing speaks against it, whoever has the key in its cache serves it: the previous owner, until the key has been handed over.
//! A key is handed over to nobody that takes nothing.

use crate::handoff::HandoffTurn;

/// What a request can do for the next owner of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandoffRequest {
    /// A copy of it makes the next owner remember what the previous one does.
    Copied,
    /// It changes nothing, but there are no copies of it.
    Read,
    /// It hands its key over without a copy: it says who asks, or copies are not made of its key.
    Alone,
    /// It may change something: it hands its key over without a copy, and what it changes is read where the key is then.
    Change,
}

/// What the previous owner of a key says to it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PreviousOwner {
    /// It cannot be asked for what it has had: it is down, ejected, in maintenance.
    Lost,
    /// It is well, but the key is not its own just now: it sheds it, or a ramp keeps it from it.
    Declines,
    /// It serves it, if it has a place.
    Serves,
}

/// A place for the copy of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyPlace {
    /// There is none, at the next owner or among all copies.
    Full,
    /// A copy for the key is under way.
    UnderWay,
    /// The last one has just been answered: the key has been handed over.
    Arrived,
    /// The last ones brought nothing: the next one waits.
    Waits,
    /// It is reserved.
    Reserved,
}

/// What a decision asks, as far as it depends on it: whoever decides for a request reserves places, whoever explains looks for them.
pub trait HandoffFacts {
    /// What the previous owner says.
    fn previous(&mut self) -> PreviousOwner;
    /// Whether the next owner takes the key: it is up, and neither sheds it nor has a ramp that keeps it away.
    fn next_takes(&mut self) -> bool;
    /// What the request can do.
    fn request(&mut self) -> HandoffRequest;
    /// Whether another request that may change something is under way at the previous owner.
    fn is_changing(&mut self) -> bool;
    /// A place for a copy.
    fn reserve_copy(&mut self) -> CopyPlace;
    /// A place at the previous owner. `false`: it is full.
    fn reserve_previous(&mut self) -> bool;
}

/// What becomes of the request, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandoffDecision {
    /// The previous owner cannot be asked.
    PreviousLost,
    /// The key is not the previous owner's own just now.
    PreviousDeclines,
    /// The key has been handed over, but the next owner does not take it now.
    NextDeclines,
    /// The key's time has not come.
    NotDue,
    /// Its time has come, but the next owner does not take it now.
    NextTakesNothing,
    /// There are no copies of such a request.
    NotCopied,
    /// A copy for its key is on its way.
    CopyUnderWay,
    /// There is no place for a copy.
    NoPlaceForCopy,
    /// Copies of the key were refused lately: the next one waits.
    CopyWaits,
    /// Something changes it at the previous owner: what the next one would be told may be of before.
    ChangeUnderWay,
    /// A copy goes to the next owner.
    Copied,
    /// The key has been handed over.
    HandedOver,
    /// It hands the key over without a copy.
    HandedAlone,
    /// It could be copied, but the previous owner is full: it brings the next one itself what that needs.
    HandedByItself,
    /// The previous owner is full, and the key stays its own.
    PreviousFull,
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandoffWay {
    /// Along the key's candidate sequence, as if nothing had moved.
    Sequence,
    /// To the previous owner.
    Previous,
    /// To the previous owner, and a copy to the next one, which has the key once that has been answered.
    Copied,
    /// Along the sequence; the next owner, if it gets there, is told of the previous one.
    Next,
}

impl HandoffWay {
    /// Its word in logs and explanations; none where nothing is done with the key.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Sequence => None,
            Self::Previous => Some("previous"),
            Self::Copied => Some("copied"),
            Self::Next => Some("moved"),
        }
    }
}

impl HandoffDecision {
    /// Of a key whose turn it is, by what there is of it.
    #[inline]
    pub fn of(turn: HandoffTurn, facts: &mut impl HandoffFacts) -> Self {
        match facts.previous() {
            PreviousOwner::Lost => return Self::PreviousLost,
            PreviousOwner::Declines => return Self::PreviousDeclines,
            PreviousOwner::Serves => {}
        }
        let stays = match turn {
            HandoffTurn::Previous => Self::NotDue,
            HandoffTurn::Next if facts.next_takes() => return Self::HandedOver,
            HandoffTurn::Next => return Self::NextDeclines,
            HandoffTurn::First if !facts.next_takes() => Self::NextTakesNothing,
            HandoffTurn::First if facts.is_changing() => Self::ChangeUnderWay,
            HandoffTurn::First => match facts.request() {
                HandoffRequest::Alone | HandoffRequest::Change => return Self::HandedAlone,
                HandoffRequest::Read => Self::NotCopied,
                HandoffRequest::Copied => match facts.reserve_copy() {
                    CopyPlace::Full => Self::NoPlaceForCopy,
                    CopyPlace::UnderWay => Self::CopyUnderWay,
                    CopyPlace::Arrived => return Self::HandedOver,
                    CopyPlace::Waits => Self::CopyWaits,
                    CopyPlace::Reserved => Self::Copied,
                },
            },
        };
        if facts.reserve_previous() {
            return stays;
        }
        match stays {
            Self::Copied => Self::HandedByItself,
            // What it changes is changed where it goes: it is read there.
            Self::NotDue if facts.request() == HandoffRequest::Change && facts.next_takes() && !facts.is_changing() => {
                Self::HandedAlone
            }
            _ => Self::PreviousFull,
        }
    }

    /// Where the request goes.
    #[must_use]
    pub fn way(self) -> HandoffWay {
        match self {
            Self::PreviousLost | Self::PreviousDeclines | Self::NextDeclines => HandoffWay::Sequence,
            Self::NotDue
            | Self::NextTakesNothing
            | Self::NotCopied
            | Self::CopyUnderWay
            | Self::NoPlaceForCopy
            | Self::CopyWaits
            | Self::ChangeUnderWay => HandoffWay::Previous,
            Self::Copied => HandoffWay::Copied,
            Self::HandedOver | Self::HandedAlone | Self::HandedByItself | Self::PreviousFull => HandoffWay::Next,
        }
    }

    /// Whether the key is the previous owner's, wherever the request goes.
    #[must_use]
    pub fn stays(self) -> bool {
        matches!(self.way(), HandoffWay::Previous | HandoffWay::Copied) || self == Self::PreviousFull
    }

    /// Whether the key is the next owner's from now on, by this request alone.
    #[must_use]
    pub fn hands_over(self) -> bool {
        matches!(self, Self::HandedAlone | Self::HandedByItself)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TURNS: [HandoffTurn; 3] = [HandoffTurn::Previous, HandoffTurn::First, HandoffTurn::Next];
    const REQUESTS: [HandoffRequest; 4] =
        [HandoffRequest::Copied, HandoffRequest::Read, HandoffRequest::Alone, HandoffRequest::Change];
    const PREVIOUS: [PreviousOwner; 3] = [PreviousOwner::Lost, PreviousOwner::Declines, PreviousOwner::Serves];
    const PLACES: [CopyPlace; 5] =
        [CopyPlace::Full, CopyPlace::UnderWay, CopyPlace::Arrived, CopyPlace::Waits, CopyPlace::Reserved];

    #[derive(Debug, Clone, Copy)]
    struct Facts {
        previous: PreviousOwner,
        previous_has_place: bool,
        next_takes: bool,
        request: HandoffRequest,
        copy: CopyPlace,
        changing: bool,
        /// Places that were reserved, at the previous owner and for a copy.
        reserved: (u32, u32),
    }

    impl HandoffFacts for Facts {
        fn previous(&mut self) -> PreviousOwner {
            self.previous
        }

        fn next_takes(&mut self) -> bool {
            self.next_takes
        }

        fn request(&mut self) -> HandoffRequest {
            self.request
        }

        fn is_changing(&mut self) -> bool {
            self.changing
        }

        fn reserve_copy(&mut self) -> CopyPlace {
            self.reserved.1 += u32::from(self.copy == CopyPlace::Reserved);
            self.copy
        }

        fn reserve_previous(&mut self) -> bool {
            self.reserved.0 += u32::from(self.previous_has_place);
            self.previous_has_place
        }
    }

    /// All cases there are.
    fn cases() -> Vec<(HandoffTurn, Facts)> {
        let mut cases = Vec::new();
        for turn in TURNS {
            for previous in PREVIOUS {
                for (previous_has_place, next_takes) in [(true, true), (true, false), (false, true), (false, false)] {
                    for request in REQUESTS {
                        for copy in PLACES {
                            for changing in [false, true] {
                                let (previous, reserved) = (previous, (0, 0));
                                let of = Facts {
                                    previous,
                                    previous_has_place,
                                    next_takes,
                                    request,
                                    copy,
                                    changing,
                                    reserved,
                                };
                                cases.push((turn, of));
                            }
                        }
                    }
                }
            }
        }
        cases
    }

    #[test]
    fn whoever_has_the_key_serves_it_as_long_as_it_can() {
        for (turn, mut facts) in cases() {
            let decision = HandoffDecision::of(turn, &mut facts);
            let way = decision.way();
            let is_told = format!("{turn:?} {facts:?}: {decision:?}");
            // Whatever the next owner is: one that does not take a key gets none, not even a change.
            let alone = matches!(facts.request, HandoffRequest::Alone | HandoffRequest::Change);
            let arrived = facts.request == HandoffRequest::Copied && facts.copy == CopyPlace::Arrived;
            let held = turn == HandoffTurn::Previous
                || turn == HandoffTurn::First && (!facts.next_takes || facts.changing || !alone && !arrived);
            let serves = facts.previous == PreviousOwner::Serves && facts.previous_has_place && held;
            assert_eq!(matches!(way, HandoffWay::Previous | HandoffWay::Copied), serves, "{is_told}");
            // Nobody is told of a previous owner that is not to be asked, and nobody gets a copy beside it.
            assert!(facts.previous == PreviousOwner::Serves || way == HandoffWay::Sequence, "{is_told}");
        }
    }

    #[test]
    fn a_key_goes_over_once_its_time_has_come_to_an_owner_that_takes_it_and_never_back() {
        for (turn, mut facts) in cases() {
            let decision = HandoffDecision::of(turn, &mut facts);
            let goes = decision.hands_over() || decision == HandoffDecision::Copied;
            // A change that finds the previous owner full makes its key's time come.
            let changes = facts.request == HandoffRequest::Change;
            let due =
                turn == HandoffTurn::First || turn == HandoffTurn::Previous && changes && !facts.previous_has_place;
            let may = due && facts.next_takes && facts.previous == PreviousOwner::Serves && !facts.changing;
            assert!(!goes || may, "{turn:?} {facts:?}: {decision:?}");
            // What changes something goes where the key is from then on.
            assert!(!may || !changes || decision.hands_over(), "{facts:?}");
            assert!(!goes || !decision.stays() || decision == HandoffDecision::Copied);
            let way = decision.way();
            assert!(turn != HandoffTurn::Next || !matches!(way, HandoffWay::Previous | HandoffWay::Copied));
        }
    }

    #[test]
    fn a_place_is_reserved_where_the_request_goes_and_a_copy_where_one_was_asked_for() {
        for (turn, mut facts) in cases() {
            let decision = HandoffDecision::of(turn, &mut facts);
            let goes_there = matches!(decision.way(), HandoffWay::Previous | HandoffWay::Copied);
            assert_eq!(facts.reserved.0, u32::from(goes_there), "{turn:?} {facts:?}: {decision:?}");
            // One for which the previous owner has no room after all is given back by whoever reserved it.
            let has_copy = matches!(decision, HandoffDecision::Copied | HandoffDecision::HandedByItself);
            assert_eq!(facts.reserved.1, u32::from(has_copy), "{turn:?} {facts:?}: {decision:?}");
        }
    }

    #[test]
    fn each_case_has_its_word() {
        use HandoffDecision as D;
        let well = Facts {
            previous: PreviousOwner::Serves,
            previous_has_place: true,
            next_takes: true,
            request: HandoffRequest::Copied,
            copy: CopyPlace::Reserved,
            changing: false,
            reserved: (0, 0),
        };
        let (full, down) = (Facts { previous_has_place: false, ..well }, Facts { next_takes: false, ..well });
        let asks = |request| Facts { request, ..well };
        let (first, next, previous) = (HandoffTurn::First, HandoffTurn::Next, HandoffTurn::Previous);
        for (turn, facts, expected) in [
            (previous, well, D::NotDue),
            (previous, down, D::NotDue),
            (previous, asks(HandoffRequest::Alone), D::NotDue),
            (previous, full, D::PreviousFull),
            (previous, Facts { previous: PreviousOwner::Lost, ..well }, D::PreviousLost),
            (previous, Facts { previous: PreviousOwner::Declines, ..well }, D::PreviousDeclines),
            (first, well, D::Copied),
            (first, full, D::HandedByItself),
            (first, down, D::NextTakesNothing),
            (first, Facts { previous_has_place: false, ..down }, D::PreviousFull),
            (first, Facts { request: HandoffRequest::Alone, ..down }, D::NextTakesNothing),
            (first, asks(HandoffRequest::Alone), D::HandedAlone),
            (first, Facts { request: HandoffRequest::Alone, ..full }, D::HandedAlone),
            (first, asks(HandoffRequest::Read), D::NotCopied),
            (first, Facts { copy: CopyPlace::Full, ..well }, D::NoPlaceForCopy),
            (first, Facts { copy: CopyPlace::Full, ..full }, D::PreviousFull),
            (first, Facts { copy: CopyPlace::UnderWay, ..well }, D::CopyUnderWay),
            (first, Facts { copy: CopyPlace::Arrived, ..well }, D::HandedOver),
            (first, Facts { copy: CopyPlace::Waits, ..well }, D::CopyWaits),
            (first, Facts { changing: true, ..well }, D::ChangeUnderWay),
            (first, Facts { changing: true, ..asks(HandoffRequest::Change) }, D::ChangeUnderWay),
            (first, asks(HandoffRequest::Change), D::HandedAlone),
            (previous, asks(HandoffRequest::Change), D::NotDue),
            (previous, Facts { request: HandoffRequest::Change, ..full }, D::HandedAlone),
            (previous, Facts { request: HandoffRequest::Change, next_takes: false, ..full }, D::PreviousFull),
            (previous, Facts { request: HandoffRequest::Change, changing: true, ..full }, D::PreviousFull),
            (previous, Facts { request: HandoffRequest::Alone, ..full }, D::PreviousFull),
            (next, well, D::HandedOver),
            (next, full, D::HandedOver),
            (next, down, D::NextDeclines),
            (next, Facts { previous: PreviousOwner::Lost, ..well }, D::PreviousLost),
        ] {
            assert_eq!(HandoffDecision::of(turn, &mut facts.clone()), expected, "{turn:?} {facts:?}");
        }
    }
}
