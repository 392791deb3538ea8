//! What an operator sees and types: texts of others, streams that go on, what a role may take from another.

use crate::common::control::*;
use crate::common::*;
use serde_json::{Value, json};
use std::process::{Command, Stdio};

/// Sets a title, clears the screen (C0 and C1), goes back to the line's begin, begins a new one, writes backwards, rings.
const NASTY: &str = "x\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}2J\rroot\nFORGED\u{202e}\u{7f}\u{8}\u{2028}y";

fn is_fit_for_a_terminal(text: &str) -> bool {
    text.chars().all(|c| c == '\n' || !(c.is_control() || "\u{202e}\u{2028}".contains(c)))
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn what_others_wrote_does_nothing_to_a_terminal() {
    let cluster = Cluster::of(1, "");
    let url = &cluster.urls[0];
    let ask = |method: &str, path: &str, body: Value| {
        let said = curl(url, method, path, &body);
        assert_eq!(said.status, 200, "{path}: {said:?}");
        said.json()
    };
    let backend = json!({ "address": "10.0.0.1:80", "zone": "z" });
    ask("PUT", &format!("/v1/objects/backend/s/a?note={}", percent(NASTY)), backend.clone());
    let lease = ask("POST", "/v1/leases", json!({ "ttl": "1h", "owner": NASTY }))["id"].clone();
    ask("PUT", "/v1/locks/l", json!({ "lease": lease, "owner": NASTY }));
    let heartbeat = json!({
        "version": NASTY, "epoch": 1, "revision": 1, "digest": NASTY, "rings": { "s": NASTY }, "stuck": NASTY,
        "generation": 1, "vote": null, "down": [], "requests": 0, "failed": 0, "canary": null,
    });
    ask("PUT", "/v1/proxies/p", heartbeat);
    let commands: [&[&str]; 13] = [
        &["history"],
        &["history", "1"],
        &["lock", "list"],
        &["lock", "acquire", "l"],
        &["lock", "release", "l", "1"],
        &["proxies"],
        &["verify"],
        &["members"],
        &["status"],
        &["get"],
        &["rollouts"],
        &["token", "list"],
        &["backend", "drain", "s", NASTY],
    ];
    let mut shown = String::new();
    for command in commands {
        for json in [false, true] {
            let said = cluster.control(&[command, if json { &["--json"] } else { &[] }].concat());
            for text in [said.text(), said.error()] {
                assert!(is_fit_for_a_terminal(&text), "{command:?}: {text:?}");
                assert!(!text.lines().any(|line| line.starts_with("FORGED")), "{command:?}: {text}");
                shown.push_str(&text);
            }
            if json && said.status.success() {
                said.json();
            }
        }
    }
    // It is shown, and as JSON it is what was written.
    assert!(shown.contains("\\u001b]0;owned") && shown.contains("\\u009b2J"), "{shown}");
    assert_eq!(cluster.control(&["lock", "list", "--json"]).json()["locks"][0]["owner"], NASTY);
    assert!(is_fit_for_a_terminal(&cluster.log(0)), "{}", cluster.log(0));
}

#[test]
fn a_note_of_a_mebibyte_is_refused_by_name_and_nothing_comes_of_it() {
    let cluster = Cluster::of(1, "");
    let url = &cluster.urls[0];
    let long = NASTY.repeat((1 << 20) / NASTY.len());
    let path = cluster.write("body", "");
    let post = |path_of: &str, method: &str, body: &Value| {
        std::fs::write(&path, body.to_string()).unwrap();
        let (target, data) = (format!("{url}{path_of}"), format!("@{path}"));
        run("curl", &["-s", "--max-time", "30", "-X", method, "--data-binary", &data, &target]).json()
    };
    let op = json!([{ "put": { "key": "backend/s/a", "object": { "backend": { "address": "10.0.0.1:80" } } } }]);
    let refused = [
        post("/v1/txn", "POST", &json!({ "ops": op, "note": &long[..5000] })),
        post("/v1/txn", "POST", &json!({ "ops": op, "note": long })),
        post("/v1/rollouts", "POST", &json!({ "ops": op, "note": long })),
        post("/v1/rollback", "POST", &json!({ "to": 0, "note": long })),
        post("/v1/rollouts/1/abort", "POST", &json!({ "reason": &long[..5000] })),
        post("/v1/leases", "POST", &json!({ "ttl": "10s", "owner": &long[..5000] })),
        post(
            &format!("/v1/objects/backend/s/a?note={}", "x".repeat(5000)),
            "PUT",
            &json!({ "address": "10.0.0.1:80" }),
        ),
    ];
    for said in &refused {
        assert!(["too_large", "unknown_revision"].contains(&said["code"].as_str().unwrap_or("")), "{refused:#?}");
    }
    let status = cluster.control(&["status", "--json"]).json();
    assert_eq!((status["revision"].as_u64(), status["leases"].as_u64()), (Some(0), Some(0)), "{status}");
}

/// Asks with a token.
fn with_token(url: &str, token: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let (target, bearer, body) = (format!("{url}{path}"), format!("Authorization: Bearer {token}"), body.to_string());
    let said = run(
        "curl",
        &["-s", "--max-time", "20", "-X", method, "-H", &bearer, "-d", &body, "-w", "\n%{http_code}", &target],
    );
    let text = said.text();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), serde_json::from_str(body).unwrap_or(Value::Null))
}

