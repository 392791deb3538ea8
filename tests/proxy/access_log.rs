//! Of what the access log has lines.

use crate::common::*;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

#[test]
fn an_access_log_has_the_lines_that_are_wanted_and_a_share_of_the_others() {
    let backend = scripted(|head| {
        if head.contains("/slow") {
            // Longer than what counts as slow.
            leave_time(Duration::from_millis(300));
        }
        response(if head.contains("/broken") { "503 Busy" } else { "200 OK" }, "", "")
    });
    let listen = free_address();
    let config = |only: &str, file: &std::path::Path| {
        let listener = format!(
            "listeners:\n  - {{ name: web, address: \"{listen}\", routes: [ {{ match: {{ path_prefix: /v1 }}, service: s }} ] }}"
        );
        let service =
            format!("services: [ {{ name: s, backends: [ {{ id: a, address: \"{}\" }} ] }} ]", backend.address);
        let log = format!("access_log: {{ format: json, target: {file:?}{only} }}");
        format!("workers: 1\nadmin: {{ address: \"ADMIN\" }}\n{log}\n{listener}\n{service}\n")
    };
    let directory = tempfile::tempdir().unwrap();
    let [some, all, none] = ["some", "all", "none"].map(|name| directory.path().join(name));
    let targets = ["/v1/good", "/v1/broken", "/nowhere", "/v1/slow"];
    let ask = || targets.iter().for_each(|path| drop(get(listen, path).unwrap()));
    let logged = |file: &std::path::Path| {
        let text = std::fs::read_to_string(file).unwrap();
        let line = |line: &str| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["target"].as_str().unwrap().to_owned()
        };
        text.lines().map(line).collect::<Vec<_>>()
    };
    let ringway = Ringway::start(&config(", only: { status: [ 5xx, 404 ], slower_than: 200ms }", &some));
    ask();
    wait_for("the line of the last", || (logged(&some).last()? == "/v1/slow").then_some(()));
    assert_eq!(logged(&some), targets[1..]);
    ringway.reconfigure(&config(", only: { status: [ 418 ], sample: 100% }", &all));
    ask();
    wait_for("all lines", || (logged(&all) == targets).then_some(()));
    ringway.reconfigure(&config(", only: { status: [ 404 ], sample: 0% }", &none));
    ask();
    assert_eq!(get(listen, "/nowhere/again").unwrap().status, 404);
    wait_for("two lines", || (logged(&none) == ["/nowhere", "/nowhere/again"]).then_some(()));
}

#[test]
fn a_syslog_server_gets_each_line_and_one_that_is_gone_disturbs_nothing() {
    let backend = Backend::echo("a");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("syslog");
    let server = UnixDatagram::bind(&path).unwrap();
    server.set_read_timeout(Some(patience())).unwrap();
    let listen = free_address();
    let top = format!("workers: 1\naccess_log: {{ format: json, target: \"syslog:{}\" }}", path.display());
    let ringway = Ringway::start(&simple(listen, "", &[("a", backend.address)]).replacen("workers: 2", &top, 1));
    let ask = |path: &str| assert_eq!(get(listen, path).unwrap().status, 200);
    let mut space = [0; 4096];
    let mut next = || {
        let count = server.recv(&mut space).unwrap();
        String::from_utf8_lossy(&space[..count]).into_owned()
    };
    ask("/one");
    let line = next();
    assert!(
        line.starts_with("<134>1 ") && line.contains(" ringway ") && line.contains("\"target\":\"/one\""),
        "{line}"
    );
    std::fs::remove_file(&path).unwrap();
    drop(server);
    (0..10).for_each(|_| ask("/lost"));
    wait_for("ten lines lost", || (ringway.metric("ringway_access_log_lost_total") == 10.0).then_some(()));
    assert!(ringway.log().contains("the access log cannot be written"), "{}", ringway.log());
    let server = UnixDatagram::bind(&path).unwrap();
    server.set_nonblocking(true).unwrap();
    wait_for("a line once it is back", || {
        ask("/back");
        let count = server.recv(&mut space).ok()?;
        String::from_utf8_lossy(&space[..count]).contains("/back").then_some(())
    });
}
