//! What a route does with requests and responses beside sending them on.

use super::health::status_range;
use super::names::{Names, service_index};
use super::text::{editable_name, header_value, is_token, path_text};
use crate::diagnostic::At;
use crate::findings::Findings;
use crate::limits;
use crate::model::{self, Actions, ContentCoding, FieldEdits, PathMatch};
use crate::schema;
use regex::bytes::Regex;
use std::path::Path;

/// `None`: nothing but sending on.
pub(super) fn actions(
    section: &schema::RouteSection,
    path: Option<&PathMatch>,
    services: &Names<'_>,
    findings: &mut Findings,
) -> Option<Box<Actions>> {
    let actions = Actions {
        redirect: section.redirect.as_ref().map(|at| redirect(at, findings)),
        rewrite: section.rewrite.as_ref().and_then(|at| rewrite(at, path, findings)),
        request: edits(&section.request_headers.value, true, findings),
        response: edits(&section.response_headers.value, false, findings),
        timeout: section.timeout.as_ref().map(|at| at.value),
        body_bytes_max: section.body_bytes_max.as_ref().map(|at| at.value.0),
        cors: section.cors.as_ref().map(|at| cors(at, findings)),
        mirror: section.mirror.as_ref().and_then(|at| {
            let service = service_index(&at.value.service, services, findings)?;
            Some(model::Mirror { service, percent: at.value.percent.value.0 })
        }),
        compress: section.compress.as_ref().map(|at| Box::new(compress(at, findings))),
    };
    (actions != Actions::default()).then(|| Box::new(actions))
}

fn redirect(at: &At<Box<schema::RedirectSection>>, findings: &mut Findings) -> model::Redirect {
    let section = &at.value;
    let status = section.status.value.0 as u16;
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        findings.error(
            section.status.place,
            "bad_redirect",
            format!("{status} is no redirection"),
            "write 301, 302, 303, 307 or 308",
        );
    }
    if section.scheme.is_none() && section.host.is_none() && section.port.is_none() && section.path.is_none() {
        findings.absent(
            at.place,
            "empty_redirect",
            "the redirection leads to where it comes from",
            "write for example `{ scheme: https }`",
        );
    }
    let text = |at: &Option<At<String>>, findings: &mut Findings| {
        at.as_ref().map(|at| {
            let text = header_value(at, findings);
            if text.is_empty() || text.contains([' ', '"', '<', '>']) {
                findings.error(
                    at.place,
                    "bad_redirect",
                    format!("`{text}` cannot be part of an address"),
                    "write it plainly",
                );
            }
            text
        })
    };
    model::Redirect {
        status,
        scheme: text(&section.scheme, findings),
        host: text(&section.host, findings),
        port: section.port.as_ref().map(|at| at.value.0 as u16),
        path: section.path.as_ref().and_then(|at| path_text(at, findings)),
    }
}

fn rewrite(
    at: &At<Box<schema::RewriteSection>>,
    path: Option<&PathMatch>,
    findings: &mut Findings,
) -> Option<model::Rewrite> {
    let section = &at.value;
    match (&section.prefix, &section.pattern, &section.to) {
        (Some(prefix), None, None) => {
            let to = path_text(prefix, findings)?;
            match path {
                Some(PathMatch::Prefix(from)) => Some(model::Rewrite::Prefix { from_len: from.len(), to }),
                Some(PathMatch::Exact(from)) => Some(model::Rewrite::Prefix { from_len: from.len(), to }),
                None => {
                    findings.error(
                        prefix.place,
                        "bad_rewrite",
                        "there is no path whose prefix could be replaced",
                        "add `match: { path_prefix: ... }`, or use `pattern` and `to`",
                    );
                    None
                }
            }
        }
        (None, Some(pattern), Some(to)) => match Regex::new(&pattern.value) {
            Ok(regex) => Some(model::Rewrite::Pattern(model::Capture(regex), header_value(to, findings))),
            Err(error) => {
                let reason = error.to_string();
                let reason = reason.lines().last().unwrap_or_default().trim();
                findings.error(
                    pattern.place,
                    "bad_regex",
                    format!("the regular expression does not compile: {reason}"),
                    "see https://docs.rs/regex for the syntax",
                );
                None
            }
        },
        _ => {
            findings.error(
                at.place,
                "bad_rewrite",
                "a rewrite is a `prefix`, or a `pattern` with `to`",
                "write for example `{ prefix: /new }` or `{ pattern: \"^/a/(.*)\", to: \"/b/$1\" }`",
            );
            None
        }
    }
}

fn edits(section: &schema::HeaderEditsSection, of_request: bool, findings: &mut Findings) -> FieldEdits {
    let mut edits = FieldEdits::default();
    for at in section.remove.value.iter() {
        let name = editable_name(at, findings);
        edits.drop.push(name);
    }
    for (at, replaces) in
        section.set.value.iter().map(|at| (at, true)).chain(section.add.value.iter().map(|at| (at, false)))
    {
        let name = editable_name(&at.value.name, findings);
        let value = header_value(&at.value.value, findings);
        if of_request && name == "host" {
            edits.host = Some(value);
            continue;
        }
        edits.lines.push_str(&format!("{name}: {value}\r\n"));
        if replaces {
            edits.drop.push(name);
        }
    }
    edits
}

