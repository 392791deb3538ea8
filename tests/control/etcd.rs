//! etcd as the store of the topology, and as a source of backends: real etcd, written to by etcdctl.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::control::{Cluster, FleetProxy};
use crate::common::etcd::{Etcd, EtcdProxy, PREFIX};
use crate::common::peers::Certificates;
use crate::common::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const SERVICE: &str = "balance: { hash_key: [ { path: {} } ] }";

fn document(backends: &[(&str, SocketAddr)]) -> String {
    let list: Vec<String> =
        backends.iter().map(|(id, address)| format!("{{ id: {id}, address: \"{address}\" }}")).collect();
    format!("services:\n  - {{ name: s, {SERVICE}, backends: [ {} ] }}\n", list.join(", "))
}

fn backend(address: SocketAddr) -> String {
    json!({ "address": address.to_string() }).to_string()
}

/// Which backend has which key, by curl's word.
fn placement(listen: SocketAddr) -> BTreeMap<String, String> {
    let urls: Vec<String> = (0..40).map(|key| format!("http://{listen}/{key}")).collect();
    let mut args = vec!["-s", "--max-time", "10", "-w", "\n"];
    args.extend(urls.iter().map(String::as_str));
    let text = control::run("curl", &args).text();
    let owners: Vec<String> = text.lines().map(str::to_owned).collect();
    if owners.len() != urls.len() {
        not_yet(format!("not all are answered: {text}"));
    }
    urls.iter().map(|url| url.rsplit_once('/').unwrap().1.to_owned()).zip(owners).collect()
}

/// As [`wait_for`], for what takes a lease's or a time-out's time when all is quick.
fn wait_long(what: &str, condition: impl FnMut() -> Option<()>) {
    wait_for_within(PATIENCE * 4, what, condition);
}

fn await_status(listen: SocketAddr, status: u16) {
    wait_for("the answer", || (get(listen, "/")?.status == status).then_some(()));
}

fn await_backends(proxy: &EtcdProxy, count: usize) {
    wait_for("the backends", || {
        (proxy.ringway.status()["services"][0]["backends"].as_array()?.len() == count).then_some(())
    });
}

fn await_stuck(proxy: &EtcdProxy, said: &str) -> String {
    wait_for("the refusal", || {
        let stuck = proxy.topology()["stuck"].as_str()?.to_owned();
        stuck.contains(said).then_some(stuck)
    })
}

#[test]
fn what_etcdctl_writes_reaches_every_proxy() {
    let Some(etcd) = Etcd::of(1) else { return };
    let backends = ["a", "b", "c"].map(Backend::echo);
    etcd.put("document/main", &document(&[("a", backends[0].address)]));
    let proxies = ["p1", "p2"].map(|name| EtcdProxy::start(&etcd, name, ""));
    for proxy in &proxies {
        await_status(proxy.listen, 200);
    }
    etcd.put("backend/s/b", &backend(backends[1].address));
    // A service may stand by itself, and a key that is no object's is left out, with a warning.
    etcd.put("service/other", "backends: [ { id: x, address: \"127.0.0.1:1\" } ]\n");
    etcd.put("backends/s/typo", "?");
    etcd.put("backend/s/c", &backend(backends[2].address));
    for proxy in &proxies {
        await_backends(proxy, 3);
        wait_for("the warning", || proxy.ringway.log().contains("/fleet/backends/s/typo").then_some(()));
        assert_eq!(proxy.ringway.log().matches("/fleet/backends/s/typo").count(), 1);
    }
    let owners = placement(proxies[0].listen);
    assert_eq!(owners, placement(proxies[1].listen));
    assert_eq!(owners.values().collect::<std::collections::BTreeSet<_>>().len(), 3);
    let status = proxies[0].topology();
    assert_eq!((&status["source"], &status["stuck"]), (&json!("etcd"), &Value::Null), "{status}");
    assert_eq!(status["revision"], etcd.revision_of("backend/s/c"), "{status}");
    assert_eq!(status["digest"], proxies[1].topology()["digest"]);
    wait_for("the connection", || (proxies[0].ringway.metric("ringway_topology_connected ") == 1.0).then_some(()));
    // Who has what, for operators.
    wait_for("the registration", || {
        let shown: Value = serde_json::from_str(&etcd.ctl(&["get", "--print-value-only", "/fleet/proxies/p2"])).ok()?;
        let same = shown["digest"] == status["digest"] && shown["revision"] == status["revision"];
        (same && shown["state"] == "synced" && shown["rings"]["s"].is_string()).then_some(())
    });
    // What goes gives its keys to the others, and no other key moves.
    etcd.delete("backend/s/c");
    for proxy in &proxies {
        await_backends(proxy, 2);
        let now = placement(proxy.listen);
        assert!(owners.iter().all(|(key, owner)| owner == "c" || now[key] == *owner), "{owners:?} {now:?}");
    }
    // A proxy that is gone is forgotten with its lease.
    let [first, second] = proxies;
    drop(second);
    wait_long("the lease's end", || etcd.ctl(&["get", "/fleet/proxies/p2"]).is_empty().then_some(()));
    assert!(!etcd.ctl(&["get", "/fleet/proxies/p1"]).is_empty());
    drop(first);
}

