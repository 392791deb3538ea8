//! Every malformed file is refused with a message that names place and remedy: the messages are kept in `testdata/bad`.
//! A message that changes on purpose is written anew by `cargo run -p ringway-config --example golden`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use proptest::prelude::*;
use ringway_config::{Severity, load_str};
use std::path::Path;

fn environment(name: &str) -> Option<String> {
    (name == "SET").then(|| "from-env".to_owned())
}

#[test]
fn messages_are_the_golden_ones() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/bad");
    let mut checked = 0;
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let found = load_str(name, &text, &environment).expect_err(name);
        let golden = std::fs::read_to_string(path.with_extension("txt")).unwrap();
        assert_eq!(format!("{found}\n"), golden, "{name}");
        // The file's own name says which finding must be among them.
        let code = name.trim_end_matches(".yaml").split('-').next().unwrap();
        assert!(found.0.iter().any(|finding| finding.code == code), "{name}: {found}");
        for finding in found.0.iter().filter(|finding| finding.severity == Severity::Error && finding.code != "syntax")
        {
            assert!(finding.line > 0 && finding.column > 0 && finding.help.is_some(), "{name}: {finding}");
        }
        checked += 1;
    }
    assert!(checked >= 25, "only {checked} files");
}

const MINIMAL: &str = "\
listeners:
  - name: web
    address: \"0.0.0.0:8080\"
    service: api
