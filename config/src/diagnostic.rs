//! What is wrong, where, and what to write instead.

use serde::Serialize;
use std::cell::OnceCell;
use std::fmt;

/// Characters of a line that are shown.
const LINE_MAX: usize = 200;
/// Characters of a word that are told, by far more than a name or a file's path has.
const WORD_MAX: usize = 400;
/// Names of which people choose one.
const LISTED_MAX: usize = 40;

/// A place in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Place {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// Length in characters, for the caret; 0 is unknown.
    pub width: usize,
    /// Which text it is a place of, where several make up one configuration; 0 is the file.
    pub text: usize,
}

/// A value and where it stands; of a default, where the section stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) place: Place,
}

/// A text that places are in, and its name.
pub(crate) struct Text<'a> {
    pub(crate) file: &'a str,
    pub(crate) text: &'a str,
    /// Its lines, once somebody has asked for one: each is found without reading those before it again.
    lines: OnceCell<Vec<&'a str>>,
}

impl<'a> Text<'a> {
    pub(crate) fn new(file: &'a str, text: &'a str) -> Self {
        Self { file, text, lines: OnceCell::new() }
    }

    /// A line, counted from 1.
    fn line(&self, number: usize) -> Option<&'a str> {
        let lines = self.lines.get_or_init(|| self.text.lines().collect());
        lines.get(number.checked_sub(1)?).copied()
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is taken, but means something unlikely.
    Warning,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The file's name, as given.
    pub file: String,
    /// From 1; 0 if the finding has no place.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// How bad it is.
    pub severity: Severity,
    /// Stable machine-readable name.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
    #[serde(skip)]
    width: usize,
    /// See [`Place::text`].
    #[serde(skip)]
    pub(crate) text: usize,
    #[serde(skip)]
    source: Option<String>,
}

impl Diagnostic {
    pub(crate) fn new(
        severity: Severity,
        code: &'static str,
        place: Place,
        message: String,
        help: Option<String>,
    ) -> Self {
        Self {
            file: String::new(),
            line: place.line,
            column: place.column,
            severity,
            code,
            message: shortened(message),
            help: help.map(shortened),
            width: place.width,
            text: place.text,
            source: None,
        }
    }

    /// Fills in what only the texts know.
    pub(crate) fn locate(&mut self, texts: &[Text<'_>]) {
        let Some(text) = texts.get(self.text) else { return };
        text.file.clone_into(&mut self.file);
        self.source = text.line(self.line).map(str::to_owned);
    }
}

/// As rustc prints them: message, place, line, caret, help.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        writeln!(f, "{severity}[{}]: {}", self.code, self.message)?;
        let help = self.help.as_ref().map(|help| format!("help: {help}")).unwrap_or_default();
        let Some(source) = &self.source else {
            write!(f, "  --> {}", self.file)?;
            if self.line > 0 {
                write!(f, ":{}:{}", self.line, self.column)?;
            }
            return if help.is_empty() { Ok(()) } else { write!(f, "\n   = {help}") };
        };
        // Of a line without an end, what is around the place.
        let skipped = if self.column > LINE_MAX { self.column - LINE_MAX / 2 } else { 0 };
        let column = self.column.saturating_sub(1).saturating_sub(skipped);
        // A tab or a control character in the source would put the caret elsewhere.
        let shown = source.chars().skip(skipped).take(LINE_MAX);
        let source: String = shown.map(|c| if c.is_control() { ' ' } else { c }).collect();
        let margin = " ".repeat(self.line.to_string().len());
        let indent = " ".repeat(column);
        let rest = source.chars().count().saturating_sub(column).max(1);
        let caret = "^".repeat(self.width.clamp(1, rest));
        writeln!(f, "{margin}--> {}:{}:{}", self.file, self.line, self.column)?;
        writeln!(f, "{margin} |")?;
        writeln!(f, "{} | {source}", self.line)?;
        write!(f, "{margin} | {indent}{caret}")?;
        if help.is_empty() { Ok(()) } else { write!(f, " {help}") }
    }
}

