//! The page that `/metrics` serves, in the two forms that Prometheus reads. Everything is written straight into one text; what many
//! samples have in common, their escaped labels, is made once.
//!
//! Source: Prometheus text format 0.0.4; OpenMetrics 1.0 (a counter's family is its name without `_total`, one family's lines stand
//! together, numbers of buckets are floats, the page ends with `# EOF`).

use crate::catalogue::{self, Kind, Metric};
use crate::exemplars::PerBucket;
use std::fmt::Write;
use std::ops::Range;

/// How a page is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' own.
    Text,
    /// OpenMetrics, which also has exemplars.
    OpenMetrics,
}

impl Format {
    /// The form that a client asks for in `Accept`: OpenMetrics where it names that no later than the other, as Prometheus does.
    #[must_use]
    pub fn of_accept(accept: &str) -> Self {
        let weight = |wanted: &str| {
            let named = accept.split(',').filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let kind = parts.next().filter(|kind| kind.eq_ignore_ascii_case(wanted))?;
                // Versions of the form before 1.0 are not spoken, nor what may come after it.
                let mut weight = 1.0;
                for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                    match name.trim() {
                        "q" => weight = value.trim().parse().unwrap_or(0.0),
                        "version" if kind.starts_with("application/") && !value.contains("1.0.0") => return None,
                        _ => {}
                    }
                }
                Some(weight)
            });
            named.fold(0.0, f32::max)
        };
        let open = weight("application/openmetrics-text");
        if open > 0.0 && open >= weight("text/plain") { Self::OpenMetrics } else { Self::Text }
    }

    /// Its `Content-Type`.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A page under way. Samples of one metric follow its head: that is the rule of both forms.
#[derive(Debug)]
pub struct Page {
    text: String,
    format: Format,
}

impl Page {
    /// An empty one, with room for so many bytes.
    #[must_use]
    pub fn new(format: Format, capacity: usize) -> Self {
        Self { text: String::with_capacity(capacity), format }
    }

    /// Begins a metric.
    pub fn head(&mut self, metric: &Metric) {
        let (family, kind) = match self.format {
            Format::Text => (metric.name, metric.kind.as_str()),
            Format::OpenMetrics => family(metric),
        };
        // Writing to a String does not fail.
        let _ = write!(self.text, "# HELP {family} ");
        self.escape(metric.help, self.format == Format::OpenMetrics);
        let _ = write!(self.text, "\n# TYPE {family} {kind}\n");
        if self.format == Format::OpenMetrics {
            self.unit(family);
        }
    }

    /// What a family is in, where its name ends in that.
    fn unit(&mut self, family: &str) {
        if let Some(unit) = unit(family) {
            self.text.extend(["# UNIT ", family, " ", unit, "\n"]);
        }
    }

    /// A sample whose labels have these values.
    pub fn sample(&mut self, metric: &Metric, values: &[&str], number: f64) {
        self.text.push_str(metric.name);
        self.labels(metric, values);
        self.text.push(' ');
        self.number(number);
    }

    /// A metric that has one sample.
    pub fn single(&mut self, metric: &Metric, number: f64) {
        self.head(metric);
        self.sample(metric, &[], number);
    }

    /// A sample whose labels are written already.
    pub fn labelled(&mut self, metric: &Metric, labels: &str, number: f64) {
        self.begin(metric, labels);
        self.text.push_str("} ");
        self.number(number);
    }

    /// The same of a metric that has one label more.
    pub fn labelled_with(&mut self, metric: &Metric, labels: &str, last: &str, number: f64) {
        self.begin(metric, labels);
        let name = metric.labels.last().copied().unwrap_or_default();
        for part in [",", name, "=\"", last, "\"} "] {
            self.text.push_str(part);
        }
        self.number(number);
    }

    fn begin(&mut self, metric: &Metric, labels: &str) {
        self.text.push_str(metric.name);
        self.text.push('{');
        self.text.push_str(labels);
    }

    fn labels(&mut self, metric: &Metric, values: &[&str]) {
        let mut separator = '{';
        for (label, value) in metric.labels.iter().zip(values) {
            self.text.push(separator);
            self.text.push_str(label);
            self.text.push_str("=\"");
            self.escape(value, true);
            self.text.push('"');
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
    }

    fn escape(&mut self, value: &str, quotes: bool) {
        escape(value, quotes, &mut self.text);
    }

    /// A number, and the end of its line. Most are whole.
    fn number(&mut self, number: f64) {
        self.value(number);
        self.text.push('\n');
    }

    fn value(&mut self, number: f64) {
        /// Up to here a whole number is exact.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        if number.fract() == 0.0 && number.abs() < EXACT {
            self.text.push_str(itoa::Buffer::new().format(number as i64));
        } else if number.is_infinite() {
            self.text.push_str(if number > 0.0 { "+Inf" } else { "-Inf" });
        } else {
            let _ = write!(self.text, "{number}");
        }
    }

