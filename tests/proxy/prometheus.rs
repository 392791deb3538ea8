//! Prometheus itself reads what Ringway says, in both forms, and answers what dashboard and alerts ask.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::*;
use serde_json::Value;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

fn packaging(path: &str) -> String {
    format!("{}/packaging/{path}", env!("CARGO_MANIFEST_DIR"))
}

fn succeeds(program: &str, arguments: &[&str]) {
    let done = output(program, arguments);
    let said = [done.stdout, done.stderr].concat();
    assert!(done.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&said));
}

#[test]
fn alerts_are_raised_by_what_they_are_for_and_by_nothing_else() {
    let Some(()) = require("promtool") else { return };
    succeeds("promtool", &["check", "rules", &packaging("prometheus/alerts.yaml")]);
    succeeds("promtool", &["test", "rules", &packaging("prometheus/alerts_test.yaml")]);
}

/// Has promtool look at a page: names, kinds and helps as they are usual.
fn lint(page: &[u8]) {
    let mut lint = Command::new("promtool");
    let lint = lint.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = lint.spawn().unwrap();
    child.stdin.take().unwrap().write_all(page).unwrap();
    let done = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said.is_empty(), "{said}");
}

/// A Prometheus that scrapes these every second, and has the alerts.
fn prometheus(directory: &std::path::Path, targets: &[(&str, SocketAddr)]) -> (Running, SocketAddr) {
    let mut config = format!(
        "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [ \"{}\" ]\nscrape_configs:\n",
        packaging("prometheus/alerts.yaml")
    );
    for (job, address) in targets {
        config.push_str(&format!("  - {{ job_name: {job}, static_configs: [ {{ targets: [ \"{address}\" ] }} ] }}\n"));
    }
    let file = directory.join("prometheus.yml");
    std::fs::write(&file, config).unwrap();
    let (address, log) = (free_address(), std::fs::File::create(directory.join("prometheus.log")).unwrap());
    let child = Command::new("prometheus")
        .arg(format!("--config.file={}", path_text(&file)))
        .arg(format!("--storage.tsdb.path={}", path_text(&directory.join("data"))))
        .arg(format!("--web.listen-address={address}"))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    (Running(child), address)
}

/// What Prometheus answers.
fn ask(prometheus: SocketAddr, path: &str) -> Option<Value> {
    let answer = get(prometheus, path)?;
    let said: Value = serde_json::from_str(&answer.text()).ok()?;
    assert_eq!(said["status"], "success", "{path}: {said}");
    Some(said["data"].clone())
}

fn query(prometheus: SocketAddr, expression: &str) -> Option<Vec<Value>> {
    let escaped: String = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
    ask(prometheus, &format!("/api/v1/query?query={escaped}"))?["result"].as_array().cloned()
}

