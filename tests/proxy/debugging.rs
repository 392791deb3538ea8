//! What an operator finds out of a running proxy, and has it say, without a restart: its log, its workers, the life of a request.

use crate::common::control::ringway_said;
use crate::common::peers::curl_body;
use crate::common::{
    Backend, Ringway, free_address, get, output, patience, read_answer, require, response, scripted, send, wait_for,
};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

/// A proxy with a Unix socket, by which one may operate.
struct Rig {
    ringway: Ringway,
    web: SocketAddr,
    socket: PathBuf,
    _directory: tempfile::TempDir,
}

impl Rig {
    fn new(backends: &[(&str, SocketAddr)]) -> Self {
        Self::with("", "hash_key: [ { path: {} } ]", backends)
    }

    /// `listener`: more of the only listener. `balance`: how its service balances.
    fn with(listener: &str, balance: &str, backends: &[(&str, SocketAddr)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (web, socket) = (free_address(), directory.path().join("admin.sock"));
        let backends: Vec<String> =
            backends.iter().map(|(id, address)| format!("{{ id: {id}, address: \"{address}\" }}")).collect();
        let file = format!(
            "workers: 2\nadmin: {{ address: \"ADMIN\", socket: {{ path: {socket:?} }} }}\n\
             listeners: [ {{ name: web, address: \"{web}\", service: s{listener} }} ]\n\
             services: [ {{ name: s, balance: {{ {balance} }}, backends: [ {} ] }} ]\n",
            backends.join(", ")
        );
        Self { ringway: Ringway::start(&file), web, socket, _directory: directory }
    }

    /// Runs a command against the socket: its exit code, and all that it says.
    fn run(&self, args: &[&str]) -> (Option<i32>, String) {
        let said = ringway_said(&[args, &["--admin", &format!("unix:{}", self.socket.display())]].concat());
        (said.status.code(), format!("{}{}", said.text(), String::from_utf8_lossy(&said.err)))
    }

    /// Asks the socket by curl.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let (socket, body) = (self.socket.display().to_string(), body.to_string());
        let url = format!("http://localhost{path}");
        let said = curl_body(&["-sS", "--unix-socket", &socket, "-X", method, "-d", &body, &url]);
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }
}

/// `ringway tap --json`, whose tap has begun.
struct Looker {
    child: Child,
    lines: Receiver<String>,
}

impl Looker {
    fn new(rig: &Rig, args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ringway"))
            .args(["tap", "--json", "--admin", &format!("unix:{}", rig.socket.display())])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut this = Self { lines, child };
        assert_eq!(this.next()["tap"]["silent_workers"], json!([]));
        this
    }

