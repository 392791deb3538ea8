//! What is under way is listed while it is, and not a moment longer, whatever protocol it has and however it ends.

use crate::common::peers::Certificates;
use crate::common::{Backend, Ringway, free_address, get, read_request, send, simple, wait_for};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

/// A backend that responds once it is told to, each time: it sends a part, and the rest with the second word.
fn patient() -> (Backend, Sender<()>) {
    let (tell, told): (Sender<()>, Receiver<()>) = channel();
    let told = Arc::new(Mutex::new(told));
    let backend = Backend::custom(move |mut stream, _| {
        while read_request(&mut stream).is_some() {
            let told = told.lock().unwrap();
            let _ = told.recv();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf");
            let _ = told.recv();
            let _ = stream.write_all(b"rest");
        }
    });
    (backend, tell)
}

fn ask(admin: SocketAddr, query: &str) -> Value {
    let answer = get(admin, &format!("/sessions?{query}")).unwrap();
    serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.text()))
}

/// Waits until the only one that matches has this state, and gives it.
fn only(ringway: &Ringway, query: &str, state: &str) -> Value {
    wait_for(&format!("one session that is {state}"), || {
        let found = ask(ringway.admin, query);
        (found["total"] == 1 && found["sessions"][0]["state"] == state).then(|| found["sessions"][0].clone())
    })
}

