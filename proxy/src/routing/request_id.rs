//! Ids of requests: the client's, where its word is taken, or one of Ringway's own.

use crate::dispatcher::Dispatcher;
use ringway_config::model;
use ringway_message::{RequestHead, write_hex};

/// A longer one is replaced.
const KEPT_BYTES_MAX: usize = 128;

/// The id that a request has from here on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestId<'b> {
    /// The client's.
    Kept(&'b [u8]),
    /// Ringway's own.
    Made([u8; 32]),
}

impl<'b> RequestId<'b> {
    /// Of a request whose client is one of the proxies in front, or is not.
    pub(crate) fn of(
        rule: &model::RequestId,
        trusted: bool,
        dispatcher: &Dispatcher,
        bytes: &'b [u8],
        head: &RequestHead,
    ) -> Self {
        let told = if rule.trust.takes(trusted) { head.value_of(bytes, rule.header.as_bytes()) } else { None };
        if let Some(told) = told.filter(|told| is_sane(told)) {
            return Self::Kept(told);
        }
        let mut digits = [0; 32];
        write_hex(&dispatcher.ids.long(), &mut digits);
        Self::Made(digits)
    }

    pub(crate) fn text(&self) -> &[u8] {
        match self {
            Self::Kept(text) => text,
            Self::Made(digits) => digits,
        }
    }
}

/// Visible ASCII, and not too long: it goes into logs.
fn is_sane(id: &[u8]) -> bool {
    (1..=KEPT_BYTES_MAX).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::testing::Rig;
    use ringway_config::model::Trust;
    use ringway_http1::{Limits, parse_request};

    fn of(trust: Trust, trusted: bool, field: &str) -> Vec<u8> {
        let rig = Rig::new("{ name: s, backends: [ { id: a, address: \"10.0.0.1:80\" } ] }");
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n");
        let mut head = RequestHead::default();
        assert!(parse_request(text.as_bytes(), &Limits::default(), &mut head).is_ok_and(|whole| whole));
        let rule = model::RequestId { header: "x-request-id".into(), trust, respond: false };
        RequestId::of(&rule, trusted, &rig.worker, text.as_bytes(), &head).text().to_vec()
    }

    #[test]
    fn an_id_is_kept_if_its_clients_word_is_taken_and_it_is_sane() {
        let field = "X-Request-ID: abc-1\r\n";
        for (trust, trusted, kept) in [
            (Trust::Trusted, true, true),
            (Trust::Trusted, false, false),
            (Trust::All, false, true),
            (Trust::None, true, false),
        ] {
            assert_eq!(of(trust, trusted, field) == b"abc-1", kept, "{trust:?} {trusted}");
        }
        let long = format!("X-Request-ID: {}\r\n", "a".repeat(KEPT_BYTES_MAX + 1));
        for insane in ["", "X-Request-ID:\r\n", "X-Request-ID: a b\r\n", "X-Request-ID: \u{e9}\r\n", &long] {
            let made = of(Trust::All, true, insane);
            assert!(made.len() == 32 && made.iter().all(u8::is_ascii_hexdigit), "{insane}");
        }
        let longest = "a".repeat(KEPT_BYTES_MAX);
        assert_eq!(of(Trust::All, true, &format!("X-Request-ID: {longest}\r\n")), longest.as_bytes());
    }
}