    fn next(&mut self) -> Value {
        let line = self.lines.recv_timeout(patience()).expect("a line in time");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// The lives that there are, and how it ends.
    fn rest(mut self) -> (Vec<Value>, Value, Option<i32>) {
        let mut lives = Vec::new();
        loop {
            let line = self.next();
            if line["end"].is_object() {
                return (lives, line["end"].clone(), self.child.wait().unwrap().code());
            }
            lives.push(line);
        }
    }
}

/// A raw request for a tap by the socket: of the answer no more is read than its beginning.
fn ask_for_tap(rig: &Rig, body: &Value) -> UnixStream {
    let mut stream = UnixStream::connect(&rig.socket).unwrap();
    let body = body.to_string();
    write!(stream, "POST /tap HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    stream
}

fn status_line(stream: &UnixStream) -> String {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

#[test]
fn the_next_requests_that_match_are_told_with_every_step_and_no_secret() {
    let Some(()) = require("curl") else { return };
    let backend = Backend::echo("a");
    let rig = Rig::new(&[("a", backend.address)]);
    let host = format!("host: {}", rig.web);
    let wanted = ["--path", "/look", "-H", "x-user: alice", "-H", &host, "--values", "--count", "2"];
    let looker = Looker::new(&rig, &wanted);
    let blind =
        Looker::new(&rig, &["--service", "s", "--method", "POST", "--from", "127.0.0.0/8", "--listener", "web"]);
    let url = format!("http://{}/look/here?page=7&access_token=hidden", rig.web);
    let secrets = [
        "authorization: Bearer hidden",
        "cookie: id=hidden",
        "x_api_key: hidden",
        "x-jwt: hidden",
        "referer: http://a/?q=1&code=hidden",
    ];
    let secrets: Vec<&str> = secrets.iter().flat_map(|field| ["-H", field]).collect();
    // One of several fields of that name.
    let fields = [&["-sS", "-H", "x-user: bob", "-H", "x-user: alice", "-d", "12345"], &secrets[..]].concat();
    get(rig.web, "/look").unwrap();
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        curl_body(&[&fields[..], &[version, &url]].concat());
    }
    // It has all that it wanted.
    curl_body(&[&fields[..], &[&url]].concat());
    let (lives, end, code) = looker.rest();
    let ended = json!({ "why": "count", "told": 2, "lost": 0, "passed_by": 0, "under_way": 0 });
    assert_eq!((code, lives.len(), end), (Some(0), 2, ended));
    for protocol in ["HTTP/1.1", "HTTP/2"] {
        let life = lives.iter().find(|life| life["request"]["protocol"] == protocol).unwrap();
        let request = &life["request"];
        for (field, expected) in [
            ("protocol", protocol),
            ("method", "POST"),
            ("path", "/look/here"),
            ("query", "page=7&access_token=(secret)"),
            ("listener", "web"),
            ("client", "127.0.0.1"),
            ("authority", &rig.web.to_string()),
        ] {
            assert_eq!(request[field], expected, "{life:#}");
        }
        let field = |name: &str| {
            let mut fields = request["fields"].as_array().unwrap().iter();
            fields.find(|field| field["name"] == name).unwrap_or_else(|| panic!("{name}: {life:#}"))
        };
        assert_eq!((&field("x-user")["value"], &field("x-jwt")["bytes"]), (&"bob".into(), &6.into()));
        assert_eq!(field("referer")["value"], "http://a/?q=1&code=(secret)");
        assert_eq!(field("authorization"), &json!({ "name": "authorization", "bytes": 13 }));
        assert!(!life.to_string().contains("hidden"), "{life:#}");
        assert_eq!((&life["service"], &life["backend"], &life["owner"]), (&"s".into(), &"a".into(), &"a".into()));
        assert_eq!((&life["candidates"], &life["route"]["number"]), (&json!(["a"]), &1.into()));
        assert_eq!(life["key_hash"].as_str().unwrap().len(), 16);
        let steps = life["steps"].as_array().unwrap();
        assert!(steps.len() == 1 && steps[0]["kind"] == "try" && steps[0]["status"] == 200, "{life:#}");
        assert!(["new", "reused"].iter().any(|word| steps[0]["connection"] == *word), "{life:#}");
        let times = ["began_seconds", "connected_seconds", "response_seconds", "ended_seconds"];
        let times = times.map(|name| steps[0][name].as_f64().unwrap());
        assert!(times.is_sorted() && times[3] <= life["duration_seconds"].as_f64().unwrap(), "{life:#}");
        assert_eq!(life["response"]["status"], 200);
        assert!(life["response"]["fields"].as_array().is_some_and(|fields| !fields.is_empty()), "{life:#}");
        assert!(life["received_bytes"].as_u64() >= Some(5) && life["sent_bytes"].as_u64() > Some(0), "{life:#}");
    }
    let events = String::from_utf8(get(rig.ringway.admin, "/events").unwrap().body).unwrap();
    assert!(events.contains("requests are looked at") && events.contains(" at the socket"), "{events}");
    assert!(!events.contains("alice"), "{events}");
    // Without `--values` none but harmless ones are told, nor the query, whatever others are told of the same request.
    let (lives, ..) = blind.rest();
    let text = lives[0].to_string();
    assert!(!text.contains("alice") && !text.contains("page=7") && text.contains("content-length"), "{text}");
}

#[test]
fn failed_tries_refusals_and_what_only_the_end_tells_are_seen() {
    let Some(()) = require("curl") else { return };
    let backend = scripted(|head| match head.contains("/bad") {
        true => response("503 Busy", "", "busy"),
        false => response("200 OK", "", "fine"),
    });
    let rig = Rig::new(&[("dead", free_address()), ("b", backend.address)]);
    let looker = Looker::new(&rig, &["--count", "30", "--path", "/key"]);
    for key in 0..30 {
        assert_eq!(get(rig.web, &format!("/key{key}")).unwrap().status, 200);
    }
    let (lives, ..) = looker.rest();
    let walked = lives.iter().find(|life| life["owner"] == "dead" && life["steps"].as_array().unwrap().len() > 1);
    let walked = walked.unwrap_or_else(|| panic!("{lives:#?}"));
    let (first, last) = (&walked["steps"][0], walked["steps"].as_array().unwrap().last().unwrap());
    assert!(first["backend"] == "dead" && first["error"].is_string() && first["connection"].is_null(), "{walked:#}");
    assert!(last["backend"] == "b" && last["status"] == 200 && walked["backend"] == "b", "{walked:#}");

    let looker = Looker::new(&rig, &["--status-min", "500", "--slower", "0", "--path", "/"]);
    assert_eq!(get(rig.web, "/good").unwrap().status, 200);
    assert_eq!(get(rig.web, "/bad").unwrap().status, 503);
    let (lives, end, code) = looker.rest();
    assert_eq!((code, &lives[0]["request"]["path"], &end["told"]), (Some(0), &"/bad".into(), &1.into()));

    // What goes to no backend is told too.
    let looker = Looker::new(&rig, &["--path", "/big"]);
    let head = b"GET /big HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\n\r\n";
    assert_eq!(read_answer(&mut send(rig.web, head), true).unwrap().status, 417);
    let (lives, ..) = looker.rest();
    assert_eq!((&lives[0]["response"]["status"], &lives[0]["steps"]), (&417.into(), &json!([])), "{:#}", lives[0]);

    // And a time that is over is said.
    let looker = Looker::new(&rig, &["--path", "/never", "--for", "1s"]);
    let (lives, end, code) = looker.rest();
    assert_eq!((code, lives.len(), &end["why"]), (Some(1), 0, &"time".into()));
    let (code, said) = rig.run(&["tap", "--path", "/never", "--for", "1s"]);
    assert!(code == Some(1) && said.contains("the time is over: 0 shown"), "{said}");
}

#[test]
fn what_has_not_ended_when_a_tap_does_is_told_as_far_as_it_has_come() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let rig = Rig::new(&[("silent", silent.local_addr().unwrap())]);
    let looker = Looker::new(&rig, &["--path", "/slow", "--count", "3", "--for", "2s"]);
    // One that only its end would tell from others is not told before it.
    let failing = Looker::new(&rig, &["--path", "/slow", "--status-min", "500", "--for", "2s"]);
    let fast = Looker::new(&rig, &["--path", "/slow", "--slower", "600", "--for", "2s"]);
    let client = send(rig.web, b"GET /slow HTTP/1.1\r\nHost: a\r\nCookie: topsecret\r\n\r\n");
    let (backend, _) = silent.accept().unwrap();
    let (lives, end, code) = looker.rest();
    assert_eq!((lives.len(), code, &end["why"]), (1, Some(1), &"time".into()), "{lives:#?} {end}");
    assert_eq!((&end["told"], &end["lost"], &end["under_way"]), (&1.into(), &0.into(), &0.into()), "{end}");
    let life = &lives[0];
    assert_eq!(
        (&life["unfinished"], &life["request"]["path"], &life["service"]),
        (&true.into(), &"/slow".into(), &"s".into())
    );
    assert!(!life.to_string().contains("topsecret"), "{life}");
    assert_eq!(life["response"]["status"], Value::Null);
    let step = &life["steps"][0];
    assert_eq!(
        (&step["kind"], &step["backend"], &step["connection"]),
        (&"try".into(), &"silent".into(), &"new".into())
    );
    assert_eq!((&step["ended_seconds"], &step["status"]), (&Value::Null, &Value::Null));
    assert!(life["duration_seconds"].as_f64().unwrap() >= step["connected_seconds"].as_f64().unwrap());
    for other in [failing, fast] {
        let (lives, end, _) = other.rest();
        assert_eq!((lives.len(), &end["lost"]), (0, &0.into()), "{end}");
    }
    drop((backend, client));
}

#[test]
fn a_session_of_tcp_is_told_with_its_tries_and_its_end_and_one_that_lasts_as_far_as_it_has_come() {
    let Some(()) = require("curl") else { return };
    let (backend, dead) = (Backend::echo("alive"), free_address());
    let rig =
        Rig::with(", protocol: tcp", "hash_key: [ { source_ip: {} } ]", &[("dead", dead), ("alive", backend.address)]);
    // Whichever of the two the client's address leads to: the session ends on the one that is alive.
    let looker = Looker::new(&rig, &["--service", "s", "--from", "127.0.0.0/8"]);
    let failing = Looker::new(&rig, &["--status-min", "100", "--for", "2s"]);
    curl_body(&["-sS", &format!("http://{}/by/tcp", rig.web)]);
    let (lives, end, code) = looker.rest();
    assert_eq!((code, &end["told"]), (Some(0), &1.into()), "{end}");
    let life = &lives[0];
    assert_eq!(
        (&life["session"]["protocol"], &life["session"]["listener"]),
        (&"TCP".into(), &"web".into()),
        "{life:#}"
    );
    assert_eq!((&life["service"], &life["backend"]), (&"s".into(), &"alive".into()), "{life:#}");
    assert_eq!(life["session"]["client"], "127.0.0.1");
    assert_eq!(life["candidates"].as_array().unwrap().len(), 2);
    assert!(life["received_bytes"].as_u64() > Some(0) && life["sent_bytes"].as_u64() > Some(0), "{life:#}");
    let steps = life["steps"].as_array().unwrap();
    let last = steps.last().unwrap();
    assert_eq!((&last["backend"], &last["connection"], &last["error"]), (&"alive".into(), &"new".into(), &Value::Null));
    for before in &steps[..steps.len() - 1] {
        assert_eq!((&before["backend"], &before["connection"]), (&"dead".into(), &Value::Null), "{life:#}");
        assert!(before["error"].is_string() && before["ended_seconds"].is_number(), "{life:#}");
    }
    assert_eq!(life["owner"] == "dead", steps.len() == 2, "{life:#}");
    let (lives, end, _) = failing.rest();
    assert_eq!((lives.len(), &end["lost"]), (0, &0.into()), "{lives:#?} {end}");
    let lasting = Looker::new(&rig, &["--slower", "0.1", "--count", "100", "--for", "2s"]);
    let held = TcpStream::connect(rig.web).unwrap();
    let held_from = held.local_addr().unwrap().to_string();
    // Nearly two seconds old by then, and not ended.
    let (lives, _, _) = lasting.rest();
    let of_held =
        lives.iter().find(|life| life["session"]["peer"] == held_from.as_str()).expect("the one that is held");
    assert_eq!((&of_held["unfinished"], &of_held["steps"][0]["kind"]), (&true.into(), &"try".into()), "{of_held:#}");
    drop(held);
    let (code, said) = rig.run(&["tap", "--service", "s", "--for", "1s"]);
    assert!(code == Some(1) && said.contains("0 shown"), "{said}");
}

#[test]
fn sessions_that_no_backend_takes_are_among_those_that_fail() {
    let rig = Rig::with(", protocol: tcp", "hash_key: [ { source_ip: {} } ]", &[("dead", free_address())]);
    let looker = Looker::new(&rig, &["--status-min", "500"]);
    let mut client = TcpStream::connect(rig.web).unwrap();
    let _ = client.read(&mut [0; 1]);
    let (lives, _, code) = looker.rest();
    let life = &lives[0];
    assert_eq!(
        (code, &life["steps"][0]["backend"], &life["sent_bytes"]),
        (Some(0), &"dead".into(), &0.into()),
        "{life:#}"
    );
    assert!(life["reason"].is_string() && life["steps"][0]["error"].is_string(), "{life:#}");
}

#[test]
fn what_only_a_request_has_is_not_waited_for_where_there_are_none() {
    let rig = Rig::with(", protocol: tcp", "hash_key: [ { source_ip: {} } ]", &[("a", free_address())]);
    for condition in [["--path", "/x"], ["--method", "GET"], ["--header", "host: a"], ["--route", "1"]] {
        let (code, said) = rig.run(&["tap", "--listener", "web", condition[0], condition[1]]);
        assert!(code == Some(1) && said.contains("listener \"web\" does not speak HTTP"), "{condition:?}: {said}");
        let (code, said) = rig.run(&["tap", condition[0], condition[1]]);
        assert!(code == Some(1) && said.contains("no listener speaks HTTP"), "{condition:?}: {said}");
    }
}

#[test]
fn a_flow_of_udp_is_told_once_it_has_ended() {
    let backend = UdpSocket::bind("127.0.0.1:0").unwrap();
    let rig = Rig::with(
        ", protocol: udp, udp: { idle: 300ms }",
        "hash_key: [ { source_ip: {} } ]",
        &[("b", backend.local_addr().unwrap())],
    );
    let looker = Looker::new(&rig, &["--listener", "web"]);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"hello", rig.web).unwrap();
    let mut buffer = [0; 16];
    let (count, flow) = backend.recv_from(&mut buffer).unwrap();
    backend.send_to(b"hi", flow).unwrap();
    assert_eq!((count, client.recv(&mut buffer).unwrap()), (5, 2));
    let (lives, _, code) = looker.rest();
    let life = &lives[0];
    assert_eq!(
        (code, &life["session"]["protocol"], &life["backend"]),
        (Some(0), &"UDP".into(), &"b".into()),
        "{life:#}"
    );
    assert_eq!((&life["received_bytes"], &life["sent_bytes"], &life["reason"]), (&5.into(), &2.into(), &"idle".into()));
    let step = &life["steps"][0];
    assert!(step["response_seconds"].is_number() && step["ended_seconds"].is_number(), "{life:#}");
}

