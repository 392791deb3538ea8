//! The fleet's page, as a member serves it: in a real browser, and to those who may not look.

use crate::common::control::{Cluster, FleetProxy, curl};
use crate::common::{Backend, get, output, read_answer, require, require_python, send, wait_for};
use serde_json::{Value, json};
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

const TOKEN: &str = "an-operators-token-of-some-length";

/// One member; who shows nothing may be what `anonymous` says.
fn member(anonymous: &str, token: &Path) -> Cluster {
    std::fs::write(token, format!("{TOKEN}\n")).unwrap();
    Cluster::of(1, &format!("{anonymous}, tokens: [ {{ name: ops, role: operate, file: {token:?} }} ]"))
}

fn address(cluster: &Cluster) -> SocketAddr {
    cluster.urls[0].trim_start_matches("http://").parse().unwrap()
}

#[test]
fn a_browser_shows_a_fleet_a_proxy_that_disagrees_and_who_has_changed_what() {
    let (Some(()), Some(()), Some(())) = (require("chromium"), require("curl"), require_python("websockets")) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let cluster = member(", anonymous: register", &directory.path().join("token"));
    let backend = Backend::echo("a").address;
    let document = cluster.write(
        "main.yaml",
        &format!(
            "services:\n  - name: s\n    balance: {{ hash_key: [ {{ path: {{}} }} ] }}\n    backends: [ {{ id: one, address: \"{backend}\" }} ]\n\
             \x20 - name: \"<img/src=x/onerror=window.hit=1>\"\n    backends: [ {{ id: \"</script>\", address: \"{backend}\" }} ]\n\
             \x20 - name: t\n"
        ),
    );
    let with_token = |method: &str, path: &str, arguments: &[&str]| {
        let (bearer, url) = (format!("Authorization: Bearer {TOKEN}"), format!("{}{path}", cluster.urls[0]));
        let done = output("curl", &[&["-sf", "-X", method, "-H", &bearer][..], arguments, &[&url]].concat());
        assert!(done.status.success(), "{method} {path}: {}", cluster.log(0));
    };
    with_token("PUT", "/v1/objects/backend/t/a", &["-d", r#"{"address":"127.0.0.1:9"}"#]);
    let text = format!("@{document}");
    with_token("PUT", "/v1/objects/document/main", &["-H", "Content-Type: application/yaml", "--data-binary", &text]);
    let _proxies = [FleetProxy::start(&cluster, "p1", ""), FleetProxy::start(&cluster, "p2", "")];
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/fleet_in_browser.py");
    let member = address(&cluster).to_string();
    let seen = Command::new("python3")
        // What it imports stands beside it, and nothing else.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(script)
        .args(["chromium", &member, TOKEN])
        .output()
        .unwrap();
    let (said, wrong) = (String::from_utf8_lossy(&seen.stdout), String::from_utf8_lossy(&seen.stderr));
    assert!(seen.status.success() && said.ends_with("all seen\n"), "{said}{wrong}{}", cluster.log(0));
}

#[test]
fn anybody_may_have_the_page_and_only_who_may_read_what_it_shows() {
    let Some(()) = require("curl") else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = member("", &directory.path().join("token"));
    let at = address(&cluster);
    let page = get(at, "/").unwrap();
    let rules = page.header("content-security-policy").unwrap();
    assert!(page.status == 200 && rules.contains("default-src 'none'") && !rules.contains("unsafe"), "{rules}");
    assert_eq!(get(at, "/page/../v1/status").unwrap().status, 401);
    let url = format!("{}/page/page.css", cluster.urls[0]);
    let packed = output("curl", &["-s", "-D", "-", "-o", "/dev/null", "-H", "Accept-Encoding: gzip", &url]);
    assert!(String::from_utf8_lossy(&packed.stdout).contains("content-encoding: gzip"), "{packed:?}");
    let unpacked = output("curl", &["-s", "--compressed", &url]);
    assert!(unpacked.stdout == get(at, "/page/page.css").unwrap().body, "gzip changes nothing of it");
    let (bearer_field, metrics) = (format!("Authorization: Bearer {TOKEN}"), format!("{}/metrics", cluster.urls[0]));
    let accept = "Accept: application/openmetrics-text; version=1.0.0";
    let told = output("curl", &["-s", "--compressed", "-H", &bearer_field, "-H", accept, &metrics]);
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.ends_with("# EOF\n") && told.contains("# UNIT ringway_control_commit_seconds seconds\n"), "{told}");
    assert!(told.contains("# TYPE ringway_control_proposals counter\nringway_control_proposals_total "), "{told}");
    // A page that has made its own name lead here reads nothing, whatever the member shows to those without a token.
    let foreign = |host: &str, more: &[&str]| {
        let (host, url) = (format!("Host: {host}"), format!("{}/v1/whoami", cluster.urls[0]));
        let all = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", &host];
        String::from_utf8(output("curl", &[&all[..], more, &[&url]].concat()).stdout).unwrap()
    };
    assert_eq!(
        [foreign("evil.example", &[]), foreign("localhost", &[]), foreign("member-1", &[])],
        ["403", "401", "401"]
    );
    assert_eq!(foreign("evil.example", &["-H", &bearer_field]), "200", "who shows a token is no page of a stranger's");
    let asked = crate::common::ringway(&["status", "--admin", cluster.urls[0].as_str()]);
    let said = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert!(said.contains("member of a control plane") && said.contains("ringway control"), "{said}");
    for path in ["/v1/live", "/v1/whoami"] {
        assert_eq!(curl(&cluster.urls[0], "GET", path, &Value::Null).status, 401, "{path}");
    }
    let bearer = |token: &str| format!("authorization: Bearer {token}\r\n");
    let ask = |path: &str, token: &str| {
        send(at, format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{}\r\n", bearer(token)).as_bytes())
    };
    let who: Value = serde_json::from_slice(&read_answer(&mut ask("/v1/whoami", TOKEN), true).unwrap().body).unwrap();
    assert_eq!(who, json!({ "name": "ops", "role": "operate", "via": "token" }));
    let mut stream = ask("/v1/live", TOKEN);
    let mut first = Vec::new();
    wait_for("a frame and a change of it", || {
        let mut some = [0; 4096];
        let count = stream.read(&mut some).unwrap();
        first.extend_from_slice(&some[..count]);
        let text = String::from_utf8_lossy(&first);
        (text.contains("event: frame\ndata: {") && text.contains("event: change\ndata: {")).then_some(())
    });
    assert!(first.starts_with(b"HTTP/1.1 200"));
    // The topology has been read by now: there is no such service, and nothing is made for who looks at it.
    wait_for("that there is no such service", || {
        let nowhere = format!("{}/v1/live?service=nowhere", cluster.urls[0]);
        let refused =
            output("curl", &["-s", "-m", "1", "-H", &bearer_field, "-o", "/dev/null", "-w", "%{http_code}", &nowhere]);
        (refused.stdout == b"404").then_some(())
    });
    // Its token is another's from now on: the stream ends, as it should.
    std::fs::write(directory.path().join("token"), "somebody-elses-token-of-some-length\n").unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n"));
    cluster.kill(0);
}
