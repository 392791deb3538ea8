//! The doors of the admin listener, as the commands go through them: client certificates, the Unix socket alone.

use crate::common::control::{Said, ringway_said};
use crate::common::peers::curl_body;
use crate::common::{
    OrNotYet, Ringway, Running, StoppedWorker, echoes, free_address, get, output, path_text, require, send, simple,
    targets, wait_for,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

/// An authority, and what it has issued: `NAME.pem` and `NAME.key`.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Another than that of what it issues.
        params.distinguished_name.push(DnType::CommonName, "authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, directory }
    }

    /// For a name; `ended`: it has ended a day ago.
    fn issue(&self, file: &str, name: &str, ended: bool) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        if ended {
            let day = Duration::from_secs(86_400);
            let now = rcgen::date_time_ymd(1970, 1, 1) + SystemTime::UNIX_EPOCH.elapsed().unwrap();
            (params.not_before, params.not_after) = (now - 2 * day, now - day);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{file}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{file}.key")), key.serialize_pem()).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        path_text(&self.path(name)).to_owned()
    }
}

#[test]
fn commands_show_a_certificate_and_may_do_what_its_role_allows() {
    let (own, foreign, fleet) = (Authority::new(), Authority::new(), echoes(2));
    own.issue("admin", "127.0.0.1", false);
    for (file, ended) in [("ops", false), ("late", true)] {
        own.issue(file, "ops.test", ended);
    }
    own.issue("viewer", "viewer.test", false);
    own.issue("stranger", "stranger.test", false);
    foreign.issue("ops", "ops.test", false);
    let ringway = Ringway::start_unasked(&format!(
        "workers: 1\nadmin: {{ address: \"ADMIN\", tls: {{ certificate: {:?}, key: {:?}, client_ca: {:?}, \
         clients: [ {{ name: ops.test, role: operate }}, {{ name: viewer.test, role: read }} ] }} }}\n\
         listeners: [ {{ name: web, address: \"{}\", service: s }} ]\n\
         services: [ {{ name: s, backends: [ {{ id: a, address: \"{}\" }}, {{ id: b, address: \"{}\" }} ] }} ]\n",
        own.path("admin.pem"),
        own.path("admin.key"),
        own.path("ca.pem"),
        free_address(),
        fleet[0].1.address,
        fleet[1].1.address
    ));
    let url = format!("https://{}", ringway.admin);
    let ca = own.text("ca.pem");
    let ask = |args: &[&str], who: Option<(&Authority, &str)>| {
        let shown = who.map(|(of, file)| (of.text(&format!("{file}.pem")), of.text(&format!("{file}.key"))));
        let shown = shown.iter().flat_map(|(certificate, key)| ["--certificate", certificate, "--key-file", key]);
        ringway_said(&[args, &["--admin", &url, "--ca", &ca], &shown.collect::<Vec<_>>()].concat())
    };
    wait_for("the listener", || ask(&["overrides"], Some((&own, "viewer"))).status.success().then_some(()));
    let (read, change) = (&["overrides"][..], &["backend", "weight", "s", "a", "7"][..]);
    for (who, [reads, changes], says) in [
        (Some((&own, "ops")), [0, 0], ""),
        (Some((&own, "viewer")), [0, 1], "takes the role `operate`"),
        (Some((&own, "stranger")), [1, 1], "--certificate FILE --key-file FILE"),
        (None, [1, 1], "--certificate FILE --key-file FILE"),
        // The handshake ends, and nobody has been asked.
        (Some((&own, "late")), [2, 2], "CertificateExpired: the certificate that is shown is not taken"),
        (Some((&foreign, "ops")), [2, 2], "the certificate that is shown is not taken"),
    ] {
        for (args, expected) in [(read, reads), (&["config"], reads), (change, changes), (&["reload"], changes)] {
            let said = ask(args, who);
            assert_eq!(said.status.code(), Some(expected), "{args:?} {said:?}");
            let error = said.error();
            assert!(error.is_empty() == (expected == 0) && (expected == 0 || error.contains(says)), "{args:?} {error}");
        }
    }
    // Who does not trust the listener asks nothing of it.
    let elsewhere = ringway_said(&["reload", "--admin", &url, "--ca", &foreign.text("ca.pem")]);
    assert!(elsewhere.status.code() == Some(2) && elsewhere.error().contains("--ca FILE"), "{elsewhere:?}");
    // In the clear there is nobody, and a certificate without its key is no certificate.
    assert_eq!(ringway_said(&["reload", "--admin", &ringway.admin.to_string()]).status.code(), Some(2));
    let half = ringway_said(&["reload", "--admin", &url, "--certificate", &own.text("ops.pem")]);
    assert!(half.status.code() == Some(2) && half.error().contains("--key-file"), "{half:?}");
    assert!(ringway.log().contains("ops.test"), "who has changed something is in the log: {}", ringway.log());
}

