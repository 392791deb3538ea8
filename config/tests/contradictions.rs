//! Numbers that are right alone and contradict each other are told where they stand, with what to write instead.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use ringway_config::{Diagnostic, Severity, load_str};

/// A file with these fields of the process, the listener, the route and the service, and so many backends.
#[derive(Clone, Copy, Default)]
struct File<'a> {
    process: &'a str,
    listener: &'a str,
    route: &'a str,
    service: &'a str,
    backends: usize,
    /// Fields of the first backend.
    first: &'a str,
}

impl File<'_> {
    fn text(&self) -> String {
        let backends: Vec<String> = (0..self.backends)
            .map(|index| {
                let more = if index == 0 { self.first } else { "" };
                format!("{{ id: b{index}, address: \"10.0.0.{index}:80\"{more} }}")
            })
            .collect();
        format!(
            "{}\nlisteners:\n  - {{ name: web, address: \"0.0.0.0:8080\"{}, routes: [ {{ service: s{} }} ] }}\n\
             services:\n  - name: s\n    {}\n    backends: [ {} ]\n",
            self.process,
            self.listener,
            self.route,
            self.service,
            backends.join(", ")
        )
    }

    fn findings(&self) -> Vec<Diagnostic> {
        match load_str("file", &self.text(), &|_| None) {
            Ok(loaded) => loaded.warnings,
            Err(found) => found.0,
        }
    }
}

fn of_service(service: &str, backends: usize) -> File<'_> {
    File { service, backends, ..File::default() }
}

/// Exactly one thing is found: of this severity and code, where this text stands, and its help has that text.
fn finds(file: File<'_>, severity: Severity, code: &str, at: &str, help: &str) {
    let found = file.findings();
    let [finding] = &found[..] else { panic!("{}: {found:?}", file.text()) };
    assert_eq!((finding.severity, finding.code), (severity, code), "{finding}");
    let line = file.text().lines().nth(finding.line - 1).unwrap().to_owned();
    let rest = &line[finding.column - 1..];
    assert!(rest.starts_with(at), "it points at {rest:?}, not at {at:?}: {finding}");
    let said = finding.help.clone().unwrap_or_default();
    assert!(said.contains(help), "{said:?} does not say {help:?}");
}

fn is_clean(file: File<'_>) {
    let found = file.findings();
    assert!(found.is_empty(), "{}: {found:?}", file.text());
}

#[test]
fn limits_of_nothing_are_refused_with_what_to_write_instead() {
    for service in ["limits: { requests_max: 0 }", "limits: { connections_max: 0 }", "limits: { pending_max: 0 }"] {
        finds(of_service(service, 2), Severity::Error, "out_of_range", "0", "remove it, which is no limit");
    }
    for first in [", requests_max: 0", ", connections_max: 0", ", pending_max: 0"] {
        let file = File { backends: 2, first, ..File::default() };
        finds(file, Severity::Error, "out_of_range", "0", "remove it, which is no limit");
    }
    for service in [
        "balance: { bounded_load: { queue: { length_max: 0 } } }",
        "balance: { bounded_load: { min_slots: 0 } }",
        "health: { http: {}, rise: 0 }",
        "health: { http: {}, fall: 0 }",
        "health: { http: {}, concurrency: 0 }",
        "health: { http: {}, agent: { port: 0 } }",
        "outlier: { failure_percentage: { min_hosts: 0 } }",
        "slow_start: { initial_percent: 0 }",
    ] {
        finds(of_service(service, 5), Severity::Error, "out_of_range", "0", "from 1 to");
    }
    let retries = "limits: { retries_max: 0 }";
    finds(of_service(retries, 2), Severity::Warning, "unused_retries", "0", "write `attempts: 0`");
    is_clean(of_service("retry: { attempts: 0 }\n    limits: { retries_max: 0 }", 2));
}