#[test]
fn a_registrar_cannot_take_away_what_another_has_registered() {
    // Who shows nothing is an admin here, as tokens are made in the log.
    let cluster = Cluster::of(1, ", anonymous: admin");
    let url = &cluster.urls[0];
    let token = |name: &str, role: &str| {
        let said = cluster.control(&["token", "create", name, "--role", role]);
        assert!(said.status.success(), "{said:?}");
        said.text().trim().to_owned()
    };
    let (mine, theirs, operator) = (token("mine", "register"), token("theirs", "register"), token("op", "operate"));
    let ask = |token: &str, method: &str, path: &str, body: Value| with_token(url, token, method, path, &body);
    let ok = |token: &str, method: &str, path: &str, body: Value| {
        let (status, said) = ask(token, method, path, body);
        assert_eq!(status, 200, "{method} {path}: {said}");
        said
    };
    let at = |host: u8| json!({ "address": format!("10.0.0.{host}:80") });
    let [leased, kept] = ["/v1/objects/backend/s/leased", "/v1/objects/backend/s/kept"];
    let lease = ok(&mine, "PUT", &format!("{leased}?ttl=1h"), at(1))["lease"].clone();
    ok(&mine, "PUT", kept, at(2));
    let own = ok(&mine, "POST", "/v1/leases", json!({ "ttl": "1h", "owner": "agent (theirs)" }))["id"].clone();
    let fence = ok(&mine, "PUT", "/v1/locks/l", json!({ "lease": own }))["token"].clone();
    let before = ok(&operator, "GET", "/v1/objects", json!(null));
    let put = |key: &str, lease: Value| json!({ "ops": [{ "put": { "key": key, "object": { "backend": { "address": "10.9.9.9:80", "lease": lease } } } }] });
    let attempts = [
        ("DELETE", leased.to_owned(), json!(null)),
        ("DELETE", kept.to_owned(), json!(null)),
        ("PUT", leased.to_owned(), at(9)),
        ("PUT", format!("{leased}?ttl=1h"), at(1)),
        ("PUT", format!("{leased}?ttl=10s"), at(1)),
        ("PUT", kept.to_owned(), at(9)),
        ("PATCH", leased.to_owned(), json!({ "state": "drain" })),
        ("PATCH", kept.to_owned(), json!({ "weight": 0 })),
        ("POST", "/v1/txn".to_owned(), put("backend/s/kept", json!(null))),
        ("POST", "/v1/txn".to_owned(), json!({ "ops": [{ "delete": { "key": "backend/s/leased" } }] })),
        (
            "POST",
            "/v1/txn".to_owned(),
            json!({ "ops": [{ "backend": { "key": "backend/s/kept", "state": "drain" } }] }),
        ),
        ("POST", "/v1/txn".to_owned(), put("backend/s/new", own.clone())),
        ("POST", "/v1/check".to_owned(), put("backend/s/kept", json!(null))),
        ("PUT", format!("/v1/leases/{lease}"), json!(null)),
        ("POST", "/v1/leases/keepalive".to_owned(), json!({ "ids": [own] })),
        ("DELETE", format!("/v1/leases/{lease}"), json!(null)),
        ("DELETE", format!("/v1/leases/{own}"), json!(null)),
        ("PUT", "/v1/locks/l2".to_owned(), json!({ "lease": own })),
        ("DELETE", format!("/v1/locks/l?token={fence}"), json!(null)),
    ];
    for (method, path, body) in &attempts {
        let (status, said) = ask(&theirs, method, path, body.clone());
        assert_eq!((status, said["code"].as_str()), (403, Some("not_yours")), "{method} {path} {body}: {said}");
    }
    assert_eq!(ok(&operator, "GET", "/v1/objects", json!(null)), before, "nothing has changed");
    // Whose it is, may; so may an operator. What nobody has is anybody's.
    ok(&mine, "PUT", &format!("{leased}?ttl=1h"), at(1));
    ok(&mine, "PUT", &format!("/v1/leases/{own}"), json!(null));
    ok(&mine, "PATCH", kept, json!({ "weight": 50 }));
    ok(&operator, "PATCH", leased, json!({ "weight": 50 }));
    ok(&theirs, "PUT", "/v1/objects/backend/t/own", at(3));
    ok(&mine, "DELETE", &format!("/v1/locks/l?token={fence}"), json!(null));
    ok(&mine, "DELETE", &format!("{kept}?force=false"), json!(null));
    ok(&theirs, "PUT", kept, at(4));
    let (status, said) = ask(&mine, "DELETE", kept, json!(null));
    assert_eq!((status, said["code"].as_str()), (403, Some("not_yours")), "{said}");
}