#[test]
fn a_backend_goes_with_its_lease() {
    let Some(etcd) = Etcd::of(1) else { return };
    let backends = ["a", "b"].map(Backend::echo);
    etcd.put("document/main", &document(&[("a", backends[0].address)]));
    let proxy = EtcdProxy::start(&etcd, "p1", "");
    let granted = etcd.ctl(&["lease", "grant", "4"]);
    let lease = granted.split_whitespace().nth(1).unwrap().to_owned();
    let key = format!("{PREFIX}backend/s/b");
    etcd.ctl(&["put", &format!("--lease={lease}"), &key, &backend(backends[1].address)]);
    await_backends(&proxy, 2);
    wait_for("its keys", || placement(proxy.listen).values().any(|owner| owner == "b").then_some(()));
    // Nobody keeps it alive.
    await_backends(&proxy, 1);
    assert!(placement(proxy.listen).values().all(|owner| owner == "a"));
}

#[test]
fn a_bad_value_changes_nothing_and_is_named() {
    let Some(etcd) = Etcd::of(1) else { return };
    let backends = ["a", "b"].map(Backend::echo);
    etcd.put("document/main", &document(&[("a", backends[0].address)]));
    let mut proxy = EtcdProxy::start(&etcd, "p1", "");
    await_status(proxy.listen, 200);
    let generation = proxy.ringway.status()["generation"].clone();
    etcd.put("backend/s/b", "{ \"address\": \"127.0.0.1:1\",\n  \"wieght\": 3 }");
    let stuck = await_stuck(&proxy, "wieght");
    assert!(stuck.contains("etcd: /fleet/backend/s/b") && stuck.contains("line 2"), "{stuck}");
    assert_eq!(proxy.ringway.metric("ringway_topology_stuck "), 1.0);
    assert_eq!(proxy.ringway.status()["generation"], generation);
    wait_for("the fleet's view", || {
        let shown: Value = serde_json::from_str(&etcd.ctl(&["get", "--print-value-only", "/fleet/proxies/p1"])).ok()?;
        (shown["state"] == "stuck" && shown["reason"].as_str()?.contains("wieght")).then_some(())
    });
    // It starts again with what was good.
    proxy.restart();
    assert_eq!(get(proxy.listen, "/").unwrap().text(), "a");
    await_stuck(&proxy, "wieght");
    assert_eq!(proxy.topology()["source"], "disk");
    etcd.put("backend/s/b", &backend(backends[1].address));
    await_backends(&proxy, 2);
    assert_eq!(proxy.topology()["stuck"], Value::Null);
    assert_eq!(proxy.topology()["source"], "etcd");
    // A document is checked by the code that checks files, and the finding says where.
    etcd.put("document/main", "services:\n  - name: s\n    balnace: {}\n");
    let stuck = await_stuck(&proxy, "balnace");
    assert!(stuck.contains("etcd: /fleet/document/main:3:5"), "{stuck}");
    await_backends(&proxy, 2);
    etcd.put("document/main", &document(&[("a", backends[0].address)]));
    wait_for("the good document", || (proxy.topology()["stuck"] == Value::Null).then_some(()));
}

