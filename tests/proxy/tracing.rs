//! What marks requests, and what is told of them: request ids, trace context, spans that a collector of OpenTelemetry's reads, and
//! collectors that hang, are slow, refuse, or are not there.

mod exporters;

use crate::common::peers::curl_body;
use crate::common::*;
use serde_json::Value;
use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CLIENT: &str = "00f067aa0ba902b7";

/// A collector in Python.
struct Collector {
    address: SocketAddr,
    /// Of TLS, if it has a certificate.
    secure: Option<SocketAddr>,
    _process: Running,
}

impl Collector {
    fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// With a certificate and its key, and those that it has later.
    fn start_with(files: &[String]) -> Option<Self> {
        require_python("opentelemetry.proto.collector.trace.v1.trace_service_pb2")?;
        let mut process = Command::new("python3")
            .args(["-c", include_str!("../python/otlp_collector.py")])
            .args(files)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let mut ports = line.split_whitespace().map(|port| SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap())));
        Some(Self { address: ports.next().unwrap(), secure: ports.next(), _process: Running(process) })
    }

    fn ask(&self, path: &str) -> Value {
        let answer = get(self.address, path).unwrap_or_else(|| not_yet("the collector does not answer"));
        serde_json::from_slice(&answer.body).unwrap()
    }

    fn turn(&self, mode: &str) {
        self.ask(&format!("/mode/{mode}"));
    }

    /// The spans that it has, once they are so many.
    fn spans(&self, count: usize) -> Vec<Value> {
        wait_for(&format!("{count} spans"), || {
            let spans = self.ask("/spans")["spans"].as_array().unwrap().clone();
            (spans.len() >= count).then_some(spans)
        })
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn attribute<'a>(span: &'a Value, name: &str) -> &'a str {
    text(&span["attributes"], name)
}

fn of_kind(spans: &[Value], kind: u64) -> Vec<&Value> {
    spans.iter().filter(|span| span["kind"] == kind).collect()
}

const SERVER: u64 = 2;
const CLIENT_SIDE: u64 = 3;

/// A proxy: top, of its listener, of its service, its backends.
fn proxy(top: &str, listener: &str, service: &str, backends: &[(&str, SocketAddr)]) -> (Ringway, SocketAddr) {
    let listen = free_address();
    (Ringway::start(&config(listen, top, listener, service, backends)), listen)
}

fn config(listen: SocketAddr, top: &str, listener: &str, service: &str, backends: &[(&str, SocketAddr)]) -> String {
    let backends: Vec<String> =
        backends.iter().map(|(id, address)| format!("{{ id: {id}, address: \"{address}\" }}")).collect();
    format!(
        "workers: 1\nadmin: {{ address: \"ADMIN\" }}\n{top}\nlisteners:\n  - name: web\n    address: \"{listen}\"\n    \
         {listener}\n    routes: [ {{ match: {{ path_prefix: /v1 }}, service: s }} ]\nservices:\n  - name: s\n    \
         {service}\n    backends: [ {} ]\n",
        backends.join(", ")
    )
}

fn tracing(address: SocketAddr, more: &str) -> String {
    format!("tracing: {{ endpoint: \"http://{address}\", trust: all{more} }}")
}

/// Answers with the head that it has got.
fn mirror() -> Backend {
    scripted(|head| response("200 OK", "x-request-id: of-the-backend\r\n", head))
}

/// The value of a field in the text of a head.
fn field<'t>(head: &'t str, name: &str) -> Option<&'t str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