#[test]
fn who_reads_nothing_leaves_or_asks_for_nonsense_disturbs_nobody() {
    let Some(()) = require("h2load") else { return };
    let backend = Backend::echo("a");
    let rig = Rig::new(&[("a", backend.address)]);
    for (body, said) in [
        (json!({ "count": 1_000_000 }), "`count` is a whole number from 1 to 100"),
        (json!({ "for_seconds": 0 }), "`for_seconds` is"),
        (json!({ "path_prefix": "x".repeat(5000) }), "`path_prefix` is a text"),
        (json!({ "client": "10.0.0.0/99" }), "`client` is an address"),
        (json!({ "service": "s", "body": true }), "there is no field \"body\""),
    ] {
        let refused = rig.ask("POST", "/tap", &body);
        assert!(refused["error"].as_str().unwrap().contains(said), "{refused}");
    }
    let refused = ringway_said(&["tap", "--admin", &rig.ringway.admin.to_string()]);
    assert!(refused.status.code() == Some(1) && String::from_utf8_lossy(&refused.err).contains("token"));

    // As many as may look at once; none of them reads.
    let wanted = json!({ "count": 100, "for_seconds": 600, "values": true });
    let silent: Vec<UnixStream> = (0..4).map(|_| ask_for_tap(&rig, &wanted)).collect();
    assert!(silent.iter().all(|stream| status_line(stream).contains(" 200 ")));
    assert!(status_line(&ask_for_tap(&rig, &json!({}))).contains(" 503 "));
    let load = |protocol: &str| {
        let url = format!("http://{}/{}", rig.web, "p".repeat(900));
        let field = format!("x-long: {}", "v".repeat(4000));
        let done = output("h2load", &[protocol, "-n", "600", "-c", "4", "-m", "4", "-H", &field, &url]);
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(said.contains("600 succeeded, 0 failed"), "{said}");
    };
    load("--h1");
    load("-ph2c");
    // They leave, and others have their places.
    drop(silent);
    wait_for("a place", || status_line(&ask_for_tap(&rig, &json!({}))).contains(" 200 ").then_some(()));
    load("--h1");
}