services:
  - name: api
    backends:
      - { id: api-1, address: \"10.0.0.11:8080\" }
      - { id: api-2, address: \"10.0.0.12:8080\" }
";

#[test]
fn one_listener_and_two_backends_are_ten_lines() {
    assert!(MINIMAL.lines().count() <= 10);
    let loaded = load_str("minimal", MINIMAL, &environment).unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert_eq!(loaded.config.services[0].backends.len(), 2);
}

/// [`MINIMAL`] with more in its service.
fn service(more: &str) -> String {
    MINIMAL.replace("    backends:", &format!("    {more}\n    backends:"))
}

#[test]
fn tries_that_can_come_about_are_taken_without_a_warning() {
    for more in [
        "hedge: { after: 999ms }\n    timeouts: { request: 1s }",
        "hedge: { after: 1s, budget: 0, budget_min: 1 }",
        "retry: { attempts: 0, budget: 0, budget_min: 0 }\n    limits: { retries_max: 0 }",
        "retry: { budget: 0, budget_min: 1000, body_bytes_max: 16MiB, same_backend: always }",
        "retry: { per_try_timeout: 1s, backoff: 3s }\n    timeouts: { request: 2s }",
        "balance: { policy: peak_ewma, penalty: 1ms, retry_after_max: 0 }",
    ] {
        let loaded = load_str("likely", &service(more), &environment).unwrap_or_else(|error| panic!("{error}"));
        assert!(loaded.warnings.is_empty(), "{more}: {:?}", loaded.warnings);
    }
}

#[test]
fn unlikely_files_are_taken_with_a_warning() {
    for (code, text) in [
        (
            "unreachable_route",
            MINIMAL.replace("service: api", "routes: [ { service: api }, { match: { path: /x }, service: api } ]"),
        ),
        (
            "unused_hash_key",
            MINIMAL.replace(
                "    backends:",
                "    balance: { policy: round_robin, hash_key: [ { path: {} } ] }\n    backends:",
            ),
        ),
        (
            "prefix_is_no_wall",
            MINIMAL.replace(
                "service: api",
                "routes: [ { match: { path_prefix: /admin }, redirect: { path: /login } }, { service: api } ]",
            ),
        ),
        (
            "literal_wildcard",
            MINIMAL.replace("service: api", "routes: [ { match: { path: \"/a*\" }, service: api }, { service: api } ]"),
        ),
        ("bare_variable", MINIMAL.replace("    backends:", "    balance: { seed: \"$SEED\" }\n    backends:")),
        ("shared_address", MINIMAL.replace("10.0.0.12", "10.0.0.11")),
        ("shared_address", MINIMAL.replace(":8080\" }", ":8080\", additional_address: \"[fd00::1]:8080\" }")),
        (
            "insecure_cookie",
            MINIMAL.replace(
                "    backends:",
                "    balance: { affinity_cookie: { name: __Host-sid, secret: 0123456789abcdef } }\n    backends:",
            ),
        ),
        ("nothing_takes_traffic", MINIMAL.replace(":8080\" }", ":8080\", weight: 0 }")),
        (
            "admin_in_the_clear",
            format!(
                "admin: {{ address: \"0.0.0.0:9901\", tokens: [ {{ name: a, role: read, file: a }} ] }}\n{MINIMAL}"
            ),
        ),
        ("late_hedge", service("hedge: { after: 1s }\n    timeouts: { request: 1s }")),
        ("late_hedge", service("hedge: { after: 2s }\n    retry: { per_try_timeout: 500ms }")),
        ("late_hedge", service("hedge: { after: 30s }")),
        (
            "late_hedge",
            service("hedge: { after: 1s }").replace(
                "service: api",
                "routes: [ { match: { path: /x }, service: api, timeout: 900ms }, { service: api } ]",
            ),
        ),
        ("unused_hedge", service("hedge: { after: 1s, budget: 0 }")),
        ("high_budget_min", service("hedge: { after: 1s, budget_min: 100000 }")),
        ("high_budget_min", service("retry: { budget_min: 1001 }")),
        ("unused_retries", service("retry: { budget: 0, budget_min: 0 }")),
        ("unused_retries", service("limits: { retries_max: 0 }")),
        ("late_retry", service("retry: { per_try_timeout: 2s }\n    timeouts: { request: 2s }")),
        ("late_retry", service("retry: { backoff: 10s }\n    timeouts: { request: 5s }")),
        (
            "timeout_above_interval",
            MINIMAL.replace("    backends:", "    health: { tcp: {}, interval: 1s, timeout: 2s }\n    backends:"),
        ),
    ] {
        let loaded = load_str("unlikely", &text, &environment).unwrap_or_else(|error| panic!("{error}"));
        let codes: Vec<&str> = loaded.warnings.iter().map(|warning| warning.code).collect();
        assert_eq!(codes, [code], "{text}");
    }
}

#[test]
fn backends_that_share_addresses_are_warned_of_once_with_their_number() {
    let of = |count: usize| {
        let backends = (0..count).map(|id| format!("{{ id: b{id}, address: \"10.0.0.1:80\" }}, "));
        let text = format!(
            "listeners: [ {{ name: web, address: \"0.0.0.0:8080\", service: s }} ]\n\
             services: [ {{ name: s, backends: [ {} ] }} ]\n",
            backends.collect::<String>()
        );
        let loaded = load_str("shared", &text, &environment).unwrap_or_else(|error| panic!("{error}"));
        loaded.warnings.into_iter().map(|warning| warning.message).collect::<Vec<_>>()
    };
    for (count, more) in
        [(2, "healths"), (3, "; 1 more has another's address too"), (10_000, "; 9998 more have another's address too")]
    {
        let warnings = of(count);
        assert!(
            warnings.len() == 1 && warnings[0].ends_with(more),
            "{count}: {} {:?}",
            warnings.len(),
            warnings.first()
        );
    }
}

#[test]
fn services_that_replace_each_others_cookie_are_told_apart_from_those_that_do_not() {
    let file = |routes: &str, first: &str, second: &str| {
        let service = |name: &str, cookie: &str| {
            format!(
                "  - {{ name: {name}, balance: {{ affinity_cookie: {{ {cookie}, secret: 0123456789abcdef }} }}, \
                 backends: [ {{ id: a, address: \"10.0.0.1:80\" }} ] }}\n"
            )
        };
        format!(
            "listeners:\n  - {{ name: web, address: \"0.0.0.0:8080\", routes: [ {routes} ] }}\n\
             services:\n{}{}",
            service("a", first),
            service("b", second)
        )
    };
    let paths = "{ match: { path: /a }, service: a }, { service: b }";
    let hosts = "{ match: { host: a.test }, service: a }, { match: { host: b.test }, service: b }";
    for (routes, first, second, meet) in [
        (paths, "name: sid", "name: sid", true),
        (paths, "ttl: 0", "ttl: 0", false),
        (paths, "name: sid", "name: tid", false),
        (paths, "name: sid, path: /a", "name: sid", false),
        (paths, "name: sid, domain: test", "name: sid", false),
        (hosts, "name: sid", "name: sid", false),
        (hosts, "name: sid, domain: test", "name: sid, domain: .test", true),
        (
            "{ match: { host: \"*.test\", path: /a }, service: a }, { match: { host: b.test }, service: b }",
            "name: sid",
            "name: sid",
            true,
        ),
        // The first route takes all of its host.
        ("{ match: { host: a.test }, service: a }, { service: b }", "name: sid", "name: sid", false),
        ("{ match: { host: a.test, method: GET }, service: a }, { service: b }", "name: sid", "name: sid", true),
        ("{ split: [ { service: a }, { service: b } ] }", "name: sid", "name: sid", false),
        (
            "{ match: { path: /a }, service: a }, { split: [ { service: a }, { service: b } ] }",
            "name: sid",
            "name: sid",
            true,
        ),
    ] {
        let loaded = load_str("cookies", &file(routes, first, second), &environment).unwrap_or_else(|e| panic!("{e}"));
        let codes: Vec<&str> = loaded.warnings.iter().map(|warning| warning.code).collect();
        assert_eq!(codes == ["shared_cookie"], meet, "{routes} {first} {second}: {codes:?}");
        assert!(meet || codes.is_empty(), "{routes}: {codes:?}");
    }
}

#[test]
fn variables_stand_for_values_and_bring_no_structure() {
    let text = MINIMAL.replace("id: api-1", "id: \"${SET}\"").replace("id: api-2", "id: \"${UNSET:-fallback}-$${x}\"");
    let loaded = load_str("variables", &text, &environment).unwrap();
    let ids: Vec<&str> = loaded.config.services[0].backends.iter().map(|backend| backend.id.as_str()).collect();
    assert_eq!(ids, ["from-env", "fallback-${x}"]);
    let evil = |_: &str| Some("a\", weight: 7, x: \"".to_owned());
    let refused = load_str("evil", &MINIMAL.replace("id: api-1", "id: \"${EVIL}\""), &evil).unwrap_err();
    assert_eq!(refused.0[0].code, "bad_name");
    let number = MINIMAL.replace("id: api-1", "weight: \"${WEIGHT:-250}\", id: api-1");
    assert_eq!(load_str("number", &number, &environment).unwrap().config.services[0].backends[0].weight, 250);
}

#[test]
fn a_route_that_does_what_the_last_one_does_is_no_wall_to_warn_of() {
    for routes in [
        "{ match: { path_prefix: /a }, service: api }, { service: api }",
        "{ match: { path_prefix: / }, redirect: { path: /login } }, { service: api }",
        "{ match: { path_prefix: /admin }, redirect: { path: /login } }, { match: { path_prefix: /app }, service: api }",
        "{ match: { path: /moved }, redirect: { path: /login } }, { service: api }",
    ] {
        let text = MINIMAL.replace("service: api", &format!("routes: [ {routes} ]"));
        let loaded = load_str("routes", &text, &environment).unwrap();
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    }
}

#[test]
fn text_is_what_is_written() {
    for written in ["0x1F", "1e3", "012", "+7", "1.10", "true", "yes", "2026-01-02", "1_000"] {
        let text = MINIMAL.replace("id: api-1", &format!("id: {written}"));
        let loaded = load_str("text", &text, &environment).unwrap();
        assert_eq!(loaded.config.services[0].backends[0].id, written);
    }
    let pepper = |name: &str| Some(if name == "PEPPER" { "pa$".to_owned() } else { "{salt}".to_owned() });
    let text = MINIMAL.replace("id: api-1", "id: \"${PEPPER}${SALT}\"").replace("id: api-2", "id: \"${A:-${B}}\"");
    let loaded = load_str("text", &text, &pepper).unwrap();
    assert_eq!(loaded.config.services[0].backends[0].id, "pa${salt}");
}

#[test]
fn example_names_every_field_and_shows_the_true_defaults() {
    let text = include_str!("../../config.example.yaml");
    let example = load_str("example", text, &environment).unwrap();
    assert!(example.warnings.is_empty(), "{:?}", example.warnings);
    let schema = ringway_config::json_schema();
    let mut names = std::collections::BTreeSet::new();
    let mut defaults = Vec::new();
    walk(&schema, &mut names, &mut defaults);
    for name in &names {
        assert!(text.contains(&format!("{name}:")), "the example does not name `{name}`");
    }
    // What the example shows for a field with a default is that default.
    for (name, default) in defaults {
        let shown = [format!("{name}: {default}"), format!("{name}: \"{default}\"")];
        assert!(shown.iter().any(|shown| text.contains(shown)), "the example does not show `{name}: {default}`");
    }
}

fn walk(
    schema: &serde_json::Value,
    names: &mut std::collections::BTreeSet<String>,
    defaults: &mut Vec<(String, String)>,
) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        names.insert(name.clone());
        if let Some(default) = property.get("default") {
            let text = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
            defaults.push((name.clone(), text));
        }
        walk(property, names, defaults);
        walk(&property["items"], names, defaults);
    }
}