#[test]
fn each_request_has_an_id_that_its_backend_its_client_and_the_access_log_are_told() {
    let Some(()) = require("curl") else { return };
    let backend = mirror();
    let file = tempfile::NamedTempFile::new().unwrap();
    let log = format!("access_log: {{ format: json, target: {:?} }}", file.path());
    let listener = "request_id: { trust: all, respond: true }";
    let (_ringway, listen) = proxy(&log, listener, "balance: { policy: round_robin }", &[("a", backend.address)]);
    let mut ids = HashSet::new();
    let url = format!("http://{listen}/v1/a");
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        for told in [None, Some("abc-1"), Some("a b"), Some("")] {
            let header = told.map(|told| format!("X-Request-ID: {told}"));
            let more: Vec<&str> = header.iter().flat_map(|header| ["-H", header.as_str()]).collect();
            let said = output("curl", &[&["-sS", "-i", "--max-time", "10", version, &url][..], &more].concat());
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            let (head, body) = said.split_once("\r\n\r\n").unwrap();
            let id = field(head, "x-request-id").unwrap();
            assert_eq!(head.matches("x-request-id").count(), 1, "{head}");
            assert_eq!(field(body, "x-request-id"), Some(id), "{body}");
            if told == Some("abc-1") {
                assert_eq!(id, "abc-1");
            } else {
                assert!(id.len() == 32 && ids.insert(id.to_owned()), "{id}");
            }
        }
    }
    // One that goes nowhere has one too.
    let refused = get(listen, "/nowhere").unwrap();
    let id = refused.header("x-request-id").unwrap().to_owned();
    assert_eq!((refused.status, ids.insert(id)), (404, true));
    wait_for("lines of the access log", || {
        let lines = std::fs::read_to_string(file.path()).unwrap();
        ids.iter().all(|id| lines.contains(&format!("\"request_id\":\"{id}\""))).then_some(())
    });
}

#[test]
fn what_is_refused_for_its_head_has_an_id_too_and_is_told_by_its_first_line() {
    let (directory, backend) = (tempfile::tempdir().unwrap(), Backend::echo("a"));
    let log = directory.path().join("access.log");
    let top = format!("access_log: {{ format: json, target: {log:?} }}");
    let listener = "request_id: { respond: true }\n    timeouts: { head: 300ms }";
    let (_ringway, listen) = proxy(&top, listener, "timeouts: {}", &[("a", backend.address)]);
    let long = format!("GET /long HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(1_000_000));
    let cases = [
        ("GET /no-host HTTP/1.1\r\n\r\n", Some("GET"), Some("/no-host")),
        ("POST /hosts HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", Some("POST"), Some("/hosts")),
        (&long, Some("GET"), Some("/long")),
        ("GET /slow HTTP/1.1\r\nHost: a\r\n", Some("GET"), Some("/slow")),
        ("\u{1}\u{2}nonsense\r\n\r\n", None, Some("\u{1}\u{2}nonsense")),
    ];
    for (count, (bytes, method, target)) in cases.into_iter().enumerate() {
        let said = raw(listen, bytes.as_bytes());
        let id = field(&said, "x-request-id").unwrap_or_else(|| panic!("{said}")).to_owned();
        let line = wait_for("its line", || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            text.lines().nth(count).map(|line| serde_json::from_str::<Value>(line).unwrap())
        });
        let told = |name: &str| line[name].as_str().map(str::to_owned);
        assert_eq!(
            (told("request_id"), told("method").as_deref(), told("target").as_deref()),
            (Some(id), method, target),
            "{line}"
        );
        assert!(line["reason"].is_string(), "{line}");
    }
}

#[test]
fn an_id_of_a_client_that_is_not_trusted_is_replaced_and_without_the_section_it_is_any_field() {
    let backend = mirror();
    let field_of = |listener: &str| {
        let (_ringway, listen) = proxy("", listener, "balance: {}", &[("a", backend.address)]);
        let answer = get_with(listen, "/v1", "x-request-id: mine\r\nx_request_id: sly\r\n").unwrap();
        assert_eq!(answer.header("x-request-id"), Some("of-the-backend"));
        let text = answer.text();
        (field(&text, "x-request-id").unwrap_or_default().to_owned(), text.contains("sly"))
    };
    assert_eq!(field_of(""), ("mine".to_owned(), true));
    let trusted = "forwarded: { trusted: [ \"127.0.0.0/8\" ] }\n    request_id: {}";
    assert_eq!(field_of(trusted), ("mine".to_owned(), false));
    let (replaced, has_sly) = field_of("request_id: {}");
    assert!(replaced.len() == 32 && !has_sly, "{replaced}");
}