#[test]
fn a_lock_is_renewed_by_its_token_and_by_no_other() {
    let cluster = Cluster::of(1, "");
    let taken = cluster.control(&["lock", "acquire", "l", "--ttl", "1h", "--json"]).json();
    let token = taken["token"].to_string();
    let renew = |name: &str, token: &str| cluster.control(&["lock", "renew", name, "--token", token]);
    let said = renew("l", &token);
    assert!(said.status.success() && said.text().contains(&format!("lease {}", taken["lease"])), "{said:?}");
    assert!(renew("l", "1234567").error().contains("wrong_token"));
    assert!(renew("other", &token).error().contains("not_found"));
    assert!(cluster.control(&["lock", "acquire", "m", "--ttl", "10"]).error().contains("`30s`"));
}

/// The revisions that a watch has printed, in order.
fn revisions(text: &str) -> Vec<(&'static str, u64)> {
    let line = |line: &str| {
        let said: Value = serde_json::from_str(line).ok()?;
        let kind = ["snapshot", "delta"].into_iter().find(|kind| said.get(*kind).is_some())?;
        Some((kind, said[kind]["revision"].as_u64()?))
    };
    text.lines().filter_map(line).collect()
}

#[test]
fn a_watch_goes_on_at_another_member_and_loses_and_repeats_nothing() {
    let mut cluster = Cluster::of(3, "");
    let add = |cluster: &Cluster, index: usize, id: u64| {
        wait_for("a change", || {
            let path = format!("/v1/objects/backend/s/b{id}");
            let said = curl(&cluster.urls[index], "PUT", &path, &json!({ "address": format!("10.0.0.1:{id}") }));
            (said.status == 200).then_some(())
        });
    };
    add(&cluster, 0, 1);
    add(&cluster, 0, 2);
    let out = cluster.path("watched");
    let errors = cluster.path("errors");
    let mut command = cluster.command(&["watch", "--from", "1.1"]);
    // The epoch that the cluster was born with is in its status.
    let epoch = cluster.control(&["status", "--json"]).json()["epoch"].as_u64().unwrap();
    if epoch != 1 {
        command = cluster.command(&["watch", "--from", &format!("{epoch}.1")]);
    }
    command.stdout(std::fs::File::create(&out).unwrap()).stderr(std::fs::File::create(&errors).unwrap());
    let _watch = Running(command.spawn().unwrap());
    let seen = |what: &str, last: u64| {
        wait_for(what, || {
            let text = std::fs::read_to_string(&out).ok()?;
            revisions(&text).last().is_some_and(|(_, revision)| *revision >= last).then_some(())
        });
    };
    seen("what was there", 2);
    cluster.kill(0);
    for id in 3..=6 {
        add(&cluster, 1, id);
    }
    seen("what came while the first member was away", 6);
    cluster.bring_back(0);
    cluster.kill(1);
    add(&cluster, 0, 7);
    seen("what came after the second", 7);
    let text = std::fs::read_to_string(&out).unwrap();
    let seen = revisions(&text);
    assert!(seen.iter().all(|(kind, _)| *kind == "delta"), "{seen:?}");
    assert!(seen.windows(2).all(|two| two[0].1 < two[1].1) && seen[0].1 >= 2, "{seen:?}");
    assert!(std::fs::read_to_string(&errors).unwrap().contains("going on after"));
}