/// What is told to people: a word without an end, which somebody's program has written, is told by both of its ends.
fn shortened(text: String) -> String {
    let is_long = |word: &str| word.len() > WORD_MAX && word.chars().count() > WORD_MAX;
    if !text.split(' ').any(is_long) {
        return text;
    }
    let words = text.split(' ').map(|word| match word.chars().count() {
        count if count > WORD_MAX => {
            let (first, last): (String, String) =
                (word.chars().take(WORD_MAX / 2).collect(), word.chars().skip(count - WORD_MAX / 4).collect());
            format!("{first}...({count} characters)...{last}")
        }
        _ => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Names in a row, for messages: not more than people read.
pub(crate) fn listed(names: &[&str]) -> String {
    let (first, others) = names.split_at(names.len().min(LISTED_MAX));
    let all = first.join("`, `");
    if others.is_empty() { format!("`{all}`") } else { format!("`{all}` and {} others", others.len()) }
}

/// Where in its file a part of the configuration stands, for what turns out to be wrong with it only when it is put to use.
///
/// No part of what the configuration means: all sites are equal and look alike, so that nothing changes that has only moved.
#[derive(Clone, Default)]
pub struct Site(Option<Box<Diagnostic>>);

impl Site {
    pub(crate) fn at(place: Place) -> Self {
        Self(Some(Box::new(Diagnostic::new(Severity::Error, "", place, String::new(), None))))
    }

    pub(crate) fn locate(&mut self, texts: &[Text<'_>]) {
        if let Some(finding) = &mut self.0 {
            finding.locate(texts);
        }
    }

    /// An error with what stands here.
    #[must_use]
    pub fn error(&self, code: &'static str, message: String, help: &str) -> Diagnostic {
        let help = Some(help.to_owned()).filter(|help| !help.is_empty());
        match &self.0 {
            Some(here) => Diagnostic { code, message, help, ..(**here).clone() },
            None => Diagnostic::new(Severity::Error, code, Place::default(), message, help),
        }
    }
}

impl PartialEq for Site {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Site {}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Site")
    }
}

/// Everything that was found in a refused file, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// The candidate that was probably meant.
pub(crate) fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.chars().count().max(word.chars().count()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, of words of at most 64 characters: what is longer counts as cut off there.
#[must_use]
pub fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, right) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closest_word_is_found_and_far_ones_are_not() {
        assert_eq!(closest("adress", ["id", "address", "weight"]), Some("address"));
        assert_eq!(closest("colour", ["id", "address", "weight"]), None);
    }

    #[test]
    fn words_are_as_far_apart_as_one_must_be_changed_to_be_the_other() {
        for (a, b, expected) in [
            ("", "", 0),
            ("abc", "", 3),
            ("abc", "abc", 0),
            ("abc", "abd", 1),
            ("abc", "xbc", 1),
            ("abc", "ac", 1),
            ("abc", "abcd", 1),
            ("kitten", "sitting", 3),
            ("saturday", "sunday", 3),
            ("ab", "ba", 2),
            ("abcdef", "uvwxyz", 6),
        ] {
            assert_eq!((distance(a, b), distance(b, a)), (expected, expected), "{a} {b}");
        }
        // A third of the longer one may differ, and the nearest is meant.
        assert_eq!(closest("abx", ["abc"]), Some("abc"));
        assert_eq!(closest("axx", ["abc"]), None);
        assert_eq!(closest("weighs", ["wexxht", "weight"]), Some("weight"));
    }

    #[test]
    fn what_has_no_end_is_shown_around_its_place_and_told_by_its_ends() {
        let line = format!("{}here{}", "x".repeat(5000), "y".repeat(5000));
        let place = Place { line: 1, column: 5001, width: 4, text: 0 };
        let message = format!("there is no {:?}, is there", "n".repeat(65_536));
        let mut found = Diagnostic::new(Severity::Error, "code", place, message, Some("short".to_owned()));
        found.locate(&[Text::new("file", &line)]);
        let text = found.to_string();
        let rows: Vec<&str> = text.lines().collect();
        assert!(rows[0].len() < 2 * WORD_MAX && rows[0].ends_with("nnn\", is there"), "{}", rows[0]);
        assert!(rows[0].contains("...(65539 characters)..."), "{}", rows[0]);
        assert_eq!(rows[1].trim(), "--> file:1:5001");
        assert!(rows.iter().all(|row| row.len() < 2 * WORD_MAX), "{text}");
        let at = rows[4].find('^').unwrap();
        assert_eq!(&rows[3][at..at + 4], "here", "{text}");
        assert_eq!(&rows[4][at..], "^^^^ help: short");
        // Short ones stay as they are, to the last letter.
        let exact = "é".repeat(WORD_MAX);
        assert_eq!((shortened(exact.clone()), shortened(format!("{exact}é")) == format!("{exact}é")), (exact, false));
        let names: Vec<String> = (0..1000).map(|at| at.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(
            (listed(&names[..2]).as_str(), listed(&names[..LISTED_MAX]).contains("others")),
            ("`0`, `1`", false)
        );
        assert!(listed(&names).ends_with("`39` and 960 others"), "{}", listed(&names));
    }

    #[test]
    fn what_is_found_later_says_the_place_that_it_is_about() {
        let place = Place { line: 2, column: 3, width: 4, text: 1 };
        let mut site = Site::at(place);
        site.locate(&[Text::new("file", "x"), Text::new("other", "one\n  four")]);
        let found = site.error("code", "message".to_owned(), "help");
        assert_eq!((found.file.as_str(), found.line, found.column, found.code), ("other", 2, 3, "code"));
        assert_eq!((found.message.as_str(), found.help.as_deref()), ("message", Some("help")));
        assert!(found.to_string().contains("2 |   four\n  |   ^^^^ help"), "{found}");
        assert_eq!(site.error("code", String::new(), "").help, None);
        let nowhere = Site::default().error("code", "message".to_owned(), "help");
        assert_eq!((nowhere.line, nowhere.message.as_str(), nowhere.help.as_deref()), (0, "message", Some("help")));
        assert!(site == Site::default() && format!("{site:?}") == format!("{:?}", Site::default()));
    }
}
