//! Medians, ratios, Markdown and JSON.

use serde_json::{Value, json};
use std::fmt::Write as _;

/// One table.
#[derive(Debug, Clone)]
pub struct Table {
    /// What was measured.
    pub title: String,
    /// Names of the columns; the first is the one whose ratio is shown.
    pub columns: Vec<&'static str>,
    /// Who, and all rounds' values of each column.
    pub rows: Vec<(String, Vec<Vec<f64>>)>,
    /// What was skipped or differs, and why.
    pub notes: Vec<String>,
}

impl Table {
    /// An empty one.
    #[must_use]
    pub fn new(title: impl Into<String>, columns: &[&'static str]) -> Self {
        Self { title: title.into(), columns: columns.to_vec(), rows: Vec::new(), notes: Vec::new() }
    }

    /// One more round of somebody.
    pub fn push(&mut self, name: &str, values: &[f64]) {
        let index = self.rows.iter().position(|(row, _)| row == name).unwrap_or_else(|| {
            self.rows.push((name.to_owned(), Vec::new()));
            self.rows.len() - 1
        });
        self.rows[index].1.push(values.to_vec());
    }

    fn median(rounds: &[Vec<f64>], column: usize) -> f64 {
        let mut values: Vec<f64> =
            rounds.iter().filter_map(|round| round.get(column).copied()).filter(|value| !value.is_nan()).collect();
        values.sort_by(f64::total_cmp);
        match values.len() {
            0 => f64::NAN,
            count => (values[(count - 1) / 2] + values[count / 2]) / 2.0,
        }
    }

    fn medians(&self, name: &str) -> Option<Vec<f64>> {
        let (_, rounds) = self.rows.iter().find(|(row, _)| row == name)?;
        Some((0..self.columns.len()).map(|column| Self::median(rounds, column)).collect())
    }

    /// The sum of a column over all rounds of a row.
    #[must_use]
    pub fn sum(&self, name: &str, column: &str) -> f64 {
        let Some(column) = self.columns.iter().position(|own| *own == column) else { return 0.0 };
        self.rows.iter().filter(|(row, _)| row == name).flat_map(|(_, rounds)| rounds).map(|round| round[column]).sum()
    }

    /// As Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let ours = self.medians("ringway").map_or(f64::NAN, |medians| medians[0]);
        let mut text = format!("### {}\n\n| | {} | ringway's to it |\n|---|", self.title, self.columns.join(" | "));
        text.push_str(&"---|".repeat(self.columns.len() + 1));
        text.push('\n');
        for (name, _) in &self.rows {
            let medians = self.medians(name).unwrap_or_default();
            let _ = write!(text, "| {name} |");
            for value in &medians {
                let _ = write!(text, " {} |", number(*value));
            }
            let ratio = ours / medians[0];
            let _ = writeln!(text, " {} |", if ratio.is_finite() { format!("{ratio:.2}") } else { String::new() });
        }
        for note in &self.notes {
            let _ = write!(text, "\n{note}\n");
        }
        text
    }

    /// As JSON: medians, and every round.
    #[must_use]
    pub fn json(&self) -> Value {
        let ours = self.medians("ringway").map_or(f64::NAN, |medians| medians[0]);
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|(name, rounds)| {
                let medians = self.medians(name).unwrap_or_default();
                json!({ "name": name, "medians": medians, "ringway_ratio": ours / medians[0], "rounds": rounds })
            })
            .collect();
        json!({ "title": self.title, "columns": self.columns, "rows": rows, "notes": self.notes })
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        _ if value.is_nan() => "-".to_owned(),
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}