#[test]
fn the_log_says_more_for_a_time_and_goes_back_by_itself() {
    let Some(()) = require("curl") else { return };
    let backend = Backend::echo("a");
    let rig = Rig::new(&[("a", backend.address)]);
    let shown = |rig: &Rig| rig.ask("GET", "/log", &Value::Null);
    let start = shown(&rig)["filter"].clone();
    assert_eq!(shown(&rig), json!({ "filter": start, "start": start, "changed": null }));
    // Reloads that change nothing are told at `info`.
    let told = || rig.ringway.log().matches("configuration unchanged").count();
    let reload = || assert_eq!(rig.run(&["reload"]).0, Some(0));
    reload();
    wait_for("a line", || (told() == 1).then_some(()));
    let (code, said) = rig.run(&["log", "--filter", "warn,ringway_proxy=error", "--for", "1h"]);
    assert!(code == Some(0) && said.starts_with("warn,ringway_proxy=error\nchanged by"), "{said}");
    reload();
    let changed = shown(&rig);
    assert_eq!((&changed["filter"], &changed["start"]), (&"warn,ringway_proxy=error".into(), &start));
    let left = changed["changed"]["seconds_left"].as_f64().unwrap();
    assert!((1.0..=3600.0).contains(&left), "{changed}");
    assert!(rig.run(&["log", "--back"]).1.contains("as at the start"));
    // Lines come in their order: that of the reload would stand before this one.
    wait_for("the end of the change", || rig.ringway.log().contains("that of the start again").then_some(()));
    assert_eq!(told(), 1, "it says less");
    reload();
    wait_for("a line", || (told() == 2).then_some(()));
    // It goes back by itself.
    let changed = rig.ask("POST", "/log", &json!({ "filter": "error", "for_seconds": 1 }));
    assert_eq!(changed["filter"], "error");
    wait_for("the filter of the start", || (shown(&rig)["filter"] == start).then_some(()));
    reload();
    wait_for("a line", || (told() == 3).then_some(()));
    let events: Value = serde_json::from_slice(&get(rig.ringway.admin, "/events").unwrap().body).unwrap();
    let told: Vec<&str> = events["events"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["to"] == "log")
        .map(|event| event["text"].as_str().unwrap())
        .collect();
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(told[3].contains("its time is over"), "{told:?}");
    // A log that says nothing at all has said so before.
    assert_eq!(rig.run(&["log", "--filter", "off", "--for", "1h"]).0, Some(0));
    wait_for("the last line", || rig.ringway.log().contains("is about to be \\\"off\\\"").then_some(()));
    assert_eq!(rig.run(&["log", "--back"]).0, Some(0));
    // Nonsense changes nothing, and whoever only may read changes nothing either.
    for (body, said) in [
        (json!({ "filter": "dbug" }), "no level"),
        (json!({ "filter": "debug", "for_seconds": 999_999_999_u64 }), "1 to 86400"),
        (json!({ "filter": "a".repeat(5000) }), "at most 1024 bytes"),
        (json!({ "filter": "[{x=\"(a+)+$\"}]=trace" }), "no level"),
    ] {
        let refused = rig.ask("POST", "/log", &body);
        assert!(refused["error"].as_str().unwrap().contains(said), "{refused}");
    }
    assert_eq!(shown(&rig)["filter"], start);
    let admin = rig.ringway.admin.to_string();
    let refused = ringway_said(&["log", "--filter", "debug", "--admin", &admin]);
    assert!(refused.status.code() == Some(1) && String::from_utf8_lossy(&refused.err).contains("token"));
}