/// A proxy whose admin listener is a Unix socket, and nothing else.
#[test]
fn a_socket_alone_is_an_admin_listener_and_no_port_is_open() {
    let Some(()) = require("curl") else { return };
    let (fleet, directory, web) = (echoes(2), tempfile::tempdir().unwrap(), free_address());
    let (file, socket) = (directory.path().join("ringway.yaml"), directory.path().join("admin.sock"));
    let with = |admin: &str| {
        let [(_, a), (_, b)] = [targets(&fleet)[0], targets(&fleet)[1]];
        format!(
            "workers: 1\nadmin: {{ socket: {{ path: {socket:?} }}{admin} }}\n\
             listeners: [ {{ name: web, address: \"{web}\", service: s }} ]\n\
             services: [ {{ name: s, backends: [ {{ id: a, address: \"{a}\" }}, {{ id: b, address: \"{b}\" }} ] }} ]\n"
        )
    };
    std::fs::write(&file, with("")).unwrap();
    let run =
        Command::new(env!("CARGO_BIN_EXE_ringway")).args(["run", "--config"]).arg(&file).stderr(Stdio::null()).spawn();
    let proxy = Running(run.unwrap());
    wait_for("the proxy", || get(web, "/").filter(|answer| answer.status == 200));
    let unix = format!("unix:{}", socket.display());
    let ask = |args: &[&str]| -> Said { ringway_said(&[args, &["--admin", &unix]].concat()) };
    let said = ask(&["backend", "drain", "s", "a"]);
    assert!(said.status.success(), "{said:?}");
    assert!((0..10).all(|_| get(web, "/").unwrap().text() == "b"));
    let printed = ask(&["config"]).text();
    assert!(printed.contains("drain: true") && !printed.contains("9901"), "{printed}");
    let ready = curl_body(&["--unix-socket", path_text(&socket), "http://localhost/readyz"]);
    assert_eq!(ready, "ready\n");
    assert_eq!(listening(proxy.0.id()), [web.port()]);
    // An address comes with a restart; until then what a file says of it is in force nowhere.
    std::fs::write(&file, with(&format!(", address: \"{}\"", free_address()))).unwrap();
    wait_for("the file", || {
        let status = curl_body(&["--unix-socket", path_text(&socket), "http://localhost/status"]);
        let status: Value = serde_json::from_str(&status).or_not_yet();
        status["last_reload"]["needs_restart"].to_string().contains("admin.address").then_some(())
    });
    assert_eq!(listening(proxy.0.id()), [web.port()]);
    // What is for the other listener only is said to be of no use.
    std::fs::write(&file, with(", hosts: [ a.example ], anonymous: read")).unwrap();
    let checked = ringway_said(&["check", path_text(&file)]);
    assert!(checked.status.success() && checked.text().matches("unused_admin_field").count() == 2, "{checked:?}");
}