#[test]
fn floors_above_their_ceilings_are_told() {
    let base = "outlier: { base_ejection: 10m }";
    finds(of_service(base, 2), Severity::Error, "out_of_range", "{ base_ejection", "write at least the base");
    let wish = "outlier: { retry_after_max: 10m }";
    finds(of_service(wish, 2), Severity::Warning, "floor_above_ceiling", "10m", "a longer `max_ejection`");
    is_clean(of_service("outlier: { retry_after_max: 5m }", 2));
    let slots = "balance: { bounded_load: { min_slots: 10 } }";
    let file = File { service: slots, backends: 2, first: ", requests_max: 5", ..File::default() };
    finds(file, Severity::Warning, "floor_above_ceiling", "5", "`min_slots: 5` or less");
    is_clean(File { first: ", requests_max: 10", ..file });
    is_clean(File { service: "balance: { bounded_load: { preset: off, min_slots: 10 } }", ..file });
    let file = File { service: "limits: { requests_max: 50 }", backends: 2, first: ", requests_max: 60", ..file };
    finds(file, Severity::Warning, "never_acts", "60", "write at most 50");
    let cookie = "balance: { affinity_cookie: { secret: 0123456789abcdef } }";
    let drain = format!("{cookie}\n    drain_ramp: 2m\n    drain_timeout: 1m");
    finds(of_service(&drain, 2), Severity::Warning, "floor_above_ceiling", "1m", "at least `drain_ramp`");
    is_clean(of_service(&format!("{cookie}\n    drain_ramp: 2m\n    drain_timeout: 2m"), 2));
    is_clean(of_service(&format!("{cookie}\n    drain_ramp: 2m"), 2));
    for (service, at) in [
        ("drain_timeout: 1m", "1m"),
        ("drain_timeout: 1m\n    balance: { affinity_cookie: { secret: 0123456789abcdef, on_drain: move } }", "1m"),
    ] {
        finds(of_service(service, 2), Severity::Warning, "without_effect", at, "or remove this");
    }
    let kept = |check: &str| format!("health: {{ {check}, reuse_connection: true }}");
    finds(of_service(&kept("tcp: {}"), 2), Severity::Warning, "without_effect", "true", "or remove this");
    is_clean(of_service(&kept("http: {}"), 2));
    is_clean(of_service("health: { tcp: {}, reuse_connection: false }", 2));
}

#[test]
fn detectors_that_can_never_act_are_told() {
    for (service, backends, help) in [
        ("outlier: { failure_percentage: {} }", 4, "`min_hosts: 4` or less"),
        ("outlier: { success_rate: { deviations: 1.0 } }", 4, "`min_hosts: 4` or less"),
        ("outlier: { latency: {} }", 2, "`min_hosts: 2` or less"),
    ] {
        finds(of_service(service, backends), Severity::Warning, "never_acts", "{", help);
        is_clean(of_service(service, 5));
    }
    let written = "outlier: { failure_percentage: { min_hosts: 7 } }";
    finds(of_service(written, 6), Severity::Warning, "never_acts", "7", "`min_hosts: 6` or less");
    // One without weight is none of them.
    let file = File { first: ", weight: 0", ..of_service("outlier: { failure_percentage: { min_hosts: 5 } }", 5) };
    finds(file, Severity::Warning, "never_acts", "5", "`min_hosts: 4` or less");
    // Of five numbers, none is further than two of their deviations from the mean.
    let far = "outlier: { success_rate: { deviations: 2 } }";
    finds(of_service(far, 5), Severity::Warning, "never_acts", "2", "write less than 2.00");
    is_clean(of_service(far, 6));
    let checks = "outlier: { return_on_check: true }";
    finds(of_service(checks, 2), Severity::Warning, "never_acts", "true", "add `health`");
    let panic = "panic_mode: fail\n    panic_threshold: 0";
    finds(of_service(panic, 2), Severity::Warning, "never_acts", "fail", "threshold above 0");
}

#[test]
fn queue_that_outlives_the_request_is_told() {
    let queue = |wait: &str, more: &str| {
        format!("balance: {{ bounded_load: {{ all_full: queue, queue: {{ timeout: {wait} }} }} }}\n    {more}")
    };
    let code = "queue_outlives_request";
    for whole in ["2s", "1s"] {
        let text = queue("2s", &format!("timeouts: {{ request: {whole} }}"));
        finds(of_service(&text, 2), Severity::Warning, code, "2s", "raise `timeouts.request`");
    }
    is_clean(of_service(&queue("2s", "timeouts: { request: 3s }"), 2));
    is_clean(of_service(&queue("2s", "timeouts: { request: 0 }"), 2));
    // Nobody waits.
    is_clean(of_service("balance: { bounded_load: { queue: { timeout: 2s } } }\n    timeouts: { request: 1s }", 2));
    let text = queue("2s", "");
    let file = File { route: ", timeout: 400ms", ..of_service(&text, 2) };
    finds(file, Severity::Warning, code, "400ms", "raise the route's `timeout`");
    is_clean(File { route: ", timeout: 4s", ..file });
}

#[test]
fn agent_where_the_traffic_goes_is_told() {
    let code = "agent_is_the_backend";
    for service in [
        "health: { http: {}, agent: { port: 80 } }",
        "health: { http: {}, agent: { port: 80, address: \"10.0.0.1\" } }",
        "health: { http: {}, port: 81, agent: { port: 81 } }",
    ] {
        let file = of_service(service, 2);
        let at = if service.contains("port: 81,") { "81" } else { "80" };
        finds(file, Severity::Warning, code, at, "the agent's port");
    }
    is_clean(of_service("health: { http: {}, agent: { port: 81 } }", 2));
    is_clean(of_service("health: { http: {}, agent: { port: 80, address: \"10.9.9.9\" } }", 2));
    is_clean(of_service("health: { http: {}, port: 81, agent: { port: 81, address: \"10.9.9.9\" } }", 2));
    let late = "health: { http: {}, agent: { port: 81, interval: 100ms, timeout: 2s } }";
    finds(of_service(late, 2), Severity::Warning, "timeout_above_interval", "2s", "a shorter `timeout`");
    for (text, at, code) in [
        ("interval: 1ms, timeout: 1ms", "1ms", "bad_duration"),
        ("timeout: 0", "0", "bad_duration"),
        ("address: localhost", "localhost", "bad_address"),
    ] {
        let text = format!("health: {{ http: {{}}, agent: {{ port: 81, {text} }} }}");
        finds(of_service(&text, 2), Severity::Error, code, at, "write for example");
    }
}

