//! Weights that checks ask for, beside weights of the configuration.

use crate::common::*;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Answers checks with the weight that it wants, in percent, and anything else with its name.
fn wanting(name: &'static str, percent: u32) -> Backend {
    scripted(move |head| {
        let fields =
            if head.starts_with("GET /health ") { format!("x-ringway-weight: {percent}\r\n") } else { String::new() };
        response("200 OK", &fields, name)
    })
}

fn counts(listen: SocketAddr, requests: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for number in 0..requests {
        let answer = get_with(listen, "/", &format!("X-Key: {number}\r\n")).unwrap();
        *counts.entry(answer.text()).or_insert(0) += 1;
    }
    counts
}

#[test]
fn a_checks_half_of_a_weight_is_the_half_whatever_the_policy() {
    for policy in ["ring", "maglev", "hrw", "round_robin", "random", "p2c", "least_request"] {
        let keys = if matches!(policy, "ring" | "maglev" | "hrw") { ", hash_key: [ { header: x-key } ]" } else { "" };
        let (a, b) = (wanting("a", 50), wanting("b", 100));
        let listen = free_address();
        let service = format!(
            "balance: {{ policy: {policy}{keys}, bounded_load: {{ preset: \"off\" }} }}\n\
             health: {{ http: {{ path: /health }}, interval: 100ms, timeout: 60s }}"
        );
        let ringway = Ringway::start(&simple(listen, &service, &[("a", a.address), ("b", b.address)]));
        wait_for("the weight to be asked for", || {
            (backend_status(&ringway, "a")["checked_weight_percent"] == 50).then_some(())
        });
        let of_check = counts(listen, 900);
        // A third, as for a weight of 50 beside one of 100; by chance within five standard deviations and what a ring is uneven by.
        let part = of_check["a"] as f64 / 900.0;
        assert!((part - 1.0 / 3.0).abs() < 0.1, "{policy}: {of_check:?}");
    }
}