#[test]
fn what_is_printed_from_the_schema_is_current() {
    let schema = serde_json::to_string_pretty(&ringway_config::json_schema()).unwrap() + "\n";
    let help = "run `cargo run -p ringway-config --example generate`";
    assert_eq!(schema, include_str!("../../config.schema.json"), "{help}");
    assert_eq!(ringway_config::reference(), include_str!("../../docs/config.md"), "{help}");
}

#[test]
fn bombs_are_refused_in_bounded_time() {
    let aliases: String = (1..30)
        .map(|level| format!("a{level}: &a{level} [*a{}, *a{}, *a{}]\n", level - 1, level - 1, level - 1))
        .collect();
    let bomb = format!("a0: &a0 [x, x]\n{aliases}listeners: []\nservices: []\n");
    assert!(load_str("aliases", &bomb, &environment).is_err());
    assert!(load_str("deep", &"[".repeat(100_000), &environment).is_err());
    assert!(load_str("deep", &"a:\n ".repeat(5_000), &environment).is_err());
    assert!(load_str("wide", &format!("{MINIMAL}{}", "x: 1\n"), &environment).is_err());
}

#[test]
fn large_fleets_are_read() {
    let mut text = MINIMAL.to_owned();
    for index in 0..10_000 {
        text.push_str(&format!(
            "      - {{ id: b{index}, address: \"10.{}.{}.1:80\", weight: 100 }}\n",
            index / 250,
            index % 250
        ));
    }
    assert_eq!(load_str("large", &text, &environment).unwrap().config.services[0].backends.len(), 10_002);
}