#[test]
fn a_trace_goes_on_through_the_proxy_and_its_spans_reach_the_collector() {
    let (Some(collector), Some(())) = (Collector::start(), require("curl")) else { return };
    let backend = mirror();
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "secret\n").unwrap();
    let more = format!(
        ", gzip: true, token_file: {:?}, headers: [ {{ name: x-key, value: k }} ], service_name: edge, attributes: [ {{ \
         name: zone, value: z1 }} ]",
        token.path()
    );
    let service = "balance: { hash_key: [ { header: x-user } ] }";
    let (_ringway, listen) = proxy(&tracing(collector.address, &more), "", service, &[("a", backend.address)]);
    for (count, version) in ["--http1.1", "--http2-prior-knowledge"].into_iter().enumerate() {
        let parent = format!("traceparent: 00-{TRACE}-{CLIENT}-01");
        let url = format!("http://{listen}/v1/a?secret=1");
        let body = curl_body(&[
            version,
            &url,
            "-H",
            &parent,
            "-H",
            "tracestate: a=1",
            "-H",
            "tracestate: b=2",
            "-H",
            "x-user: u",
            "-A",
            "teapot",
        ]);
        let spans = collector.spans(2 * (count + 1));
        let spans = &spans[2 * count..];
        let (server, client) = (of_kind(spans, SERVER)[0], of_kind(spans, CLIENT_SIDE)[0]);
        let told = field(&body, "traceparent").unwrap();
        assert_eq!(told, format!("00-{TRACE}-{}-01", text(client, "id")), "the backend's parent is the try");
        assert_eq!(body.matches("traceparent").count(), 1, "{body}");
        assert_eq!((body.matches("a=1").count(), body.matches("b=2").count()), (1, 1), "{body}");
        assert_eq!((text(client, "parent"), text(server, "parent")), (text(server, "id"), CLIENT));
        for span in spans {
            assert_eq!(
                (text(span, "trace"), text(span, "state"), &span["status"]),
                (TRACE, "a=1,b=2", &Value::from(0))
            );
            assert_eq!((text(&span["resource"], "service.name"), text(&span["resource"], "zone")), ("edge", "z1"));
        }
        assert_eq!((&server["flags"], &client["flags"]), (&Value::from(0x301), &Value::from(0x101)));
        assert_eq!((text(server, "name"), text(client, "name")), ("GET /v1", "GET"));
        assert_eq!(attribute(client, "url.full"), format!("http://{}/v1/a", backend.address), "without its query");
        assert_eq!(attribute(client, "network.protocol.version"), "1.1");
        let protocol = if version == "--http1.1" { "1.1" } else { "2" };
        for (name, value) in [
            ("http.request.method", "GET"),
            ("http.route", "/v1"),
            ("url.path", "/v1/a"),
            ("url.scheme", "http"),
            ("network.protocol.version", protocol),
            ("user_agent.original", "teapot"),
            ("client.address", "127.0.0.1"),
            ("server.address", "127.0.0.1"),
            ("ringway.listener", "web"),
            ("ringway.service", "s"),
            ("ringway.owner", "a"),
            ("ringway.backend", "a"),
        ] {
            assert_eq!(attribute(server, name), value, "{name}");
        }
        assert_eq!(server["attributes"]["http.response.status_code"], 200);
        assert_eq!(server["attributes"]["server.port"], listen.port());
        assert_eq!(attribute(server, "ringway.key_hash").len(), 16);
        assert!(!server.to_string().contains("secret"), "the query is left out: {server}");
        assert_eq!(
            (&client["attributes"]["server.port"], attribute(client, "ringway.backend")),
            (&backend.address.port().into(), "a")
        );
        assert!(server["nanos"].as_u64().unwrap() >= client["nanos"].as_u64().unwrap(), "{server} {client}");
    }
    let headers = &collector.ask("/spans")["headers"];
    assert_eq!(
        (text(headers, "authorization"), text(headers, "x-key"), text(headers, "path")),
        ("Bearer secret", "k", "/v1/traces")
    );
    assert_eq!((text(headers, "content-type"), text(headers, "content-encoding")), ("application/x-protobuf", "gzip"));
}

