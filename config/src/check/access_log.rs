//! What a line of the access log has: fields by choice, or a text with fields in it.

use super::text::is_token;
use crate::diagnostic::{At, closest};
use crate::findings::Findings;
use crate::model::{LOG_FIELDS, LogLine, LogPart, LogSource};
use crate::schema::{self, AccessLogFormat};
use std::collections::HashMap;

/// As Apache and nginx write it.
const COMBINED: &str = "{client} - - [{time_clf}] \"{method} {target} {protocol}\" {status} {sent_bytes} \
                        \"{header:referer}\" \"{header:user-agent}\"";
/// Texts and fields of a template.
const PARTS_MAX: usize = 256;
/// Fields of an object.
const FIELDS_MAX: usize = 128;

pub(super) fn line(section: &schema::AccessLogSection, findings: &mut Findings) -> LogLine {
    let format = section.format.value;
    let (fields, template) = (&section.fields, section.template.as_ref());
    let has_fields = !fields.value.is_empty();
    if has_fields && format != AccessLogFormat::Json {
        let help = "write `format: json`, or a `template` for `format: text`";
        findings.error(fields.place, "unused_log_fields", "`fields` are those of a JSON object", help);
    }
    if let Some(template) = template.filter(|_| format != AccessLogFormat::Text) {
        let help = "write `format: text`, or `fields` for `format: json`";
        findings.error(template.place, "unused_template", "a `template` is that of a line of text", help);
    }
    match format {
        AccessLogFormat::Json if has_fields => {
            bounded(&fields.value, findings);
            let named = |at: &At<String>| Some((at.value.clone(), source(&at.value, at, findings)?));
            LogLine::Json(fields.value.iter().filter_map(named).collect())
        }
        AccessLogFormat::Text => template.map_or(LogLine::Usual, |at| LogLine::Text(parts(&at.value, at, findings))),
        AccessLogFormat::Combined => {
            // Its fields are known.
            let at = At { value: COMBINED.to_owned(), place: section.format.place };
            LogLine::Text(parts(COMBINED, &at, findings))
        }
        AccessLogFormat::Off | AccessLogFormat::Json => LogLine::Usual,
    }
}

/// Fields of an object are as many as may be, and have a name each of their own.
fn bounded(fields: &[At<String>], findings: &mut Findings) {
    if let Some(at) = fields.get(FIELDS_MAX) {
        let found = format!("an object of the access log has {FIELDS_MAX} fields at most, not {}", fields.len());
        findings.error(at.place, "too_many_log_fields", found, "leave fields out from here on");
    }
    let mut lines = HashMap::new();
    for at in fields.iter().take(FIELDS_MAX) {
        if let Some(line) = lines.insert(at.value.to_ascii_lowercase(), at.place.line) {
            let found = format!("the field {:?} is already chosen in line {line}", at.value);
            findings.error(at.place, "duplicate_log_field", found, "leave it out here");
        }
    }
}

/// A field by its name: one of the list, `user_agent` and `host` for what is known by these names, or `header:NAME`.
fn source(name: &str, at: &At<String>, findings: &mut Findings) -> Option<LogSource> {
    let header = match name {
        "user_agent" => Some("user-agent"),
        "host" => Some("host"),
        name => name.strip_prefix("header:"),
    };
    if let Some(header) = header {
        if is_token(header) {
            return Some(LogSource::Header(header.to_ascii_lowercase()));
        }
        let help = "write for example `header:user-agent`";
        findings.error(at.place, "bad_header", format!("{header:?} is no name of a header field"), help);
        return None;
    }
    if let Some(field) = LOG_FIELDS.iter().find(|field| **field == name) {
        return Some(LogSource::Field(field));
    }
    let help = match closest(name, LOG_FIELDS.iter().copied().chain(["user_agent", "host"])) {
        Some(field) => format!("write `{field}`"),
        None => format!("the fields are `{}`, `user_agent`, `host` and `header:NAME`", LOG_FIELDS.join("`, `")),
    };
    findings.error(at.place, "unknown_log_field", format!("the access log has no field {name:?}"), help);
    None
}

