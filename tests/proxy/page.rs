//! The page of the admin listener, in a real browser; and the stream that it lives on.

use crate::common::{
    Backend, Ringway, backend_status, free_address, get, output, read_answer, require, require_python, send, simple,
    wait_for,
};
use std::fmt::Write as _;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

const TOKEN: &str = "operator-0123456789abcdef";

/// Three services: one of four backends, of which two have hostile names and one is not there, one of a thousand, and one of one.
fn file(anonymous: &str, web: SocketAddr, token: &Path) -> String {
    let [a, b, c] = ["a", "b", "c"].map(|name| Backend::echo(name).address);
    let mut many = String::new();
    for number in 1..=1_000 {
        let _ =
            write!(many, "{{ id: node-{number:04}, address: \"127.7.{}.{}:9\" }}, ", number / 250, number % 250 + 1);
    }
    format!(
        "workers: 1\nadmin: {{ address: \"ADMIN\", anonymous: {anonymous}, tokens: [ {{ name: ops, role: operate, file: {token:?} }} ] }}\n\
         listeners:\n  - name: web\n    address: \"{web}\"\n    routes: [ {{ match: {{ path_prefix: /many }}, service: many }}, {{ service: few }} ]\n\
         services:\n  - name: few\n    balance: {{ hash_key: [ {{ path: {{}} }} ] }}\n    outlier: {{ consecutive_failures: 1 }}\n\
         \x20   backends: [ {{ id: a, address: \"{a}\" }}, {{ id: \"<img/src=x/onerror=window.hit=1>\", address: \"{b}\" }}, \
         {{ id: \"</script>\", address: \"{c}\" }}, {{ id: gone, address: \"{}\" }} ]\n\
         \x20 - name: many\n    balance: {{ hash_key: [ {{ path: {{}} }} ] }}\n    backends: [ {many} ]\n\
         \x20 - name: one\n    backends: [ {{ id: only, address: \"{a}\" }} ]\n",
        free_address(),
    )
}

fn started(anonymous: &str, directory: &Path) -> (Ringway, SocketAddr) {
    let token = directory.join("token");
    std::fs::write(&token, format!("{TOKEN}\n")).unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let web = free_address();
    (Ringway::start(&file(anonymous, web, &token)), web)
}

#[test]
fn a_browser_shows_four_and_a_thousand_backends_an_ejection_and_a_request_and_runs_nothing_hostile() {
    let (Some(()), Some(())) = (require("chromium"), require_python("websockets")) else { return };
    let directory = tempfile::tempdir().unwrap();
    let (ringway, web) = started("read", directory.path());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/page_in_browser.py");
    let seen = Command::new("python3")
        // What it imports stands beside it, and nothing else.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(script)
        .args(["chromium", &ringway.admin.to_string(), &web.to_string(), TOKEN])
        .args([&directory.path().join("token"), &ringway.config])
        .arg(ringway.pid().to_string())
        .output()
        .unwrap();
    let (said, wrong) = (String::from_utf8_lossy(&seen.stdout), String::from_utf8_lossy(&seen.stderr));
    assert!(seen.status.success() && said.ends_with("all seen\n"), "{said}{wrong}{}", ringway.log());
}

#[test]
fn the_page_and_the_stream_are_what_curl_sees_and_a_stream_ends_with_the_process() {
    let Some(()) = require("curl") else { return };
    let directory = tempfile::tempdir().unwrap();
    let (mut ringway, _) = started("read", directory.path());
    let page = get(ringway.admin, "/").unwrap();
    assert_eq!(page.status, 200);
    let rules = page.header("content-security-policy").unwrap();
    for rule in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "form-action 'none'"] {
        assert!(rules.contains(rule), "{rules}");
    }
    assert!(!rules.contains("unsafe"), "{rules}");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(get(ringway.admin, "/page/../Cargo.toml").unwrap().status, 404);
    let url = format!("http://{}/live?service=few", ringway.admin);
    let seen = output("curl", &["-sN", "--max-time", "3", &url]);
    let text = String::from_utf8(seen.stdout).unwrap();
    assert!(text.starts_with("event: frame\ndata: {") && text.contains("\n\nevent: change\ndata: {"), "{text}");
    assert!(text.contains("\"<img/src=x/onerror=window.hit=1>\":{"), "{text}");
    let foreign = output("curl", &["-s", "-H", "Host: evil.example", &url]);
    assert!(String::from_utf8_lossy(&foreign.stdout).contains("localhost"), "a page of another name reads nothing");
    // A client that reads nothing holds nobody up: neither others nor the end.
    let _silent = send(ringway.admin, b"GET /live?service=many HTTP/1.1\r\nhost: localhost\r\n\r\n");
    wait_for("the status, beside a stream", || (backend_status(&ringway, "a")["state"] == "up").then_some(()));
    ringway.signal("TERM");
    assert_eq!(ringway.wait(), 0, "{}", ringway.log());
}