#[test]
fn spans_tell_what_was_asked_for_and_what_a_call_of_grpc_has_come_to() {
    let (Some(collector), Some(())) = (Collector::start(), require_python("grpc")) else { return };
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("server.py");
    std::fs::write(&script, include_str!("../python/grpc_server.py")).unwrap();
    let port = free_address().port();
    let server =
        Command::new("python3").arg(&script).args([&port.to_string(), "INTERNAL"]).stdout(Stdio::null()).spawn();
    let _server = Running(server.unwrap());
    let (broken, dead) = (SocketAddr::from(([127, 0, 0, 1], port)), free_address());
    wait_for("the gRPC server", || std::net::TcpStream::connect(broken).ok());
    let call = |listen: SocketAddr, code: &str| {
        let program = format!(
            "import grpc\ntry: grpc.insecure_channel('{listen}').unary_unary('/v1/Unary')(b'x', timeout=20)\n\
             except grpc.RpcError as error: print(error.code().name)"
        );
        let done = output("python3", &["-c", &program]);
        assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), code);
    };
    let service = "protocol: h2\n    outlier: { consecutive_failures: 0 }";
    let top = tracing(collector.address, "");
    // The server knows no such call, and says so before any of ours would.
    let (_first, listen) = proxy(&top, "", service, &[("a", broken)]);
    call(listen, "UNIMPLEMENTED");
    let (_second, listen) = proxy(&top, "", service, &[("a", dead)]);
    call(listen, "UNAVAILABLE");
    let spans = collector.spans(4);
    let by_code = |kind: u64, code: u64| {
        let mut found =
            spans.iter().filter(|span| span["kind"] == kind && span["attributes"]["rpc.grpc.status_code"] == code);
        found.next().unwrap_or_else(|| panic!("{spans:#?}"))
    };
    let (server, client) = (by_code(SERVER, 12), by_code(CLIENT_SIDE, 12));
    assert_eq!((&server["status"], &client["status"]), (&Value::from(2), &Value::from(2)));
    assert_eq!((attribute(server, "error.type"), attribute(client, "error.type")), ("12", "12"));
    assert_eq!(attribute(client, "url.full"), format!("http://{broken}/v1/Unary"));
    assert_eq!(attribute(client, "network.protocol.version"), "2");
    let refused = by_code(SERVER, 14);
    assert_eq!((&refused["attributes"]["http.response.status_code"], &refused["status"]), (&200.into(), &2.into()));
    assert_eq!(attribute(refused, "rpc.system"), "grpc");
}

