//! The admin listener: who may ask it what, and what it is told that is meant to harm.

use crate::common::peers::{Certificates, curl_body};
use crate::common::{Backend, Ringway, free_address, output, raw, require, wait_for};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const READER: &str = "reader-0123456789abcdef";
const OPERATOR: &str = "operator-0123456789abcdef";

/// A directory with the two tokens in it, for nobody else to read.
struct Tokens(tempfile::TempDir);

impl Tokens {
    fn new() -> Self {
        let this = Self(tempfile::tempdir().unwrap());
        this.write("reader", READER);
        this.write("operator", OPERATOR);
        this
    }

    fn write(&self, name: &str, token: &str) {
        let fresh = self.0.path().join("fresh");
        std::fs::write(&fresh, format!("{token}\n")).unwrap();
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::rename(fresh, self.path(name)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The list, as the file has it.
    fn list(&self) -> String {
        let one = |name: &str, role: &str| format!("{{ name: {name}, role: {role}, file: {:?} }}", self.path(name));
        format!("tokens: [ {}, {} ]", one("reader", "read"), one("operator", "operate"))
    }
}

/// A file whose admin section has these fields too.
fn file(admin: &str, backend: &Backend) -> String {
    format!(
        "workers: 1\nadmin: {{ address: \"ADMIN\", {admin} }}\n\
         listeners: [ {{ name: web, address: \"{}\", service: s }} ]\n\
         services: [ {{ name: s, backends: [ {{ id: a, address: \"{}\" }} ] }} ]\n",
        free_address(),
        backend.address
    )
}

/// The status that curl gets.
fn status(arguments: &[&str]) -> String {
    let args = ["-sS", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code}"];
    let done = output("curl", &[&args[..], arguments].concat());
    if done.status.success() { String::from_utf8_lossy(&done.stdout).into_owned() } else { "none".to_owned() }
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

#[test]
fn each_path_wants_its_role_and_probes_want_none() {
    let Some(()) = require("curl") else { return };
    let (tokens, backend) = (Tokens::new(), Backend::echo("a"));
    let ringway = Ringway::start(&file(&tokens.list(), &backend));
    let (reader, operator, wrong) = (bearer(READER), bearer(OPERATOR), bearer("reader-0123456789abcdeg"));
    for (method, path, expected) in [
        ("GET", "/healthz", ["200"; 4]),
        ("GET", "/readyz", ["200"; 4]),
        ("GET", "/whoami", ["200"; 4]),
        ("GET", "/status", ["401", "401", "200", "200"]),
        ("GET", "/metrics", ["401", "401", "200", "200"]),
        ("GET", "/explain?service=s&key=k", ["401", "401", "200", "200"]),
        ("GET", "/nowhere", ["401", "401", "404", "404"]),
        ("DELETE", "/status", ["401", "401", "405", "405"]),
        ("POST", "/reload", ["401", "401", "403", "200"]),
    ] {
        let url = format!("http://{}{path}", ringway.admin);
        let got = [&[][..], &["-H", &wrong], &["-H", &reader], &["-H", &operator]]
            .map(|shown| status(&[&["-X", method, &url], shown].concat()));
        assert_eq!(got, expected, "{method} {path}");
    }
    let url = |path: &str| format!("http://{}{path}", ringway.admin);
    let refused = curl_body(&["-i", &url("/status")]);
    assert!(refused.contains("www-authenticate: Bearer") && refused.contains("\"error\": \"show a token"), "{refused}");
    let known = |shown: &[&str]| curl_body(&[shown, &[url("/whoami").as_str()]].concat()).replace([' ', '\n'], "");
    assert_eq!(known(&["-H", &operator]), r#"{"name":"operator","role":"operate","via":"token"}"#);
    assert_eq!(known(&["-H", &reader]), r#"{"name":"reader","role":"read","via":"token"}"#);
    assert_eq!(known(&["-H", &wrong]), r#"{"name":null,"role":"none","via":"anonymous"}"#);
    let page = curl_body(&["-H", &reader, &url("/metrics")]);
    let denied = |reason: &str| {
        let line = format!("ringway_admin_denied_total{{reason=\"{reason}\"}} ");
        page.lines().find_map(|found| found.strip_prefix(&line)).unwrap().parse::<u32>().unwrap()
    };
    assert_eq!((denied("role"), denied("bad_token"), denied("no_credentials")), (1, 6, 7));
    // Whoever tries thousands does not fill the log.
    assert_eq!(ringway.log().matches("a request to the admin listener is refused").count(), 1, "{}", ringway.log());
}

#[test]
fn a_token_is_replaced_while_the_old_one_holds_and_a_broken_file_changes_nothing() {
    let Some(()) = require("curl") else { return };
    let (tokens, backend) = (Tokens::new(), Backend::echo("a"));
    let ringway = Ringway::start(&file(&tokens.list(), &backend));
    let url = format!("http://{}/status", ringway.admin);
    let with = |token: &str| status(&["-H", &bearer(token), &url]);
    let next = "operator-fedcba9876543210";
    tokens.write("reader", next);
    wait_for("the new token", || (with(next) == "200").then_some(()));
    assert_eq!((with(READER).as_str(), with(OPERATOR).as_str()), ("401", "200"));
    // Too short, and then the other's: both are refused, and what was in force stays.
    for wrong in ["short", OPERATOR] {
        tokens.write("reader", wrong);
        let reload = ["-X", "POST", "-H", &bearer(OPERATOR), &url.replace("/status", "/reload")];
        wait_for("the refusal", || (status(&reload) == "422").then_some(()));
        assert_eq!(with(next), "200");
    }
}

#[test]
fn beyond_loopback_nobody_is_let_in_by_accident() {
    let Some(()) = require("curl") else { return };
    let backend = Backend::echo("a");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r.yaml");
    let check = |admin: &str| {
        std::fs::write(&path, file(admin, &backend).replace("\"ADMIN\"", "\"0.0.0.0:0\"")).unwrap();
        output(env!("CARGO_BIN_EXE_ringway"), &["check", path.to_str().unwrap()])
    };
    let refused = check("hosts: []");
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert_eq!(refused.status.code(), Some(1));
    assert!(said.contains("admin_exposed") && said.contains("anonymous: read"), "{said}");
    let run = output(env!("CARGO_BIN_EXE_ringway"), &["run", "--config", path.to_str().unwrap()]);
    assert_eq!(run.status.code(), Some(2), "{run:?}");
    for good in ["anonymous: read", "anonymous: none"] {
        assert_eq!(check(good).status.code(), Some(0), "{good}");
    }
    // A file that moves the listener to loopback does not open the one that is bound elsewhere.
    let away = format!("0.0.0.0:{}", free_address().port()).parse().unwrap();
    let before = file("anonymous: none", &backend);
    let ringway = Ringway::start_at(away, &before);
    let reload = format!("http://127.0.0.1:{}/reload", away.port());
    let moved = before.replace(", anonymous: none", "").replace("ADMIN", &format!("127.0.0.1:{}", away.port()));
    ringway.write_config(&moved);
    wait_for("the file", || ringway.log().contains("admin.anonymous").then_some(()));
    assert_eq!(status(&["-X", "POST", &reload]), "401");
    assert_eq!(status(&[&reload.replace("reload", "status")]), "401");
}

#[test]
fn certificates_of_clients_have_roles_and_the_listeners_own_is_followed() {
    let (Some(certificates), Some(())) = (Certificates::new(), require("curl")) else { return };
    certificates.issue("admin", "DNS:localhost,IP:127.0.0.1", "2");
    certificates.issue("other", "DNS:localhost,IP:127.0.0.1,DNS:second.test", "2");
    for (name, names) in [("ops", "DNS:ops.test"), ("viewer", "DNS:viewer.test"), ("stranger", "DNS:stranger.test")] {
        certificates.issue(name, names, "2");
    }
    let (tokens, backend) = (Tokens::new(), Backend::echo("a"));
    let tls = |name: &str| {
        format!(
            "{}, tls: {{ certificate: {:?}, key: {:?}, client_ca: {:?}, \
             clients: [ {{ name: ops.test, role: operate }}, {{ name: viewer.test, role: read }} ] }}",
            tokens.list(),
            certificates.path(&format!("{name}.pem")),
            certificates.path(&format!("{name}.key")),
            certificates.path("ca.pem")
        )
    };
    let ringway = Ringway::start(&file(&tokens.list(), &backend));
    // TLS comes with a reload, for the next connection.
    ringway.write_config(&file(&tls("admin"), &backend));
    let (ca, url) = (certificates.text("ca.pem"), |path: &str| format!("https://{}{path}", ringway.admin));
    wait_for("TLS", || (status(&["--cacert", &ca, &url("/healthz")]) == "200").then_some(()));
    // Of another authority: the handshake ends, and the log says why: the first refusal is told.
    let foreign = Certificates::new().unwrap();
    foreign.issue("ops", "DNS:ops.test", "2");
    let (certificate, key) = (foreign.text("ops.pem"), foreign.text("ops.key"));
    assert_eq!(status(&["--cacert", &ca, "--cert", &certificate, "--key", &key, &url("/status")]), "none");
    wait_for("word of why", || {
        ringway
            .log()
            .lines()
            .any(|line| line.contains("\"handshake\"") && line.contains("\"why\":\"") && !line.contains("\"why\":\"\""))
            .then_some(())
    });
    let as_client = |name: &str, method: &str, path: &str| {
        let (certificate, key) = (certificates.text(&format!("{name}.pem")), certificates.text(&format!("{name}.key")));
        status(&["--cacert", &ca, "--cert", &certificate, "--key", &key, "-X", method, &url(path)])
    };
    for (name, reads, changes) in [("ops", "200", "200"), ("viewer", "200", "403"), ("stranger", "401", "401")] {
        let got = (as_client(name, "GET", "/status"), as_client(name, "POST", "/reload"));
        assert_eq!(got, (reads.to_owned(), changes.to_owned()), "{name}");
    }
    assert_eq!(status(&["--cacert", &ca, &url("/status")]), "401");
    assert_eq!(status(&["--cacert", &ca, "-H", &bearer(READER), &url("/status")]), "200");
    assert_eq!(status(&["--max-time", "2", &url("/healthz").replace("https", "http")]), "none", "in the clear");
    // Another certificate, under the same names of files.
    for kind in ["pem", "key"] {
        std::fs::copy(certificates.path(&format!("other.{kind}")), certificates.path(&format!("fresh.{kind}")))
            .unwrap();
        std::fs::rename(certificates.path(&format!("fresh.{kind}")), certificates.path(&format!("admin.{kind}")))
            .unwrap();
    }
    let port = ringway.admin.port();
    let resolve = format!("second.test:{port}:127.0.0.1");
    let second = format!("https://second.test:{port}/healthz");
    wait_for("the other certificate", || {
        (status(&["--cacert", &ca, "--resolve", &resolve, &second]) == "200").then_some(())
    });
}

#[test]
fn the_sockets_file_is_its_lock_and_goes_with_the_proxy() {
    let Some(()) = require("curl") else { return };
    let (tokens, backend, directory) = (Tokens::new(), Backend::echo("a"), tempfile::tempdir().unwrap());
    let path = directory.path().join("admin.sock");
    // What a proxy that was killed has left behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let section = format!("{}, socket: {{ path: {path:?}, mode: \"0660\" }}", tokens.list());
    let mut ringway = Ringway::start(&file(&section, &backend));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let text = path.to_str().unwrap();
    let whoami = curl_body(&["--unix-socket", text, "http://localhost/whoami"]).replace([' ', '\n'], "");
    assert_eq!(whoami, r#"{"name":null,"role":"operate","via":"socket"}"#);
    assert_eq!(status(&["--unix-socket", text, "-X", "POST", "http://localhost/reload"]), "200");
    assert_eq!(status(&["--unix-socket", text, "-H", &bearer("wrong"), "http://localhost/status"]), "401");
    // A second one does not take it away from the first.
    let second = directory.path().join("second.yaml");
    std::fs::write(&second, file(&section, &backend).replace("ADMIN", &free_address().to_string())).unwrap();
    let refused = output(env!("CARGO_BIN_EXE_ringway"), &["run", "--config", second.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && said.contains("another process answers there"), "{said}");
    assert_eq!(status(&["--unix-socket", text, "http://localhost/status"]), "200");
    // By a port that somebody forwards to it, a page may come whose name leads there; nothing else comes by a name with a dot.
    for (url, asked) in [
        ("http://admin/status", "200"),
        ("http://127.0.0.1:9901/status", "200"),
        ("http://evil.example/config", "403"),
        ("http://evil.example:9901/status", "403"),
    ] {
        assert_eq!(status(&["--unix-socket", text, url]), asked, "{url}");
    }
    let change = |fields: &[&str]| {
        let all = [
            "--unix-socket",
            text,
            "-X",
            "POST",
            "-d",
            "{\"weight\": 50}",
            "http://evil.example:9901/services/s/backends/a",
        ];
        status(&[fields, &all].concat())
    };
    assert_eq!(change(&["-H", "Origin: http://evil.example:9901"]), "403");
    assert_eq!(
        (change(&[]), change(&["-H", "Host: localhost", "-H", "Origin: http://evil.example:9901"])),
        ("403".into(), "403".into())
    );
    assert_eq!(change(&["-H", "Host: localhost:9901", "-H", "Origin: http://localhost:9901"]), "200");
    ringway.signal("TERM");
    assert_eq!(ringway.wait(), 0);
    assert!(!path.exists());
}

#[test]
fn who_says_nothing_or_asks_for_what_does_not_end_keeps_nobody_out() {
    let Some(()) = require("curl") else { return };
    let (tokens, backend, directory) = (Tokens::new(), Backend::echo("a"), tempfile::tempdir().unwrap());
    let path = directory.path().join("admin.sock");
    let section = format!("anonymous: read, {}, socket: {{ path: {path:?} }}", tokens.list());
    let ringway = Ringway::start(&file(&section, &backend));
    let probe = |what: &str| {
        let url = format!("http://{}/readyz", ringway.admin);
        // Those that have begun to ask for something have a second, which is all that there may be to wait for.
        wait_for(what, || (status(&[&url]) == "200").then_some(()));
    };
    let many = |first: &[u8]| -> Vec<TcpStream> {
        let one = |_| {
            let mut stream = TcpStream::connect(ringway.admin).unwrap();
            // One that is closed already is one less.
            let _ = stream.write_all(first);
            stream
        };
        (0..200).map(one).collect()
    };
    // Far longer than any of these tests waits.
    let silent = many(b"");
    probe("a probe beside silent connections");
    let heads = many(b"GET /status HTTP/1.1\r\nHost: lo");
    probe("a probe beside heads that do not end");
    let bodies = many(b"POST /explain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n{");
    probe("a probe beside bodies that do not come");
    let streams = many(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n");
    probe("a probe beside those who look");
    assert!(ringway.metric("ringway_admin_connections_evicted_total") > 100.0);
    // Who has shown who they are finds a place among those who look, in the place of one who has not.
    let text = path.to_str().unwrap();
    let mut looking = Command::new("curl")
        .args(["-sSN", "--unix-socket", text, "http://localhost/live"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(looking.stdout.take().unwrap()).read_line(&mut first).unwrap();
    looking.kill().unwrap();
    looking.wait().unwrap();
    assert_eq!(first, "event: frame\n");
    drop((silent, heads, bodies, streams));
}

#[test]
fn what_is_sent_to_harm_is_refused_whoever_sends_it() {
    let Some(()) = require("curl") else { return };
    let (tokens, backend) = (Tokens::new(), Backend::echo("a"));
    let ringway = Ringway::start(&file(&tokens.list(), &backend));
    let url = |path: &str| format!("http://{}{path}", ringway.admin);
    let operator = bearer(OPERATOR);
    let reload = |fields: &[&str]| {
        let fields = fields.iter().flat_map(|field| ["-H", field]).collect::<Vec<_>>();
        status(&[&fields[..], &["-X", "POST", &url("/reload")]].concat())
    };
    assert_eq!(reload(&[&operator]), "200");
    // Which of two tokens would hold is nobody's guess.
    assert_eq!(reload(&[&operator, &bearer(READER)]), "401");
    // A page of somebody else's, even with a token.
    assert_eq!(reload(&[&operator, "Origin: http://evil.example"]), "403");
    assert_eq!(reload(&[&operator, "Sec-Fetch-Site: cross-site"]), "403");
    // A page that has made its own name lead here, and has no token.
    assert_eq!(reload(&["Host: evil.example"]), "403");
    assert_eq!(status(&["-H", "Host: evil.example", &url("/status")]), "403");
    for (bytes, begins) in [
        (
            "GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer \u{1b}[31m\r\n\r\n"
                .to_owned(),
            "HTTP/1.1 40",
        ),
        (format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(1_000_000)), "HTTP/1.1 4"),
        (format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "a".repeat(1_000_000)), "HTTP/1.1 431"),
        ("\u{0}\u{1}\u{2}\r\n\r\n".to_owned(), "HTTP/1.1 400"),
    ] {
        let said = raw(ringway.admin, bytes.as_bytes());
        assert!(said.is_empty() || said.starts_with(begins), "{said:.200}");
    }
}