#[test]
fn a_compaction_while_away_is_no_matter() {
    let Some(mut etcd) = Etcd::of(1) else { return };
    let backends = ["a", "b", "c"].map(Backend::echo);
    etcd.put("document/main", &document(&[("a", backends[0].address)]));
    etcd.put("backend/s/b", &backend(backends[1].address));
    let proxy = EtcdProxy::start(&etcd, "p1", "");
    await_backends(&proxy, 2);
    // Where the proxy does not find it, much happens, and is forgotten.
    let known = etcd.hide();
    wait_for("the loss", || proxy.topology()["error"].as_str().map(drop));
    etcd.delete("backend/s/b");
    etcd.put("backend/s/c", &backend(free_address()));
    etcd.put("backend/s/c", &backend(backends[2].address));
    etcd.ctl(&["compaction", "--physical", &etcd.revision().to_string()]);
    assert_eq!(get(proxy.listen, "/").unwrap().status, 200);
    etcd.unhide(known);
    wait_for("the new topology", || {
        let list = proxy.ringway.status()["services"][0]["backends"].clone();
        let ids: Vec<&str> = list.as_array()?.iter().filter_map(|backend| backend["id"].as_str()).collect();
        (ids == ["a", "c"]).then_some(())
    });
    assert!(placement(proxy.listen).values().any(|owner| owner == "c"));
    // The watch goes on from there.
    etcd.delete("backend/s/c");
    await_backends(&proxy, 1);
}

/// As etcd's JSON wants it.
fn base64(text: &str) -> String {
    let line = format!("printf %s '{text}' | base64 -w0");
    control::run("sh", &["-c", &line]).text()
}

#[test]
fn a_watch_that_etcd_cannot_go_on_with_is_begun_anew() {
    let Some(etcd) = Etcd::of(1) else { return };
    let backends = ["a", "b"].map(Backend::echo);
    etcd.put("document/main", &document(&[("a", backends[0].address)]));
    let proxy = EtcdProxy::start(&etcd, "p1", "");
    await_status(proxy.listen, 200);
    wait_for("the watch", || proxy.topology()["member"].as_str().map(drop));
    // More than etcd keeps for one that does not listen, and then it is compacted.
    proxy.ringway.signal("STOP");
    let text = "x".repeat(8 << 10);
    let body = json!({ "key": base64("/fleet/document/other"), "value": base64(&text) }).to_string();
    let many = format!("{}/v3/kv/put?[1-5000]", etcd.urls());
    let said = control::run("curl", &["-s", "-o", "/dev/null", "-w", "%{http_code}\n", "-d", &body, &many]).text();
    assert_eq!(said.lines().filter(|line| *line == "200").count(), 5000, "{said}");
    etcd.put("backend/s/b", &backend(backends[1].address));
    etcd.ctl(&["compaction", "--physical", &etcd.revision().to_string()]);
    proxy.ringway.signal("CONT");
    await_backends(&proxy, 2);
    // The watch's own end, unless the proxy's question whether etcd is there has waited too long before that.
    wait_for("another read", || {
        let log = proxy.ringway.log();
        let said = ["etcd has compacted what came next", "the control plane cannot be followed"];
        said.iter().any(|line| log.contains(line)).then_some(())
    });
    etcd.delete("backend/s/b");
    await_backends(&proxy, 1);
}