#[test]
fn a_new_trace_begins_where_there_is_none_that_is_valid_and_a_flag_is_followed_where_it_is_trusted() {
    let Some(collector) = Collector::start() else { return };
    let backend = mirror();
    let listen = free_address();
    let with =
        |more: &str| config(listen, &tracing(collector.address, more), "", "balance: {}", &[("a", backend.address)]);
    let ringway = Ringway::start(&with(""));
    let ask = |fields: &str| {
        let text = get_with(listen, "/v1", fields).unwrap().text();
        (field(&text, "traceparent").unwrap_or_default().to_owned(), text)
    };
    for invalid in ["", "traceparent: 00-x\r\n", &format!("traceparent: 00-{TRACE}-{CLIENT}-01\r\n").repeat(2)] {
        let (told, text) = ask(&format!("{invalid}tracestate: a=1\r\n"));
        // Sampled, and its id is random.
        assert!(told.len() == 55 && told.ends_with("-03") && !told.contains(TRACE), "{invalid}: {told}");
        assert!(!text.contains("a=1"), "the state of another trace: {text}");
    }
    let unsampled = format!("traceparent: 00-{TRACE}-{CLIENT}-00\r\n");
    let sampled = format!("traceparent: 00-{TRACE}-{CLIENT}-01\r\n");
    let (told, _) = ask(&unsampled);
    assert!(told.contains(TRACE) && !told.contains(CLIENT) && told.ends_with("-00"), "{told}");
    collector.spans(6);
    // Nobody is trusted here, and nothing is drawn.
    ringway.reconfigure(&with(", sample: 0%").replace("trust: all", "trust: trusted"));
    let (told, _) = ask(&sampled);
    assert!(told.contains(TRACE) && told.ends_with("-00"), "{told}");
    ringway.reconfigure(&with(", sample: 0%"));
    let (told, _) = ask(&sampled);
    assert!(told.ends_with("-01"), "{told}");
    // Eight, and none of those that were not to be recorded.
    let spans = collector.spans(8);
    assert_eq!((spans.len(), of_kind(&spans, SERVER).len()), (8, 4));
    // Without the section it is a field like any other.
    ringway.reconfigure(&config(listen, "", "", "balance: {}", &[("a", backend.address)]));
    assert_eq!(field(&ask(&sampled).1, "traceparent"), Some(&sampled[13..sampled.len() - 2]));
}

/// A sampler that goes by an id that the client has chosen would take all of these.
#[test]
fn a_client_that_is_not_trusted_does_not_choose_to_be_recorded() {
    let backend = mirror();
    let top = tracing(free_address(), ", sample: 1%").replace("trust: all", "trust: trusted");
    let (_ringway, listen) = proxy(&top, "", "balance: {}", &[("a", backend.address)]);
    let chosen = format!("traceparent: 00-{}-{CLIENT}-01\r\n", "f".repeat(32));
    let recorded = (0..100).filter(|_| {
        let text = get_with(listen, "/v1", &chosen).unwrap().text();
        let told = field(&text, "traceparent").unwrap();
        assert!(told.contains(&"f".repeat(32)), "{told}");
        told.ends_with("-01")
    });
    let recorded = recorded.count();
    assert!(recorded < 50, "{recorded} of 100");
}

#[test]
fn a_span_has_no_more_of_a_long_state_than_512_bytes_and_the_backend_has_all_of_it() {
    let Some(collector) = Collector::start() else { return };
    let backend = mirror();
    let (_ringway, listen) = proxy(&tracing(collector.address, ""), "", "balance: {}", &[("a", backend.address)]);
    let members: Vec<String> = (0..5).map(|index| format!("k{index}={}", "v".repeat(197))).collect();
    let state = members.join(",");
    let fields = format!("traceparent: 00-{TRACE}-{CLIENT}-01\r\ntracestate: {state}\r\n");
    let told = get_with(listen, "/v1", &fields).unwrap().text();
    assert_eq!(field(&told, "tracestate"), Some(&*state));
    for span in collector.spans(2) {
        assert_eq!(text(&span, "state"), members[..2].join(","));
    }
}

#[test]
fn a_recorded_request_is_an_exemplar_of_its_bucket() {
    let (Some(collector), Some(())) = (Collector::start(), require("curl")) else { return };
    let backend = mirror();
    let (ringway, listen) = proxy(&tracing(collector.address, ""), "", "balance: {}", &[("a", backend.address)]);
    let metrics =
        || curl_body(&["-H", "accept: application/openmetrics-text", &format!("http://{}/metrics", ringway.admin)]);
    let unsampled = format!("traceparent: 00-{TRACE}-{CLIENT}-00\r\n");
    assert_eq!(get_with(listen, "/v1", &unsampled).unwrap().status, 200);
    assert!(!metrics().contains("trace_id="), "only those that are recorded: {}", metrics());
    assert_eq!(get(listen, "/v1").unwrap().status, 200);
    let spans = collector.spans(2);
    // Recorded, and of a trace whose id was drawn here.
    assert!(spans.iter().all(|span| span["flags"].as_u64().unwrap() & 0xff == 3), "{spans:?}");
    let id = text(&spans[0], "trace").to_owned();
    let metrics = metrics();
    let exemplars: Vec<&str> = metrics.lines().filter(|line| line.contains("# {trace_id=")).collect();
    assert!(exemplars.len() == 1 && exemplars[0].contains(&format!("# {{trace_id=\"{id}\"}} ")), "{exemplars:?}");
    assert!(exemplars[0].starts_with("ringway_request_duration_seconds_bucket{"), "{exemplars:?}");
}

