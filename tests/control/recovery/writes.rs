//! What one change costs the others.

use crate::common::control::{Cluster, curl, run};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Reading the text takes far longer than a write, on any machine: the two are compared with each other, not with a clock.
#[test]
fn a_large_text_holds_up_nobody_elses_writes() {
    let cluster = Cluster::of(3, "");
    let services: String = (0..6000)
        .map(|index| {
            format!("  - {{ name: s{index}, backends: [ {{ id: a, address: \"10.0.0.1:{}\" }} ] }}\n", index + 1)
        })
        .collect();
    let file = cluster.write("large.yaml", &format!("services:\n{services}"));
    let done = AtomicBool::new(false);
    let (longest, count, took) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let (mut longest, mut count) = (Duration::ZERO, 0);
            while !done.load(Relaxed) {
                let began = Instant::now();
                let body = json!({ "address": format!("10.0.0.2:{}", count % 1000 + 1) });
                let put = curl(&cluster.urls[count % 3], "PUT", "/v1/objects/backend/q/b", &body);
                assert_eq!(put.status, 200, "{put:?}");
                longest = longest.max(began.elapsed());
                count += 1;
            }
            (longest, count)
        });
        let began = Instant::now();
        let url = format!("{}/v1/objects/document/main", cluster.urls[1]);
        let data = format!("@{file}");
        let put = ["-sS", "-f", "-X", "PUT", "-H", "Content-Type: application/yaml", "--data-binary", &data, &url];
        let said = run("curl", &put);
        let took = began.elapsed();
        done.store(true, Relaxed);
        assert!(said.status.success(), "{said:?}");
        let (longest, count) = writer.join().unwrap();
        (longest, count, took)
    });
    println!("{count} writes beside a text that took {took:?}, the longest {longest:?}");
    assert!(
        count > 4 && longest * 3 < took,
        "of {count} writes one took {longest:?}, beside a text that took {took:?}"
    );
}