#[test]
fn a_worker_is_looked_into_with_its_listeners_connections_and_backends() {
    let backend = Backend::echo("a");
    let rig = Rig::new(&[("a", backend.address)]);
    // Idle on either side: a connection that has had a request, and one in a pool.
    let mut idle = send(rig.web, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(read_answer(&mut idle, true).unwrap().status, 200);
    let ask = |path: &str| -> Value { serde_json::from_slice(&get(rig.ringway.admin, path).unwrap().body).unwrap() };
    let one = wait_for("the worker that has them", || {
        let workers = ask("/workers");
        let all = workers["workers"].as_array().unwrap();
        assert_eq!(all.len(), 2, "{workers:#}");
        let answer = all.iter().all(|worker| worker["answers"] == true);
        all.iter()
            .filter(|_| answer)
            .find(|worker| worker["connections"] == 1 && worker["under_way_by"] == json!([]))
            .map(|worker| ask(&format!("/workers/{}", worker["worker"])))
    });
    assert_eq!(one["connections_by"], json!([ { "kind": "http", "state": "idle", "count": 1 } ]), "{one:#}");
    assert_eq!((&one["under_way_by"], &one["backends"], &one["generation"]), (&json!([]), &1.into(), &1.into()));
    assert!(one["tasks"].as_u64() > Some(1) && one["timers"].as_u64() > Some(0), "{one:#}");
    let listener = json!({
        "name": "web", "address": rig.web.to_string(), "kind": "http", "open": true, "connections": 1, "permits_taken": 1,
    });
    assert_eq!(one["listeners"], json!([listener]));
    let upstream = json!({ "service": "s", "backend": "a", "in_flight": 0, "idle": 1, "shared": 0, "streams": 0 });
    assert_eq!(one["upstreams"], json!([upstream]));
    let (code, said) = rig.run(&["workers"]);
    assert!(code == Some(0) && said.lines().count() == 3 && said.contains("answers"), "{said}");
    let (_, said) = rig.run(&["workers", &one["worker"].to_string(), "--limit", "5"]);
    assert!(said.contains("of 1 backends") && said.contains(&rig.web.to_string()), "{said}");
    for (path, status) in [
        ("/workers/2", 404),
        ("/workers/-1", 404),
        ("/workers/0?limit=0", 400),
        ("/workers/0?x=1", 400),
        ("/workers?x", 400),
    ] {
        assert_eq!(get(rig.ringway.admin, path).unwrap().status, status, "{path}");
    }
    assert_eq!(rig.run(&["workers", "7"]).0, Some(1));
}

#[test]
fn a_name_that_is_mistyped_is_told_at_once_with_what_there_is() {
    let Some(()) = require("curl") else { return };
    let backend = Backend::echo("a");
    let rig = Rig::new(&[("a", backend.address)]);
    for (args, says) in [
        (&["tap", "--service", "r"][..], "there is no service \"r\"; there are s"),
        (&["tap", "--listener", "wed"], "there is no listener \"wed\"; there are web"),
        (&["tap", "--route", "2"], "there is no route 2: there are 1, counted from 1"),
        (&["tap", "--path", "x"], "begins with a slash, as paths do: /x"),
        (&["tap", "--slower", "nan"], "`nan` is no time in seconds"),
        (&["tap", "--method", "G T"], "`method`: no request has \"G T\""),
        (&["tap", "-H", "a b: c"], "`headers`: no request has \"a b\""),
        (&["sessions", "--connections", "--service", "s"], "connections have none"),
        (&["sessions", "--service", "nope"], "there is no service \"nope\"; there are s"),
        (&["sessions", "--service", "s", "--backend", "b"], "there is no backend \"b\"; there are a"),
        (&["sessions", "--listener", "nope"], "there is no listener \"nope\"; there are web"),
        (&["sessions", "--state", "idle"], "states of connections"),
        (&["status", "--service", "nope"], "there is no service \"nope\"; there are s"),
        (&["top", "--once", "--service", "nope"], "there is no service \"nope\"; there are s"),
        (&["explain", "--service", "nope", "--key", "k"], "there is no service \"nope\"; there are s"),
    ] {
        let (code, said) = rig.run(args);
        assert!(code.is_some_and(|code| code != 0) && said.contains(says), "{args:?}: {code:?} {said}");
    }
    let socket = rig.socket.display().to_string();
    let status = |arguments: &[&str], url: &str| {
        let all = ["-sS", "-m", "5", "--unix-socket", &socket, "-o", "/dev/null", "-w", "%{http_code}"];
        curl_body(&[&all, arguments, &[url]].concat())
    };
    assert_eq!(status(&[], "http://localhost/live?service=nope"), "404");
    let twice = ["-d", r#"{"drain":true,"drain":false}"#];
    assert_eq!(status(&twice, "http://localhost/services/s/backends/a"), "400");
    // Without `--admin`, the proxy is asked that siblings ask.
    let mut explain = Command::new(env!("CARGO_BIN_EXE_ringway"));
    explain.args(["explain", "--request", "GET /x", "-H", "host: a", "--from", "10.0.0.1"]);
    let said = explain.env("RINGWAY_ADMIN", format!("unix:{socket}")).output().unwrap();
    assert!(String::from_utf8_lossy(&said.stdout).contains("goes to     a"), "{said:?}");
}
