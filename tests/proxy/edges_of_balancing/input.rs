//! Limits and times that contradict each other, as the operator writes them.

use crate::common::*;

/// What `ringway check` says of a file with these fields of its service, one line, and whether it is valid.
fn checked(service: &str) -> (String, bool) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.yaml");
    let text = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:8080\", service: s }} ]\nservices:\n  - name: s\n    {service}\n    \
         backends: [ {{ id: a, address: \"10.0.0.1:80\" }}, {{ id: b, address: \"10.0.0.2:80\" }} ]\n"
    );
    std::fs::write(&path, text).unwrap();
    let said = ringway(&["check", path_text(&path)]);
    let mut text = String::from_utf8_lossy(&said.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&said.stderr));
    (text, said.status.success())
}

#[test]
fn limits_and_times_that_contradict_each_other_are_told_with_place_and_remedy() {
    for (service, valid, code, help) in [
        ("limits: { requests_max: 0 }", false, "out_of_range", "remove it, which is no limit"),
        ("limits: { pending_max: 0 }", false, "out_of_range", "remove it, which is no limit"),
        ("limits: { retries_max: 0 }", true, "unused_retries", "write `attempts: 0`"),
        ("outlier: { base_ejection: 10m }", false, "out_of_range", "write at least the base"),
        ("outlier: { retry_after_max: 10m }", true, "floor_above_ceiling", "a longer `max_ejection`"),
        ("outlier: { latency: { min_hosts: 3 } }", true, "never_acts", "write `min_hosts: 2` or less"),
        ("health: { tcp: {}, fall: 0 }", false, "out_of_range", "write a number from 1"),
        ("health: { tcp: {}, agent: { port: 80 } }", true, "agent_is_the_backend", "write the agent's port"),
        ("health: { tcp: {}, tls: { certificate: a.pem } }", false, "half_a_certificate", "write both"),
        ("drain_timeout: 1m", true, "without_effect", "add `balance.affinity_cookie`"),
        (
            "balance: { bounded_load: { all_full: queue } }\n    timeouts: { request: 400ms }",
            true,
            "queue_outlives_request",
            "raise `timeouts.request`",
        ),
    ] {
        let (said, good) = checked(service);
        assert_eq!(good, valid, "{service}: {said}");
        let severity = if valid { "warning" } else { "error" };
        assert!(said.contains(&format!("{severity}[{code}]")), "{service}: {said}");
        assert!(said.contains("c.yaml:4:") || said.contains("c.yaml:5:"), "where: {said}");
        assert!(said.contains("help: ") && said.contains(help), "{service}: {said}");
    }
}

#[test]
fn what_fits_together_is_taken_without_a_word() {
    for service in [
        "limits: { requests_max: 1, connections_max: 1, pending_max: 1, retries_max: 1 }",
        "outlier: { retry_after_max: 5m, latency: { min_hosts: 2 } }",
        "health: { tcp: {}, agent: { port: 81, address: \"10.0.0.9\", interval: 5s, timeout: 1s } }",
        "health: { tcp: {}, rise: 1, fall: 1, interval: 1s, timeout: 1s }",
    ] {
        let (said, good) = checked(service);
        assert!(good && said.contains("0 errors, 0 warnings"), "{service}: {said}");
    }
}