#[test]
fn no_request_fails_while_etcd_is_killed() {
    let Some(mut etcd) = Etcd::of(3) else { return };
    let backends = ["a", "b"].map(Backend::echo);
    etcd.put("document/main", &document(&[("a", backends[0].address)]));
    let mut proxy = EtcdProxy::start(&etcd, "p1", "");
    await_status(proxy.listen, 200);
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let traffic = {
        let (stop, asked, listen) = (Arc::clone(&stop), Arc::clone(&asked), proxy.listen);
        std::thread::spawn(move || {
            let mut failed = 0;
            while !stop.load(Ordering::Relaxed) {
                let good = get(listen, "/x").is_some_and(|answer| answer.status == 200);
                failed += usize::from(!good);
                asked.fetch_add(1, Ordering::Relaxed);
            }
            failed
        })
    };
    // One of three is nothing: what changes then arrives, whomever the proxy has followed.
    for index in 0..3 {
        etcd.kill(index);
        etcd.ready();
        let before = proxy.topology()["revision"].as_u64().unwrap();
        etcd.put(
            "backend/s/b",
            &json!({ "address": backends[1].address.to_string(), "weight": 10 + index }).to_string(),
        );
        wait_for("the change", || (proxy.topology()["revision"].as_u64()? > before).then_some(()));
        etcd.bring_back();
    }
    etcd.kill_all();
    wait_for("the loss", || proxy.topology()["error"].as_str().map(drop));
    let reached = asked.load(Ordering::Relaxed);
    wait_for("more requests", || (asked.load(Ordering::Relaxed) > reached + 50).then_some(()));
    stop.store(true, Ordering::Relaxed);
    assert_eq!(traffic.join().unwrap(), 0, "of {}", asked.load(Ordering::Relaxed));
    // With nobody there it starts from its disk.
    let revision = proxy.topology()["revision"].clone();
    proxy.restart();
    assert_eq!(get(proxy.listen, "/x").unwrap().status, 200);
    assert_eq!((&proxy.topology()["source"], &proxy.topology()["revision"]), (&json!("disk"), &revision));
    assert_eq!(proxy.ringway.metric("ringway_topology_connected "), 0.0);
    etcd.bring_back();
    wait_for("etcd", || (proxy.topology()["source"] == "etcd").then_some(()));
    etcd.delete("backend/s/b");
    await_backends(&proxy, 1);
}

#[test]
fn a_member_that_hangs_is_left_for_another() {
    let Some(etcd) = Etcd::of(3) else { return };
    let backends = ["a", "b"].map(Backend::echo);
    etcd.put("document/main", &document(&[("a", backends[0].address)]));
    let proxy = EtcdProxy::start(&etcd, "p1", "");
    await_status(proxy.listen, 200);
    let followed = wait_for("a member", || proxy.topology()["member"].as_str().map(str::to_owned));
    let index = etcd.urls().split(',').position(|url| url == followed).unwrap();
    signal(etcd.pid(index), "STOP");
    wait_for("the change", || {
        etcd.try_ctl(&["put", "/fleet/backend/s/b", &backend(backends[1].address)]).status.success().then_some(())
    });
    wait_long("another member", || proxy.topology()["member"].as_str().filter(|member| *member != followed).map(drop));
    await_backends(&proxy, 2);
    signal(etcd.pid(index), "CONT");
}

#[test]
fn another_cluster_and_an_older_store_are_refused() {
    let Some(mut etcd) = Etcd::of(1) else { return };
    let backends = ["a", "b"].map(Backend::echo);
    etcd.put("document/main", &document(&[("a", backends[0].address)]));
    // A history that is longer than what the proxy tells a new store of itself: it counts revisions too.
    (0..20).for_each(|_| etcd.put("document/other", "{}"));
    let mut proxy = EtcdProxy::start(&etcd, "p1", "");
    await_status(proxy.listen, 200);
    let other = document(&[("b", backends[1].address)]);
    let refused = |proxy: &EtcdProxy, said: &str| {
        wait_for("the refusal", || proxy.topology()["error"].as_str()?.contains(said).then_some(()));
        assert_eq!(get(proxy.listen, "/").unwrap().text(), "a");
    };
    // The same cluster's number, with a history that has only begun.
    etcd.wipe();
    refused(&proxy, "has been at");
    etcd.token = "second".into();
    etcd.wipe();
    etcd.put("document/main", &other);
    (0..5).for_each(|_| etcd.put("document/other", "{}"));
    refused(&proxy, "not \"etcd ");
    proxy.restart();
    refused(&proxy, "not \"etcd ");
    // Meant by its operator.
    proxy.forget();
    proxy.restart();
    wait_for("the other cluster", || (get(proxy.listen, "/")?.text() == "b").then_some(()));
}