#[test]
fn a_backend_that_is_full_is_no_try_and_a_pause_before_the_next_is_in_none() {
    let Some(collector) = Collector::start() else { return };
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap();
    let held = Arc::clone(&gate);
    let full = scripted(move |_| {
        drop(held.lock());
        response("200 OK", "", "full")
    });
    let busy = scripted(|_| response("503 Busy", "", "busy"));
    let good = mirror();
    let service = "balance: { policy: first }\n    retry: { attempts: 1, backoff: 400ms, on: [ gateway ] }";
    let backends = [("full", full.address), ("busy", busy.address), ("good", good.address)];
    let listen = free_address();
    let text = config(listen, &tracing(collector.address, ""), "", service, &backends);
    let _ringway = Ringway::start(&text.replace("{ id: full,", "{ id: full, connections_max: 1,"));
    let first = std::thread::spawn(move || get(listen, "/v1").unwrap().status);
    wait_for("the first to be there", || (full.requests().len() == 1).then_some(()));
    assert_eq!(get(listen, "/v1").unwrap().status, 200);
    let spans = collector.spans(3);
    let tries = of_kind(&spans, CLIENT_SIDE);
    let told: Vec<_> = tries
        .iter()
        .map(|span| {
            let resend = span["attributes"]["http.request.resend_count"].as_u64();
            (attribute(span, "ringway.backend"), attribute(span, "error.type"), resend)
        })
        .collect();
    assert_eq!(told, [("busy", "503", None), ("good", "", Some(1))]);
    // A pause is at least half of what is configured.
    let end = tries[0]["start"].as_u64().unwrap() + tries[0]["nanos"].as_u64().unwrap();
    let pause = tries[1]["start"].as_u64().unwrap().saturating_sub(end);
    assert!(pause >= 200_000_000, "{pause} {tries:?}");
    drop(closed);
    assert_eq!(first.join().unwrap(), 200);
}

/// What a collector's requests carry changes with a reload, but not with what is recorded.
#[test]
fn spans_of_an_exporter_that_is_turned_off_are_delivered_and_one_that_delivers_in_the_same_way_stays() {
    let Some(collector) = Collector::start() else { return };
    let backend = mirror();
    let listen = free_address();
    let with = |top: &str| config(listen, top, "", "balance: {}", &[("a", backend.address)]);
    let ringway = Ringway::start(&with(&tracing(collector.address, "")));
    assert_eq!(get(listen, "/v1").unwrap().status, 200);
    ringway.reconfigure(&with(&tracing(collector.address, ", query: true")));
    let queried = get(listen, "/v1?a=b").unwrap();
    assert_eq!(queried.status, 200);
    ringway.reconfigure(&with(""));
    let spans = collector.spans(4);
    let queries: Vec<_> = of_kind(&spans, SERVER).iter().map(|span| attribute(span, "url.query")).collect();
    assert_eq!(queries, ["", "a=b"]);
    wait_for("all of them", || (ringway.metric("ringway_trace_spans_total{result=\"exported\"}") == 4.0).then_some(()));
}

