//! Names that somebody has chosen to move an admin's cursor, to show a line backwards, or to be markup: whatever command shows them.

use super::*;
use crate::common::control::ringway_said;
use ringway_config::plain::is_unseen;
use serde_json::Value;

/// A service and a backend by names that a file may give, and nobody sees as they are.
const SERVICE: &str = "s\u{202e}\u{200b}<b>&'\"\\";
const BACKEND: &str = "a\u{2066}\u{feff}<script>alert(1)</script>`$(id)`";

/// All that a command says, of which everything is seen.
fn said(args: &[&str], admin: &str) -> String {
    let said = ringway_said(&[args, &["--admin", admin]].concat());
    let text = format!("{}{}", said.text(), said.error());
    assert!(!text.is_empty(), "{args:?}");
    assert!(!text.chars().any(|character| is_unseen(character) && character != '\n'), "{args:?}: {text:?}");
    text
}

#[test]
fn commands_show_names_that_are_meant_to_harm_a_terminal_and_nothing_of_them_works() {
    let (good, held) = (
        Backend::echo("good"),
        Backend::custom(|mut stream, _| {
            // Says nothing until its client has gone.
            let _ = stream.read_to_end(&mut Vec::new());
        }),
    );
    let (listen, other) = (free_address(), free_address());
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let json = |text: &str| Value::from(text);
    let file = |weight: u32| {
        format!(
            "workers: 1\nadmin: {{ address: \"ADMIN\", socket: {{ path: {socket:?} }} }}\nlisteners:\n\
             \x20 - {{ name: {}, address: \"{listen}\", service: {} }}\n  - {{ name: other, address: \"{other}\", service: held }}\n\
             services:\n  - name: {}\n    balance: {{ hash_key: [ {{ header: x-key }} ] }}\n    backends:\n\
             \x20     - {{ id: {}, address: \"{}\", weight: {weight} }}\n      - {{ id: b, address: \"{}\" }}\n\
             \x20 - {{ name: held, backends: [ {{ id: h, address: \"{}\" }} ] }}\n",
            json("l\u{202d}"),
            json(SERVICE),
            json(SERVICE),
            json(BACKEND),
            good.address,
            good.address,
            held.address
        )
    };
    let ringway = Ringway::start(&file(100));
    let (tcp, unix) = (ringway.admin.to_string(), format!("unix:{}", socket.display()));
    let escape = "\u{1b}]0;title\u{7}\u{1b}[2J\u{9b}31m\r\n\u{202e}";
    std::thread::scope(|scope| {
        // Each looks for two seconds.
        for args in [&["status"][..], &["status", "--json"], &["top", "--once"], &["status", "--service", SERVICE]] {
            let tcp = &tcp;
            scope.spawn(move || {
                let text = said(args, tcp);
                assert!(text.contains("<b>"), "{args:?}: {text}");
            });
        }
        scope.spawn(|| assert!(said(&["status", "--service", escape], &tcp).contains("there is no service")));
    });
    assert!(said(&["backend", "drain", SERVICE, BACKEND], &unix).contains("<script>"));
    for args in [
        &["overrides"][..],
        &["overrides", "--json"],
        &["config"],
        &["backend", "weight", SERVICE, escape, "7"],
        &["backend", "drain", escape, escape],
        &["spread", escape, escape, "--owners", "2", "--for", "1m"],
        &["spread", SERVICE, escape, "--owners", "2", "--for", "1m"],
        &["explain", "--service", SERVICE, "--key", escape],
        &["explain", "--service", escape, "--key", escape],
        &["explain", "--request", "GET /\u{202e}<b>", "-H", "x-key: \u{202e}\u{1b}[2J"],
        &["explain", "--request", "GET /<b>?\u{9b}", "--listener", escape],
        &["explain", "--request", escape],
    ] {
        said(args, &unix);
    }
    ringway.write_config(&file(50));
    said(&["reload"], &unix);
    // What a client asks for is a text of JSON, as it came.
    let path = "/%1b%5b2J'%3cscript%3e%00";
    let _waiting = send(other, format!("GET {path} HTTP/1.1\r\nHost: a\r\nx-a: \u{e9}\r\n\r\n").as_bytes());
    let listed = wait_for("the request, or its refusal", || {
        let listed: Value = serde_json::from_slice(&get(ringway.admin, "/sessions")?.body).unwrap();
        Some(listed).filter(|listed| listed["total"] == 1)
    });
    assert_eq!(listed["sessions"][0]["request"], format!("GET {path}"));
}

/// A door that lies: whatever it says, a command shows it as text.
#[test]
fn answers_of_a_proxy_that_is_none_are_shown_as_text_or_refused() {
    let bad = "\u{1b}[2J\u{9b}31m\u{202e}\r\nfake";
    let answer = serde_json::json!({
        "generation": bad, "changes": [bad], "warnings": [bad], "needs_restart": [bad], "overridden": [bad], "note": bad,
        "moved": [ { "service": bad, "percent": bad } ], "error": bad,
        "overrides": [ { "service": bad, "backend": bad, "field": bad, "value": bad, "by": bad, "seconds_left": 1e300 } ],
    });
    let body = answer.to_string();
    for status in ["200 OK", "422 Unprocessable", "401 No", "500 No"] {
        let answer = response(status, "", &body);
        let door = scripted(move |_| answer.clone());
        for args in [
            &["overrides"][..],
            &["overrides", "--json"],
            &["overrides", "--clear"],
            &["reload"],
            &["backend", "drain", "s", "a"],
            &["explain", "--service", "s", "--key", "k"],
            &["explain", "--request", "GET /"],
        ] {
            said(args, &door.address.to_string());
        }
    }
    for nonsense in [
        "HTTP/1.1 200 \u{1b}[2J\r\ncontent-length: 2\r\n\r\n[]",
        "\u{1b}[2J",
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n\u{1b}[2",
    ] {
        let door = scripted(|_| nonsense.to_owned());
        for args in [&["overrides"][..], &["reload", "--json"], &["status"], &["top", "--once"]] {
            said(args, &door.address.to_string());
        }
    }
}