#[test]
fn certificates_and_users_are_shown_where_etcd_asks() {
    let Some(certificates) = Certificates::new() else { return };
    certificates.issue("server", "DNS:etcd.test,IP:127.0.0.1", "2");
    certificates.issue("client", "DNS:proxy.test", "2");
    let Some(mut etcd) = Etcd::with_tls(&certificates) else { return };
    let backend = Backend::echo("a");
    etcd.put("document/main", &document(&[("a", backend.address)]));
    for arguments in [
        &["user", "add", "root:secret"][..],
        &["user", "grant-role", "root", "root"],
        &["role", "add", "fleet"],
        &["role", "grant-permission", "--prefix=true", "fleet", "readwrite", PREFIX],
        &["user", "add", "ringway:pass word"],
        &["user", "grant-role", "ringway", "fleet"],
        // Who shows a certificate and nothing else is known by its common name, and may be let read only.
        &["role", "add", "readers"],
        &["role", "grant-permission", "--prefix=true", "readers", "read", PREFIX],
        &["user", "add", "leaf:unused"],
        &["user", "grant-role", "leaf", "readers"],
        &["auth", "enable"],
    ] {
        let said = etcd.try_ctl(arguments);
        // The role of root is there from the first.
        assert!(said.status.success() || arguments[2] == "root", "{arguments:?}: {said:?}");
    }
    etcd.credentials.push("--user=root:secret".into());
    let password = certificates.path("password");
    std::fs::write(&password, "wrong\n").unwrap();
    let tls = format!(
        ", tls: {{ ca: {:?}, certificate: {:?}, key: {:?}, name: etcd.test }}",
        certificates.path("ca.pem"),
        certificates.path("client.pem"),
        certificates.path("client.key")
    );
    let login = format!(", username: ringway, password_file: {password:?}");
    let proxy = EtcdProxy::start(&etcd, "p1", &format!("{tls}{login}"));
    wait_for("the refusal", || proxy.topology()["error"].as_str()?.contains("authentication failed").then_some(()));
    assert_eq!(get(proxy.listen, "/").unwrap().status, 503);
    // A password that is right is read without a restart.
    std::fs::write(&password, "pass word\n").unwrap();
    await_status(proxy.listen, 200);
    wait_for("the registration", || (!etcd.ctl(&["get", "/fleet/proxies/p1"]).is_empty()).then_some(()));
    let reader = EtcdProxy::start(&etcd, "reader", &tls);
    await_status(reader.listen, 200);
    wait_for("the refusal", || reader.ringway.log().contains("etcd cannot be told how this proxy does").then_some(()));
    assert_eq!(reader.topology()["source"], "etcd");
    // Files are read at each connection: a certificate of another authority is replaced without a restart.
    let Some(others) = Certificates::new() else { return };
    others.issue("client", "DNS:proxy.test", "2");
    let mine = |from: &Certificates| {
        for kind in ["key", "pem"] {
            std::fs::copy(from.path(&format!("client.{kind}")), certificates.path(&format!("mine.{kind}"))).unwrap();
        }
    };
    mine(&others);
    let renewed = EtcdProxy::start(&etcd, "renewed", &tls.replace("client.", "mine."));
    wait_for("the refusal", || renewed.topology()["error"].as_str().map(drop));
    assert_eq!(get(renewed.listen, "/").unwrap().status, 503);
    mine(&certificates);
    await_status(renewed.listen, 200);
    // Without a certificate, or under another name, there is no connection.
    let bare = EtcdProxy::start(&etcd, "p2", &format!(", tls: {{ ca: {:?} }}{login}", certificates.path("ca.pem")));
    let other = EtcdProxy::start(&etcd, "p3", &format!("{}{login}", tls.replace("etcd.test", "other.test")));
    for proxy in [&bare, &other] {
        wait_for("the refusal", || proxy.topology()["error"].as_str().map(drop));
        assert_eq!(proxy.topology()["source"], "none");
    }
}

