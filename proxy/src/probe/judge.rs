//! What a response says of the backend that sent it, and how much of it is looked at.

use ringway_config::model::{Capture, HttpCheck};
use ringway_health::CheckFailure;

/// Bytes of a response's head that are looked at.
pub(super) const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a response's body that are looked at.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024;

/// Whether a status is one that the check expects.
pub(super) fn judge_status(http: &HttpCheck, status: u16) -> Result<(), CheckFailure> {
    let good = http.expect.iter().any(|&(low, high)| (low..=high).contains(&status));
    if good { Ok(()) } else { Err(CheckFailure::Status(status)) }
}

/// The weight in percent that a field of the response asks for; all of it if there is none, or nothing that makes sense.
pub(super) fn judge_weight(value: Option<&[u8]>) -> u8 {
    let text = value.and_then(|value| std::str::from_utf8(value).ok());
    let percent = text.and_then(|text| text.trim().trim_end_matches('%').parse::<u8>().ok());
    percent.filter(|percent| *percent <= 100).unwrap_or(100)
}

/// Whether a body, or as much of it as is looked at, is what the check wants.
pub(super) fn judge_body(wanted: &Capture, data: &[u8], whole: bool) -> Result<(), CheckFailure> {
    match (wanted.0.is_match(data), whole) {
        (true, _) => Ok(()),
        (false, true) => Err(CheckFailure::Body),
        (false, false) => Err(CheckFailure::TooLong),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> HttpCheck {
        let text = format!(
            "listeners: [ {{ name: l, address: \"127.0.0.1:0\", service: s }} ]\n\
             services: [ {{ name: s, health: {{ http: {{ {text} }} }}, backends: [ {{ id: a, address: \"127.0.0.1:9\" }} ] }} ]\n"
        );
        let loaded = ringway_config::load_str("test.yaml", &text, &|_| None).unwrap_or_else(|error| panic!("{error}"));
        match loaded.config.services[0].health.clone().unwrap().kind {
            ringway_config::model::CheckKind::Http(http) => http,
            kind => panic!("{kind:?}"),
        }
    }

    #[test]
    fn a_status_is_good_where_the_check_expects_it() {
        let by_default = check("path: /health");
        assert_eq!(judge_status(&by_default, 200), Ok(()));
        assert_eq!(judge_status(&by_default, 503), Err(CheckFailure::Status(503)));
        let wanted = check("path: /health, expect: [ 204, 300-302 ]");
        let good: Vec<u16> = (100..600).filter(|&status| judge_status(&wanted, status).is_ok()).collect();
        assert_eq!(good, [204, 300, 301, 302]);
    }

    #[test]
    fn a_weight_that_makes_no_sense_is_all_of_it() {
        for (value, percent) in [
            (None, 100),
            (Some("30"), 30),
            (Some(" 30% "), 30),
            (Some("0"), 0),
            (Some("100"), 100),
            (Some("101"), 100),
            (Some("-1"), 100),
            (Some("half"), 100),
            (Some(""), 100),
        ] {
            assert_eq!(judge_weight(value.map(str::as_bytes)), percent, "{value:?}");
        }
        assert_eq!(judge_weight(Some(b"\xff")), 100);
    }

    #[test]
    fn a_body_that_is_cut_off_is_too_long_and_not_wrong() {
        let wanted = check("path: /, body: \"ready\"").body.unwrap();
        assert_eq!(judge_body(&wanted, b"all is ready", true), Ok(()));
        assert_eq!(judge_body(&wanted, b"all is ready", false), Ok(()));
        assert_eq!(judge_body(&wanted, b"not yet", true), Err(CheckFailure::Body));
        assert_eq!(judge_body(&wanted, b"not yet", false), Err(CheckFailure::TooLong));
    }
}
