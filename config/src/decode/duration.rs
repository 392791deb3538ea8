//! Times as people write them.

use super::{Decode, Shape};
use crate::findings::Findings;
use crate::node::{Node, Value};
use std::time::Duration;

impl Decode for Duration {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        const HELP: &str = "write for example `500ms`, `2s`, `1m30s` or `1h`";
        let text = match &node.value {
            Value::Integer(0) => return Some(Self::ZERO),
            Value::Text(text) if text == "0" => return Some(Self::ZERO),
            Value::Text(text) => text,
            Value::Integer(value) => {
                findings.error(
                    node.place,
                    "bad_duration",
                    format!("{value} has no unit"),
                    format!("write `{value}s` or `{value}ms`"),
                );
                return None;
            }
            _ => return findings.wrong_type(node, "a duration", "2s"),
        };
        let duration = parse_duration(text);
        if duration.is_none() {
            findings.error(node.place, "bad_duration", format!("`{text}` is not a duration"), HELP);
        }
        duration
    }

    fn shape() -> Shape {
        Shape::Text { kind: "duration", pattern: Some("^(0|([0-9]+(ms|s|m|h|d))+)$") }
    }
}

/// A time as [`parse_duration`] reads it: cut off to its two largest units, and below a second to milliseconds.
#[must_use]
pub fn duration_text(time: Duration) -> String {
    let seconds = time.as_secs();
    let two = |large: u64, small: u64, names: [&str; 2]| match seconds % large / small {
        0 => format!("{}{}", seconds / large, names[0]),
        rest => format!("{}{}{rest}{}", seconds / large, names[0], names[1]),
    };
    match seconds {
        0 => format!("{}ms", time.subsec_millis()),
        1..60 => format!("{seconds}s"),
        60..3600 => two(60, 1, ["m", "s"]),
        3600..86_400 => two(3600, 60, ["h", "m"]),
        _ => two(86_400, 3600, ["d", "h"]),
    }
}

/// `500ms`, `2s`, `1m30s`, `1h`, `1d`: as in files, so wherever else people write a time.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    let mut last_unit = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let millis = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        rest = &rest[letters..];
        // `1m1h` and `1s1s` are slips.
        if millis >= last_unit {
            return None;
        }
        last_unit = millis;
        total += Duration::from_millis(number.checked_mul(millis).filter(|&millis| millis <= 366 * 86_400_000)?);
    }
    (last_unit != u64::MAX).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_they_are_read() {
        for text in ["0ms", "999ms", "1s", "59s", "1m", "1m1s", "59m59s", "1h", "1h1m", "1d", "1d1h", "365d23h"] {
            assert_eq!(duration_text(parse_duration(text).unwrap()), text);
        }
        for (whole, cut) in [("1s999ms", "1s"), ("1h59s", "1h"), ("1d59m", "1d")] {
            assert_eq!(duration_text(parse_duration(whole).unwrap()), cut);
        }
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, millis) in [("500ms", 500), ("2s", 2_000), ("1m30s", 90_000), ("1h", 3_600_000), ("1d", 86_400_000)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "5", "-1s", "1.5s", "1s1m", "1 s", "99999999999999999999s", "9999d", "1µs"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