/// The ports of TCP on which a process listens.
fn listening(pid: u32) -> Vec<u16> {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let links = links.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let sockets: Vec<String> =
        links.filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())).collect();
    let mut ports = Vec::new();
    for table in ["tcp", "tcp6"] {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let columns: Vec<&str> = line.split_whitespace().collect();
            // 0A is a socket that listens.
            if columns[3] == "0A" && sockets.iter().any(|inode| inode == columns[9]) {
                ports.push(u16::from_str_radix(columns[1].rsplit_once(':').unwrap().1, 16).unwrap());
            }
        }
    }
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// A worker that is kept busy for ever keeps nobody from asking what is wrong.
#[test]
fn all_that_an_operator_asks_for_is_answered_while_a_worker_is_stuck() {
    let fleet = echoes(2);
    let file = simple(free_address(), "", &targets(&fleet));
    let ringway = Ringway::start(&file);
    let Some(stopped) = StoppedWorker::new(&ringway, 1) else { return };
    // More at once than there are workers, and none waits for another.
    std::thread::scope(|scope| {
        let asked: Vec<_> = ["/sessions", "/status", "/metrics", "/healthz", "/config", "/events"]
            .map(|path| (path, scope.spawn(move || get(ringway.admin, path))))
            .into_iter()
            .collect();
        for (path, asked) in asked {
            let answer = asked.join().unwrap().unwrap();
            assert_eq!(answer.status, 200, "{path} {}", answer.text());
            if path == "/sessions" {
                let listed: Value = serde_json::from_slice(&answer.body).unwrap();
                assert_eq!(listed["silent_workers"], serde_json::json!([1]), "{listed}");
            }
        }
    });
    // What it is told it does when it goes on; nobody waits for that.
    ringway.reconfigure(&file.replace("id: b,", "id: b, weight: 7,"));
    drop(stopped);
    wait_for("the worker to go on", || {
        let listed: Value = serde_json::from_slice(&get(ringway.admin, "/sessions")?.body).or_not_yet();
        (listed["silent_workers"] == serde_json::json!([])).then_some(())
    });
}

/// Clients have taken every descriptor that there is for them; both doors have some of their own.
#[test]
fn both_doors_are_open_when_clients_have_all_descriptors() {
    let Some(()) = require("curl") else { return };
    let (fleet, directory, web) = (echoes(1), tempfile::tempdir().unwrap(), free_address());
    let socket = directory.path().join("admin.sock");
    let file = simple(web, "", &targets(&fleet))
        .replace("\"ADMIN\" }", &format!("\"ADMIN\", socket: {{ path: {socket:?} }} }}"));
    let ringway = Ringway::start_with_descriptors(90, &file);
    let clients: Vec<_> = (0..150).map(|_| send(web, b"GET / HTTP/1.1\r\nHost: a\r\n")).collect();
    let open = || std::fs::read_dir(format!("/proc/{}/fd", ringway.pid())).map_or(0, Iterator::count);
    let mut most = 0;
    wait_for("clients to have taken what they may", || {
        let before = std::mem::replace(&mut most, open());
        (before == most && most > 40).then_some(())
    });
    let unix = format!("unix:{}", socket.display());
    for _ in 0..3 {
        for path in ["/status", "/metrics", "/sessions", "/healthz"] {
            assert_eq!(get(ringway.admin, path).unwrap().status, 200, "{path}");
            let url = format!("http://localhost{path}");
            let code = ["--unix-socket", path_text(&socket), "-o", "/dev/null", "-w", "%{http_code}", &url];
            assert_eq!(curl_body(&code), "200", "{path} at the socket");
        }
        let said = ringway_said(&["reload", "--admin", &unix]);
        assert!(said.status.success(), "{said:?} {}", ringway.log());
    }
    // Who holds connections at one door without a word leaves the other one open.
    let _silent: Vec<_> = (0..100).map(|_| send(ringway.admin, b"")).collect();
    let said = ringway_said(&["overrides", "--admin", &unix]);
    assert!(said.status.success(), "{said:?} {}", ringway.log());
    drop(clients);
}