#[test]
fn limits_of_listeners_that_are_never_reached_are_told() {
    let file = |process, listener| File { process, listener, backends: 2, ..File::default() };
    for (process, listener, at) in [
        ("connections_max: 100", ", connections_max: 101", "101"),
        ("connections_max: 100", ", connections_per_ip_max: 101", "101"),
        ("", ", connections_max: 10, connections_per_ip_max: 11", "11"),
    ] {
        finds(file(process, listener), Severity::Warning, "never_acts", at, "write ");
    }
    is_clean(file("connections_max: 100", ", connections_max: 100, connections_per_ip_max: 100"));
    is_clean(file("", ", connections_max: 0, connections_per_ip_max: 0, when_full: reject"));
}

#[test]
fn half_a_certificate_of_checks_is_refused_and_one_that_is_missing_is_told() {
    let half = "health: { tcp: {}, tls: { certificate: a.pem } }";
    finds(of_service(half, 2), Severity::Error, "half_a_certificate", "a.pem", "write both");
    let traffic = "tls: { certificate: a.pem, key: a.key }\n    health: { tcp: {}, tls: { sni: x } }";
    let missing = |diagnostics: Vec<Diagnostic>| {
        diagnostics.iter().filter(|found| found.code == "check_without_certificate").count()
    };
    assert_eq!(missing(of_service(traffic, 2).findings()), 1);
    for fine in [
        "tls: { certificate: a.pem, key: a.key }\n    health: { tcp: {} }",
        "tls: { certificate: a.pem, key: a.key }\n    health: { tcp: {}, port: 81, tls: { sni: x } }",
        "tls: { certificate: a.pem, key: a.key }\n    health: { tcp: {}, tls: { certificate: b.pem, key: b.key } }",
    ] {
        assert_eq!(missing(of_service(fine, 2).findings()), 0, "{fine}");
    }
}

#[test]
fn limits_of_backends_beyond_their_services_are_told() {
    for name in ["requests_max", "connections_max", "pending_max"] {
        let (service, first) = (format!("limits: {{ {name}: 5 }}"), format!(", {name}: 10"));
        let file = File { service: &service, backends: 2, first: &first, ..File::default() };
        finds(file, Severity::Warning, "never_acts", "10", "write at most 5");
        let first = format!(", {name}: 5");
        is_clean(File { service: &service, backends: 2, first: &first, ..File::default() });
    }
}

#[test]
fn connections_that_are_shared_by_fewer_than_there_are_workers_are_told() {
    let file = |process, service, first| File { process, service, backends: 2, first, ..File::default() };
    let few = file("workers: 4", "protocol: h2", ", connections_max: 2");
    finds(few, Severity::Warning, "too_few_to_share", "2", "write at least 4");
    let few = file("workers: 4", "protocol: h2\n    limits: { connections_max: 3 }", "");
    finds(few, Severity::Warning, "too_few_to_share", "3", "write at least 4");
    is_clean(file("workers: 4", "protocol: h2", ", connections_max: 4"));
    is_clean(file("workers: 4", "", ", connections_max: 2"));
    is_clean(file("", "protocol: h2", ", connections_max: 1"));
}

#[test]
fn a_detector_that_hedging_keeps_in_the_dark_is_told() {
    let service = "hedge: { after: 50ms }\n    outlier: { latency: { least: 60ms } }";
    finds(of_service(service, 3), Severity::Warning, "never_acts", "60ms", "write `least` below 50ms");
    is_clean(of_service("hedge: { after: 100ms }\n    outlier: { latency: { least: 60ms } }", 3));
}

#[test]
fn bounds_of_a_fleet_without_anybody_who_adds_up_its_loads_are_told() {
    let service = "balance: { hash_key: [ { path: {} } ], shed: { scope: fleet } }";
    finds(of_service(service, 2), Severity::Warning, "fleet_scope_alone", "fleet", "write `scope: proxy`");
    let with = |process| File { process, service, backends: 2, ..File::default() };
    let etcd = "control: { etcd: { endpoints: [ \"http://127.0.0.1:2379\" ] }, directory: /tmp/x }";
    finds(with(etcd), Severity::Warning, "fleet_scope_alone", "fleet", "members");
    is_clean(with("control: { members: [ \"http://127.0.0.1:9901\" ], directory: /tmp/x }"));
    is_clean(of_service("balance: { hash_key: [ { path: {} } ], shed: { scope: proxy } }", 2));
}
