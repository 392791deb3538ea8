//! Of what the access log has lines.

use crate::common::*;
use serde_json::json;
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

/// Starts a proxy of one worker with this access log, in front of a backend.
fn logging(listen: std::net::SocketAddr, backend: &Backend, section: &str) -> Ringway {
    let top = format!("workers: 1\naccess_log: {{ {section} }}");
    Ringway::start(&simple(listen, "", &[("a", backend.address)]).replacen("workers: 2", &top, 1))
}

#[test]
fn an_access_log_has_the_fields_that_are_chosen_and_no_header_forges_another() {
    let (backend, listen) = (Backend::echo("a"), free_address());
    let directory = tempfile::tempdir().unwrap();
    let [chosen, template, combined] = ["chosen", "template", "combined"].map(|name| directory.path().join(name));
    let lines = |file: &std::path::Path, count: usize| {
        wait_for("the lines", || {
            let text = std::fs::read_to_string(file).ok()?;
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            (lines.len() == count && text.ends_with('\n')).then_some(lines)
        })
    };
    let hostile = b"GET /a?b=c HTTP/1.1\r\nHost: h.test\r\nUser-Agent: a\" 200 \\\xff \"b\r\nX-More: one two\r\nConnection: close\r\n\r\n";
    let fields = "fields: [ status, path, query, protocol, tries, backend, tls_version, host, \"header:x-more\", \"header:x-none\", user_agent ]";
    let ringway = logging(listen, &backend, &format!("format: json, target: {chosen:?}, {fields}"));
    assert!(raw(listen, hostile).starts_with("HTTP/1.1 200"));
    assert_eq!(
        lines(&chosen, 1)[0],
        "{\"status\":200,\"path\":\"/a\",\"query\":\"b=c\",\"protocol\":\"HTTP/1.1\",\"tries\":1,\"backend\":\"a\",\
         \"tls_version\":null,\"host\":\"h.test\",\"header:x-more\":\"one two\",\"header:x-none\":null,\
         \"user_agent\":\"a\\\" 200 \\\\\\u00ff \\\"b\"}"
    );
    drop(ringway);
    let text =
        "template: '{{{status}}} {header:x-more} \"{header:user-agent}\" {service}/{backend},{header:x-more},{status}'";
    let ringway = logging(listen, &backend, &format!("format: text, target: {template:?}, {text}"));
    raw(listen, hostile);
    raw(listen, b"GET / HTTP/1.1\r\nHost: h.test\r\nX-More: x,404\r\nConnection: close\r\n\r\n");
    let found = lines(&template, 2);
    assert_eq!(found[0], r#"{200} one\x20two "a\x22 200 \x5C\xFF \x22b" s/a,one\x20two,200"#);
    assert_eq!(found[1], r#"{200} x,404 "-" s/a,x\x2C404,200"#);
    drop(ringway);
    let _ringway = logging(listen, &backend, &format!("format: combined, target: {combined:?}"));
    raw(listen, hostile);
    let url = format!("http://{listen}/by/curl");
    output("curl", &["-sS", "-A", "agent 1", "-e", "http://from.test/", &url]);
    let lines = lines(&combined, 2);
    let (when, rest) = lines[1].strip_prefix("127.0.0.1 - - [").unwrap().split_once("] ").unwrap();
    assert!(when.len() == 26 && when.ends_with(" +0000") && &when[2..3] == "/", "{when}");
    let (request, rest) = rest.split_once(" 200 ").unwrap();
    assert_eq!(request, "\"GET /by/curl HTTP/1.1\"");
    assert!(rest.ends_with(" \"http://from.test/\" \"agent 1\""), "{rest}");
    assert!(lines[0].ends_with(r#" "-" "a\x22 200 \x5C\xFF \x22b""#), "{}", lines[0]);
}

#[test]
fn a_combined_line_of_a_response_of_its_own_has_what_the_client_says_of_itself() {
    let (backend, listen) = (Backend::echo("a"), free_address());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("combined");
    let listener = format!(
        "listeners:\n  - {{ name: web, address: \"{listen}\", routes: [ {{ match: {{ path_prefix: /v1 }}, service: s }} ] }}"
    );
    let service = format!("services: [ {{ name: s, backends: [ {{ id: a, address: \"{}\" }} ] }} ]", backend.address);
    let log = format!("access_log: {{ format: combined, target: {file:?} }}");
    let _ringway =
        Ringway::start(&format!("workers: 1\nadmin: {{ address: \"ADMIN\" }}\n{log}\n{listener}\n{service}\n"));
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        output("curl", &["-sS", version, "-A", "agent 1", "-e", "http://from.test/", &format!("http://{listen}/none")]);
    }
    let text = wait_for("two lines", || {
        let text = std::fs::read_to_string(&file).ok()?;
        (text.lines().count() == 2 && text.ends_with('\n')).then_some(text)
    });
    assert!(text.lines().all(|line| line.ends_with(" \"http://from.test/\" \"agent 1\"")), "{text}");
    assert!(text.contains("\"GET /none HTTP/1.1\" 404 ") && text.contains("\"GET /none HTTP/2.0\" 404 "), "{text}");
}

#[test]
fn a_route_has_the_number_that_explain_tells_and_so_has_a_response_of_its_own() {
    let (backend, listen) = (Backend::echo("a"), free_address());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("log");
    let routes = "{ match: { path_prefix: /old }, redirect: { status: 308, path: /new } }, { match: { path_prefix: /v1 }, service: s }";
    let ringway = Ringway::start(&format!(
        "workers: 1\nadmin: {{ address: \"ADMIN\" }}\naccess_log: {{ format: json, target: {file:?}, fields: [ target, route ] }}\n\
         listeners: [ {{ name: web, address: \"{listen}\", routes: [ {routes} ] }} ]\n\
         services: [ {{ name: s, backends: [ {{ id: a, address: \"{}\" }} ] }} ]\n",
        backend.address
    ));
    let admin = ringway.admin.to_string();
    for (target, number) in [("/old", json!(1)), ("/v1", json!(2)), ("/none", json!(null))] {
        output("curl", &["-sS", &format!("http://{listen}{target}")]);
        let logged = wait_for("its line", || {
            let text = std::fs::read_to_string(&file).ok()?;
            let line = text.lines().find(|line| line.contains(target))?;
            serde_json::from_str::<serde_json::Value>(line).ok()
        });
        let asked = ["explain", "--admin", &admin, "--json", "--request", &format!("GET {target}"), "-H", "host: a"];
        let explained: serde_json::Value = serde_json::from_slice(&crate::common::ringway(&asked).stdout).unwrap();
        assert_eq!((&logged["route"], &explained["route"]["number"]), (&number, &number), "{logged} {explained:#}");
    }
}

/// A line whose values that differ each time are `#`.
fn masked(line: &str, between: &str, ends: [char; 2]) -> String {
    let mut line = line.to_owned();
    for name in ["time_ms", "key_hash", "sent_bytes", "connect_us", "upstream_head_us", "duration_us"] {
        let name = format!("{name}{between}");
        let Some(begin) = line.find(&name).map(|at| at + name.len()) else { continue };
        let end = line[begin..].find(ends).map_or(line.len(), |length| begin + length);
        line.replace_range(begin..end, "#");
    }
    line
}

#[test]
fn lines_without_a_choice_are_byte_for_byte_what_they_were() {
    let (backend, listen) = (Backend::echo("a"), free_address());
    let directory = tempfile::tempdir().unwrap();
    let requests: [&[u8]; 2] =
        [b"GET /a?b=\"c HTTP/1.1\r\nHost: h.test\r\nConnection: close\r\n\r\n", b"no request\r\n\r\n"];
    for (format, between, ends, of_backend, of_own) in [
        (
            "json",
            "\":",
            [',', '}'],
            r#"{"time_ms":#,"client":"127.0.0.1","listener":"web","method":"GET","target":"/a?b=\"c","status":200,"reason":null,"service":"s","key_hash":#,"owner":"a","backend":"a","spills":0,"skipped":0,"hot":0,"retries":0,"generation":1,"received_bytes":57,"sent_bytes":#,"connect_us":#,"upstream_head_us":#,"duration_us":#,"connection_id":null}"#,
            r#"{"time_ms":#,"client":"127.0.0.1","listener":"web","method":"no","target":"request","status":400,"reason":"bad_start_line","service":null}"#,
        ),
        (
            "text",
            "=",
            [' ', '\n'],
            r#"time_ms=# client=127.0.0.1 listener=web method="GET" target="/a?b=\"c" status=200 reason=- service=s key_hash=# owner=a backend=a spills=0 skipped=0 hot=0 retries=0 generation=1 received_bytes=57 sent_bytes=# connect_us=# upstream_head_us=# duration_us=# connection_id=-"#,
            r#"time_ms=# client=127.0.0.1 listener=web method="no" target="request" status=400 reason=bad_start_line service=-"#,
        ),
    ] {
        let file = directory.path().join(format);
        let _ringway = logging(listen, &backend, &format!("format: {format}, target: {file:?}"));
        requests.iter().for_each(|request| drop(raw(listen, request)));
        let text = wait_for("two lines", || {
            let text = std::fs::read_to_string(&file).ok()?;
            (text.lines().count() == 2 && text.ends_with('\n')).then_some(text)
        });
        let found: Vec<String> = text.lines().map(|line| masked(line, between, ends)).collect();
        assert_eq!(found, [of_backend, of_own]);
    }
}

#[test]
fn a_syslog_server_over_udp_gets_each_line() {
    let (backend, listen) = (Backend::echo("a"), free_address());
    // A port that is this process's own also while nobody is bound to it.
    let address = free_address();
    let server = std::net::UdpSocket::bind(address).unwrap();
    server.set_read_timeout(Some(patience())).unwrap();
    let ringway = logging(listen, &backend, &format!("format: json, target: \"syslog+udp://{address}\""));
    let mut space = [0; 4096];
    for path in ["/one", "/two"] {
        assert_eq!(get(listen, path).unwrap().status, 200);
        let count = server.recv(&mut space).unwrap();
        let line = String::from_utf8_lossy(&space[..count]);
        assert!(line.starts_with("<134>1 ") && line.contains(&format!("\"target\":\"{path}\"")), "{line}");
    }
    // Nobody listens: the kernel says so, or does not; requests do not notice.
    drop(server);
    wait_for("a lost line", || {
        assert_eq!(get(listen, "/lost").unwrap().status, 200);
        (ringway.metric("ringway_access_log_lost_total") > 0.0).then_some(())
    });
    let server = std::net::UdpSocket::bind(address).unwrap();
    server.set_nonblocking(true).unwrap();
    wait_for("a line once it is back", || {
        assert_eq!(get(listen, "/back").unwrap().status, 200);
        let count = server.recv(&mut space).ok()?;
        String::from_utf8_lossy(&space[..count]).contains("/back").then_some(())
    });
}

#[test]
fn a_syslog_server_over_tcp_that_goes_and_comes_back_loses_lines_that_are_counted() {
    use std::io::{BufRead, BufReader};
    let (backend, listen) = (Backend::echo("a"), free_address());
    let address = free_address();
    let server = std::net::TcpListener::bind(address).unwrap();
    let ringway = logging(listen, &backend, &format!("format: json, target: \"syslog+tcp://{address}\""));
    let ask = |path: &str| assert_eq!(get(listen, path).unwrap().status, 200);
    ask("/one");
    let (stream, _) = server.accept().unwrap();
    stream.set_read_timeout(Some(patience())).unwrap();
    let mut reader = BufReader::new(stream);
    // Its length stands before it.
    let mut length = Vec::new();
    reader.read_until(b' ', &mut length).unwrap();
    let length: usize = String::from_utf8(length).unwrap().trim().parse().unwrap();
    let mut message = vec![0; length];
    std::io::Read::read_exact(&mut reader, &mut message).unwrap();
    let message = String::from_utf8(message).unwrap();
    assert!(message.starts_with("<134>1 ") && message.contains("\"target\":\"/one\""), "{message}");
    drop((reader, server));
    wait_for("a lost line", || {
        ask("/lost");
        (ringway.metric("ringway_access_log_lost_total") > 0.0).then_some(())
    });
    let server = std::net::TcpListener::bind(address).unwrap();
    server.set_nonblocking(true).unwrap();
    wait_for("a connection once it is back", || {
        ask("/back");
        server.accept().ok()
    });
}

#[test]
fn a_full_disk_loses_lines_that_are_counted_and_disturbs_no_request() {
    let (backend, listen) = (Backend::echo("a"), free_address());
    let ringway = logging(listen, &backend, "format: json, target: /dev/full");
    (0..20).for_each(|_| assert_eq!(get(listen, "/").unwrap().status, 200));
    wait_for("all lines lost", || (ringway.metric("ringway_access_log_lost_total") == 20.0).then_some(()));
    assert!(ringway.log().contains("the access log cannot be written"), "{}", ringway.log());
}