const MANUAL: &str = include_str!("../../../docs/control-plane.md");

/// The recipe's blocks: language, the comment that says where, and what stands below it.
fn recipe() -> Vec<(&'static str, &'static str, &'static str)> {
    let (_, section) = MANUAL.split_once("### Three machines\n").unwrap();
    let section = section.split("\nOff loopback").next().unwrap();
    let mut blocks = section.split("```").skip(1).step_by(2);
    let block = |text: &'static str| {
        let (language, text) = text.split_once('\n').unwrap();
        let (place, text) = text.split_once('\n').unwrap();
        (language, place.strip_prefix("# ").unwrap(), text)
    };
    blocks.by_ref().map(block).collect()
}

/// The machines of the recipe: each a directory; addresses are loopback's.
struct Machines {
    root: tempfile::TempDir,
    addresses: Vec<(String, String)>,
    children: Vec<i32>,
}

impl Machines {
    fn new() -> Self {
        let mut addresses = Vec::new();
        for host in ["10.0.0.1", "10.0.0.2", "10.0.0.3"] {
            for port in ["9700", "9701"] {
                addresses.push((format!("{host}:{port}"), free_address().to_string()));
            }
            addresses.push((host.to_owned(), "127.0.0.1".to_owned()));
        }
        let root = tempfile::tempdir().unwrap();
        let machines = Self { root, addresses, children: Vec::new() };
        for machine in ["control-1", "control-2", "control-3", "proxy-1"] {
            std::fs::create_dir_all(machines.at(machine, "/etc/ringway")).unwrap();
            std::fs::create_dir_all(machines.at(machine, "/var/lib")).unwrap();
        }
        // Between machines that are directories, it copies.
        let scp = machines.root.path().join("scp");
        let script = format!(
            "#!/bin/sh\nfor last; do :; done\nto=\"{}/${{last%%:*}}${{last#*:}}\"\nwhile [ $# -gt 1 ]; do cp \"$1\" \"$to\" || exit 1; shift; done\n",
            machines.root.path().display()
        );
        std::fs::write(&scp, script).unwrap();
        let made = Command::new("chmod").arg("+x").arg(&scp).status().unwrap();
        assert!(made.success());
        machines
    }

    fn at(&self, machine: &str, path: &str) -> String {
        self.root.path().join(machine).to_str().unwrap().to_owned() + path
    }

    /// As it stands, but for addresses and directories.
    fn here(&self, machine: &str, text: &str) -> String {
        let mut text = text.to_owned();
        for (there, here) in &self.addresses {
            text = text.replace(there.as_str(), here);
        }
        let kept = |text: &str, directory: &str| text.replace(directory, &self.at(machine, directory));
        // What another machine has stays a path of that machine.
        text.lines()
            .map(|line| {
                let words = line.split(' ').map(|word| match word.split_once(":/etc") {
                    Some(_) if word.starts_with("control-") || word.starts_with("proxy-") => word.to_owned(),
                    _ => kept(&kept(word, "/etc/ringway"), "/var/lib/ringway"),
                });
                words.collect::<Vec<_>>().join(" ") + "\n"
            })
            .collect()
    }

    /// Runs a block in a shell; what it leaves running goes on.
    fn shell(&mut self, machine: &str, text: &str) -> String {
        let binary = std::path::Path::new(env!("CARGO_BIN_EXE_ringway")).parent().unwrap();
        let path = format!(
            "{}:{}:{}",
            self.root.path().display(),
            binary.display(),
            std::env::var("PATH").unwrap_or_default()
        );
        let log = self.at(machine, "/log");
        // A member is asked when it is there: who types takes as long.
        let text = self
            .here(machine, text)
            .replace(" &\n", &format!(" 2>>{log} >>{log} </dev/null &\necho $! >> {log}.pids\n"));
        let mut command = Command::new("sh");
        command.args(["-e", "-c", &text]).env("PATH", path).env_remove("RINGWAY_CONTROL");
        let said =
            command.env_remove("RINGWAY_CA").env_remove("RINGWAY_TOKEN_FILE").stdin(Stdio::null()).output().unwrap();
        let pids = std::fs::read_to_string(format!("{log}.pids")).unwrap_or_default();
        self.children.extend(pids.lines().filter_map(|pid| pid.parse::<i32>().ok()));
        let (out, error) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
        assert!(said.status.success(), "on {machine}: {text}\n{out}\n{error}");
        out.into_owned()
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for pid in &self.children {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
        }
    }
}