#[test]
fn differences_name_their_fields() {
    let load = |text: &str| load_str("diff", text, &environment).unwrap();
    let diff = |old: &str, new: &str| {
        let (old, new) = (load(old), load(new));
        ringway_config::changes((&old.config, &old.origin), (&new.config, &new.origin), &environment)
    };
    let new = MINIMAL
        .replace("10.0.0.12:8080\"", "10.0.0.12:8081\", weight: 50")
        .replace("id: api-1", "id: api-3")
        .replace("address: \"0.0.0.0:8080\"", "address: \"0.0.0.0:8080\"\n    connections_max: 5");
    let changed = diff(MINIMAL, &format!("workers: 3\n{new}"));
    assert_eq!(
        changed.changes,
        [
            "listeners.web.connections_max 0 -> 5",
            "services.api.backends.api-1 removed",
            "services.api.backends.api-3 added",
            "services.api.backends.api-2.address 10.0.0.12:8080 -> 10.0.0.12:8081",
            "services.api.backends.api-2.weight 100 -> 50",
        ]
    );
    assert_eq!(changed.needs_restart, ["workers 0 -> 3"]);
    assert!(diff(MINIMAL, MINIMAL).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_text_panics(text in ".{0,200}") {
        let _ = load_str("any", &text, &environment).map_err(|error| error.to_string());
    }

    #[test]
    fn no_mutation_of_a_good_file_panics(at in any::<prop::sample::Index>(), len in 0..20_usize, insert in "[-:{}\\[\\]\"'a-z0-9 \n\t&*!|>%@`$#,?]{0,8}") {
        let mut text = include_str!("../../config.example.yaml").to_owned();
        let boundaries: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        let begin = at.index(boundaries.len());
        let end = (begin + len).min(boundaries.len() - 1).max(begin);
        text.replace_range(boundaries[begin]..boundaries[end], &insert);
        let _ = load_str("mutated", &text, &environment).map_err(|error| error.to_string());
    }
}
