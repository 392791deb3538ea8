//! What was counted before, and what a new count says beside it.

use crate::compare::Result;
use serde_json::{Map, Value, json};

/// How far a count may be from the recorded one, in percent.
const TOLERANCE_PERCENT: f64 = 3.0;

/// The recorded counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The compiler that built what was counted.
    pub toolchain: String,
    counts: Map<String, Value>,
}

/// What a count says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// More than may be: the gate fails.
    More,
    /// As recorded, as far as counts can be told apart.
    Same,
    /// So much less that the record hides the next increase.
    Less,
    /// Never recorded: the gate fails.
    Unknown,
}

impl Record {
    /// Nothing counted yet, by that compiler.
    #[must_use]
    pub fn new(toolchain: &str) -> Self {
        Self { toolchain: toolchain.to_owned(), counts: Map::new() }
    }

    /// Reads the file's text.
    ///
    /// # Errors
    /// When it is no record.
    pub fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        match (&value["toolchain"], &value["instructions_per_request"]) {
            (Value::String(toolchain), Value::Object(counts)) if counts.values().all(Value::is_u64) => {
                Ok(Self { toolchain: toolchain.clone(), counts: counts.clone() })
            }
            _ => Err("it is no record of counts".to_owned()),
        }
    }

    /// The file's text.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{:#}\n", json!({ "toolchain": self.toolchain, "instructions_per_request": self.counts }))
    }

    /// Takes in a count.
    pub fn set(&mut self, scenario: &str, count: u64) {
        self.counts.insert(scenario.to_owned(), count.into());
    }

    /// What was recorded.
    #[must_use]
    pub fn count(&self, scenario: &str) -> Option<u64> {
        self.counts.get(scenario).and_then(Value::as_u64)
    }

    /// What a count says beside the record, and how far it is from it in percent.
    #[must_use]
    pub fn judge(&self, scenario: &str, count: u64) -> (Verdict, f64) {
        let Some(recorded) = self.count(scenario) else { return (Verdict::Unknown, f64::NAN) };
        let percent = (count as f64 - recorded as f64) * 100.0 / recorded.max(1) as f64;
        let verdict = if percent > TOLERANCE_PERCENT {
            Verdict::More
        } else if percent < -TOLERANCE_PERCENT {
            Verdict::Less
        } else {
            Verdict::Same
        };
        (verdict, percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_judged_by_three_percent_of_the_record() {
        let mut record = Record::new("rustc 1");
        record.set("http1", 10_000);
        for (count, verdict) in [
            (10_000, Verdict::Same),
            (10_300, Verdict::Same),
            (10_301, Verdict::More),
            (9_700, Verdict::Same),
            (9_699, Verdict::Less),
            (0, Verdict::Less),
        ] {
            assert_eq!(record.judge("http1", count).0, verdict, "{count}");
        }
        assert_eq!(record.judge("grpc", 1).0, Verdict::Unknown);
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_nothing_else_is_one() {
        let mut record = Record::new("rustc 1");
        record.set("http1", 10_000);
        assert_eq!(Record::parse(&record.text()), Ok(record));
        for text in ["", "{}", "{\"toolchain\":\"x\",\"instructions_per_request\":{\"http1\":\"1\"}}"] {
            assert!(Record::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_record_of_this_repository_names_every_scenario() {
        let record = Record::parse(include_str!("../../instructions.json")).unwrap();
        for scenario in crate::instructions::Scenario::ALL {
            assert!(record.count(scenario.name()).is_some_and(|count| count > 0), "{}", scenario.name());
        }
    }
}
