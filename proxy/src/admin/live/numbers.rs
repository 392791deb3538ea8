//! Numbers as an eye wants them: rates, shares and percentiles, to three digits.

use ringway_telemetry::Sums;
use ringway_telemetry::counters::{BUCKETS_MICROS, CLASS_NAMES};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// To three significant digits; what is whole then has no fraction.
pub(super) fn rounded(value: f64) -> Value {
    if !value.is_finite() || value == 0.0 {
        return json!(0);
    }
    let digits = 2 - value.abs().log10().floor() as i32;
    // Powers of ten that are whole are exact: so the nearest number that has these digits is found.
    let rounded = if digits >= 0 {
        (value * 10_f64.powi(digits)).round() / 10_f64.powi(digits)
    } else {
        (value / 10_f64.powi(-digits)).round() * 10_f64.powi(-digits)
    };
    if rounded.fract() == 0.0 && rounded.abs() < 1e15 { json!(rounded as i64) } else { json!(rounded) }
}

/// The duration in seconds that so large a part of those counted does not pass, drawn evenly within its bucket; `None` of nothing. What is
/// longer than every bound counts as the last of them.
pub(super) fn percentile(buckets: &[u64; BUCKETS_MICROS.len() + 1], part: f64) -> Option<f64> {
    let all: u64 = buckets.iter().sum();
    if all == 0 {
        return None;
    }
    let rank = part * all as f64;
    let (mut below, mut low) = (0.0, 0);
    for (&count, high) in buckets.iter().zip(BUCKETS_MICROS) {
        let count = count as f64;
        if count > 0.0 && below + count >= rank {
            let within = ((rank - below) / count).clamp(0.0, 1.0);
            return Some((low as f64 + within * (high - low) as f64) / 1e6);
        }
        (below, low) = (below + count, high);
    }
    Some(low as f64 / 1e6)
}

/// What has come in a time, as fields: the rate, the classes' shares in percent, and two percentiles. What is nothing is left out.
pub(super) fn fields(came: &Sums, time: Duration) -> Map<String, Value> {
    let mut fields = Map::new();
    let all: u64 = came.classes.iter().sum();
    put(&mut fields, "requests_per_second", rate(all, time));
    if all > 0 {
        let shares = CLASS_NAMES.iter().zip(&came.classes).filter(|(_, count)| **count > 0);
        let shares = shares.map(|(name, count)| ((*name).to_owned(), rounded(*count as f64 * 100.0 / all as f64)));
        fields.insert("classes".into(), Value::Object(shares.collect()));
    }
    for (name, part) in [("p50_seconds", 0.5), ("p99_seconds", 0.99)] {
        put(&mut fields, name, percentile(&came.buckets, part));
    }
    put(&mut fields, "failures_per_second", rate(came.failures, time));
    put(&mut fields, "spills_per_second", rate(came.spills, time));
    put(&mut fields, "retries_per_second", rate(came.retries, time));
    fields
}

fn rate(count: u64, time: Duration) -> Option<f64> {
    (count > 0 && !time.is_zero()).then(|| count as f64 / time.as_secs_f64())
}

/// A number, unless there is nothing to say.
pub(super) fn put(fields: &mut Map<String, Value>, name: &str, value: impl Into<Option<f64>>) {
    if let Some(value) = value.into().filter(|value| *value != 0.0) {
        fields.insert(name.into(), rounded(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        for (value, text) in [
            (0.0, "0"),
            (f64::NAN, "0"),
            (f64::INFINITY, "0"),
            (0.000_412_34, "0.000412"),
            (0.999_6, "1"),
            (1.0, "1"),
            (12.345, "12.3"),
            (99.96, "100"),
            (4_214.9, "4210"),
            (1e9 + 7.0, "1000000000"),
            (-2.764_28, "-2.76"),
        ] {
            assert_eq!(rounded(value).to_string(), text, "{value}");
        }
    }

    #[test]
    fn a_percentile_lies_in_its_bucket() {
        let of = |counts: &[(usize, u64)]| {
            let mut buckets = [0; BUCKETS_MICROS.len() + 1];
            counts.iter().for_each(|&(bucket, count)| buckets[bucket] = count);
            buckets
        };
        assert_eq!(percentile(&of(&[]), 0.5), None);
        assert_eq!(percentile(&of(&[(0, 10)]), 0.5), Some(0.000_05));
        assert_eq!(percentile(&of(&[(0, 10)]), 1.0), Some(0.000_1));
        // Half are in the first, half from 1 to 2.5 ms.
        assert_eq!(percentile(&of(&[(0, 50), (4, 50)]), 0.5), Some(0.000_1));
        let p75 = percentile(&of(&[(0, 50), (4, 50)]), 0.75).unwrap();
        assert!((p75 - 0.001_75).abs() < 1e-9, "{p75}");
        assert_eq!(percentile(&of(&[(BUCKETS_MICROS.len(), 1)]), 0.5), Some(60.0), "no bound is above the last");
    }

    #[test]
    fn what_is_nothing_is_left_out_and_classes_are_parts_of_what_came() {
        assert!(fields(&Sums::default(), Duration::from_secs(10)).is_empty());
        let mut came = Sums { retries: 5, ..Sums::default() };
        (came.classes[2], came.classes[5]) = (30, 10);
        let fields = fields(&came, Duration::from_secs(10));
        assert_eq!(
            Value::Object(fields),
            json!({ "requests_per_second": 4, "classes": { "2xx": 75, "5xx": 25 }, "retries_per_second": 0.5 })
        );
        let none = super::fields(&came, Duration::ZERO);
        assert!(!none.contains_key("requests_per_second"), "one look tells no rate");
    }
}