    /// What is counted in a histogram: in each bucket, the last of which is of what is above all bounds, and summed; with traces that
    /// stand for some of them.
    pub(crate) fn histogram(
        &mut self,
        metric: &Metric,
        labels: &str,
        bounds: &Bounds,
        (counts, sum): (&[u64], f64),
        exemplars: Option<&PerBucket>,
    ) {
        let mut count = 0;
        let exemplars = exemplars.filter(|_| self.format == Format::OpenMetrics);
        for (index, (in_bucket, bound)) in counts.iter().zip(&bounds.0).enumerate() {
            count += in_bucket;
            self.text.push_str(metric.name);
            self.text.push_str("_bucket{");
            self.text.push_str(labels);
            self.text.push_str(bound);
            self.text.push_str(itoa::Buffer::new().format(count));
            if let Some(exemplar) = exemplars.and_then(|exemplars| exemplars[index]) {
                exemplar.write(&mut self.text);
            }
            self.text.push('\n');
        }
        for (part, number) in [("_sum{", sum), ("_count{", count as f64)] {
            self.text.push_str(metric.name);
            self.text.push_str(part);
            self.text.push_str(labels);
            self.text.push_str("} ");
            self.number(number);
        }
    }

    /// Adds what the facade has rendered, in Prometheus' form.
    pub(crate) fn append(&mut self, rendered: &str) {
        match self.format {
            Format::Text => self.text.push_str(rendered),
            Format::OpenMetrics => rendered.lines().for_each(|line| self.convert(line)),
        }
    }

    /// A line of Prometheus' form. There are no empty lines in the other, and the heads of counters name families.
    fn convert(&mut self, line: &str) {
        let head = ["# HELP ", "# TYPE "].iter().find_map(|prefix| Some((*prefix, line.strip_prefix(prefix)?)));
        let known = head.and_then(|(prefix, rest)| {
            let (name, rest) = rest.split_once(' ')?;
            let metric = catalogue::ALL.iter().find(|metric| metric.name == name)?;
            Some((prefix, family(metric), rest))
        });
        match known {
            Some((prefix @ "# TYPE ", (family, kind), _)) => {
                self.text.extend([prefix, family, " ", kind, "\n"]);
                self.unit(family);
            }
            Some((prefix, (family, _), rest)) => self.text.extend([prefix, family, " ", rest, "\n"]),
            None if line.is_empty() => {}
            None => self.text.extend([line, "\n"]),
        }
    }

    /// The whole page.
    #[must_use]
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

/// A metric's family and type in OpenMetrics. A counter whose family would have the name of another metric is of no known type: its
/// samples are the same.
fn family(metric: &Metric) -> (&'static str, &'static str) {
    if metric.kind != Kind::Counter {
        return (metric.name, metric.kind.as_str());
    }
    match metric.name.strip_suffix("_total") {
        Some(family) if catalogue::ALL.iter().all(|other| other.name != family) => (family, "counter"),
        _ => (metric.name, "unknown"),
    }
}

/// What a family is in: the end of its name, where that is a unit. Source: OpenMetrics 1.0, section "Unit".
#[must_use]
pub fn unit(family: &str) -> Option<&'static str> {
    let ends_in = |unit: &&str| family.strip_suffix(*unit).is_some_and(|rest| rest.ends_with('_'));
    ["seconds", "bytes", "ratio"].into_iter().find(ends_in)
}

/// What follows the labels in a bucket's line: its bound, up to the count.
pub(crate) struct Bounds(Vec<String>);

impl Bounds {
    /// Of these bounds in microseconds, and infinity.
    pub(crate) fn new(micros: &[u64], format: Format) -> Self {
        let bound = |micros: &u64| {
            let seconds = *micros as f64 / 1e6;
            match format {
                Format::OpenMetrics if seconds.fract() == 0.0 => format!(",le=\"{seconds:.1}\"}} "),
                Format::Text | Format::OpenMetrics => format!(",le=\"{seconds}\"}} "),
            }
        };
        Self(micros.iter().map(bound).chain([",le=\"+Inf\"} ".to_owned()]).collect())
    }
}

/// Sets of labels that many samples have in common, written once.
#[derive(Debug, Default)]
pub struct LabelSets {
    text: String,
    ranges: Vec<Range<usize>>,
}

impl LabelSets {
    /// Adds one.
    pub fn push(&mut self, labels: &[(&str, &str)]) {
        let start = self.text.len();
        for (index, (name, value)) in labels.iter().enumerate() {
            self.text.extend([if index > 0 { "," } else { "" }, name, "=\""]);
            escape(value, true, &mut self.text);
            self.text.push('"');
        }
        self.ranges.push(start..self.text.len());
    }