#[test]
fn the_recipe_for_three_machines_is_what_works() {
    let mut machines = Machines::new();
    let blocks = recipe();
    let ready = |machines: &Machines, index: usize| {
        let address: std::net::SocketAddr = machines.addresses[(index - 1) * 3].1.parse().unwrap();
        wait_for("the member's port", || std::net::TcpStream::connect(address).ok());
    };
    for (language, place, text) in &blocks {
        match (*language, *place) {
            ("yaml", place) if place.starts_with("control-1: /etc/ringway/member.yaml") => {
                for index in ["1", "2", "3"] {
                    let name = format!("control-{index}");
                    let own = text.replace("control-1", &name).replace("10.0.0.1:", &format!("10.0.0.{index}:"));
                    std::fs::write(machines.at(&name, "/etc/ringway/member.yaml"), machines.here(&name, &own)).unwrap();
                }
            }
            ("yaml", place) => {
                let (machine, path) = place.split_once(": ").unwrap();
                std::fs::write(machines.at(machine, path), machines.here(machine, text)).unwrap();
            }
            ("sh", place) if place.starts_with("on control-2, and then on control-3") => {
                for index in [2, 3] {
                    ready(&machines, 1);
                    machines.shell(&format!("control-{index}"), text);
                    ready(&machines, index);
                }
            }
            ("sh", place) => {
                let machine = place.strip_prefix("on ").unwrap().split(':').next().unwrap().to_owned();
                if text.contains("ringway control members") {
                    wait_for("three voters, and a proxy that follows", || {
                        let out = machines.shell(&machine, text);
                        let voters =
                            out.lines().filter(|line| line.contains(" voter ") || line.contains(" leader ")).count();
                        let follows = out.lines().any(|line| line.starts_with("proxy-1 ") && line.contains("synced"));
                        (voters == 3 && follows).then_some(())
                    });
                } else {
                    machines.shell(&machine, text);
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(blocks.len(), 6);
}

#[test]
fn an_error_names_what_to_write_and_where() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (api, peers) = (free_address(), free_address());
    let text = format!(
        "control: {{ member: {{ name: m, directory: {:?}, address: \"{api}\", peer_address: \"{peers}\", \
         tls: {{ certificate: {pem:?}, key: {key:?}, client_ca: {:?} }}, \
         peer_tls: {{ ca: {:?}, certificate: {pem:?}, key: {key:?} }}, \
         tokens: [ {{ name: a, role: admin, file: {:?} }} ] }} }}\n",
        at("data"),
        at("clients.pem"),
        at("members.pem"),
        at("token"),
        pem = at("m.pem"),
        key = at("m.key"),
    );
    std::fs::write(at("member.yaml"), text).unwrap();
    let made = ringway_said(&["control", "init", "-c", &at("member.yaml"), "--authority", &at("authority")]);
    assert!(made.status.success(), "{made:?}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    command.args(["control", "run", "-c", &at("member.yaml")]).stdout(Stdio::null()).stderr(Stdio::null());
    let _member = Running(command.spawn().unwrap());
    let (ca, token, url) = (at("members.pem"), at("token"), format!("https://{api}"));
    let ask = |url: &str, rest: &[&str]| ringway_said(&[&["control", "--members", url, "status"], rest].concat());
    let status = wait_for("the member", || {
        let said = ask(&url, &["--ca", &ca, "--token-file", &token]);
        (said.status.success() && said.text().contains("heard of ")).then_some(said)
    });
    // A time, as times are written.
    let heard = status.text().split("heard of ").nth(1).unwrap().split(" ago").next().unwrap().to_owned();
    assert!(ringway_config::parse_duration(&heard).is_some(), "{}", status.text());
    // Another authority, and a client of its own.
    let other = at("other");
    let [theirs, their_key] = ["y.pem", "y.key"].map(|name| format!("{other}/{name}"));
    assert!(ringway_said(&["control", "authority", "client", &other, "--name", "y", "--out", &other]).status.success());
    let plain = Cluster::of(1, "");
    let secure_to_plain = plain.urls[0].replace("http:", "https:");
    let by_name = url.replace("127.0.0.1", "localhost");
    let without_port = format!("https://{}", api.ip());
    std::fs::write(at("wrong"), "0123456789abcdef0123456789abcdef").unwrap();
    let (theirs_ca, nowhere, wrong, mine) = (format!("{other}/members.pem"), at("nowhere"), at("wrong"), at("m.pem"));
    let as_them = |certificate| vec!["--ca", &ca, "--certificate", certificate, "--key-file", &their_key];
    for (url, rest, names) in [
        (format!("http://{api}"), vec!["--token-file", &token], vec!["`https://`"]),
        (secure_to_plain, vec!["--ca", &ca], vec!["`http://`"]),
        (url.clone(), vec!["--token-file", &token], vec!["`--ca FILE`", "`control.tls.ca`"]),
        (url.clone(), vec!["--ca", &theirs_ca], vec!["`--ca FILE`"]),
        (url.clone(), vec!["--ca", &nowhere], vec!["`--ca`", &nowhere]),
        (by_name, vec!["--ca", &ca], vec!["`https://`", "`--host`", "`control.tls.server_name`"]),
        (url.clone(), vec!["--ca", &ca], vec!["`--token-file FILE`", "`control.token_file`", "`--certificate FILE"]),
        (url.clone(), vec!["--ca", &ca, "--token-file", &wrong], vec!["`--token-file FILE`"]),
        (
            url.clone(),
            vec!["--ca", &ca, "--token-file", &nowhere],
            vec!["`--token-file`", "`control.token_file`", &nowhere],
        ),
        (url.clone(), as_them(&theirs), vec!["`--certificate FILE --key-file FILE`", "`tls.client_ca`"]),
        (url.clone(), as_them(&mine), vec!["`--key-file`", "`control.tls.key`", &their_key, &mine]),
        (without_port, vec![], vec!["`--members`", "`https://10.0.0.1:9700`"]),
        (api.to_string(), vec![], vec!["`--members`", "`https://10.0.0.1:9700`"]),
    ] {
        let said = ask(&url, &rest);
        assert!(!said.status.success(), "{url} {rest:?}: {said:?}");
        for name in names {
            assert!(said.error().contains(name), "{url} {rest:?}: {name} is not in: {}", said.error());
        }
    }
}

#[test]
fn an_authority_writes_beside_itself_and_nothing_beside_anothers() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let issue = |of: &str, name: &str, out: &str| {
        ringway_said(&["control", "authority", "member", of, "--name", name, "--host", "h", "--out", out])
    };
    let (one, other) = (at("one"), at("other"));
    for (name, out) in [("a", &one), ("b", &one), ("b", &at("out")), ("c", &at("out"))] {
        let said = issue(&one, name, out);
        assert!(said.status.success(), "{name} in {out}: {said:?}");
        for file in [format!("{name}.pem"), format!("{name}.key"), "members.pem".into(), "clients.pem".into()] {
            assert!(std::path::Path::new(out).join(&file).exists(), "{file} in {out}");
        }
    }
    // What is there is nobody's to overwrite, and a member that would trust nobody is not made.
    for (of, name, out) in [(&one, "a", &one), (&one, "members", &one), (&one, "clients", &one), (&other, "d", &one)] {
        let said = issue(of, name, out);
        assert_eq!(said.status.code(), Some(2), "{of} {name}: {said:?}");
    }
    assert!(issue(&other, "d", &one).error().contains("members.pem is of another authority"));
    assert!(!std::path::Path::new(&one).join("d.pem").exists());
    let read = |name: &str| std::fs::read_to_string(format!("{one}/{name}")).unwrap();
    let member = issue(&one, "e", &at("last"));
    assert!(member.status.success(), "{member:?}");
    assert_eq!(std::fs::read_to_string(at("last") + "/members.pem").unwrap(), read("members.pem"));
    assert_eq!(std::fs::read_to_string(at("last") + "/clients.pem").unwrap(), read("clients.pem"));
}
