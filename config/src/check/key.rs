//! Hash keys: where they come from.

use super::text::{header_name, nonempty};
use crate::decode::List;
use crate::diagnostic::At;
use crate::diagnostic::Place;
use crate::findings::Findings;
use crate::model::{Capture, KeySource};
use crate::schema;
use regex::bytes::{Regex, RegexBuilder};

/// Compiled size of an expression at most: bounds its memory, and the time of a search per byte.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// The sources of a list.
pub(super) fn sources(at: &At<List<schema::KeySection>>, findings: &mut Findings) -> Vec<KeySource> {
    if at.value.is_empty() && !at.value.lost {
        findings.error(at.place, "empty_hash_key", "there is no source of a key", "add one: `- { header: x-user-id }`");
    }
    at.value.iter().filter_map(|key| key_source(key, findings)).collect()
}

/// The sources that both kinds of key sections have.
macro_rules! plain_sources {
    ($section:expr, $findings:expr) => {{
        let section = $section;
        let mut sources = Vec::new();
        sources.extend(section.header.as_ref().map(|at| KeySource::Header(header_name(at, $findings))));
        sources.extend(section.cookie.as_ref().map(|at| KeySource::Cookie(nonempty(at, "a cookie's name", $findings))));
        sources
            .extend(section.query.as_ref().map(|at| KeySource::Query(nonempty(at, "a parameter's name", $findings))));
        sources.extend(section.source_ip.as_ref().map(|at| KeySource::SourceIp {
            v4_bits: at.value.v4_bits.value.0 as u8,
            v6_bits: at.value.v6_bits.value.0 as u8,
        }));
        sources.extend(section.path.as_ref().map(|at| KeySource::Path { depth: at.value.depth.value.0 as usize }));
        if let Some(at) = &section.regex {
            // What is wrong has been said; something must stand for it, or the count would be wrong as well.
            sources.push(regex_source(at, $findings).unwrap_or(KeySource::Path { depth: 0 }));
        }
        sources.extend(section.uri.as_ref().map(|_| KeySource::Uri));
        sources.extend(section.host.as_ref().map(|_| KeySource::Host));
        sources.extend(section.method.as_ref().map(|_| KeySource::Method));
        sources.extend(section.sni.as_ref().map(|_| KeySource::Sni));
        sources
    }};
}

fn key_source(at: &At<schema::KeySection>, findings: &mut Findings) -> Option<KeySource> {
    let mut sources = plain_sources!(&at.value, findings);
    if let Some(all) = &at.value.all {
        let parts: Vec<KeySource> = all
            .value
            .iter()
            .filter_map(|part| {
                let sources = plain_sources!(&part.value, findings);
                exactly_one(sources, part.place, findings)
            })
            .collect();
        if all.value.is_empty() && !all.value.lost {
            findings.error(
                all.place,
                "empty_hash_key",
                "there is no part of a key",
                "add some: `all: [ { host: {} }, { path: {} } ]`",
            );
        }
        sources.push(KeySource::All(parts));
    }
    exactly_one(sources, at.place, findings)
}

fn exactly_one(mut sources: Vec<KeySource>, place: Place, findings: &mut Findings) -> Option<KeySource> {
    if sources.is_empty() && findings.is_lost(place) {
        return None;
    }
    if sources.len() != 1 {
        findings.error(
            place,
            "one_key_source",
            format!("{} sources where there must be one", sources.len()),
            "write one list entry for each source; `all: [ ... ]` joins several",
        );
        return None;
    }
    sources.pop()
}

/// What an expression captures of one source.
fn regex_source(at: &At<schema::RegexSection>, findings: &mut Findings) -> Option<KeySource> {
    let section = &at.value;
    let mut sources = Vec::new();
    sources.extend(section.header.as_ref().map(|at| KeySource::Header(header_name(at, findings))));
    sources.extend(section.cookie.as_ref().map(|at| KeySource::Cookie(nonempty(at, "a cookie's name", findings))));
    sources.extend(section.query.as_ref().map(|at| KeySource::Query(nonempty(at, "a parameter's name", findings))));
    sources.extend(section.host.as_ref().map(|_| KeySource::Host));
    sources.extend(section.uri.as_ref().map(|_| KeySource::Uri));
    sources.extend(section.path.as_ref().map(|_| KeySource::Path { depth: 0 }));
    if sources.len() > 1 {
        findings.error(
            at.place,
            "one_key_source",
            format!("{} sources where there must be one", sources.len()),
            "keep one; without any it is the path",
        );
        return None;
    }
    let regex = regex(&section.pattern, findings)?;
    if regex.captures_len() < 2 {
        findings.error(
            section.pattern.place,
            "no_capture",
            format!("`{}` captures nothing", section.pattern.value),
            "put brackets around the part that is the key: `^/users/([^/]+)`",
        );
        return None;
    }
    let source = sources.pop().unwrap_or(KeySource::Path { depth: 0 });
    Some(KeySource::Regex(Box::new(source), Capture(regex)))
}

/// Compiles an expression.
pub(super) fn regex(at: &At<String>, findings: &mut Findings) -> Option<Regex> {
    match RegexBuilder::new(&at.value).size_limit(REGEX_BYTES_MAX).build() {
        Ok(regex) => Some(regex),
        Err(error) => {
            let why = error.to_string();
            // The library draws the place under the pattern; its last line says why.
            let why = why.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned();
            findings.error(
                at.place,
                "bad_regex",
                format!("`{}` is not a regular expression: {why}", at.value),
                "write it as Rust's and Go's libraries do: no look-around, no back-references",
            );
            None
        }
    }
}