/// What is shown live to somebody ends when they may no longer see it, and goes on through every other reload.
#[test]
fn a_stream_goes_on_through_reloads_and_ends_with_the_authority_of_its_certificate() {
    let Some(()) = require("curl") else { return };
    let (own, next, fleet) = (Authority::new(), Authority::new(), echoes(2));
    own.issue("admin", "127.0.0.1", false);
    own.issue("ops", "ops.test", false);
    let web = free_address();
    let file = |ca: &Authority, service: &str| {
        format!(
            "workers: 1\nadmin: {{ address: \"ADMIN\", tls: {{ certificate: {:?}, key: {:?}, client_ca: {:?}, \
             clients: [ {{ name: ops.test, role: operate }} ] }} }}\n\
             listeners: [ {{ name: web, address: \"{web}\", service: {service} }} ]\n\
             services: [ {{ name: {service}, backends: [ {{ id: a, address: \"{}\" }} ] }} ]\n",
            own.path("admin.pem"),
            own.path("admin.key"),
            ca.path("ca.pem"),
            fleet[0].1.address
        )
    };
    let ringway = Ringway::start_unasked(&file(&own, "first"));
    let ca = own.text("ca.pem");
    let (certificate, key) = (own.text("ops.pem"), own.text("ops.key"));
    let shown = ["--cacert", &ca, "--cert", &certificate, "--key", &key];
    let ready = format!("https://{}/readyz", ringway.admin);
    wait_for("the listener", || {
        output("curl", &[&shown[..], &["-sS", &ready]].concat()).status.success().then_some(())
    });
    let seen = ringway.directory.path().join("seen");
    let stream = format!("https://{}/live?service=first", ringway.admin);
    let curl = Command::new("curl")
        .args(shown)
        .args(["-sSN", "--max-time", "30", &stream])
        .stdout(std::fs::File::create(&seen).unwrap())
        .spawn();
    let mut curl = Running(curl.unwrap());
    let text = || std::fs::read_to_string(&seen).unwrap();
    wait_for("a frame", || text().starts_with("event: frame").then_some(()));
    // The service that is looked at goes: the stream says so, and goes on.
    ringway.write_config(&file(&own, "second"));
    wait_for("the other service", || text().contains("\"second\"").then_some(()));
    let events = text().matches("event: ").count();
    wait_for("more of it", || (text().matches("event: ").count() > events).then_some(()));
    assert!(curl.0.try_wait().unwrap().is_none());
    // So does somebody who looks at requests.
    let looked = ringway.directory.path().join("looked");
    let tap = format!("https://{}/tap", ringway.admin);
    let looker = Command::new("curl")
        .args(shown)
        .args(["-sSN", "--max-time", "30", "-d", "{\"for_seconds\": 600}", &tap])
        .stdout(std::fs::File::create(&looked).unwrap())
        .spawn();
    let mut looker = Running(looker.unwrap());
    wait_for("the tap", || std::fs::read_to_string(&looked).unwrap().starts_with("{\"tap\":").then_some(()));
    // Certificates of this authority are nobody's any more.
    ringway.write_config(&file(&next, "second"));
    for (what, running) in [("the end of the stream", &mut curl), ("the end of the tap", &mut looker)] {
        let ended = wait_for(what, || running.0.try_wait().unwrap());
        assert!(ended.success(), "it ends as a response ends, not as one that is cut off: {ended}");
    }
    let end = std::fs::read_to_string(&looked).unwrap();
    assert!(end.contains("\"why\":\"role\""), "{end}");
    wait_for("its connection to be gone", || {
        let mine = std::fs::read_to_string(format!("/proc/{}/net/tcp", ringway.pid())).unwrap();
        let port = format!(":{:04X} ", ringway.admin.port());
        // 01 is a connection that stands.
        (!mine.lines().any(|line| line.contains(&port) && line.contains(" 01 "))).then_some(())
    });
}