#[test]
fn a_source_finds_backends_in_etcd() {
    let Some(mut etcd) = Etcd::of(1) else { return };
    let backends = ["a", "b", "c"].map(Backend::echo);
    let source = |name: &str, value: &str| drop(etcd.ctl(&["put", &format!("/services/s/{name}"), value]));
    source("a", &backends[0].address.to_string());
    source("b", &json!({ "address": backends[1].address.to_string(), "weight": 50 }).to_string());
    let cluster = Cluster::of(
        1,
        &format!(
            ", sources: [ {{ name: keys, etcd: {{ service: s, endpoints: {}, prefix: /services/s/ }} }} ]",
            etcd.endpoints()
        ),
    );
    let file = cluster.write("f.yaml", &format!("services: [ {{ name: s, {SERVICE} }} ]\n"));
    assert!(cluster.control(&["apply", &file, "--yes"]).status.success());
    let proxy = FleetProxy::start(&cluster, "p1", "");
    let has = |wanted: &[(&str, u64)]| {
        wait_for(&format!("{wanted:?}"), || {
            let list = proxy.ringway.status()["services"][0]["backends"].clone();
            let found: Vec<(String, u64)> = list
                .as_array()?
                .iter()
                .map(|backend| (backend["id"].as_str().unwrap().to_owned(), backend["weight"].as_u64().unwrap()))
                .collect();
            let wanted: Vec<(String, u64)> = wanted.iter().map(|(id, weight)| ((*id).to_owned(), *weight)).collect();
            (found == wanted).then_some(())
        });
    };
    has(&[("a", 100), ("b", 50)]);
    // A value that is wrong says what it said before; what is right beside it comes.
    source("b", "{ \"address\": 3 }");
    source("c", &backends[2].address.to_string());
    has(&[("a", 100), ("b", 50), ("c", 100)]);
    etcd.ctl(&["del", "/services/s/c"]);
    has(&[("a", 100), ("b", 50)]);
    // No keys at all are no news, and neither is an etcd that is away.
    etcd.ctl(&["del", "--prefix", "/services/s/"]);
    wait_for("the warning", || cluster.log(0).contains("etcd has no keys below /services/s/").then_some(()));
    has(&[("a", 100), ("b", 50)]);
    etcd.kill_all();
    wait_for("the loss", || (cluster.log(0).matches("a source cannot be seen").count() > 1).then_some(()));
    has(&[("a", 100), ("b", 50)]);
    etcd.bring_back();
    etcd.ctl(&["put", "/services/s/a", &backends[0].address.to_string()]);
    has(&[("a", 100)]);
}

