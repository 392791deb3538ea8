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
fn a_command_whose_output_nobody_reads_ends_as_other_programs_do() {
    let directory = tempfile::tempdir().unwrap();
    let (file, broken) = (directory.path().join("c.yaml"), directory.path().join("broken.yaml"));
    std::fs::write(&file, simple(free_address(), "", &[("a", free_address())]).replace("ADMIN", "127.0.0.1:1"))
        .unwrap();
    std::fs::write(&broken, "listeners: 1\n").unwrap();
    let (_proxy, admin) = operated(directory.path());
    let (file, broken) = (path_text(&file), path_text(&broken));
    let alone = [
        "schema".to_owned(),
        format!("check {file}"),
        format!("check --json {file}"),
        format!("plan {file} {file}"),
        format!("plan {broken} {file}"),
        format!("explain --config {file} --service s --key k"),
    ];
    let of_a_proxy = [
        "status",
        "status --json",
        "top --once",
        "sessions",
        "workers",
        "workers 0",
        "overrides",
        "log",
        "config",
        "reload",
        "explain --service s --key k",
        "explain --request /x",
        "backend drain s a",
        "tap --for 1s",
        "spread s k --owners 2 --for 1m",
    ];
    let of_a_proxy = of_a_proxy.map(|command| format!("{command} --admin {admin}"));
    for command in alone.iter().chain(&of_a_proxy) {
        let mut run = Command::new(env!("CARGO_BIN_EXE_ringway"));
        run.args(command.split(' '));
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        // What goes to standard error is read by nobody either, where it is what the command prints.
        let is_error = command.contains("broken");
        if is_error {
            run.stderr(writer)
        } else {
            run.stdout(writer)
        };
        let ended = run.output().unwrap();
        let said = [ended.stdout, ended.stderr].concat();
        assert!(ended.status.code() == Some(141) && said.is_empty(), "{command}: {}", String::from_utf8_lossy(&said));
    }
}

#[test]
fn a_proxy_that_hangs_is_given_up_in_seconds_and_what_may_still_be_done_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let (proxy, admin) = operated(directory.path());
    proxy.signal("STOP");
    let ask = |command: &&str| {
        let mut run = Command::new(env!("CARGO_BIN_EXE_ringway"));
        run.args(command.split(' ')).args(["--admin", &admin]).stdout(Stdio::null()).stderr(Stdio::piped());
        run.spawn().unwrap()
    };
    let reads = [
        "status",
        "top --once",
        "status --json",
        "sessions",
        "workers",
        "overrides",
        "log",
        "config",
        "tap",
        "explain --service s --key k",
        "explain --request /x",
    ];
    let changes =
        ["reload", "backend drain s a", "spread s k --owners 2 --for 1m", "overrides --clear", "log --filter debug"];
    let asked: Vec<_> = reads.iter().chain(&changes).map(ask).collect();
    let mut ended = asked.into_iter().map(|child| child.wait_with_output().unwrap());
    for (command, is_change) in reads.iter().map(|one| (one, false)).chain(changes.iter().map(|one| (one, true))) {
        let ended = ended.next().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(2), "{command}: {said}");
        let expected = if is_change { "nor a sign of life" } else { "no answer within 10s" };
        assert!(said.contains(expected), "{command}: {said}");
        assert_eq!(said.contains("it may still be done"), is_change, "{command}: {said}");
    }
    proxy.signal("CONT");
    // By the log: another of these changes takes back what it has done.
    wait_for("the drain that was given up", || proxy.log().contains("drain=true").then_some(()));
}

#[test]
fn a_change_that_takes_long_is_waited_for_as_long_as_the_proxy_lives() {
    use std::io::Write;
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = server.local_addr().unwrap().to_string();
    let serving = std::thread::spawn(move || {
        let (mut change, _) = server.accept().unwrap();
        assert!(request_line(&mut change).starts_with("POST /reload "));
        // As long as a build may take: it is asked more than once meanwhile whether it lives.
        for _ in 0..2 {
            let (mut probe, _) = server.accept().unwrap();
            assert!(request_line(&mut probe).starts_with("GET /healthz "));
            probe.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        }
        change.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\n{\"generation\": 7}").unwrap();
    });
    let done = ringway(&["reload", "--admin", &admin]);
    serving.join().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success() && said.contains("generation 7"), "{said}{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn a_member_that_breaks_off_may_have_done_what_it_was_asked_for() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let member = format!("http://{}", server.local_addr().unwrap());
    let serving = std::thread::spawn(move || {
        for method in ["DELETE", "GET"] {
            let (mut asked, _) = server.accept().unwrap();
            assert!(request_line(&mut asked).starts_with(method));
        }
    });
    for (command, is_change) in [("token delete x", true), ("members", false)] {
        let arguments: Vec<&str> = ["control", "--members", &member].into_iter().chain(command.split(' ')).collect();
        let ended = ringway(&arguments);
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(2), "{said}");
        assert_eq!(said.contains("it may still be done"), is_change, "{command}: {said}");
    }
    serving.join().unwrap();
}

/// A proxy, and how to ask it as somebody who may change something.
fn operated(directory: &std::path::Path) -> (Ringway, String) {
    let backends = [("a", free_address()), ("b", free_address())];
    let file = simple(free_address(), "balance: { hash_key: [ { path: {} } ] }", &backends);
    let socket = directory.join("admin.sock");
    let file = file.replace("address: \"ADMIN\"", &format!("address: \"ADMIN\", socket: {{ path: {socket:?} }}"));
    (Ringway::start(&file), format!("unix:{}", socket.display()))
}

/// The first line of a request; its head is read.
fn request_line(stream: &mut std::net::TcpStream) -> String {
    use std::io::{BufRead, BufReader};
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let first = lines.next().unwrap();
    lines.find(String::is_empty);
    first
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