/// `{name}` is a field, `{{` and `}}` are braces, all else is as it is.
fn parts(template: &str, at: &At<String>, findings: &mut Findings) -> Vec<LogPart> {
    let (mut parts, mut text, mut rest) = (Vec::new(), String::new(), template);
    let wrong = |findings: &mut Findings, what: &str| {
        let help = "write `{status}` for a field, `{{` and `}}` for braces";
        findings.error(at.place, "bad_template", what, help);
    };
    while let Some(brace) = rest.find(['{', '}']) {
        text.push_str(&rest[..brace]);
        let found = &rest[brace..];
        if found.starts_with("{{") || found.starts_with("}}") {
            text.push_str(&found[..1]);
            rest = &found[2..];
            continue;
        }
        let Some((name, behind)) = found.strip_prefix('{').and_then(|found| found.split_once('}')) else {
            wrong(findings, if found.starts_with('{') { "a `{` has no `}`" } else { "a `}` has no `{`" });
            return Vec::new();
        };
        if !text.is_empty() {
            parts.push(LogPart::Text(std::mem::take(&mut text)));
        }
        parts.extend(source(name, at, findings).map(LogPart::Value));
        rest = behind;
    }
    text.push_str(rest);
    if text.chars().chain(template.chars()).any(char::is_control) {
        wrong(findings, "a line has no ends of lines and no control characters within");
    }
    if !text.is_empty() {
        parts.push(LogPart::Text(text));
    }
    if parts.len() > PARTS_MAX {
        wrong(findings, "it has too many parts: 256 at most");
    }
    if template.is_empty() {
        wrong(findings, "the lines would be empty");
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load_str;

    fn checked(section: &str) -> Result<LogLine, Vec<(&'static str, String)>> {
        let text = format!(
            "access_log: {{ {section} }}\nservices: [ {{ name: s, backends: [ {{ id: a, address: \"127.0.0.1:9\" }} ] }} ]\nlisteners: [ {{ name: l, address: \"127.0.0.1:1\", service: s }} ]\n"
        );
        let loaded = load_str("t", &text, &|_| None).map(|loaded| loaded.config.access_log.line);
        loaded.map_err(|found| found.0.into_iter().map(|found| (found.code, found.message.to_string())).collect())
    }

    fn text(text: &str) -> LogPart {
        LogPart::Text(text.into())
    }

    #[test]
    fn a_template_is_its_texts_and_fields_in_their_order() {
        let line = checked(r#"format: text, template: "a{{b}} {status}{header:X-Y} {user_agent}|""#).unwrap();
        let field = |name| LogPart::Value(LogSource::Field(name));
        let header = |name: &str| LogPart::Value(LogSource::Header(name.into()));
        assert_eq!(
            line,
            LogLine::Text(vec![
                text("a{b} "),
                field("status"),
                header("x-y"),
                text(" "),
                header("user-agent"),
                text("|")
            ])
        );
        let LogLine::Text(combined) = checked("format: combined").unwrap() else { panic!() };
        assert_eq!(combined[..3], [LogPart::Value(LogSource::Field("client")), text(" - - ["), field("time_clf")]);
        let fields = checked("format: json, fields: [ status, \"header:X-Y\" ]").unwrap();
        let header = LogSource::Header("x-y".into());
        assert_eq!(
            fields,
            LogLine::Json(vec![("status".into(), LogSource::Field("status")), ("header:X-Y".into(), header)])
        );
        for section in ["format: json", "format: text", "format: \"off\""] {
            assert_eq!(checked(section), Ok(LogLine::Usual));
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (section, code) in [
            ("format: text, template: \"{stats}\"", "unknown_log_field"),
            ("format: text, template: \"{\"", "bad_template"),
            ("format: text, template: \"}x\"", "bad_template"),
            ("format: text, template: \"\"", "bad_template"),
            ("format: text, template: \"a\\nb\"", "bad_template"),
            ("format: text, template: \"{header:a b}\"", "bad_header"),
            ("format: text, template: \"{header:}\"", "bad_header"),
            ("format: json, template: \"{status}\"", "unused_template"),
            ("format: combined, template: \"{status}\"", "unused_template"),
            ("format: text, fields: [ status ]", "unused_log_fields"),
            ("format: json, fields: [ stauts ]", "unknown_log_field"),
            ("format: json, fields: [ status, client, status ]", "duplicate_log_field"),
            ("format: json, fields: [ \"header:x-a\", \"header:X-A\" ]", "duplicate_log_field"),
        ] {
            let found = checked(section).unwrap_err();
            assert_eq!(found.iter().map(|found| found.0).collect::<Vec<_>>(), [code], "{section}: {found:?}");
        }
        let many = format!("format: text, template: \"{}\"", "{status} ".repeat(PARTS_MAX));
        assert_eq!(checked(&many).unwrap_err()[0].0, "bad_template");
        let fields = |count: usize| {
            let names: Vec<String> = (0..count).map(|number| format!("\"header:x-{number}\"")).collect();
            checked(&format!("format: json, fields: [ {} ]", names.join(", ")))
        };
        assert!(fields(FIELDS_MAX).is_ok());
        assert_eq!(
            fields(FIELDS_MAX + 1).unwrap_err().iter().map(|found| found.0).collect::<Vec<_>>(),
            ["too_many_log_fields"]
        );
    }
}
