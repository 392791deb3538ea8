//! Single values: booleans, texts, and numbers within their bounds.

use super::{Decode, Shape};
use crate::findings::Findings;
use crate::node::{Node, Value};

impl Decode for bool {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        match &node.value {
            Value::Bool(value) => Some(*value),
            Value::Text(text) if text == "true" || text == "false" => Some(text == "true"),
            _ => findings.wrong_type(node, "a boolean", "true"),
        }
    }

    fn shape() -> Shape {
        Shape::Boolean
    }
}

fn integer(node: &Node, min: u64, max: u64, findings: &mut Findings) -> Option<u64> {
    let value = match &node.value {
        Value::Integer(value) => *value,
        // As a default, or out of `${...}`, a number arrives as text.
        Value::Text(text) if is_integer(text) => text.parse().unwrap_or(i128::MAX),
        // One that is too large for YAML's integers is a number with a fraction to it.
        Value::Float(_) if node.text().is_some_and(is_integer) => i128::MAX,
        _ => return findings.wrong_type(node, "an integer", &min.max(1).to_string()),
    };
    if !(i128::from(min)..=i128::from(max)).contains(&value) {
        let written = node.text().map_or_else(|| value.to_string(), str::to_owned);
        findings.error(
            node.place,
            "out_of_range",
            format!("{written} is out of range"),
            format!("write a number from {min} to {max}"),
        );
        return None;
    }
    u64::try_from(value).ok()
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// An integer in a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Int<const MIN: u64, const MAX: u64>(pub(crate) u64);

impl<const MIN: u64, const MAX: u64> Decode for Int<MIN, MAX> {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        integer(node, MIN, MAX, findings).map(Self)
    }

    fn shape() -> Shape {
        Shape::Integer { min: MIN, max: MAX }
    }
}

/// A limit that is none where it is absent: 0 is neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit(pub(crate) u64);

impl Limit {
    const MAX: u64 = u32::MAX as u64;
}

impl Decode for Limit {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        let value = integer(node, 0, Self::MAX, findings)?;
        if value == 0 {
            findings.error(
                node.place,
                "out_of_range",
                "a limit of 0 would let nothing through",
                format!("remove it, which is no limit, or write a number from 1 to {}", Self::MAX),
            );
            return None;
        }
        Some(Self(value))
    }

    fn shape() -> Shape {
        Shape::Integer { min: 1, max: Self::MAX }
    }
}

/// A number from `min` to `max`; `example` is one. `told`: what is wrong with another, and what to write instead.
fn number(
    node: &Node,
    (min, max): (f64, f64),
    example: &str,
    findings: &mut Findings,
    told: impl FnOnce(f64) -> (String, String),
) -> Option<f64> {
    let value = match &node.value {
        Value::Integer(value) => *value as f64,
        Value::Float(value) => *value,
        Value::Text(text) => match text.parse() {
            Ok(value) => value,
            Err(_) => return findings.wrong_type(node, "a number", example),
        },
        _ => return findings.wrong_type(node, "a number", example),
    };
    if !(min..=max).contains(&value) {
        let (message, help) = told(value);
        findings.error(node.place, "out_of_range", message, help);
        return None;
    }
    Some(value)
}

/// A load factor: a number of at least 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Factor(pub(crate) f64);

impl Decode for Factor {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        let told = |value| {
            let message = format!("{value} is out of range: below 1.0 the backends together could not carry the load");
            (message, "write a number from 1.0 to 1000, `1.25` is usual".to_owned())
        };
        number(node, (1.0, 1000.0), "1.25", findings, told).map(Self)
    }

    fn shape() -> Shape {
        Shape::Number { min: 1.0 }
    }
}

/// A number between two thousandths.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Number<const MIN: u64, const MAX: u64>(pub(crate) f64);

impl<const MIN: u64, const MAX: u64> Decode for Number<MIN, MAX> {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        let (min, max) = (MIN as f64 / 1000.0, MAX as f64 / 1000.0);
        let told = |value| (format!("{value} is out of range"), format!("write a number from {min} to {max}"));
        number(node, (min, max), "1.5", findings, told).map(Self)
    }

    fn shape() -> Shape {
        Shape::Number { min: MIN as f64 / 1000.0 }
    }
}

/// A percentage: `20` or `20%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Percent(pub(crate) u32);

impl Decode for Percent {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        let stripped = match &node.value {
            Value::Text(text) => Node::new(Value::Text(text.trim_end_matches('%').to_owned()), node.place),
            _ => node.clone(),
        };
        integer(&stripped, 0, 100, findings).map(|value| Self(value as u32))
    }

    fn shape() -> Shape {
        Shape::Integer { min: 0, max: 100 }
    }
}