/// What `ringway sessions` prints.
fn printed(ringway: &Ringway, arguments: &[&str]) -> String {
    let admin = ringway.admin.to_string();
    let done = crate::common::ringway(&[&["sessions", "--admin", &admin], arguments].concat());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

fn nothing_is_left(ringway: &Ringway) {
    wait_for("nothing to be under way", || (ask(ringway.admin, "")["total"] == 0).then_some(()));
    wait_for("no connection to be left", || (ask(ringway.admin, "connections")["total"] == 0).then_some(()));
}

#[test]
fn a_request_is_listed_with_its_state_backend_and_bytes_from_its_start_to_its_end() {
    let (backend, tell) = patient();
    let listen = free_address();
    let ringway = Ringway::start(&simple(listen, "", &[("b0", backend.address)]));
    for (version, protocol) in [("--http1.1", "HTTP/1.1"), ("--http2-prior-knowledge", "HTTP/2")] {
        let curl = Command::new("curl")
            .args(["-sS", "--max-time", "60", version, &format!("http://{listen}/some/path?x=1")])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let row = only(&ringway, "", "waiting");
        for (field, expected) in [
            ("protocol", protocol),
            ("listener", "web"),
            ("request", "GET /some/path"),
            ("service", "s"),
            ("backend", "b0"),
        ] {
            assert_eq!(row[field], expected, "{row:#}");
        }
        assert_eq!((row["route"].as_u64(), row["sent_bytes"].as_u64()), (Some(1), Some(0)), "{row:#}");
        assert!(row["received_bytes"].as_u64() > Some(20), "a head has come: {row:#}");
        assert!(row["client"].as_str().unwrap().starts_with("127.0.0.1:"), "{row:#}");
        // What is asked for in other words is another one.
        for query in ["client=127.0.0.2", "state=queued", "older=3600"] {
            assert_eq!(ask(ringway.admin, query)["total"], 0, "{query}");
        }
        for query in ["connections&service=s", "connections&backend=b0"] {
            let said = ask(ringway.admin, query)["error"].to_string();
            assert!(said.contains("connections have none"), "{query}: {said}");
        }
        for query in ["service=t", "backend=b1", "listener=other"] {
            let said = ask(ringway.admin, query)["error"].to_string();
            assert!(said.contains("there is no "), "{query}: {said}");
        }
        for query in ["service=s&backend=b0&listener=web&client=127.0.0.1&state=waiting", "sort=bytes&limit=1"] {
            assert_eq!(ask(ringway.admin, query)["total"], 1, "{query}");
        }
        let table =
            printed(&ringway, &["--service", "s", "--state", "waiting", "--kind", "http", "--client", "127.0.0.1"]);
        assert!(table.lines().count() == 2 && table.contains(protocol) && table.contains("GET /some/path"), "{table}");
        assert_eq!(printed(&ringway, &["--older", "1h"]).lines().count(), 1);
        let json: Value = serde_json::from_str(&printed(&ringway, &["--connections", "--json"])).unwrap();
        assert_eq!((&json["total"], &json["connections"][0]["tls"]), (&1.into(), &Value::Null), "{json:#}");
        tell.send(()).unwrap();
        let row = only(&ringway, "", "responding");
        wait_for("bytes to be counted", || {
            (ask(ringway.admin, "")["sessions"][0]["sent_bytes"].as_u64()? >= 4).then_some(())
        });
        let connections = ask(ringway.admin, "connections&state=busy");
        assert_eq!(
            (&connections["total"], &connections["connections"][0]["under_way"]),
            (&1.into(), &1.into()),
            "{row:#}"
        );
        assert_eq!(connections["connections"][0]["protocol"], protocol, "{connections:#}");
        tell.send(()).unwrap();
        assert_eq!(String::from_utf8(curl.wait_with_output().unwrap().stdout).unwrap(), "halfrest");
        nothing_is_left(&ringway);
    }
}

#[test]
fn what_ends_early_waits_or_is_a_session_of_tcp_is_listed_and_gone_as_well() {
    let (backend, tell) = patient();
    let (listen, tcp) = (free_address(), free_address());
    let config = simple(
        listen,
        "balance: { policy: round_robin, bounded_load: { all_full: queue, queue: { timeout: 300s } } }",
        &[("b0", backend.address)],
    );
    let config = config.replace("id: b0,", "id: b0, requests_max: 1,").replace(
        "listeners: [",
        &format!("listeners: [ {{ name: bytes, address: \"{tcp}\", protocol: tcp, service: t }},"),
    );
    let echo = Backend::custom(|mut stream, _| {
        let mut bytes = [0; 1024];
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            let _ = stream.write_all(&bytes[..count]);
        }
    });
    let config = format!("{config}  - {{ name: t, backends: [ {{ id: e0, address: \"{}\" }} ] }}\n", echo.address);
    let ringway = Ringway::start(&config);

    // One has the only place, another waits for it; both clients leave before anything has come.
    let first = send(listen, b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n");
    only(&ringway, "", "waiting");
    let second = send(listen, b"GET /second HTTP/1.1\r\nHost: a\r\n\r\n");
    let row = only(&ringway, "state=queued", "queued");
    assert_eq!((&row["request"], &row["backend"]), (&"GET /second".into(), &Value::Null));
    // The older one comes first.
    let both = ask(ringway.admin, "limit=1");
    assert_eq!((&both["total"], &both["shown"]), (&2.into(), &1.into()), "{both:#}");
    drop((first, second));
    nothing_is_left(&ringway);
    drop(tell);

    let mut session = send(tcp, b"hello");
    let mut echoed = [0; 5];
    session.read_exact(&mut echoed).unwrap();
    wait_for("the session's bytes", || {
        let row = only(&ringway, "", "relaying");
        let bytes = (row["received_bytes"].as_u64()?, row["sent_bytes"].as_u64()?);
        assert_eq!((&row["protocol"], &row["backend"], &row["request"]), (&"tcp".into(), &"e0".into(), &Value::Null));
        (bytes == (5, 5)).then_some(())
    });
    drop(session);
    nothing_is_left(&ringway);

    // An idle connection is a connection with nothing under way.
    let idle = send(listen, b"");
    wait_for("the idle connection", || (ask(ringway.admin, "connections&state=idle")["total"] == 1).then_some(()));
    drop(idle);
    nothing_is_left(&ringway);
    // One on which a head has begun is not idle, and serves nothing yet.
    let half = send(listen, b"GET /half HTTP/1.1\r\nHost: ");
    wait_for("half of a head", || {
        let connections = ask(ringway.admin, "connections&state=receiving");
        (connections["total"] == 1 && connections["connections"][0]["under_way"] == 0).then_some(())
    });
    assert_eq!(ask(ringway.admin, "connections&state=idle")["total"], 0);
    drop(half);
    nothing_is_left(&ringway);
    assert_eq!(get(ringway.admin, "/sessions?limit=many").unwrap().status, 400);
}

#[test]
fn the_tls_session_of_a_request_is_listed_with_its_version_and_whether_it_goes_on_with_another() {
    let Some(certificates) = Certificates::new() else { return };
    certificates.issue("one", "DNS:one.test", "2");
    let (backend, tell) = patient();
    let listen = free_address();
    let tls = format!("service: s, tls: {{ certificates: [ {} ] }} }}", certificates.entry("one"));
    let config = simple(listen, "", &[("b0", backend.address)]).replace("service: s }", &tls);
    let ringway = Ringway::start(&config);
    let session = certificates.text("session");
    // What has no answer keeps openssl waiting: the session is of TLS 1.2, whose ticket comes with the handshake.
    for (resumed, more) in [(false, "-sess_out"), (true, "-sess_in")] {
        let script = format!(
            "printf 'GET /secret HTTP/1.1\\r\\nHost: one.test\\r\\nConnection: close\\r\\n\\r\\n' | \
             openssl s_client -tls1_2 -connect {listen} -servername one.test {more} {session} -ign_eof"
        );
        let mut client =
            Command::new("sh").args(["-c", &script]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let row = only(&ringway, "listener=web", "waiting");
        assert_eq!(row["tls"], serde_json::json!({ "version": "1.2", "resumed": resumed }), "{row:#}");
        (0..2).for_each(|_| tell.send(()).unwrap());
        assert!(client.wait().unwrap().success());
        nothing_is_left(&ringway);
    }
}
