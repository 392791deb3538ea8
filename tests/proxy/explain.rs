//! What is explained of a request that nobody has sent is what becomes of it when curl sends it.

use crate::common::{Backend, Ringway, free_address, path_text, ringway};
use serde_json::Value;
use std::net::SocketAddr;
use std::process::Command;

/// A listener with everything that routes by, and a second one that no port of a request names.
fn config(listen: SocketAddr, other: SocketAddr, backends: &[(&str, SocketAddr)]) -> String {
    let list: Vec<String> =
        backends.iter().map(|(id, address)| format!("{{ id: {id}, address: \"{address}\" }}")).collect();
    let list = list.join(", ");
    format!(
        r#"
workers: 2
admin: {{ address: "ADMIN" }}
listeners:
  - name: web
    address: "{listen}"
    forwarded: {{ trusted: [ 127.0.0.0/8 ] }}
    routes:
      - {{ match: {{ host: shop.example, path_prefix: /old }}, redirect: {{ status: 308, path: /new }} }}
      - {{ match: {{ host: shop.example, path_prefix: /cart }}, service: keyed }}
      - {{ match: {{ host: "*.shop.example", methods: [ POST ] }}, service: strict }}
      - {{ match: {{ host: split.example }}, split: [ {{ service: keyed, weight: 1 }}, {{ service: address, weight: 1 }} ], split_key: [ {{ header: x-key }} ] }}
      - {{ match: {{ path_prefix: /beta, headers: [ {{ name: x-beta, value: "yes" }} ] }}, service: address }}
      - {{ match: {{ path_prefix: /by-address }}, service: address }}
  - {{ name: other, address: "{other}", service: strict }}
services:
  - {{ name: keyed, balance: {{ hash_key: [ {{ cookie: sid }}, {{ header: x-key }} ], on_missing: source_ip }}, backends: [ {list} ] }}
  - {{ name: strict, balance: {{ hash_key: [ {{ header: x-key }} ], on_missing: reject }}, backends: [ {list} ] }}
  - {{ name: address, balance: {{ hash_key: [ {{ source_ip: {{}} }} ] }}, backends: [ {list} ] }}
"#
    )
}

/// A request as curl sends it: its status and its body, which is the name of the backend.
fn curl(listen: SocketAddr, (method, target, headers): (&str, &str, &[&str])) -> (u16, String) {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "10", "-w", "\n%{http_code}", "-X", method]);
    headers.iter().for_each(|header| _ = curl.args(["-H", header]));
    let output = curl.args(["--path-as-is", &format!("http://{listen}{target}")]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.trim().to_owned())
}