/// A share of a whole, in percent: `20`, `0.1%`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Share(pub(crate) f64);

impl Decode for Share {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        let stripped = match &node.value {
            Value::Text(text) => Node::new(Value::Text(text.trim_end_matches('%').trim_end().to_owned()), node.place),
            _ => node.clone(),
        };
        let told = |value| (format!("{value} is out of range"), "write a share from `0%` to `100%`".to_owned());
        number(&stripped, (0.0, 100.0), "1%", findings, told).map(Self)
    }

    fn shape() -> Shape {
        Shape::Text { kind: "share", pattern: Some("^[0-9]+([.][0-9]+)? ?%?$") }
    }
}

impl Decode for String {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        // `id: 7` is plain enough, and `0x1F`, `1e3` and `012` are what they look like.
        match node.text() {
            Some(text) => Some(text.to_owned()),
            None => findings.wrong_type(node, "a string", "text"),
        }
    }

    fn shape() -> Shape {
        Shape::Text { kind: "string", pattern: None }
    }
}

/// The kind of a text that nobody is shown.
pub(crate) const SECRET: &str = "secret";

/// What stands in the place of a text that nobody is shown.
pub(crate) const BLANK: &str = "(secret)";

/// A text that is never shown again: see `effective`.
#[derive(Clone, PartialEq)]
pub(crate) struct Secret(pub(crate) String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl AsRef<str> for Secret {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// A text that was written out without its secret is not taken for the one with it.
fn unless_blanked(node: &Node, is_blanked: impl Fn(&str) -> bool, findings: &mut Findings) -> Option<String> {
    let text = String::decode(node, findings)?;
    if is_blanked(&text) {
        let message = format!("`{BLANK}` stands here in the place of a secret that was not written out");
        findings.error(node.place, "blanked_secret", message, "write what belongs here, or `${NAME}`");
        return None;
    }
    Some(text)
}

impl Decode for Secret {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        unless_blanked(node, |text| text.trim() == BLANK, findings).map(Self)
    }

    fn shape() -> Shape {
        Shape::Text { kind: SECRET, pattern: None }
    }
}

impl std::ops::Deref for Secret {
    type Target = String;

    fn deref(&self) -> &String {
        &self.0
    }
}

/// The kind of a text whose query nobody is shown.
pub(crate) const URL: &str = "URL or path";

/// A path, or a URL, whose query is never shown again: it may hold a key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Url(pub(crate) String);

impl AsRef<str> for Url {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Decode for Url {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        let is_blanked =
            |text: &str| text.trim().strip_suffix(BLANK).is_some_and(|rest| rest.is_empty() || rest.ends_with('?'));
        unless_blanked(node, is_blanked, findings).map(Self)
    }

    fn shape() -> Shape {
        Shape::Text { kind: URL, pattern: None }
    }
}

/// A size in bytes: `1024`, `64KiB`, `1MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) u64);

impl Decode for Bytes {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        let text = match &node.value {
            Value::Integer(_) => return integer(node, 0, 1 << 50, findings).map(Self),
            Value::Text(text) => text,
            _ => return findings.wrong_type(node, "a size", "64KiB"),
        };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let unit = match text[digits..].trim() {
            "" | "B" => Some(1),
            "KiB" => Some(1 << 10),
            "MiB" => Some(1 << 20),
            "GiB" => Some(1 << 30),
            _ => None,
        };
        let size = unit
            .and_then(|unit: u64| text[..digits].parse::<u64>().ok()?.checked_mul(unit))
            .filter(|&size| size <= 1 << 50);
        if size.is_none() {
            findings.error(
                node.place,
                "bad_size",
                format!("`{text}` is not a size"),
                "write for example `65536`, `64KiB` or `1MiB`",
            );
        }
        size.map(Self)
    }

    fn shape() -> Shape {
        Shape::Text { kind: "size", pattern: Some("^[0-9]+ ?(B|KiB|MiB|GiB)?$") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Place;

    fn read<T: Decode>(value: Value) -> Result<T, Vec<&'static str>> {
        let mut findings = Findings::default();
        let read = T::decode(&Node::new(value, Place::default()), &mut findings);
        let codes: Vec<&'static str> = findings.list.iter().map(|finding| finding.code).collect();
        // Either there is a value, or a finding says why there is none.
        assert_eq!(read.is_some(), codes.is_empty());
        read.ok_or(codes)
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn integers_are_taken_up_to_both_ends_of_their_range_as_numbers_and_as_text() {
        type Small = Int<2, 5>;
        for value in [2, 5] {
            assert_eq!(read::<Small>(Value::Integer(value)), Ok(Int(value as u64)));
            assert_eq!(read::<Small>(text(&value.to_string())), Ok(Int(value as u64)));
        }
        for value in [Value::Integer(1), Value::Integer(6), Value::Integer(-3), text("6")] {
            assert_eq!(read::<Small>(value), Err(vec!["out_of_range"]));
        }
        for value in [text("two"), text(""), text("-"), text("2.0"), Value::Float(2.0), Value::Bool(true)] {
            assert_eq!(read::<Small>(value), Err(vec!["wrong_type"]));
        }
        // Beyond what any machine reckons with, it is a number all the same.
        for digits in ["99999999999999999999999", "-99999999999999999999999", &"9".repeat(100)] {
            assert_eq!(read::<Small>(text(digits)), Err(vec!["out_of_range"]), "{digits}");
            let root = crate::node::parse(digits).unwrap();
            let mut findings = Findings::default();
            assert_eq!(Small::decode(&root, &mut findings), None);
            assert_eq!(findings.list[0].code, "out_of_range", "{digits}");
            assert!(findings.list[0].message.starts_with(digits), "{}", findings.list[0].message);
        }
    }

    #[test]
    fn shares_are_percentages_with_fractions() {
        for (value, share) in [(text("0.1%"), 0.1), (text("100 %"), 100.0), (text("7"), 7.0), (Value::Float(0.5), 0.5)]
        {
            assert_eq!(read::<Share>(value), Ok(Share(share)));
        }
        assert_eq!(read::<Share>(text("101%")), Err(vec!["out_of_range"]));
        assert_eq!(read::<Share>(text("half")), Err(vec!["wrong_type"]));
    }

    #[test]
    fn a_limit_of_nothing_is_refused() {
        assert_eq!(read::<Limit>(Value::Integer(0)), Err(vec!["out_of_range"]));
        assert_eq!(read::<Limit>(Value::Integer(1)), Ok(Limit(1)));
        assert_eq!(read::<Limit>(Value::Integer(1 << 32)), Err(vec!["out_of_range"]));
    }

    #[test]
    fn factors_and_numbers_keep_within_their_ends() {
        for (value, is_good) in [(0.99, false), (1.0, true), (1000.0, true), (1000.1, false), (f64::NAN, false)] {
            assert_eq!(read::<Factor>(Value::Float(value)).is_ok(), is_good, "{value}");
        }
        assert_eq!(read::<Factor>(text("1.5")), Ok(Factor(1.5)));
        assert_eq!(read::<Factor>(Value::Integer(2)), Ok(Factor(2.0)));
        type Half = Number<500, 1500>;
        for (value, is_good) in [(0.499, false), (0.5, true), (1.5, true), (1.501, false)] {
            assert_eq!(read::<Half>(Value::Float(value)).is_ok(), is_good, "{value}");
        }
        assert_eq!(read::<Half>(text("x")), Err(vec!["wrong_type"]));
    }

    #[test]
    fn percentages_come_with_and_without_their_sign() {
        assert_eq!((read(text("20%")), read(Value::Integer(100))), (Ok(Percent(20)), Ok(Percent(100))));
        assert_eq!(read::<Percent>(text("101%")), Err(vec!["out_of_range"]));
        assert_eq!(read::<Percent>(text("%")), Err(vec!["wrong_type"]));
    }

    #[test]
    fn sizes_are_bytes_or_have_a_unit_of_1024() {
        for (value, bytes) in [
            (Value::Integer(7), 7),
            (text("7"), 7),
            (text("7B"), 7),
            (text("1KiB"), 1 << 10),
            (text("3 MiB"), 3 << 20),
            (text("2GiB"), 2 << 30),
        ] {
            assert_eq!(read::<Bytes>(value.clone()), Ok(Bytes(bytes)), "{value:?}");
        }
        for value in ["1KB", "KiB", "1.5MiB", "-1", "99999999999999999999", "9999999GiB"] {
            assert_eq!(read::<Bytes>(text(value)), Err(vec!["bad_size"]), "{value}");
        }
        assert_eq!(read::<Bytes>(Value::Integer((1 << 50) + 1)), Err(vec!["out_of_range"]));
        assert_eq!(read::<Bytes>(text(&format!("{}", (1_u64 << 50) + 1))), Err(vec!["bad_size"]));
    }

    #[test]
    fn booleans_are_no_numbers() {
        assert_eq!((read(Value::Bool(true)), read(text("false"))), (Ok(true), Ok(false)));
        assert_eq!(read::<bool>(Value::Integer(1)), Err(vec!["wrong_type"]));
        assert_eq!(read::<bool>(text("yes")), Err(vec!["wrong_type"]));
    }
}