fn cors(at: &At<Box<schema::CorsSection>>, findings: &mut Findings) -> model::Cors {
    let section = &at.value;
    let mut origins: Vec<String> = section.origins.value.iter().map(|at| header_value(at, findings)).collect();
    // A page's origin is looked up among them.
    origins.sort_unstable();
    origins.dedup();
    let any = origins.iter().any(|origin| origin == "*");
    if any && section.credentials.value {
        findings.error(
            section.credentials.place,
            "bad_cors",
            "browsers refuse credentials for any origin",
            "name the origins, or remove `credentials`",
        );
    }
    if origins.is_empty() {
        findings.error(
            section.origins.place,
            "bad_cors",
            "no origin is allowed",
            "write `[ \"https://app.example.com\" ]`",
        );
    }
    let mut list = |list: &[At<String>]| {
        let names: Vec<&str> = list
            .iter()
            .map(|at| {
                if !is_token(&at.value) {
                    findings.error(
                        at.place,
                        "bad_cors",
                        format!("`{}` is not a name", at.value),
                        "write the plain name",
                    );
                }
                at.value.as_str()
            })
            .collect();
        names.join(", ")
    };
    let (methods, headers) = (list(&section.methods.value), list(&section.headers.value));
    let expose = list(&section.expose.value);
    let credentials = if section.credentials.value { "access-control-allow-credentials: true\r\n" } else { "" };
    let field = |name: &str, value: &str| if value.is_empty() { String::new() } else { format!("{name}: {value}\r\n") };
    model::Cors {
        any,
        origins,
        preflight: format!(
            "{}{}access-control-max-age: {}\r\n{credentials}",
            field("access-control-allow-methods", &methods),
            field("access-control-allow-headers", &headers),
            section.max_age.value.as_secs(),
        ),
        answer: format!("{}{credentials}", field("access-control-expose-headers", &expose)),
    }
}

/// What is compressed where nothing else is said: text, and formats that are text.
const COMPRESSED_TYPES: [&str; 12] = [
    "text/",
    "application/javascript",
    "application/json",
    "application/ld+json",
    "application/manifest+json",
    "application/problem+json",
    "application/wasm",
    "application/xhtml+xml",
    "application/xml",
    "application/atom+xml",
    "application/rss+xml",
    "image/svg+xml",
];

pub(super) fn compress(at: &At<schema::CompressSection>, findings: &mut Findings) -> model::Compress {
    let section = &at.value;
    let mut algorithms = Vec::new();
    match &section.algorithms {
        None => algorithms.extend([ContentCoding::Zstd, ContentCoding::Brotli, ContentCoding::Gzip]),
        Some(list) => {
            for at in list.value.iter() {
                let coding = match at.value {
                    schema::CodingName::Zstd => ContentCoding::Zstd,
                    schema::CodingName::Brotli => ContentCoding::Brotli,
                    schema::CodingName::Gzip => ContentCoding::Gzip,
                };
                if !algorithms.contains(&coding) {
                    algorithms.push(coding);
                }
            }
        }
    }
    let types = match &section.types {
        None => COMPRESSED_TYPES.iter().map(|name| (*name).to_owned()).collect(),
        Some(list) => list.value.iter().filter_map(|at| media_type(at, findings)).collect(),
    };
    model::Compress {
        algorithms,
        bytes_min: section.min_bytes.value.0,
        types,
        gzip_level: section.gzip_level.value.0 as u32,
        brotli_level: section.br_level.value.0 as u32,
        zstd_level: section.zstd_level.value.0 as u32,
        responses_max: section.responses_max.value.0 as usize,
    }
}

fn media_type(at: &At<String>, findings: &mut Findings) -> Option<String> {
    let text = at.value.to_ascii_lowercase();
    match text.split_once('/') {
        Some((kind, "*")) if is_token(kind) && kind != "*" => Some(format!("{kind}/")),
        Some((kind, subtype)) if is_token(kind) && is_token(subtype) && !text.contains('*') => Some(text),
        _ => {
            findings.error(
                at.place,
                "bad_media_type",
                format!("`{}` is not a content type", at.value),
                "write for example `application/json` or `text/*`, without parameters",
            );
            None
        }
    }
}

/// Responses that take the place of Ringway's own.
pub(super) fn error_answers(section: &schema::ListenerSection, findings: &mut Findings) -> Vec<model::ErrorPage> {
    let mut answers = Vec::new();
    for at in section.errors.value.iter() {
        let answer = &at.value;
        let statuses: Vec<(u16, u16)> =
            answer.status.value.iter().filter_map(|at| status_range(at, findings)).collect();
        let body = match (&answer.body, &answer.file) {
            (Some(body), None) => body.value.clone().into_bytes(),
            (None, Some(_)) if findings.detached => Vec::new(),
            (None, Some(file)) => match limits::read_bytes(Path::new(&file.value)) {
                Ok(body) => body,
                Err(error) => {
                    findings.error(
                        file.place,
                        "unreadable_file",
                        format!("cannot read {}: {error}", file.value),
                        "check its path and permissions",
                    );
                    continue;
                }
            },
            (None, None) if findings.is_lost(at.place) => continue,
            _ => {
                findings.error(
                    at.place,
                    "bad_error_answer",
                    "an answer is a `body` or a `file`",
                    "write one of the two",
                );
                continue;
            }
        };
        let content_type = header_value(&answer.content_type, findings);
        let file = answer.file.as_ref().map(|at| at.value.clone().into());
        answers.push(model::ErrorPage { statuses, content_type, body, file });
    }
    answers
}
