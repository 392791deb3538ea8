//! The command line's promises: exit codes, JSON, the demo.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::*;
use std::process::{Command, Stdio};

#[test]
fn check_says_what_is_wrong_and_exits_accordingly() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("c.yaml");
    let path = path_text(&file);
    std::fs::write(&file, "listeners: [ { name: web, address: \"127.0.0.1:1\", service: s } ]\nservices: [ { name: s, backends: [ { id: a, address: \"127.0.0.1:2\" } ] } ]\n").unwrap();
    assert_eq!(ringway(&["check", path]).status.code(), Some(0));
    let output = ringway(&["check", path, "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&value["valid"], value["errors"].as_array().unwrap().len()), (&true.into(), 0));

    std::fs::write(
        &file,
        "listeners: [ { name: web, adress: \"127.0.0.1:1\", service: t } ]\nservices: [ { name: s, backends: [] } ]\n",
    )
    .unwrap();
    let output = ringway(&["check", path]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.contains("error[unknown_field]: unknown field `adress` in a listener")
            && text.contains("help: write `address`"),
        "{text}"
    );
    assert!(text.contains(&format!("--> {path}:1:27")), "{text}");
    let output = ringway(&["check", path, "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &value["valid"]), (Some(1), &false.into()));
    let codes: Vec<&str> =
        value["errors"].as_array().unwrap().iter().map(|error| error["code"].as_str().unwrap()).collect();
    // That it has no `address` is not said beside.
    assert_eq!(codes, ["unknown_field", "empty_service"]);
    assert!(value["errors"][0]["line"] == 1 && value["errors"][0]["column"] == 27, "{value}");

    assert_eq!(ringway(&["check", "/nonexistent"]).status.code(), Some(1));
    for arguments in [&["run", "--config", path][..], &["run", path]] {
        let output = ringway(arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && text.contains("unknown field `adress`"), "{arguments:?}: {text}");
    }
    assert_eq!(ringway(&["explain", "--config", path, "--service", "s", "--key", "k"]).status.code(), Some(2));
}

#[test]
fn schema_is_the_one_in_the_repository() {
    let output = ringway(&["schema"]);
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let kept: serde_json::Value = serde_json::from_str(include_str!("../../config.schema.json")).unwrap();
    assert_eq!(printed, kept);
}

#[test]
fn example_configuration_is_valid() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config.example.yaml");
    let output = ringway(&["check", "--no-files", path]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn demo_answers_and_names_its_backend() {
    let (listen, admin, control) = (free_address(), free_address(), free_address());
    let child = Command::new(env!("CARGO_BIN_EXE_ringway"))
        .args(["demo", "--listen", &listen.to_string(), "--admin", &admin.to_string()])
        .args(["--control", &control.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut child = Running(child);
    let first = wait_for("the demo", || get_with(listen, "/", "x-user-id: alice\r\n"));
    let backend = first.header("x-backend").unwrap().to_owned();
    for _ in 0..5 {
        let again = get_with(listen, "/", "x-user-id: alice\r\n").unwrap();
        assert_eq!(again.header("x-backend"), Some(backend.as_str()));
    }
    // A request is counted once its answer has been delivered.
    wait_for("the count", || {
        let text = get(admin, "/metrics")?.text();
        text.contains("ringway_requests_total{service=\"sample\",class=\"2xx\"} 6").then_some(())
    });
    signal(child.0.id(), "TERM");
    assert!(wait_for("the demo to end", || child.0.try_wait().unwrap()).success());
}

#[test]
fn admin_listener_answers_what_it_should() {
    let backend = Backend::echo("a");
    let ringway = Ringway::start(&simple(free_address(), "", &[("a", backend.address)]));
    let status = |path: &str| get(ringway.admin, path).unwrap().status;
    assert_eq!((status("/healthz"), status("/readyz"), status("/nothing"), status("/reload")), (200, 200, 404, 405));
    let value = ringway.status();
    assert_eq!((&value["generation"], &value["services"][0]["backends"][0]["state"]), (&1.into(), &"up".into()));
    assert_eq!(value["services"][0]["backends"][0]["ring_share"], 1.0);
    assert!(value["services"][0]["ring_digest"].as_str().unwrap().len() == 16);
    // Every metric of the catalogue's data path is there, with its help.
    let text = get(ringway.admin, "/metrics").unwrap().text();
    for name in
        ["ringway_requests_total", "ringway_backend_cap", "ringway_config_generation", "ringway_downstream_connections"]
    {
        assert!(text.contains(&format!("# HELP {name} ")) && text.contains(&format!("# TYPE {name} ")), "{name}");
    }
}

#[test]
fn addresses_that_cannot_be_bound_are_told_once_with_their_lines_and_a_remedy() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (taken, fleet) = (taken.local_addr().map(|address| (address, taken)).unwrap(), echoes(1));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("c.yaml");
    let text = |admin: &str, one: &str| {
        format!(
            "workers: 4\nadmin:\n  address: \"{admin}\"\nlisteners:\n  - name: one\n    address: \"{one}\"\n    service: s\n  - name: two\n    \
             address: \"192.0.2.1:8080\"\n    service: s\nservices:\n  - {{ name: s, backends: [ {{ id: a, address: \"{}\" }} ] }}\n",
            fleet[0].1.address
        )
    };
    std::fs::write(&file, text("127.0.0.1:0", &taken.0.to_string())).unwrap();
    let run = || {
        let ended = ringway(&["run", "--config", path_text(&file)]);
        (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
    };
    let (code, said) = run();
    assert_eq!(code, Some(2), "{said}");
    for (place, remedy) in [("c.yaml:6:14", "another process has it"), ("c.yaml:9:14", "no such address")] {
        assert_eq!((said.matches(place).count(), said.matches(remedy).count()), (1, 1), "{said}");
    }
    std::fs::write(&file, text(&taken.0.to_string(), "127.0.0.1:0")).unwrap();
    let (code, said) = run();
    assert!(code == Some(2) && said.contains("c.yaml:3:12") && said.contains("another process has it"), "{said}");
    // At a reload too, where they can be read by a program; and what has only moved has not changed.
    let good = simple(free_address(), "", &targets(&fleet));
    let ringway = Ringway::start(&good);
    let bad = good.replace(
        "service: s } ]",
        &format!("service: s }},\n  {{ name: two, address: \"{}\", service: s }} ]", taken.0),
    );
    ringway.write_config(&bad);
    let last = wait_for("the refusal", || {
        let last = ringway.status()["last_reload"].clone();
        (last["result"] == "refused").then_some(last)
    });
    let finding = &last["diagnostics"][0];
    assert_eq!(
        (&finding["code"], &finding["line"], &finding["column"]),
        (&"bind".into(), &4.into(), &25.into()),
        "{last}"
    );
    assert!(finding["help"].as_str().unwrap().contains("another process has it"), "{last}");
    ringway.write_config(&format!("# moved\n\n{good}"));
    send(ringway.admin, b"POST /reload HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    wait_for("the reload", || ringway.log().contains("configuration unchanged").then_some(()));
    assert_eq!(ringway.status()["generation"], 1);
}
