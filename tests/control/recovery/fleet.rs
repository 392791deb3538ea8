//! What `verify` and the list of proxies say of a fleet.

use crate::common::control::{Cluster, FleetProxy, curl, ringway_said, service};
use crate::common::{Backend, Ringway, get, require, wait_for};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

#[test]
fn verify_and_explain_hold_while_a_backend_is_drained() {
    let cluster = Cluster::of(1, "");
    let (a, b) = (Backend::echo("a"), Backend::echo("b"));
    let text = service(&[("a", a.address)]);
    let document = cluster.write("main.yaml", &text);
    let applied = cluster.control(&["apply", &document, "--yes", "--direct"]);
    assert!(applied.status.success(), "{applied:?}");
    let object = json!({ "address": b.address.to_string(), "state": "drain" });
    let put = curl(&cluster.urls[0], "PUT", "/v1/objects/backend/s/b", &object);
    assert_eq!(put.status, 200, "{put:?}");
    let proxy = FleetProxy::start(&cluster, "p0", "");
    let said = cluster.control(&["verify", "--expect", "p0"]);
    assert!(said.status.success(), "{said:?}");
    // The file says the same as the proxy that runs it.
    let alone = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:1\", service: s }} ]\n{}",
        text.replace("\" } ] }", &format!("\" }}, {{ id: b, address: \"{}\", drain: true }} ] }}", b.address))
    );
    let file = cluster.write("alone.yaml", &alone);
    let explained = ringway_said(&["explain", "--config", &file, "--service", "s", "--key", "/", "--json"]);
    let running = proxy.ringway.status()["services"][0]["ring_digest"].clone();
    assert_eq!(explained.json()["ring_digest"], running, "{explained:?}");
}

#[test]
fn verify_fails_by_name_where_nothing_or_not_everything_was_compared() {
    let cluster = Cluster::of(1, "");
    let a = Backend::echo("a");
    let document = cluster.write("main.yaml", &service(&[("a", a.address)]));
    assert!(cluster.control(&["apply", &document, "--yes", "--direct"]).status.success());
    let said = cluster.control(&["verify"]);
    assert!(!said.status.success() && said.text().contains("no proxy"), "{said:?}");

    let _proxy = FleetProxy::start(&cluster, "p0", "");
    let said = cluster.control(&["verify"]);
    assert!(said.status.success(), "{said:?}");
    let said = cluster.control(&["verify", "--expect", "p0,p9"]);
    assert!(!said.status.success() && said.text().contains("p9 has not been heard of"), "{said:?}");

    // One that has seen a later epoch, as after a restore into new members.
    let mut heartbeat = wait_for("a synced proxy", || {
        let fleet = curl(&cluster.urls[0], "GET", "/v1/proxies", &Value::Null).json();
        (fleet["proxies"][0]["state"] == "synced").then(|| fleet["proxies"][0]["heartbeat"].clone())
    });
    heartbeat["epoch"] = json!(u64::MAX / 2);
    assert_eq!(curl(&cluster.urls[0], "PUT", "/v1/proxies/liar", &heartbeat).status, 200);
    let said = cluster.control(&["verify"]);
    assert!(!said.status.success() && said.text().contains("liar is "), "{said:?}");
}

/// A file whose reader waits until it is let go: a terminal at which nobody has written yet.
struct Held {
    terminal: Child,
    path: String,
    text: String,
}

/// Tells its name; what it is told is written at it, and that this is all.
const TERMINAL: &str = "import os, signal, sys, termios
master, slave = os.openpty()
modes = termios.tcgetattr(slave)
modes[3] &= ~termios.ECHO
termios.tcsetattr(slave, termios.TCSANOW, modes)
print(os.ttyname(slave), flush=True)
os.write(master, sys.stdin.buffer.read() + b'\\n\\x04')
signal.pause()
";