    /// Those that were added, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.ranges.iter().map(|range| &self.text[range.clone()])
    }
}

fn escape(value: &str, quotes: bool, out: &mut String) {
    let mut rest = value;
    while let Some(at) = rest.find(|c| matches!(c, '\\' | '\n') || quotes && c == '"') {
        out.push_str(&rest[..at]);
        out.push_str(match rest.as_bytes()[at] {
            b'\n' => "\\n",
            b'"' => "\\\"",
            _ => "\\\\",
        });
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_in_any_way_that_they_are_written() {
        let value = "a\"b\\c\nd\u{e4}";
        let metric = Metric { name: "m", kind: Kind::Gauge, labels: &["l", "k"], help: "" };
        let mut page = Page::new(Format::Text, 0);
        page.sample(&metric, &[value, "x"], 1.0);
        let mut sets = LabelSets::default();
        sets.push(&[("l", value)]);
        sets.push(&[("l", value), ("k", "x")]);
        let sets: Vec<&str> = sets.iter().collect();
        page.labelled_with(&metric, sets[0], "x", 1.0);
        page.labelled(&metric, sets[1], 1.0);
        let line = "m{l=\"a\\\"b\\\\c\\nd\u{e4}\",k=\"x\"} 1\n";
        assert_eq!(page.finish(), line.repeat(3));
    }

    #[test]
    fn numbers_are_written_as_both_forms_read_them() {
        let metric = Metric { name: "m", kind: Kind::Gauge, labels: &[], help: "" };
        for (number, written) in [
            (0.0, "0"),
            (-3.0, "-3"),
            (1.5, "1.5"),
            (9_007_199_254_740_991.0, "9007199254740991"),
            (1e-7, "0.0000001"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            let mut page = Page::new(Format::OpenMetrics, 0);
            page.sample(&metric, &[], number);
            assert_eq!(page.finish(), format!("m {written}\n# EOF\n"));
        }
    }

    #[test]
    fn the_form_is_the_one_that_is_wanted_most() {
        use Format::{OpenMetrics, Text};
        for (accept, format) in [
            ("", Text),
            ("*/*", Text),
            ("text/plain", Text),
            ("application/openmetrics-text", OpenMetrics),
            ("application/openmetrics-text; version=1.0.0", OpenMetrics),
            ("application/openmetrics-text;version=2.0.0, text/plain;q=0.5", Text),
            ("application/openmetrics-text;version=0.0.1;q=0.9,text/plain;version=0.0.4;q=0.4", Text),
            ("application/openmetrics-text;q=0.3,text/plain;q=0.5", Text),
            // Prometheus 2.42 and 3.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=1.0.0;q=0.4,\
                 text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                OpenMetrics,
            ),
        ] {
            assert_eq!(Format::of_accept(accept), format, "{accept}");
        }
    }

    #[test]
    fn every_family_of_openmetrics_has_its_name_for_itself() {
        let mut names = std::collections::BTreeSet::new();
        for metric in catalogue::ALL {
            assert!(names.insert(family(metric).0), "{} has a namesake", metric.name);
        }
    }

    #[test]
    fn a_family_whose_name_ends_in_a_unit_says_so_in_openmetrics() {
        let head = |name: &'static str, kind, format| {
            let mut page = Page::new(format, 0);
            page.head(&Metric { name, kind, labels: &[], help: "H." });
            page.finish()
        };
        let written = "# HELP age_seconds H.\n# TYPE age_seconds gauge\n# UNIT age_seconds seconds\n# EOF\n";
        assert_eq!(head("age_seconds", Kind::Gauge, Format::OpenMetrics), written);
        assert!(!head("age_seconds", Kind::Gauge, Format::Text).contains("UNIT"));
        assert!(head("sent_bytes_total", Kind::Counter, Format::OpenMetrics).contains("\n# UNIT sent_bytes bytes\n"));
        for name in ["seconds", "milliseconds", "requests", "seconds_left"] {
            assert!(!head(name, Kind::Gauge, Format::OpenMetrics).contains("UNIT"), "{name}");
        }
    }

    #[test]
    fn what_the_facade_has_rendered_is_converted() {
        let rendered = format!(
            "# HELP {0} Reloads.\n# TYPE {0} counter\n{0}{{result=\"applied\"}} 1\n\n# TYPE other gauge\nother 2\n\n",
            catalogue::RELOADS.name
        );
        let mut page = Page::new(Format::OpenMetrics, 0);
        page.append(&rendered);
        assert_eq!(
            page.finish(),
            "# HELP ringway_reloads Reloads.\n# TYPE ringway_reloads counter\n\
             ringway_reloads_total{result=\"applied\"} 1\n# TYPE other gauge\nother 2\n# EOF\n"
        );
        let mut page = Page::new(Format::Text, 0);
        page.append(&rendered);
        assert_eq!(page.finish(), rendered);
    }
}
