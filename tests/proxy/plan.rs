//! `plan` and the shadow say beforehand what then happens.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::*;
use std::collections::BTreeMap;
use std::net::SocketAddr;

fn file(directory: &tempfile::TempDir, name: &str, config: &str) -> String {
    let path = directory.path().join(name);
    std::fs::write(&path, config.replace("ADMIN", "127.0.0.1:9901")).unwrap();
    path.to_str().unwrap().to_owned()
}

fn plan(old: &str, new: &str, more: &[&str]) -> (i32, serde_json::Value) {
    let arguments: Vec<&str> = ["plan", old, new, "--json"].iter().chain(more).copied().collect();
    let output = ringway(&arguments);
    let value = serde_json::from_slice(&output.stdout).unwrap_or(serde_json::Value::Null);
    (output.status.code().unwrap(), value)
}

const KEYS: usize = 1_500;

fn owners(listen: SocketAddr) -> Vec<String> {
    use std::io::Write;
    let mut stream = std::net::TcpStream::connect(listen).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut ask = |key: usize| {
        stream.write_all(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Key: user-{key}\r\n\r\n").as_bytes()).unwrap();
        read_answer(&mut stream, true).unwrap().text()
    };
    (0..KEYS).map(&mut ask).collect()
}

#[test]
fn plan_says_from_whom_to_whom_and_the_shadow_counts_it_and_then_it_happens() {
    for policy in ["ring", "maglev, table_size: 1021", "hrw"] {
        let fleet = echoes(5);
        let directory = tempfile::tempdir().unwrap();
        let listen = free_address();
        // So many requests that a key which stood still for a moment would be hot.
        let service = format!(
            "balance: {{ policy: {policy}, hash_key: [ {{ header: x-key }} ], hot_keys: {{ enabled: false }} }}"
        );
        let old = simple(listen, &service, &targets(&fleet)[..4]);
        let new = simple(listen, &service, &targets(&fleet)).replace("id: a,", "id: a, weight: 150,");
        let (old_file, new_file) = (file(&directory, "old.yaml", &old), file(&directory, "new.yaml", &new));
        let (code, plan) = plan(&old_file, &new_file, &[]);
        assert_eq!(code, 0);
        let service = &plan["services"][0];
        let predicted = service["moved_percent"].as_f64().unwrap();
        assert_eq!(service["name"], "s");
        assert!(predicted > 10.0 && predicted < 60.0, "{service}");

        let shadowed = old.replace("workers: 2", &format!("workers: 2\nshadow: \"{new_file}\""));
        let ringway = Ringway::start(&shadowed);
        let before = owners(listen);
        let shadow = ringway.status()["services"][0]["shadow"].clone();
        assert_eq!(shadow["compared"], KEYS);
        ringway.reconfigure(&new);
        let after = owners(listen);
        let mut flows: BTreeMap<(String, String), usize> = BTreeMap::new();
        for (from, to) in before.into_iter().zip(after).filter(|(from, to)| from != to) {
            *flows.entry((from, to)).or_default() += 1;
        }
        let moved: usize = flows.values().sum();
        // The shadow saw exactly these keys; the plan is about all keys there could be.
        assert_eq!(shadow["would_move"], moved, "{policy}");
        let percent = moved as f64 * 100.0 / KEYS as f64;
        assert!((percent - predicted).abs() < 5.0, "{policy}: {percent} {predicted}");
        for flow in service["moves"].as_array().unwrap() {
            let pair = (flow["from"].as_str().unwrap().to_owned(), flow["to"].as_str().unwrap().to_owned());
            let seen = *flows.get(&pair).unwrap_or(&0) as f64 * 100.0 / KEYS as f64;
            assert!((seen - flow["percent"].as_f64().unwrap()).abs() < 4.0, "{policy}: {flow} {seen}");
        }
        let logged = ringway.status()["last_reload"]["moved"][0]["percent"].as_f64().unwrap();
        assert!((logged - predicted).abs() < 1e-6, "the reload says what the plan said");
        assert!((ringway.metric("ringway_keys_moved_ratio{service=\"s\"}") * 100.0 - predicted).abs() < 1e-6);
    }
}

#[test]
fn limit_fails_a_pipeline_and_bad_files_are_named() {
    let fleet: Vec<(String, SocketAddr)> = (0..10).map(|index| (format!("b{index}"), free_address())).collect();
    let list: Vec<(&str, SocketAddr)> = fleet.iter().map(|(id, address)| (id.as_str(), *address)).collect();
    let directory = tempfile::tempdir().unwrap();
    let service = "balance: { hash_key: [ { header: x-key } ] }";
    let listen = free_address();
    let nine = file(&directory, "nine.yaml", &simple(listen, service, &list[..9]));
    let ten = file(&directory, "ten.yaml", &simple(listen, service, &list));
    let (code, value) = plan(&nine, &ten, &["--max-move", "15%"]);
    assert_eq!((code, &value["within_limit"]), (0, &true.into()));
    // The minimum is a tenth, give or take the unevenness of a ring.
    let moved = value["services"][0]["moved_percent"].as_f64().unwrap();
    assert!((7.0..13.0).contains(&moved), "{moved}");
    assert!(value["services"][0]["moves"].as_array().unwrap().iter().all(|flow| flow["to"] == "b9"));
    assert_eq!(value["services"][0]["method"], "exact");
    let (code, value) = plan(&nine, &ten, &["--max-move", "5"]);
    assert_eq!((code, &value["within_limit"]), (1, &false.into()));
    assert_eq!(plan(&ten, &ten, &["--max-move", "0"]).0, 0);
    // A drain gives its keys away; an order of the list, an address, a bound give none.
    let drained =
        file(&directory, "drained.yaml", &simple(listen, service, &list).replace("id: b3,", "id: b3, drain: true,"));
    let (_, value) = plan(&ten, &drained, &[]);
    assert!(value["services"][0]["moves"].as_array().unwrap().iter().all(|flow| flow["from"] == "b3"));
    let mut turned = list.clone();
    turned.reverse();
    turned[0].1 = free_address();
    let service = "balance: { hash_key: [ { header: x-key } ], bounded_load: { factor: 2 } }";
    let other = file(&directory, "other.yaml", &simple(listen, service, &turned));
    assert_eq!(plan(&ten, &other, &["--max-move", "0"]).0, 0);
    // Another key moves almost everything, and so does another seed.
    let rekeyed = "balance: { hash_key: [ { header: x-other } ] }";
    let rekeyed = file(&directory, "rekeyed.yaml", &simple(listen, rekeyed, &list));
    let (_, value) = plan(&ten, &rekeyed, &[]);
    assert_eq!(value["services"][0]["kind"], "other_key");
    assert!(value["services"][0]["moved_percent"].as_f64().unwrap() > 85.0);

    let broken = file(&directory, "broken.yaml", "listeners: 7\n");
    let output = ringway(&["plan", &ten, &broken]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("broken.yaml:1:12"));
    let output = ringway(&["plan", &nine, &ten]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("% of the keys move (exact)") && text.contains("-> b9"), "{text}");
}

#[test]
fn plan_sees_renamed_services_and_splits_and_routes() {
    let directory = tempfile::tempdir().unwrap();
    let listen = free_address();
    let service = |name: &str, from: usize| {
        format!(
            "{{ name: {name}, balance: {{ hash_key: [ {{ header: x-key }} ] }}, backends: [ \
             {{ id: a, address: \"127.0.0.1:{from}\" }}, {{ id: b, address: \"127.0.0.1:{}\" }} ] }}",
            from + 1
        )
    };
    let write = |name: &str, routes: &str, first: &str| {
        let text = format!(
            "admin: {{ address: ADMIN }}\nlisteners: [ {{ name: web, address: \"{listen}\", routes: [ {routes} ] }} ]\n\
             services: [ {}, {} ]\n",
            service(first, 7001),
            service("other", 7003)
        );
        file(&directory, name, &text)
    };
    let old = write("old.yaml", "{ service: s }", "s");
    // The same backends under another name, and routes that follow: every key stays.
    let (code, value) = plan(&old, &write("renamed.yaml", "{ service: t }", "t"), &["--max-move", "0"]);
    assert_eq!((code, &value["moved_percent"]), (0, &serde_json::json!(0.0)), "{value}");
    // Routes that lead elsewhere.
    let (code, value) = plan(&old, &write("elsewhere.yaml", "{ service: other }", "s"), &["--max-move", "50"]);
    assert_eq!((code, &value["routes"][0]["moved_percent"]), (1, &serde_json::json!(100.0)), "{value}");
    // A narrower route before.
    let narrow = "{ match: { path_prefix: /api }, service: other }, { service: s }";
    let (code, value) = plan(&old, &write("narrow.yaml", narrow, "s"), &["--max-move", "50"]);
    assert_eq!((code, value["routes"].as_array().unwrap().len()), (1, 2), "{value}");
    let split = |one: u32, other: u32| {
        format!("{{ split: [ {{ service: s, weight: {one} }}, {{ service: other, weight: {other} }} ] }}")
    };
    let old = write("split-old.yaml", &split(100, 10), "s");
    let new = write("split-new.yaml", &split(10, 100), "s");
    let (code, value) = plan(&old, &new, &["--max-move", "10"]);
    let moved = value["routes"][0]["moved_percent"].as_f64().unwrap();
    assert_eq!(code, 1);
    assert!((moved - 90.0 / 1.1).abs() < 2.0, "{moved}");
    let text = String::from_utf8(ringway(&["plan", &old, &new]).stdout).unwrap();
    assert!(text.contains("listener web, any request:") && text.contains("% of the requests move"), "{text}");
}

#[test]
fn shadow_that_cannot_be_read_is_refused_and_disturbs_nobody() {
    let fleet = echoes(2);
    let listen = free_address();
    let config = simple(listen, "", &targets(&fleet));
    let ringway = Ringway::start(&config);
    let status = ringway.status()["generation"].clone();
    ringway.write_config(&config.replace("workers: 2", "workers: 2\nshadow: /nonexistent/next.yaml"));
    let answer = raw(ringway.admin, b"POST /reload HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(answer.contains("/nonexistent/next.yaml"), "{answer}");
    assert_eq!(ringway.status()["generation"], status);
    assert_eq!(get(listen, "/").unwrap().status, 200);
}

#[test]
fn another_secret_of_a_cookie_moves_nothing_where_one_backend_has_all_keys() {
    let directory = tempfile::tempdir().unwrap();
    let config = |secret: &str| {
        format!(
            "listeners: [ {{ name: l, address: \"127.0.0.1:1\", service: s }} ]\n\
             services: [ {{ name: s, balance: {{ hash_key: [ {{ path: {{}} }} ], \
             affinity_cookie: {{ name: c, secret: \"0123456789abcdef-{secret}\" }} }}, \
             backends: [ {{ id: a, address: \"127.0.0.1:8\" }} ] }} ]\n"
        )
    };
    let files = ["one", "two"].map(|name| file(&directory, name, &config(name)));
    let said = ringway(&["plan", &files[0], &files[1]]);
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("service s: no key moves") && !said.contains("at random"), "{said}");
}