impl Held {
    /// `trigger` makes the proxy read the file; on return it waits.
    fn while_read(path: &str, ringway: &Ringway, trigger: impl FnOnce()) -> Option<Self> {
        require("python3")?;
        let text = std::fs::read_to_string(path).unwrap();
        let mut python = Command::new("python3");
        python.args(["-c", TERMINAL]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut terminal = python.spawn().unwrap();
        let mut name = String::new();
        BufReader::new(terminal.stdout.take().unwrap()).read_line(&mut name).unwrap();
        let (name, beside) = (PathBuf::from(name.trim()), format!("{path}.beside"));
        std::os::unix::fs::symlink(&name, &beside).unwrap();
        std::fs::rename(&beside, path).unwrap();
        trigger();
        wait_for("the file to be read", || {
            let mut open = std::fs::read_dir(format!("/proc/{}/fd", ringway.pid())).ok()?.flatten();
            open.any(|file| std::fs::read_link(file.path()).is_ok_and(|of| of == name)).then_some(())
        });
        Some(Self { terminal, path: path.to_owned(), text })
    }

    /// What is written is read as long as this lives.
    fn let_go(&mut self) {
        let next = format!("{}.next", self.path);
        std::fs::write(&next, &self.text).unwrap();
        std::fs::rename(&next, &self.path).unwrap();
        self.terminal.stdin.take().unwrap().write_all(self.text.as_bytes()).unwrap();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.terminal.kill();
        let _ = self.terminal.wait();
    }
}

fn first_proxy(cluster: &Cluster) -> Value {
    curl(&cluster.urls[0], "GET", "/v1/proxies", &Value::Null).json()["proxies"][0].clone()
}

#[test]
fn a_proxy_that_builds_is_heard_of_answers_and_tells_revision_and_rings_together() {
    let cluster = Cluster::of(1, "");
    let (a, b) = (Backend::echo("a"), Backend::echo("b"));
    let text = service(&[("a", a.address)]);
    let document = cluster.write("main.yaml", &text);
    assert!(cluster.control(&["apply", &document, "--yes", "--direct"]).status.success());
    // The shadow is read in each build, and nowhere else.
    let shadow = cluster
        .write("shadow.yaml", &format!("listeners: [ {{ name: web, address: \"127.0.0.1:1\", service: s }} ]\n{text}"));
    let proxy = FleetProxy::start(&cluster, "p0", &format!("shadow: {shadow:?}\n"));
    let before = wait_for("the service", || {
        let known = first_proxy(&cluster);
        (known["state"] == "synced" && get(proxy.listen, "/x")?.status == 200).then_some(known)
    });
    let said_of = |known: &Value| ["revision", "digest", "rings"].map(|field| known["heartbeat"][field].clone());

    let by_the_fleet = || {
        let object = json!({ "address": b.address.to_string() });
        assert_eq!(curl(&cluster.urls[0], "PUT", "/v1/objects/backend/s/b", &object).status, 200);
    };
    let by_a_signal = || proxy.ringway.signal("HUP");
    let triggers: [(&dyn Fn(), &str); 2] = [(&by_the_fleet, "behind"), (&by_a_signal, "synced")];
    let mut told = said_of(&before);
    for (trigger, state) in triggers {
        let Some(mut held) = Held::while_read(&shadow, &proxy.ringway, trigger) else { return };
        for _ in 0..3 {
            // What it tells of now was not known before the build began.
            let already = first_proxy(&cluster)["heartbeat"]["requests"].as_u64().unwrap();
            assert_eq!(get(proxy.listen, "/x").unwrap().status, 200);
            let known = wait_for("a heartbeat while it builds", || {
                let known = first_proxy(&cluster);
                assert_ne!(known["state"], "offline", "{known}");
                (known["heartbeat"]["requests"].as_u64()? > already).then_some(known)
            });
            assert_eq!((known["state"].as_str(), said_of(&known)), (Some(state), told.clone()), "{known}");
            assert_eq!(proxy.ringway.status()["topology"]["revision"], told[0]);
        }
        held.let_go();
        let verified = cluster.control(&["verify", "--expect", "p0"]);
        assert!(verified.status.success(), "{verified:?}");
        let now = wait_for("what was built", || Some(first_proxy(&cluster)).filter(|known| known["state"] == "synced"));
        told = said_of(&now);
    }
    assert_ne!(told[2], said_of(&before)[2]);
}