#[test]
fn each_try_is_a_span_and_what_goes_to_no_backend_is_one_too() {
    let Some(collector) = Collector::start() else { return };
    let busy = scripted(|_| response("503 Busy", "", "busy"));
    let good = mirror();
    let service = "balance: { policy: first }\n    retry: { attempts: 2, on: [ connect, gateway ] }";
    let backends = [("a-gone", free_address()), ("b-busy", busy.address), ("c-good", good.address)];
    let (_ringway, listen) = proxy(&tracing(collector.address, ""), "", service, &backends);
    let answer = get(listen, "/v1").unwrap();
    assert_eq!(answer.status, 200);
    let spans = collector.spans(4);
    let server = of_kind(&spans, SERVER)[0];
    let tries = of_kind(&spans, CLIENT_SIDE);
    let told: Vec<_> =
        tries.iter().map(|span| (attribute(span, "ringway.backend"), attribute(span, "error.type"))).collect();
    assert_eq!(told, [("a-gone", "connect_failed"), ("b-busy", "503"), ("c-good", "")]);
    let resends: Vec<_> = tries.iter().map(|span| span["attributes"]["http.request.resend_count"].as_u64()).collect();
    assert_eq!(resends, [None, Some(1), Some(2)]);
    let failed: Vec<_> = tries.iter().map(|span| span["status"].as_u64().unwrap()).collect();
    assert_eq!(failed, [2, 2, 0]);
    assert!(tries.iter().all(|span| span["parent"] == server["id"]));
    let told = answer.text();
    assert!(field(&told, "traceparent").unwrap().contains(text(tries[2], "id")));
    assert!(busy.requests()[0].contains(text(tries[1], "id")));
    assert_eq!((&server["attributes"]["ringway.retries"], &server["status"]), (&2.into(), &0.into()));
    assert_eq!(get(listen, "/nowhere").unwrap().status, 404);
    let spans = collector.spans(5);
    let refused = &spans[4];
    assert_eq!(
        (text(refused, "name"), attribute(refused, "ringway.reason"), &refused["status"]),
        ("GET", "no_route", &0.into())
    );
    assert_eq!(refused["attributes"]["http.response.status_code"], 404);
}

#[test]
fn a_hedge_and_a_wait_for_room_are_spans() {
    let Some(collector) = Collector::start() else { return };
    let slow = Backend::custom(|mut stream, seen| {
        while let Some((head, _)) = read_request(&mut stream) {
            seen.lock().unwrap().push(head);
            // Longer than the hedge waits; what comes then is not taken.
            leave_time(std::time::Duration::from_millis(1500));
            let _ = std::io::Write::write_all(&mut stream, response("200 OK", "", "slow").as_bytes());
        }
    });
    let good = mirror();
    let service = "balance: { policy: first }\n    hedge: { after: 50ms, budget: 100 }";
    let backends = [("a", slow.address), ("b", good.address)];
    let (ringway, listen) = proxy(&tracing(collector.address, ""), "", service, &backends);
    let answer = get(listen, "/v1").unwrap().text();
    let spans = collector.spans(3);
    let tries = of_kind(&spans, CLIENT_SIDE);
    let told: Vec<_> = tries
        .iter()
        .map(|span| (attribute(span, "ringway.backend"), attribute(span, "error.type"), attribute(span, "ringway.try")))
        .collect();
    assert_eq!(told, [("a", "cancelled", ""), ("b", "", "hedge")]);
    let seen: Vec<&str> = [slow.requests()[0].clone(), answer].map(|head| head.leak() as &str).to_vec();
    for (span, head) in tries.iter().zip(seen) {
        assert!(field(head, "traceparent").unwrap().contains(text(span, "id")), "{head}");
    }
    drop(ringway);
    let service = "balance: { policy: first, bounded_load: { all_full: queue, queue: { timeout: 20s } } }";
    let listen = free_address();
    let text = config(listen, &tracing(collector.address, ""), "", service, &[("slow", slow.address)]);
    let _ringway = Ringway::start(&text.replace("{ id: slow,", "{ id: slow, requests_max: 1,"));
    let first = std::thread::spawn(move || get(listen, "/v1").unwrap().status);
    wait_for("the first to be there", || (slow.requests().len() == 2).then_some(()));
    assert_eq!((get(listen, "/v1").unwrap().status, first.join().unwrap()), (200, 200));
    let spans = collector.spans(3 + 2 + 3);
    let wait: Vec<_> = spans.iter().filter(|span| span["name"] == "queue").collect();
    assert!(wait.len() == 1 && wait[0]["kind"] == 1 && wait[0]["nanos"].as_u64() > Some(1_000_000), "{wait:?}");
}

