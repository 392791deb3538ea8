//! What an operator changes without a file, by the admin listener and by the command line.

use crate::common::control::ringway_said;
use crate::common::peers::curl_body;
use crate::common::{Backend, Ringway, echoes, free_address, get, path_text, require, targets, wait_for};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// A proxy with a Unix socket; keys are paths, and none is hot because a test asks for it often.
struct Rig {
    ringway: Ringway,
    web: SocketAddr,
    socket: PathBuf,
    _directory: tempfile::TempDir,
    file: String,
}

impl Rig {
    fn new(backends: &[(&str, SocketAddr)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (web, socket) = (free_address(), directory.path().join("admin.sock"));
        let backends: Vec<String> = backends
            .iter()
            .map(|(id, address)| format!("      - {{ id: {}, address: \"{address}\" }}\n", Value::from(*id)))
            .collect();
        let file = format!(
            "workers: 2\nadmin: {{ address: \"ADMIN\", socket: {{ path: {socket:?} }} }}\n\
             listeners: [ {{ name: web, address: \"{web}\", service: s }} ]\n\
             services:\n  - name: s\n    balance: {{ hash_key: [ {{ path: {{}} }} ], hot_keys: {{ enabled: false }} }}\n    backends:\n{}",
            backends.concat()
        );
        Self { ringway: Ringway::start(&file), web, socket, _directory: directory, file }
    }

    fn unix(&self) -> String {
        format!("unix:{}", self.socket.display())
    }

    /// Runs a command against the socket: its exit code, and all that it says.
    fn run(&self, args: &[&str]) -> (Option<i32>, String) {
        let said = ringway_said(&[args, &["--admin", &self.unix()]].concat());
        (said.status.code(), format!("{}{}", said.text(), String::from_utf8_lossy(&said.err)))
    }

    fn backend(&self, id: &str) -> Value {
        let status = self.ringway.status();
        let backends = status["services"][0]["backends"].as_array().cloned().unwrap_or_default();
        backends.into_iter().find(|backend| backend["id"] == id).unwrap_or_default()
    }

    /// Who serves these keys.
    fn served(&self, keys: usize) -> Vec<String> {
        (0..keys).map(|key| get(self.web, &format!("/{key}")).unwrap().text()).collect()
    }
}

struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn addresses(fleet: &[(&'static str, Backend)]) -> Vec<(&'static str, SocketAddr)> {
    targets(fleet)
}

#[test]
fn a_backend_is_drained_and_back_under_load_without_a_failed_request() {
    let fleet = echoes(3);
    let rig = Rig::new(&addresses(&fleet));
    let (stop, failed, done) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for client in 0..4 {
            let (stop, failed, done, web) = (&stop, &failed, &done, rig.web);
            scope.spawn(move || {
                for number in (0..).take_while(|_| !stop.load(Relaxed)) {
                    let answer = get(web, &format!("/{client}-{number}"));
                    failed.fetch_add(usize::from(answer.is_none_or(|answer| answer.status != 200)), Relaxed);
                    done.fetch_add(1, Relaxed);
                }
            });
        }
        // However this ends, they do.
        let _stop = Stop(&stop);
        let passed = |more: usize| {
            let before = done.load(Relaxed);
            wait_for("requests", || (done.load(Relaxed) >= before + more).then_some(()));
        };
        passed(50);
        let (code, said) = rig.run(&["backend", "drain", "s", "a"]);
        assert_eq!(code, Some(0), "{said}");
        assert!(
            said.contains("services.s.backends.a.drain false -> true") && said.contains("lasts until the process ends"),
            "{said}"
        );
        assert!(said.contains("% of the keys move"), "{said}");
        passed(50);
        assert!(rig.served(60).iter().all(|name| name != "a"));
        assert_eq!(rig.backend("a")["override"]["drain"], true);
        passed(20);
        assert_eq!(rig.run(&["backend", "ready", "s", "a"]).0, Some(0));
        assert!(rig.served(60).iter().any(|name| name == "a"));
        assert_eq!(rig.backend("a")["override"], Value::Null);
        assert_eq!(rig.run(&["backend", "weight", "s", "b", "0"]).0, Some(0));
        assert!(rig.served(60).iter().all(|name| name != "b"));
        assert_eq!(rig.run(&["backend", "maintenance", "s", "c"]).0, Some(0));
        assert!(rig.served(60).iter().all(|name| name == "a"));
        passed(50);
    });
    assert_eq!(failed.load(Relaxed), 0, "of {}", done.load(Relaxed));
    let (_, said) = rig.run(&["overrides"]);
    assert!(said.contains("backend \"b\": weight 0, by user ") && said.contains("maintenance true"), "{said}");
    // They outlive a reload, which says so, and go with a word.
    rig.ringway.write_config(&rig.file.replace("\"b\", address", "\"b\", weight: 50, address"));
    let overridden = || rig.ringway.status()["last_reload"]["overridden"].to_string();
    let overridden = wait_for("the reload", || Some(overridden()).filter(|overridden| overridden.contains("weight")));
    assert_eq!(rig.backend("b")["weight"], 0);
    assert!(overridden.contains("weight is 0") && overridden.contains("not 50 as in the file"), "{overridden}");
    assert_eq!(rig.run(&["overrides", "--clear"]).0, Some(0));
    assert_eq!(rig.backend("b")["weight"], 50);
    assert!(rig.run(&["overrides"]).1.contains("all is as in the file"));
    assert!(rig.ringway.log().contains("changed at run time"), "who did what is in the log");
}

#[test]
fn what_is_saved_is_not_said_to_be_over_with_the_process_and_another_file_than_the_proxys_is_told() {
    let fleet = echoes(2);
    let rig = Rig::new(&addresses(&fleet));
    let own = rig.ringway.config.clone();
    let other = own.with_file_name("other.yaml");
    std::fs::copy(&own, &other).unwrap();
    let save = |verb: &str, file: &Path| rig.run(&["backend", verb, "s", "a", "--save", "--config", path_text(file)]);
    let (code, said) = save("drain", &own);
    assert!(code == Some(0) && said.contains("saved in ") && said.contains("it lasts"), "{said}");
    for wrong in ["until the process ends", "as in the file", "knows nothing"] {
        assert!(!said.contains(wrong), "{wrong}: {said}");
    }
    assert!(std::fs::read_to_string(&own).unwrap().contains("drain: true"));
    let (code, said) = save("ready", &other);
    assert!(code == Some(0) && said.contains("warning: the proxy reads ") && said.contains("other.yaml"), "{said}");
    assert!(!rig.ringway.log().contains("lasts until the process ends"), "{}", rig.ringway.log());
}

#[test]
fn a_key_is_spread_over_several_backends_for_a_time() {
    let fleet = echoes(3);
    let rig = Rig::new(&addresses(&fleet));
    let names = || {
        let mut names: Vec<String> = (0..40).map(|_| get(rig.web, "/hot").unwrap().text()).collect();
        names.sort();
        names.dedup();
        names.len()
    };
    assert_eq!(names(), 1);
    let (code, said) = rig.run(&["spread", "s", "/hot", "--owners", "3", "--for", "10m"]);
    assert_eq!(code, Some(0), "{said}");
    wait_for("the key to be spread", || (names() == 3).then_some(()));
    assert!(rig.run(&["overrides"]).1.contains("owners 3"));
    let keys = rig.ringway.status()["services"][0]["hot_keys"].clone();
    assert_eq!(keys[0]["owners"].as_array().map(Vec::len), Some(3), "{keys}");
    assert!(keys[0]["by_hand_seconds_left"].as_f64().is_some_and(|left| left > 60.0), "{keys}");
    // Taken back before its time; what nobody has spread is not.
    let end = rig.run(&["spread", "s", "/hot", "--end"]);
    assert!(end.0 == Some(0) && rig.run(&["overrides"]).1.contains("as in the file"), "{end:?}");
    wait_for("the key to be at home", || (names() == 1).then_some(()));
    assert!(rig.run(&["spread", "s", "/hot", "--end"]).1.contains("nobody has spread"));
    // Again, for a moment: then it has one owner, as before.
    assert_eq!(rig.run(&["spread", "s", "/hot", "--owners", "2", "--for", "1s"]).0, Some(0));
    wait_for("the time to be over", || {
        (names() == 1 && rig.run(&["overrides"]).1.contains("as in the file")).then_some(())
    });
}

#[test]
fn what_cannot_be_done_is_refused_with_what_there_is() {
    let Some(()) = require("curl") else { return };
    let hostile = "<script>\u{1b}[31m\"x\"";
    let fleet = echoes(1);
    let ids = [("a", fleet[0].1.address)];
    let rig = Rig::new(&ids);
    for (args, code, says) in [
        (&["backend", "drain", "none", "a"][..], 1, "there is no service \"none\"; there are s"),
        (&["backend", "drain", "s", hostile], 1, "it has a"),
        (&["backend", "weight", "s", "a", "1601"], 1, "more than 1600"),
        (&["spread", "s", "/hot", "--owners", "2", "--for", "1m"], 1, "owners"),
        (&["spread", "s", "--hash", "zz", "--owners", "2", "--for", "1m"], 1, "hex digits"),
        (&["reload"], 0, "nothing has changed"),
    ] {
        let (got, said) = rig.run(args);
        assert!(got == Some(code) && said.contains(says), "{args:?}: {got:?} {said}");
        assert!(!said.contains('\u{1b}'), "{said:?}");
    }
    let loopback = rig.ringway.admin.to_string();
    let plain = ringway_said(&["backend", "drain", "s", "a", "--admin", &loopback]);
    assert_eq!(plain.status.code(), Some(1), "on loopback without credentials nobody changes anything");
    assert!(String::from_utf8_lossy(&plain.err).contains("--admin unix:PATH"), "{plain:?}");
    assert_eq!(
        ringway_said(&["reload", "--admin", &loopback]).status.code(),
        Some(0),
        "but the file may be read again"
    );
    let nobody = ringway_said(&["reload", "--admin", &free_address().to_string()]);
    assert_eq!(nobody.status.code(), Some(2));
    let post = |path: &str, body: &str| {
        let socket = rig.socket.to_str().unwrap();
        let url = format!("http://localhost{path}");
        let args = ["--unix-socket", socket, "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", "-d", body, &url];
        curl_body(&args)
    };
    let long = format!("@{}", long_body(rig.ringway.directory.path()).display());
    for (path, body, code) in [
        ("/services/s/backends/a", "{}", "422"),
        ("/services/s/backends/a", "[]", "422"),
        ("/services/s/backends/a", "{", "400"),
        ("/services/s/backends/a", "{\"drain\": 1}", "422"),
        ("/services/s/backends/a", "{\"weight\": -1}", "422"),
        ("/services/s/backends/a", "{\"weight\": 1e99}", "422"),
        ("/services/s/backends/a", "{\"dran\": true}", "422"),
        ("/services/s/backends/%3Cscript%3E", "{\"drain\": true}", "404"),
        ("/services/s/backends/a/b", "{\"drain\": true}", "404"),
        ("/services/s/hot-keys", "{\"key\": \"k\", \"owners\": 2}", "422"),
        ("/services/s/backends/a", &long, "413"),
    ] {
        assert_eq!(post(path, body), code, "{path} {body:.40}");
    }
    assert_eq!(rig.ringway.status()["generation"], 1);
}

/// A body that is longer than what is read of one.
fn long_body(directory: &Path) -> PathBuf {
    let path = directory.join("long");
    std::fs::write(&path, vec![b' '; 70_000]).unwrap();
    path
}

/// An id as somebody writes it who means harm: it is drained by its name, and harms no terminal.
#[test]
fn an_id_full_of_markup_and_escapes_is_one_as_any_other() {
    let fleet = echoes(2);
    let hostile = "<b>&\u{202e}'/..%2f";
    let rig = Rig::new(&[("a", fleet[0].1.address), (hostile, fleet[1].1.address)]);
    let (code, said) = rig.run(&["backend", "drain", "s", hostile]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(rig.backend(hostile)["override"]["drain"], true);
    let (_, listed) = rig.run(&["overrides"]);
    for text in [said, listed] {
        assert!(text.contains("<b>") && !text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text:?}");
    }
}

#[test]
fn what_is_saved_is_one_field_of_the_file_which_says_it_from_then_on() {
    use std::os::unix::fs::PermissionsExt;
    let fleet = echoes(2);
    let rig = Rig::new(&addresses(&fleet));
    let file = rig.ringway.config.to_str().unwrap().to_owned();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    let text = || std::fs::read_to_string(&file).unwrap();
    let before = text();
    let (code, said) = rig.run(&["backend", "drain", "s", "a", "--save", "--config", &file]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(text(), before.replace("id: \"a\",", "id: \"a\", drain: true,"));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    // The file says it now: it is nobody's runtime change any more, from this moment on.
    assert_eq!(rig.backend("a")["override"], Value::Null);
    let overrides = rig.run(&["overrides"]).1;
    assert!(overrides.contains("all is as in the file"), "{overrides}");
    assert!(rig.served(20).iter().all(|name| name == "b"));
    assert_eq!(rig.run(&["backend", "ready", "s", "a", "--save", "--config", &file]).0, Some(0));
    assert_eq!(text(), before.replace("id: \"a\",", "id: \"a\", drain: false,"));
    assert_eq!(rig.backend("a")["override"], Value::Null);
    let reload = rig.run(&["reload"]).1;
    assert!(!reload.contains("stands:"), "{reload}");
    assert!(rig.served(40).iter().any(|name| name == "a"));
    // Of what the file does not have, nothing is done at all.
    let other = rig.ringway.directory.path().join("other.yaml");
    std::fs::write(&other, before.replace("\"a\"", "\"z\"")).unwrap();
    let (code, said) = rig.run(&["backend", "weight", "s", "a", "7", "--save", "--config", other.to_str().unwrap()]);
    assert!(code == Some(1) && said.contains("does not stand in this file"), "{said}");
    assert_eq!(rig.backend("a")["weight"], 100);
}

#[test]
fn what_is_in_force_is_printed_as_a_file_that_means_the_same() {
    let fleet = echoes(2);
    let rig = Rig::new(&addresses(&fleet));
    assert_eq!(rig.run(&["backend", "weight", "s", "b", "7"]).0, Some(0));
    let said = ringway_said(&["config", "--admin", &rig.unix()]);
    let printed = said.text();
    assert!(printed.contains("drain_timeout: \"30s\"") && printed.contains("weight: 7"), "{printed}");
    let path = rig.ringway.directory.path().join("printed.yaml");
    std::fs::write(&path, &printed).unwrap();
    let checked = ringway_said(&["check", path.to_str().unwrap()]);
    assert_eq!(checked.status.code(), Some(0), "{}", checked.text());
    let json: Value =
        serde_json::from_str(&ringway_said(&["config", "--json", "--admin", &rig.unix()]).text()).unwrap();
    assert_eq!(json["services"][0]["backends"][1]["weight"], 7);
}

#[test]
fn the_last_backend_is_taken_out_by_who_means_it_and_its_file_says_the_same() {
    let fleet = echoes(2);
    let rig = Rig::new(&addresses(&fleet));
    assert_eq!(rig.run(&["backend", "drain", "s", "a"]).0, Some(0));
    let file = rig.ringway.config.to_str().unwrap().to_owned();
    let (code, said) = rig.run(&["backend", "maintenance", "s", "b", "--save", "--config", &file]);
    assert!(code == Some(1) && said.contains("--force"), "{said}");
    assert_eq!(std::fs::read_to_string(&file).unwrap().matches("maintenance").count(), 0);
    assert_eq!(rig.backend("b")["override"], Value::Null);
    let (code, said) = rig.run(&["backend", "maintenance", "s", "b", "--force"]);
    assert!(code == Some(0) && said.contains("warning: no backend of service \"s\" takes traffic"), "{said}");
}

/// The name there is none of anybody's: it is the socket that says who asks.
#[test]
fn a_socket_is_asked_under_any_name_that_no_stranger_can_have_registered() {
    let fleet = echoes(2);
    let rig = Rig::new(&addresses(&fleet));
    for (host, part) in [("anything", "\"generation\""), ("anything.example", "ask by an IP address or as localhost")] {
        let said = curl_body(&[
            "--unix-socket",
            rig.socket.to_str().unwrap(),
            "-X",
            "POST",
            "-d",
            "{\"weight\": 7}",
            &format!("http://{host}/services/s/backends/a"),
        ]);
        assert!(said.contains(part), "{host}: {said}");
    }
}