#[test]
fn a_file_is_checked_and_shown_before_it_is_put_into_etcd() {
    let Some(etcd) = Etcd::of(1) else { return };
    let backends = ["a", "b"].map(Backend::echo);
    let proxy = EtcdProxy::start(&etcd, "p1", "");
    let directory = tempfile::tempdir().unwrap();
    let urls = etcd.urls();
    let command = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ringway"));
        command.args(["control", "--etcd", &urls, "--prefix", PREFIX]).args(arguments);
        command
    };
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let apply = |arguments: &[&str]| {
        let output = command(&[&["apply"], arguments].concat()).stdin(std::process::Stdio::null()).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    };
    let first = write("first.yaml", &document(&[("a", backends[0].address)]));
    let bad = write("bad.yaml", "services:\n  - name: s\n    balnace: {}\n");
    let (code, said) = apply(&[&bad, "--yes"]);
    assert!(code == Some(1) && said.contains("balnace") && said.contains(":3:5"), "{said}");
    assert_eq!(apply(&[&first]).0, Some(1), "nobody has said yes");
    assert_eq!(etcd.ctl(&["get", "--prefix", "/fleet/document/"]), "");
    let (code, said) = apply(&[&first, "--yes"]);
    assert!(code == Some(0) && said.contains("service s: new"), "{said}");
    await_status(proxy.listen, 200);
    let (code, said) = apply(&[&first, "--yes"]);
    assert!(code == Some(0) && said.contains("nothing changes"), "{said}");
    let output = command(&["get", "document/main"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), std::fs::read_to_string(&first).unwrap());
    // What moves is shown, and may be too much.
    let second = write("second.yaml", &document(&[("a", backends[0].address), ("b", backends[1].address)]));
    let (code, said) = apply(&[&second, "--yes", "--max-move", "5"]);
    assert!(code == Some(1) && said.contains("move, more than 5 %"), "{said}");
    assert_ne!(apply(&[&second, "--yes", "--stages", "50"]).0, Some(0), "there are no rollouts");
    // Somebody else is quicker: theirs stays.
    let mut asked = command(&["apply", &second])
        .stdin(std::process::Stdio::piped())
        .stderr(std::fs::File::create(directory.path().join("said")).unwrap())
        .spawn()
        .unwrap();
    wait_for("the question", || {
        std::fs::read_to_string(directory.path().join("said")).ok()?.contains("[y/N]").then_some(())
    });
    etcd.put("document/main", &document(&[("b", backends[1].address)]));
    std::io::Write::write_all(&mut asked.stdin.take().unwrap(), b"y\n").unwrap();
    assert_eq!(asked.wait().unwrap().code(), Some(1));
    assert!(std::fs::read_to_string(directory.path().join("said")).unwrap().contains("has changed since it was read"));
    wait_for("theirs", || (get(proxy.listen, "/")?.text() == "b").then_some(()));
    assert_eq!(apply(&[&second, "--yes"]).0, Some(0));
    await_backends(&proxy, 2);
}

#[test]
fn a_burst_is_put_into_force_in_few_steps() {
    let Some(etcd) = Etcd::of(1) else { return };
    let backend_a = Backend::echo("a");
    etcd.put("document/main", &document(&[("a", backend_a.address)]));
    let proxy = EtcdProxy::start(&etcd, "p1", "");
    await_status(proxy.listen, 200);
    let before = proxy.ringway.status()["generation"].as_u64().unwrap();
    // While it cannot look, much happens; what it then does is bounded by time, not by the changes.
    proxy.ringway.signal("STOP");
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let endpoints = etcd.urls();
            std::thread::spawn(move || {
                for step in 0..40 {
                    let (key, value) = (
                        format!("{PREFIX}backend/s/w{writer}"),
                        json!({ "address": "127.0.0.1:1", "weight": 1 + step }).to_string(),
                    );
                    let said = control::run("etcdctl", &["--endpoints", &endpoints, "put", &key, &value]);
                    assert!(said.status.success(), "{said:?}");
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    proxy.ringway.signal("CONT");
    wait_for("the last of each", || {
        let list = proxy.ringway.status()["services"][0]["backends"].clone();
        let last = list.as_array()?.iter().filter(|backend| backend["weight"] == 40).count();
        (last == 4).then_some(())
    });
    let steps = proxy.ringway.status()["generation"].as_u64().unwrap() - before;
    assert!((1..=20).contains(&steps), "{steps} steps for 160 changes");
    let last = (0..4).map(|writer| etcd.revision_of(&format!("backend/s/w{writer}"))).max().unwrap();
    assert_eq!(proxy.topology()["revision"], last);
}