#[test]
fn what_a_collector_refuses_is_counted_and_told_once_and_traffic_goes_on() {
    let Some(collector) = Collector::start() else { return };
    let backend = mirror();
    let (ringway, listen) = proxy(&tracing(collector.address, ""), "", "balance: {}", &[("a", backend.address)]);
    let counted = |result: &str| ringway.metric(&format!("ringway_trace_spans_total{{result=\"{result}\"}}"));
    // Each request is two spans; they are counted once their batch is done with.
    let mut all = 0.0;
    for mode in ["good", "500", "500", "busy", "slow", "partial", "text"] {
        collector.turn(mode);
        assert!((0..10).all(|_| get(listen, "/v1").unwrap().status == 200));
        all += 20.0;
        wait_for(mode, || (counted("exported") + counted("refused") == all).then_some(()));
    }
    // Of what is taken in part, one of each batch is refused: the timer may have cut one in two.
    let refused = counted("refused") - 40.0;
    assert!((1.0..=4.0).contains(&refused), "{refused}");
    assert_eq!((counted("failed"), counted("dropped")), (0.0, 0.0));
    let told = |what: &str| ringway.log().matches(what).count();
    let states =
        ["the collector refuses spans", "the collector takes no spans for now", "the collector takes spans"].map(told);
    assert_eq!(states, [2, 1, 2], "{}", ringway.log());
}

#[test]
fn a_collector_that_hangs_or_talks_nonsense_is_tried_again_and_traffic_goes_on() {
    let Some(collector) = Collector::start() else { return };
    let backend = mirror();
    let top = tracing(collector.address, ", timeout: 300ms");
    let (ringway, listen) = proxy(&top, "", "balance: {}", &[("a", backend.address)]);
    let serve = || assert!((0..10).all(|_| get(listen, "/v1").unwrap().status == 200));
    for mode in ["hang", "garbage"] {
        collector.turn(mode);
        let posts = || collector.ask("/spans")["posts"].as_u64().unwrap();
        let before = posts();
        serve();
        wait_for("another try", || (posts() > before + 1).then_some(()));
        serve();
    }
    collector.turn("good");
    let counted = |result: &str| ringway.metric(&format!("ringway_trace_spans_total{{result=\"{result}\"}}"));
    wait_for("all spans", || (counted("exported") == 80.0).then_some(()));
    let told = |what: &str| ringway.log().matches(what).count();
    let states = ["the collector takes no spans for now", "the collector takes spans"].map(told);
    assert_eq!(states, [1, 1], "{}", ringway.log());
    assert_eq!((counted("failed"), counted("dropped"), counted("refused")), (0.0, 0.0, 0.0));
}

#[test]
fn a_proxy_ends_in_time_although_its_collector_is_gone_or_hangs_and_delivers_what_it_has_otherwise() {
    let (Some(hanging), Some(good)) = (Collector::start(), Collector::start()) else { return };
    hanging.turn("hang");
    let backend = mirror();
    let mut proxies = [free_address(), hanging.address, good.address].map(|address| {
        let (ringway, listen) = proxy(&tracing(address, ""), "", "balance: {}", &[("a", backend.address)]);
        assert_eq!(get(listen, "/v1").unwrap().status, 200);
        ringway
    });
    proxies.iter().for_each(|ringway| ringway.signal("TERM"));
    let loses = proxies.each_mut().map(|ringway| {
        assert_eq!(ringway.wait(), 0, "{}", ringway.log());
        ringway.log().contains("the exporter ends before the collector has taken all spans")
    });
    assert_eq!(loses, [true, true, false]);
    assert_eq!(good.spans(2).len(), 2);
}