#[test]
fn a_stream_ends_once_its_token_is_no_longer_known() {
    let directory = tempfile::tempdir().unwrap();
    let (ringway, _) = started("none", directory.path());
    let ask = |token: &str| {
        let head = format!("GET /live HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\r\n");
        send(ringway.admin, head.as_bytes())
    };
    let refused = read_answer(&mut ask("another-0123456789abcdef"), true).unwrap();
    assert_eq!(refused.status, 401);
    let mut stream = ask(TOKEN);
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let other = directory.path().join("other");
    std::fs::write(&other, "somebody-else-0123456789\n").unwrap();
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o600)).unwrap();
    let token = directory.path().join("token");
    let text = std::fs::read_to_string(&ringway.config).unwrap();
    ringway.write_config(&text.replace(&format!("{token:?}"), &format!("{other:?}")));
    // The rest, to its end.
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n"), "the stream ends as it should");
}

#[test]
fn status_and_top_show_on_a_terminal_what_the_page_shows() {
    let directory = tempfile::tempdir().unwrap();
    let (ringway, _) = started("none", directory.path());
    let (admin, token) = (ringway.admin.to_string(), directory.path().join("token"));
    let run = |arguments: &[&str]| {
        let access = ["--admin", &admin, "--token-file", token.to_str().unwrap()];
        let done = crate::common::ringway(&[arguments, &access].concat());
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    let services = run(&["status"]);
    assert!(services.contains("few") && services.contains("1000/1000"), "{services}");
    for command in ["status", "top"] {
        let backends = run(&[command, "--service", "few"]);
        assert!(backends.contains("<img/src=x/onerror=window.hit=1>") && backends.contains("up"), "{backends}");
    }
    let json: serde_json::Value = serde_json::from_str(&run(&["status", "--json"])).unwrap();
    assert_eq!(json["services"].as_array().unwrap().len(), 3);
    let without = crate::common::ringway(&["status", "--admin", &admin]);
    assert!(!without.status.success());
    assert!(String::from_utf8_lossy(&without.stderr).contains("token"), "it says what is missing");
    let nowhere = crate::common::ringway(&[
        "top",
        "--once",
        "--service",
        "nowhere",
        "--admin",
        &admin,
        "--token-file",
        token.to_str().unwrap(),
    ]);
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("there is no service"), "{nowhere:?}");
}

#[test]
fn top_gives_the_terminal_back_whatever_ends_it() {
    let Some(()) = require("python3") else { return };
    let directory = tempfile::tempdir().unwrap();
    let (ringway, _) = started("read", directory.path());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/top_in_terminal.py");
    let at = ["--admin".to_owned(), ringway.admin.to_string()];
    // The last two are of a proxy that takes the connection and says nothing.
    for (end, at) in [("15", &at[..]), ("1", &at), ("q", &at), ("15", &[]), ("q", &[])] {
        let mut ends = Command::new("python3");
        ends.arg(&script).args([end, env!("CARGO_BIN_EXE_ringway"), "top"]).args(at);
        let seen = ends.output().unwrap();
        let wrong = String::from_utf8_lossy(&seen.stderr);
        assert!(seen.status.success(), "{end}: {}{wrong}", String::from_utf8_lossy(&seen.stdout));
    }
}

#[test]
fn top_says_that_what_it_shows_is_old_and_goes_on_when_the_proxy_does() {
    let Some(()) = require("python3") else { return };
    let directory = tempfile::tempdir().unwrap();
    let (web, admin, file) = (free_address(), free_address(), directory.path().join("proxy.yaml"));
    let text = simple(web, "", &[("a", free_address())]).replace("ADMIN", &admin.to_string());
    std::fs::write(&file, text).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/top_goes_on.py");
    let mut goes_on = Command::new("python3");
    goes_on.arg(&script).args([env!("CARGO_BIN_EXE_ringway"), file.to_str().unwrap(), &admin.to_string()]);
    let seen = goes_on.output().unwrap();
    let wrong = String::from_utf8_lossy(&seen.stderr);
    assert!(seen.status.success(), "{}{wrong}", String::from_utf8_lossy(&seen.stdout));
}

#[test]
fn status_says_that_a_listener_is_full_and_why_a_reload_was_refused_line_by_line() {
    let web = free_address();
    let file = simple(web, "", &[("a", Backend::echo("a").address)]);
    let file = file.replace("service: s }", "service: s, connections_max: 2 }");
    let ringway = Ringway::start(&file);
    let admin = ringway.admin.to_string();
    let status = || String::from_utf8(crate::common::ringway(&["status", "--admin", &admin]).stdout).unwrap();
    assert!(!status().contains("full"));
    let _held = [(); 4].map(|()| send(web, b"GET / HTTP/1.1\r\nhost: a\r\n"));
    wait_for("a full listener", || status().contains("\nlistener web is full: 2 connections").then_some(()));
    ringway.write_config(&file.replace("listeners:", "nonsense: 1\nlisteners:"));
    let refused = wait_for("a refused reload", || Some(status()).filter(|said| said.contains("was refused")));
    assert!(refused.contains("`nonsense`") && !refused.contains("\\n"), "{refused}");
    assert!(refused.lines().any(|line| line.trim_start().starts_with("--> ")), "{refused}");
    let again = crate::common::ringway(&["reload", "--admin", &admin]);
    let said = String::from_utf8(again.stderr).unwrap();
    assert!(again.status.code() == Some(1) && said.lines().count() > 1 && !said.contains("\\n"), "{said}");
}