/// Every expression of the dashboard, as it is with all of everything chosen.
fn dashboard() -> Vec<String> {
    let text = std::fs::read_to_string(packaging("grafana/ringway.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let filled = |expression: &str| {
        let named = ["$job", "$instance", "$service", "$backend", "$control_job"];
        let filled = expression.replace("$__rate_interval", "1m");
        named.iter().rev().fold(filled, |filled, name| filled.replace(name, ".*"))
    };
    targets.map(|target| filled(target["expr"].as_str().unwrap())).collect()
}

#[test]
fn prometheus_reads_both_forms_and_answers_what_dashboard_and_alerts_ask() {
    let (Some(()), Some(())) = (require("prometheus"), require("promtool")) else { return };
    let fleet = echoes(2);
    let (listen, admin, plain) = (free_address(), free_address(), free_address());
    // Prometheus 2 asks for OpenMetrics wherever it can: through the second listener its wish is taken away.
    let listeners = format!(
        "listeners: [ {{ name: plain, address: \"{plain}\", routes: [ {{ service: admin, request_headers: {{ remove: [ accept ] }} }} ] }},"
    );
    let config = simple(listen, "balance: { hash_key: [ { path: {} } ] }", &targets(&fleet))
        .replace("listeners: [", &listeners)
        + &format!("  - {{ name: admin, backends: [ {{ id: admin, address: \"{admin}\" }} ] }}\n");
    let ringway = Ringway::start_at(admin, &config);
    for number in 0..20 {
        assert_eq!(get(listen, &format!("/{number}")).unwrap().status, 200);
    }
    let text = get(plain, "/metrics").unwrap();
    assert!(text.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    lint(&text.body);
    let (_prometheus, prometheus) = prometheus(ringway.directory.path(), &[("open", ringway.admin), ("text", plain)]);
    let up = || query(prometheus, "up == 1").filter(|up| up.len() == 2);
    wait_for("both forms to be read", up);
    let targets = ask(prometheus, "/api/v1/targets").unwrap();
    assert!(targets["activeTargets"].as_array().unwrap().iter().all(|target| target["lastError"] == ""), "{targets}");
    // The same in both, however it was written.
    for expression in [
        "ringway_requests_total{service=\"s\",class=\"2xx\"} == 20",
        "sum by (job) (ringway_backend_responses_total{service=\"s\",class=\"2xx\"}) == 20",
        "sum by (job) (ringway_backend_request_duration_seconds_count{service=\"s\"}) == 20",
        "ringway_request_duration_seconds_bucket{service=\"s\",le=\"+Inf\"} == 20",
        "sum by (job) (ringway_backend_state{service=\"s\",state=\"up\"}) == 2",
        "ringway_listener_full_total{listener=\"web\"} == 0",
        "ringway_listener_full{listener=\"web\"} == 0",
        "process_open_fds > 10",
        "ringway_build_info",
    ] {
        wait_for(expression, || query(prometheus, expression).filter(|found| found.len() == 2));
    }
    // A family's kind is known by its name without `_total` where it was written so, and of the other's by the whole.
    let kinds = ask(prometheus, "/api/v1/targets/metadata?metric=ringway_requests").unwrap();
    assert_eq!(kinds.as_array().unwrap().len(), 1, "{kinds}");
    let expressions = dashboard();
    assert!(expressions.len() > 50);
    for expression in &expressions {
        assert!(query(prometheus, expression).is_some(), "{expression}");
    }
    wait_for("the rates", || {
        let is_empty = |expression: &str| query(prometheus, expression).is_none_or(|found| found.is_empty());
        let missing: Vec<_> = expressions.iter().filter(|one| !is_rare(one) && is_empty(one)).collect();
        if missing.is_empty() { Some(()) } else { not_yet(format!("{missing:?}")) }
    });
    let rules = ask(prometheus, "/api/v1/rules").unwrap();
    for rule in rules["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap()) {
        let is_quiet = rule["state"] == "inactive" || BY_TIME.iter().any(|name| rule["name"] == *name);
        assert!(rule["health"] != "err" && is_quiet, "{rule}");
    }
}

/// Alerts that go by how fast this host is: where it has much else to do, they may be pending.
const BY_TIME: [&str; 7] = [
    // A page that takes longer than a second is a scrape that failed.
    "RingwayGone",
    "RingwayWorkerStuck",
    "RingwayWorkersBusy",
    // Workers' lag is among what overload goes by.
    "RingwayNearOverload",
    "RingwayOverloaded",
    "RingwaySlow",
    "RingwayBackendSlowerThanItsPeers",
];

/// Whether an expression has an answer only where there is a control plane, TLS, or trouble.
fn is_rare(expression: &str) -> bool {
    ["ringway_control_", "ringway_topology_", "_errors_total", "tls_handshake", "certificate", "rejected", "shortage"]
        .iter()
        .chain(&["health_changes", "reloads_total", "ringway_backend_cap", "hot_requests"])
        .any(|part| expression.contains(part))
}