fn explain(by: &[&str], (method, target, headers): (&str, &str, &[&str]), others: &[&str]) -> Value {
    let line = format!("{method} {target}");
    let mut arguments = vec!["explain", "--json", "--request", &line];
    arguments.extend(by);
    headers.iter().for_each(|header| arguments.extend(["-H", header]));
    arguments.extend(others);
    let output = ringway(&arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn what_is_explained_of_a_request_is_what_curl_gets() {
    let backends: Vec<Backend> = (0..5).map(|index| Backend::echo(&format!("b{index}"))).collect();
    let names: Vec<String> = (0..5).map(|index| format!("b{index}")).collect();
    let named: Vec<(&str, SocketAddr)> =
        names.iter().zip(&backends).map(|(name, backend)| (name.as_str(), backend.address)).collect();
    let (listen, other) = (free_address(), free_address());
    let ringway = Ringway::start(&config(listen, other, &named));
    let admin = ringway.admin.to_string();
    let (live, cold) = (["--admin", admin.as_str()], ["--config", path_text(&ringway.config)]);
    let keys: Vec<String> = (0..4).map(|key| format!("x-key: user-{key}")).collect();
    let mut asked: Vec<(&str, &str, Vec<&str>)> = vec![
        ("GET", "/old/x", vec!["host: shop.example"]),
        ("GET", "/cart", vec!["host: SHOP.example.:80", "cookie: a=b; sid=alice"]),
        ("GET", "/cart/1", vec!["host: shop.example"]),
        ("GET", "/cart/../x", vec!["host: shop.example"]),
        ("GET", "/", vec!["host: a.shop.example", "x-key: k"]),
        ("POST", "/", vec!["host: a.shop.example", "x-key: k"]),
        ("POST", "/", vec!["host: a.shop.example"]),
        ("GET", "/beta", vec!["x-beta: yes"]),
        ("GET", "/beta", vec!["x-beta: no"]),
        ("GET", "/beta", vec![]),
        ("GET", "/by-address", vec!["x-forwarded-for: 203.0.113.9"]),
        ("GET", "/by-address", vec!["host: a b"]),
        ("GET", "/by-address", vec!["transfer-encoding: gzip"]),
        ("GET", "/nowhere", vec![]),
    ];
    asked.extend(keys.iter().map(|key| ("GET", "/x", vec!["host: split.example", key.as_str()])));
    asked.extend(keys.iter().map(|key| ("GET", "/cart", vec!["host: shop.example", key.as_str()])));
    for (method, target, headers) in &asked {
        let request = (*method, *target, headers.as_slice());
        let (status, body) = curl(listen, request);
        for by in [&live, &cold] {
            let explained = explain(by, request, &["--listener", "web"]);
            let verdict = explained["verdict"].as_str().unwrap();
            if status == 200 {
                assert!(
                    verdict.starts_with(&format!("goes to {body}, its owner")),
                    "{request:?}: {body}: {explained:#}"
                );
                assert_eq!(explained["explanation"]["owner"], body.as_str(), "{request:?}: {explained:#}");
            } else {
                assert_eq!(explained["status"], status, "{request:?}: {explained:#}");
            }
        }
    }
}

#[test]
fn a_request_that_no_route_takes_is_told_the_nearest_and_one_that_is_none_what_is_wrong() {
    let backend = Backend::echo("b0");
    let (listen, other) = (free_address(), free_address());
    let ringway = Ringway::start(&config(listen, other, &[("b0", backend.address)]));
    let admin = ringway.admin.to_string();
    let by = ["--admin", admin.as_str()];
    let explained = explain(&by, ("GET", "/beta/1", &["x-beta: no"]), &["--listener", "web"]);
    let nearest = explained["nearest"].as_str().unwrap();
    assert!(nearest.starts_with("route 5 (path /beta*, x-beta: yes) wants x-beta: yes, and this has no"), "{nearest}");
    let explained = explain(&by, ("GET", "/cart", &["host: other.example"]), &["--listener", "web"]);
    assert!(explained["nearest"].as_str().unwrap().contains("wants "), "{explained:#}");
    // The port of its host says which listener it comes to.
    let host = format!("host: {other}");
    assert_eq!(explain(&by, ("GET", "/", &[host.as_str(), "x-key: k"]), &[])["listener"], "other");
    // Somebody else's address: a client's own, and one that a trusted hop names.
    let from = |address: &str, headers: &[&str]| {
        explain(&by, ("GET", "/by-address", headers), &["--listener", "web", "--from", address])["key"].clone()
    };
    assert_eq!(from("198.51.100.7", &["x-forwarded-for: 203.0.113.9"]), "198.51.100.7");
    assert_eq!(from("127.0.0.9", &["x-forwarded-for: 203.0.113.9"]), "203.0.113.9");
    for (arguments, part) in [
        (&["--request", "GET /"][..], "several listeners could get it: name one of web, other"),
        (&["--request", "GET /", "--listener", "none"], "there is no listener \"none\"; there are web, other"),
        (&["--request", "GET /", "-H", "host", "--listener", "web"], "write `name: value`"),
        (&["--request", "GET / x y", "--listener", "web"], "a method and a target"),
        (&["--request", "GET /", "-H", "x: a\nb: c", "--listener", "web"], "a line break or a NUL cannot be sent"),
    ] {
        let output = self::ringway(&[&["explain"], &by[..], arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains(part), "{arguments:?}: {said}");
    }
    // What is sent to the path itself.
    for (body, status) in [("{", "400"), ("[]", "422"), ("{\"from\": 1}", "422"), ("{\"listener\": \"web\"}", "200")] {
        let output = Command::new("curl")
            .args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--data", body, &format!("http://{admin}/explain")])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), status, "{body}");
    }
}
