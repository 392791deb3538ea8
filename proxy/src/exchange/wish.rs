//! How long a backend asks to be left alone: `Retry-After` of a response with 429 or 503.

use std::time::{Duration, SystemTime};

/// Values beyond what can be counted are cut: the configuration bounds how much of it is obeyed.
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);

/// `Retry-After` in either of its forms (RFC 9110, 10.2.3), in any of the three forms of a date. A date is taken as the time left until
/// then by the clock that wrote it, which is that of the response's `Date`; `now` is used where there is none. `None`: no delay is
/// asked for, it is over, or its form is unknown.
pub(super) fn retry_after(value: &[u8], date: Option<&[u8]>, now: SystemTime) -> Option<Duration> {
    let value = value.trim_ascii();
    let wish = if !value.is_empty() && value.iter().all(u8::is_ascii_digit) {
        let seconds = std::str::from_utf8(value).ok()?.parse();
        seconds.map_or(FOR_EVER, Duration::from_secs).min(FOR_EVER)
    } else {
        http_date(value)?.duration_since(date.and_then(http_date).unwrap_or(now)).ok()?
    };
    (!wish.is_zero()).then_some(wish)
}

fn http_date(value: &[u8]) -> Option<SystemTime> {
    httpdate::parse_http_date(std::str::from_utf8(value).ok()?.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn wish(value: &str, date: Option<&str>, now: u64) -> Option<Duration> {
        retry_after(value.as_bytes(), date.map(str::as_bytes), SystemTime::UNIX_EPOCH + SECOND * now as u32)
    }

    #[test]
    fn seconds_are_digits_and_too_many_of_them_are_for_ever() {
        assert_eq!(wish("120", None, 0), Some(SECOND * 120));
        assert_eq!(wish(" 7\t", None, 0), Some(SECOND * 7));
        for endless in ["4294967296", "18446744073709551616", &"9".repeat(1_000)] {
            assert_eq!(wish(endless, None, 0), Some(FOR_EVER), "{endless}");
        }
    }

    #[test]
    fn what_asks_for_nothing_or_says_nothing_is_no_wish() {
        for nothing in ["0", "000", "", " ", "-1", "+5", "1.5", "soon", "5 s", "1, 2", "\u{e9}", "1e3", "Sun, 06 Nov"] {
            assert_eq!(wish(nothing, None, 0), None, "{nothing:?}");
        }
    }

    #[test]
    fn all_three_forms_of_a_date_count_from_the_date_of_the_answer() {
        // The example of RFC 9110, 5.6.7.
        let at = 784_111_777;
        for form in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(wish(form, Some("Sun, 06 Nov 1994 08:49:07 GMT"), 5), Some(SECOND * 30), "{form}");
            // Our clock is used where the date is missing or invalid.
            assert_eq!(wish(form, None, at - 10), Some(SECOND * 10), "{form}");
            assert_eq!(wish(form, Some("yesterday"), at - 10), Some(SECOND * 10), "{form}");
            // A date in the past gives no delay, by whichever clock.
            assert_eq!(wish(form, None, at), None, "{form}");
            assert_eq!(wish(form, None, at + 1), None, "{form}");
            assert_eq!(wish(form, Some("Sun, 06 Nov 1994 08:49:38 GMT"), 0), None, "{form}");
        }
    }
}
