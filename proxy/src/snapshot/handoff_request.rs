//! What a request can do for the next owner of a key that a change has moved.

use ringway_config::model::{Handoff, SafeMethod};
use ringway_message::Method;
use ringway_ring::{HandoffRequest, Hash, is_copied};

/// Fields by which a backend knows who asks.
const CREDENTIALS: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];

/// Whether a backend knows by this field who asks.
pub(crate) fn is_credential(name: &[u8]) -> bool {
    CREDENTIALS.iter().any(|field| name.eq_ignore_ascii_case(field.as_bytes()))
}

/// What there is of a request.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// There is one, or it is not known yet that there is none.
    pub(crate) has_body: bool,
    pub(crate) upgrades: bool,
    /// It says who asks.
    pub(crate) has_credentials: bool,
}

impl Asked {
    /// Whether it may change what its key stands for.
    pub(crate) fn is_change(self) -> bool {
        !matches!(self.method, Method::Get | Method::Head | Method::Options)
    }

    /// A request is copied if it changes nothing, all of it is here, and it says of nobody that he has asked.
    pub(crate) fn of_key(self, hash: Hash, handoff: &Handoff) -> HandoffRequest {
        let method = match self.method {
            Method::Get => SafeMethod::Get,
            Method::Head => SafeMethod::Head,
            Method::Options => SafeMethod::Options,
            _ => return HandoffRequest::Change,
        };
        let copy = &handoff.copy;
        if self.has_body || self.upgrades || self.has_credentials && !copy.credentials {
            return HandoffRequest::Alone;
        }
        match (copy.methods.contains(&method), is_copied(hash, copy.percent)) {
            // It brings the next owner nothing: whoever can answer it from memory does.
            (false, _) => HandoffRequest::Read,
            (true, true) => HandoffRequest::Copied,
            (true, false) => HandoffRequest::Alone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_config::model::HandoffCopy;
    use std::time::Duration;

    #[test]
    fn what_changes_something_or_says_who_asks_is_not_copied() {
        let handoff = |percent, credentials| Handoff {
            window: Duration::from_secs(1),
            copy: HandoffCopy { methods: vec![SafeMethod::Get], percent, in_flight_max: 1, credentials },
            header: "x".to_owned(),
        };
        let get = Asked::default();
        let post = Asked { method: Method::Post, ..get };
        let head = Asked { method: Method::Head, ..get };
        let (body, upgrade) = (Asked { has_body: true, ..get }, Asked { upgrades: true, ..get });
        let named = Asked { has_credentials: true, ..get };
        for (asked, percent, credentials, expected) in [
            (get, 100, false, HandoffRequest::Copied),
            (get, 0, false, HandoffRequest::Alone),
            (head, 100, false, HandoffRequest::Read),
            (head, 0, false, HandoffRequest::Read),
            (post, 100, false, HandoffRequest::Change),
            (body, 100, false, HandoffRequest::Alone),
            (upgrade, 100, false, HandoffRequest::Alone),
            (named, 100, false, HandoffRequest::Alone),
            (named, 100, true, HandoffRequest::Copied),
        ] {
            assert_eq!(asked.of_key(7, &handoff(percent, credentials)), expected, "{asked:?} {percent}");
        }
        assert!(post.is_change() && !get.is_change() && !body.is_change());
        assert!(is_credential(b"Cookie") && is_credential(b"AUTHORIZATION") && !is_credential(b"cookies"));
    }
}
