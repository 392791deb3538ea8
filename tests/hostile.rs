//! Clients that are slow, greedy or mean harm, and backends that do as they like: nobody else notices.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::peers::*;
use common::*;
use std::process::Command;

/// Runs a script of `tests/python` to its end; it must succeed.
fn python(script: &str, arguments: &[&str]) {
    let done = Command::new("python3").args(["-c", script]).args(arguments).output().unwrap();
    let (said, error) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{said}{error}");
}

#[test]
fn a_client_that_reads_slowly_over_tls_gets_all_of_it() {
    let (Some(certificates), Some(())) = (Certificates::new(), require_python("ssl")) else { return };
    certificates.issue("one", "DNS:one.test", "2");
    // As long as the path says.
    let backend = scripted(|head| {
        let length = head.split(['/', ' ']).nth(2).and_then(|word| word.parse().ok()).unwrap_or(0);
        response("200 OK", "", &"x".repeat(length))
    });
    let listen = free_address();
    let listeners = format!(
        "  - {{ name: web, address: \"{listen}\", service: s, timeouts: {{ idle: 300ms }}, tls: {{ certificates: [ {} ] }} }}\n",
        certificates.entry("one")
    );
    let _ringway = Ringway::start(&config(&listeners, &service("s", "", &[("a", backend.address)])));
    let script = include_str!("python/slow_tls_reader.py");
    python(script, &[&listen.to_string(), &certificates.text("ca.pem")]);
}

/// As [`python`], with the client of HTTP/2 at hand.
fn python_h2(script: &str, arguments: &[&str]) {
    python(&format!("{}{script}", include_str!("python/h2client.py")), arguments);
}

#[test]
fn what_follows_a_tunnel_that_was_not_opened_is_no_request() {
    if require_python("h2").is_none() {
        return;
    }
    let backend = scripted(|head| match head.split(' ').nth(1) {
        Some("/denied") => response("403 Forbidden", "", "no"),
        Some("/made") => response("201 Created", "", "made"),
        _ => response("200 OK", "", "yes"),
    });
    let listen = free_address();
    let routes = ["ok", "denied", "made", "smuggled", "injected"]
        .map(|path| format!("{{ match: {{ path: /{path} }}, service: s }}"))
        .join(", ");
    let listeners = format!("  - {{ name: web, address: \"{listen}\", routes: [ {routes} ] }}\n");
    let ringway = Ringway::start(&config(&listeners, &service("s", "", &[("a", backend.address)])));
    python_h2(include_str!("python/connect_data.py"), &[&listen.to_string()]);
    wait_for("all to be over", || (backend_status(&ringway, "a")["in_flight"] == 0).then_some(()));
    let seen = backend.requests();
    assert!(seen.iter().all(|head| !head.contains("smuggled") && !head.contains("injected")), "{seen:?}");
    assert_eq!(seen.len(), 4, "{seen:?}");
}
