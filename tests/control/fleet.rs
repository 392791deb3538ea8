//! The control plane as its users meet it: members and proxies as processes, curl and `ringway control` as clients.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::control::{self, Cluster, FleetProxy, curl, run, service};
use crate::common::*;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

#[test]
fn a_live_change_reaches_every_proxy() {
    let cluster = Cluster::of(3, "");
    let backends = [Backend::echo("a"), Backend::echo("b"), Backend::echo("c")];
    let proxies = [FleetProxy::start(&cluster, "p1", ""), FleetProxy::start(&cluster, "p2", "")];
    let file = cluster.write("fleet.yaml", &service(&[("a", backends[0].address), ("b", backends[1].address)]));
    let out = cluster.control(&["apply", &file, "--yes", "--note", "first"]);
    assert!(out.status.success(), "{out:?}");
    for proxy in &proxies {
        wait_for("the service", || (get(proxy.listen, "/x")?.status == 200).then_some(()));
    }
    // Any member takes the registration, and all keys are where they are through either proxy.
    let put = curl(
        &cluster.urls[2],
        "PUT",
        "/v1/objects/backend/s/c",
        &json!({ "address": backends[2].address.to_string() }),
    );
    assert_eq!((put.status, &put.json()["revision"]), (200, &json!(2)), "{put:?}");
    for proxy in &proxies {
        wait_for("the third backend", || {
            (proxy.ringway.status()["services"][0]["backends"].as_array()?.len() == 3).then_some(())
        });
    }
    for proxy in &proxies {
        let topology = &proxy.ringway.status()["topology"];
        assert_eq!(topology["published"]["digest"], topology["digest"], "what is in force is what was published");
        assert_eq!(topology["published"]["revision"], 2);
    }
    for key in 0..50 {
        let [first, second] =
            [&proxies[0], &proxies[1]].map(|proxy| get(proxy.listen, &format!("/{key}")).unwrap().text());
        assert_eq!(first, second);
    }
    assert_eq!(
        proxies[0].ringway.status()["services"][0]["ring_digest"],
        proxies[1].ringway.status()["services"][0]["ring_digest"]
    );
    let status = proxies[0].ringway.status()["topology"].clone();
    assert_eq!((&status["revision"], &status["source"]), (&json!(2), &json!("control plane")));
    let members = curl(&cluster.urls[1], "GET", "/v1/status", &Value::Null).json();
    assert_eq!((&status["epoch"], &status["digest"]), (&members["epoch"], &members["digest"]));
    assert_eq!(proxies[0].ringway.metric("ringway_topology_revision "), 2.0);
    assert!(cluster.control(&["verify"]).status.success());
    // Drained: it keeps its place on the ring, and takes nothing new.
    assert!(cluster.control(&["backend", "drain", "s", "c"]).status.success());
    wait_for("the drain", || {
        let list = proxies[1].ringway.status()["services"][0]["backends"].clone();
        list.as_array()?.iter().find(|backend| backend["id"] == "c" && backend["accept_share"] == 0.0).map(drop)
    });
    let shown = cluster.control(&["get", "backend/s/", "--json"]).json();
    assert_eq!(shown["objects"][0]["object"]["backend"]["state"], "drain");
    // Back to the first revision: the registered backend goes.
    assert!(cluster.control(&["rollback", "1", "--note", "enough"]).status.success());
    for proxy in &proxies {
        wait_for("the rollback", || {
            (proxy.ringway.status()["services"][0]["backends"].as_array()?.len() == 2).then_some(())
        });
    }
    let history = cluster.control(&["history"]).text();
    assert!(history.contains("rollback to 1: enough") && history.contains("first"), "{history}");
    assert_eq!(cluster.control(&["get", "document/main"]).text(), std::fs::read_to_string(&file).unwrap());
    assert_eq!(cluster.control(&["diff", &file]).status.code(), Some(0));
}

#[test]
fn a_change_that_one_proxy_cannot_take_holds_for_none() {
    let cluster = Cluster::of(1, "");
    let backend = Backend::echo("a");
    let proxies = [FleetProxy::start(&cluster, "p1", ""), FleetProxy::start(&cluster, "p2", "")];
    let good = service(&[("a", backend.address)]);
    assert!(cluster.control(&["apply", &cluster.write("good.yaml", &good), "--yes"]).status.success());
    // Both would listen on one address, which one of them has: the other cannot.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for proxy in &proxies {
        wait_for("the first change to be in force", || (get(proxy.listen, "/")?.status == 200).then_some(()));
    }
    let listeners =
        format!("listeners: [ {{ name: more, address: \"{}\", service: s }} ]\n", taken.local_addr().unwrap());
    let before: Vec<Value> = proxies.iter().map(|proxy| proxy.ringway.status()["generation"].clone()).collect();
    let began = Instant::now();
    let out = cluster.control(&["apply", &cluster.write("bad.yaml", &format!("{good}{listeners}")), "--yes"]);
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    assert!(
        out.error().contains("aborted, nothing has changed: refused by") && out.error().contains("bind listener"),
        "{}",
        out.error()
    );
    assert!(began.elapsed() < patience());
    let after: Vec<Value> = proxies.iter().map(|proxy| proxy.ringway.status()["generation"].clone()).collect();
    assert_eq!(before, after, "nothing was touched");
    assert_eq!(cluster.control(&["get", "document/main"]).text(), good);
    let rollouts = cluster.control(&["rollouts"]).text();
    assert!(rollouts.contains("aborted"), "{rollouts}");
    // One no is the end: whoever has said it has kept that, and what came of it.
    wait_for("the end of the rollout, in the events of one that refused", || {
        let refused = |told: &Vec<String>| told.ends_with(&["refused".to_owned(), "aborted".to_owned()]);
        proxies.iter().map(rollout_events).any(|told| refused(&told)).then_some(())
    });
}

/// What a proxy has kept of rollouts, a word each.
fn rollout_events(proxy: &FleetProxy) -> Vec<String> {
    let events: Value = serde_json::from_slice(&get(proxy.ringway.admin, "/events").or_not_yet().body).unwrap();
    let events = events["events"].as_array().unwrap().iter().filter(|event| event["kind"] == "rollout");
    events.map(|event| event["to"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_rollout_goes_first_to_some_and_then_to_all() {
    let cluster = Cluster::of(1, "");
    let backend = Backend::echo("a");
    let proxies: Vec<FleetProxy> = (0..4).map(|index| FleetProxy::start(&cluster, &format!("p{index}"), "")).collect();
    let file = cluster.write("fleet.yaml", &service(&[("a", backend.address)]));
    // One in a hundred of four is still one.
    let mut apply = cluster.command(&["apply", &file, "--yes", "--stages", "1", "--bake", "2"]).spawn().unwrap();
    let with =
        || proxies.iter().filter(|proxy| get(proxy.listen, "/").is_some_and(|answer| answer.status == 200)).count();
    let some = wait_for("the first share", || Some(with()).filter(|count| *count > 0));
    assert!(some < proxies.len(), "all at once");
    assert!(wait_for("the rollout", || apply.try_wait().unwrap()).success());
    wait_for("the rest", || (with() == proxies.len()).then_some(()));
    let mut firsts = 0;
    for proxy in &proxies {
        let told = wait_for("what has become of it, in its events", || {
            let told = rollout_events(proxy);
            (told.last()? == "committed").then_some(told)
        });
        firsts += usize::from(told.iter().any(|word| word == "first"));
        assert!(told.iter().any(|word| word == "prepared"), "{told:?}");
    }
    assert!((1..proxies.len()).contains(&firsts), "those that went first say so: {firsts}");
}

#[test]
fn a_failing_share_ends_the_rollout() {
    let cluster = Cluster::of(1, "");
    let backend = Backend::echo("a");
    let dead = free_address();
    let proxies: Vec<FleetProxy> = (0..4).map(|index| FleetProxy::start(&cluster, &format!("p{index}"), "")).collect();
    let good = cluster.write("good.yaml", &service(&[("a", backend.address)]));
    assert!(cluster.control(&["apply", &good, "--yes"]).status.success());
    for proxy in &proxies {
        wait_for("the service", || (get(proxy.listen, "/")?.status == 200).then_some(()));
    }
    let bad = cluster.write("bad.yaml", &service(&[("a", dead)]));
    let mut apply = cluster.command(&["apply", &bad, "--yes", "--stages", "50", "--bake", "60"]).spawn().unwrap();
    // Traffic tells: 5xx from those that have the change.
    let ended = wait_for("the rollout's end", || {
        proxies.iter().for_each(|proxy| drop(get(proxy.listen, "/")));
        apply.try_wait().unwrap()
    });
    assert_eq!(ended.code(), Some(1));
    for proxy in &proxies {
        wait_for("the good configuration", || (get(proxy.listen, "/")?.status == 200).then_some(()));
    }
    let rollouts = cluster.control(&["rollouts"]).text();
    assert!(rollouts.contains("proxies that had the change failed"), "{rollouts}");
}

#[test]
fn a_proxy_starts_and_serves_with_the_control_plane_gone() {
    let mut cluster = Cluster::of(1, "");
    let backend = Backend::echo("a");
    let mut proxy = FleetProxy::start(&cluster, "p1", "");
    assert!(
        cluster
            .control(&["apply", &cluster.write("f.yaml", &service(&[("a", backend.address)])), "--yes"])
            .status
            .success()
    );
    wait_for("the service", || (get(proxy.listen, "/")?.status == 200).then_some(()));
    cluster.kill(0);
    assert_eq!(get(proxy.listen, "/").unwrap().status, 200);
    proxy.restart();
    assert_eq!(get(proxy.listen, "/").unwrap().status, 200, "from the disk");
    let status = proxy.ringway.status()["topology"].clone();
    assert_eq!((&status["source"], &status["revision"]), (&json!("disk"), &json!(1)));
    assert_eq!(proxy.ringway.metric("ringway_topology_connected "), 0.0);
    cluster.bring_back(0);
    wait_for("the control plane", || (proxy.ringway.status()["topology"]["source"] == "control plane").then_some(()));
    // What changes now arrives.
    let out = cluster.control(&["backend", "add", "s", "b", &backend.address.to_string()]);
    assert!(out.status.success(), "{out:?}");
    wait_for("the new backend", || (proxy.ringway.status()["topology"]["revision"] == 2).then_some(()));
}

#[test]
fn health_is_agreed_by_a_quorum_of_proxies() {
    let cluster = Cluster::of(1, "");
    let backends = ["a", "b", "c"].map(Backend::echo);
    // At a port that nobody takes once it is free.
    let mortal = std::net::TcpListener::bind(free_address()).unwrap();
    let addresses = backends.iter().map(|backend| backend.address).chain([mortal.local_addr().unwrap()]);
    let service = "services: [ { name: s, balance: { hash_key: [ { path: {} } ] }, \
                   health: { tcp: {}, interval: 100ms, timeout: 100ms, rise: 1, fall: 2 } } ]\n";
    let proxies: Vec<FleetProxy> = (0..3).map(|index| FleetProxy::start(&cluster, &format!("p{index}"), "")).collect();
    assert!(cluster.control(&["apply", &cluster.write("f.yaml", service), "--yes"]).status.success());
    for (id, backend) in ["a", "b", "c", "d"].iter().zip(addresses) {
        assert!(cluster.control(&["backend", "add", "s", id, &backend.to_string()]).status.success());
    }
    let ejected = || {
        let shown = cluster.control(&["get", "backend/s/d", "--json"]).json();
        shown["object"]["backend"]["ejected"].as_bool()
    };
    assert_eq!(ejected(), Some(false));
    drop(mortal);
    wait_for("the agreement", || (ejected() == Some(true)).then_some(()));
    for proxy in &proxies {
        wait_for("the ejection", || {
            let list = proxy.ringway.status()["services"][0]["backends"].clone();
            list.as_array()?.iter().find(|backend| backend["id"] == "d" && backend["accept_share"] == 0.0).map(drop)
        });
    }
    assert!(cluster.control(&["history"]).text().contains("agreed health"));
}

#[test]
fn registrations_live_as_long_as_their_heartbeats() {
    let cluster = Cluster::of(1, "");
    let url = &cluster.urls[0];
    let body = json!({ "address": "10.0.0.1:80" });
    // A heartbeat takes as long as the machine lets it: the life of a lease must be longer than that.
    let ttl = Duration::from_millis(1500).mul_f64(slowness());
    let path = format!("/v1/objects/backend/s/a?ttl={}ms", ttl.as_millis());
    let first = curl(url, "PUT", &path, &body);
    assert_eq!(first.status, 200, "{first:?}");
    let lease = first.json()["lease"].as_u64().unwrap();
    let stay = json!({ "address": "10.0.0.2:80" });
    assert_eq!(curl(url, "PUT", "/v1/objects/backend/s/b", &stay).status, 200);
    let began = Instant::now();
    while began.elapsed() < 2 * ttl {
        let again = curl(url, "PUT", &path, &body);
        assert_eq!(
            (again.status, &again.json()["changed"], again.json()["lease"].as_u64()),
            (200, &json!(0), Some(lease))
        );
        pace(Duration::from_millis(200));
    }
    wait_for("the expiry", || (curl(url, "GET", "/v1/objects/backend/s/a", &Value::Null).status == 404).then_some(()));
    assert_eq!(curl(url, "GET", "/v1/objects/backend/s/b", &Value::Null).status, 200, "it has no lease");
    assert_eq!(curl(url, "PUT", &format!("/v1/leases/{lease}"), &Value::Null).status, 404);
    // Locks: the later holder has the greater token.
    let ttl = format!("{}ms", Duration::from_secs(1).mul_f64(slowness()).as_millis());
    let acquire = |owner: &str| cluster.control(&["lock", "acquire", "job", "--ttl", &ttl, "--owner", owner, "--json"]);
    let first = acquire("one");
    let token = first.json()["token"].as_u64().unwrap_or_else(|| panic!("{}", first.text()));
    let refused = acquire("two");
    assert_eq!((refused.status.code(), refused.json()["code"].as_str()), (Some(1), Some("locked")), "{refused:?}");
    let later = wait_for("the lock", || {
        let out = acquire("two");
        out.status.success().then(|| out.json()["token"].as_u64().unwrap())
    });
    assert!(later > token);
    assert!(!cluster.control(&["lock", "release", "job", &token.to_string()]).status.success());
    assert!(cluster.control(&["lock", "release", "job", &later.to_string()]).status.success());
}

#[test]
fn watchers_see_every_change_and_resume_where_they_were() {
    let cluster = Cluster::of(1, "");
    let url = &cluster.urls[0];
    let put = |id: u32| {
        let body = json!({ "address": "10.0.0.1:80", "weight": id });
        assert_eq!(curl(url, "PUT", "/v1/objects/backend/s/a", &body).status, 200);
    };
    put(1);
    put(2);
    let watch = |from: &str, accept: &str| {
        let out = run(
            "curl",
            &[
                "-sN",
                "--max-time",
                &slowness().ceil().to_string(),
                "-H",
                &format!("Accept: {accept}"),
                &format!("{url}/v1/watch{from}"),
            ],
        );
        out.text()
    };
    let fresh = watch("", "application/x-ndjson");
    let lines: Vec<Value> = fresh.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["snapshot"]["revision"], 2, "{fresh}");
    let epoch = lines[0]["snapshot"]["epoch"].as_u64().unwrap();
    let from = format!("?from={epoch}.1");
    let resumed = watch(&from, "application/x-ndjson");
    let line: Value = serde_json::from_str(resumed.lines().next().unwrap()).unwrap();
    assert_eq!((&line["delta"]["previous"], &line["delta"]["revision"]), (&json!(1), &json!(2)), "{resumed}");
    let events = watch(&from, "text/event-stream");
    assert!(events.starts_with(&format!("id: {epoch}.2\ndata: {{\"delta\"")), "{events}");
    assert_eq!(curl(url, "GET", "/v1/watch?from=x", &Value::Null).status, 400);
    // Blocking query: answered by the change, or by 304 when the time is up.
    let began = Instant::now();
    let late = run(
        "curl",
        &["-s", "-o", "/dev/null", "-w", "%{http_code}", &format!("{url}/v1/topology?after={epoch}.2&wait=300ms")],
    );
    assert_eq!(late.text(), "304");
    assert!(began.elapsed() >= Duration::from_millis(300));
    let mut waiting = std::process::Command::new("curl")
        .args(["-s", &format!("{url}/v1/topology?after={epoch}.2&wait=20s")])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // Whether it asks before or after the change, it gets the same; for the most part, before.
    leave_time(Duration::from_millis(200));
    put(3);
    wait_for("the answer", || waiting.try_wait().unwrap());
    let answer: Value = serde_json::from_reader(waiting.stdout.take().unwrap()).unwrap();
    assert_eq!(answer["revision"], 3);
}

#[test]
fn what_is_wrong_is_told_and_changes_nothing() {
    let cluster = Cluster::of(1, "");
    let url = &cluster.urls[0];
    let code = |answer: &control::Curl| (answer.status, answer.json()["code"].as_str().unwrap_or("").to_owned());
    let put = |path: &str, body: Value| code(&curl(url, "PUT", path, &body));
    assert_eq!(
        put("/v1/objects/backend/s/a", json!({ "address": "10.0.0.1:80", "wieght": 3 })),
        (400, "bad_body".into())
    );
    assert_eq!(put("/v1/objects/backend/s/a", json!({ "address": "nowhere" })), (422, "bad_address".into()));
    assert_eq!(
        put("/v1/objects/backend/s/a", json!({ "address": "10.0.0.1:80", "weight": 9999 })),
        (422, "out_of_range".into())
    );
    assert_eq!(put("/v1/objects/backend/s/a?ttl=1x", json!({ "address": "10.0.0.1:80" })), (400, "bad_ttl".into()));
    assert_eq!(put("/v1/objects/backend/s/a?ttl=1ms", json!({ "address": "10.0.0.1:80" })), (422, "bad_ttl".into()));
    assert_eq!(put("/v1/objects/other/x", json!({})), (400, "bad_name".into()));
    assert_eq!(
        put("/v1/objects/document/main", json!({ "text": "services: [ { nme: x } ]" })),
        (422, "invalid".into())
    );
    assert_eq!(code(&curl(url, "POST", "/v1/rollback", &json!({ "to": 99 }))), (404, "unknown_revision".into()));
    assert_eq!(code(&curl(url, "GET", "/v1/nothing", &Value::Null)), (404, "unknown_path".into()));
    assert_eq!(code(&curl(url, "POST", "/v1/objects/backend/s/a", &json!({}))), (405, "bad_method".into()));
    // A body that no entry of the log could hold.
    let large = cluster.write("large", &format!("{{\"text\":\"{}\"}}", "x".repeat(3 << 20)));
    let out = run(
        "curl",
        &["-s", "-X", "PUT", &format!("{url}/v1/objects/document/main"), "--data-binary", &format!("@{large}")],
    );
    assert_eq!(out.json()["code"], "too_large", "{out:?}");
    assert_eq!(curl(url, "GET", "/v1/status", &Value::Null).json()["revision"], 0, "nothing has changed");
    // Compare-and-set, by the object's tag.
    let body = json!({ "address": "10.0.0.1:80" });
    let set = |tag: &str, weight: u32| {
        let body = json!({ "address": "10.0.0.1:80", "weight": weight }).to_string();
        let out = run(
            "curl",
            &[
                "-s",
                "-X",
                "PUT",
                "-H",
                &format!("If-Match: {tag}"),
                "-d",
                &body,
                &format!("{url}/v1/objects/backend/s/a"),
            ],
        );
        out.json()
    };
    assert_eq!(curl(url, "PUT", "/v1/objects/backend/s/a", &body).status, 200);
    assert_eq!(set("\"1\"", 50)["revision"], 2);
    assert_eq!(set("\"1\"", 60)["code"], "stale");
    // The command line shows the findings as `ringway check` does.
    let bad = cluster.write("bad.yaml", "services:\n  - name: s\n    polcy: ring\n");
    let out = cluster.control(&["apply", &bad, "--yes"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(out.error().contains("document/main:3:5") && out.error().contains("polcy: ring"), "{}", out.error());
    // Half a transaction is none.
    let ops = json!({ "ops": [ { "put": { "key": "backend/s/z", "object": { "backend": body } } }, { "delete": { "key": "backend/s/nobody" } } ] });
    assert_eq!(code(&curl(url, "POST", "/v1/txn", &ops)), (404, "not_found".into()));
    assert_eq!(curl(url, "GET", "/v1/objects/backend/s/z", &Value::Null).status, 404);
    let openapi = curl(url, "GET", "/openapi.json", &Value::Null).json();
    assert_eq!(openapi["openapi"], "3.1.0");
    assert!(openapi["paths"]["/v1/txn"]["post"].is_object());
}

#[test]
fn roles_hold_and_tokens_end() {
    let directory = tempfile::tempdir().unwrap();
    let admin = directory.path().join("admin.token");
    std::fs::write(&admin, "an-admins-token-of-some-length\n").unwrap();
    let cluster = Cluster::of(1, &format!(", tokens: [ {{ name: root, role: admin, file: {admin:?} }} ]"));
    let url = &cluster.urls[0];
    let with = |token: &str, method: &str, path: &str, body: &str| {
        let bearer = format!("Authorization: Bearer {token}");
        run("curl", &["-s", "-X", method, "-H", &bearer, "-d", body, &format!("{url}{path}")]).json()
    };
    let none = curl(url, "GET", "/v1/status", &Value::Null);
    assert_eq!((none.status, &none.json()["code"]), (401, &json!("no_token")));
    assert_eq!(with("nobodys-token", "GET", "/v1/status", "")["code"], "bad_token");
    let root = "an-admins-token-of-some-length";
    let make = |name: &str, role: &str, ttl: &str| {
        let made = with(root, "PUT", &format!("/v1/tokens/{name}"), &format!("{{\"role\":\"{role}\"{ttl}}}"));
        made["token"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
    };
    let (read, register, operate) = (make("r", "read", ""), make("g", "register", ""), make("o", "operate", ""));
    let backend = r#"{"address":"10.0.0.1:80"}"#;
    let document = r#"{"text":"services: []"}"#;
    assert_eq!(with(&read, "PUT", "/v1/objects/backend/s/a", backend)["code"], "wrong_role");
    assert_eq!(with(&register, "PUT", "/v1/objects/backend/s/a", backend)["revision"], 1);
    assert_eq!(with(&register, "PUT", "/v1/objects/document/main", document)["code"], "wrong_role");
    assert_eq!(with(&operate, "PUT", "/v1/objects/document/main", document)["revision"], 2);
    assert_eq!(with(&operate, "PUT", "/v1/tokens/x", r#"{"role":"read"}"#)["code"], "wrong_role");
    assert_eq!(with(&operate, "GET", "/v1/backup", "")["code"], "wrong_role");
    let short = make("s", "read", ",\"ttl\":\"300ms\"");
    wait_for("the token's end", || (with(&short, "GET", "/v1/status", "")["code"] == "expired_token").then_some(()));
    assert_eq!(with(root, "DELETE", "/v1/tokens/r", "")["revision"], 2);
    assert_eq!(with(&read, "GET", "/v1/status", "")["code"], "bad_token");
    // A key is seen by nobody who only reads.
    let made = rcgen::generate_simple_self_signed(["web.example".to_owned()]).unwrap();
    let pem = json!({ "certificate": made.cert.pem(), "key": made.signing_key.serialize_pem() }).to_string();
    assert_eq!(with(&operate, "PUT", "/v1/objects/certificate/web", &pem)["revision"], 3);
    let shown = with(&operate, "GET", "/v1/objects/certificate/web", "");
    assert_eq!(shown["object"]["certificate"]["key"], "(not shown)");
    assert!(!with(&operate, "GET", "/v1/history", "").to_string().contains("BEGIN PRIVATE KEY"));
    assert!(cluster.log(0).contains("\"target\":\"audit\""), "changes are in the audit log");
}

#[test]
fn a_backup_is_restored_and_its_damage_found() {
    let cluster = Cluster::of(1, "");
    let (file, bad) = (cluster.path("backup"), cluster.path("bad"));
    assert!(cluster.control(&["backend", "add", "s", "a", "10.0.0.1:80"]).status.success());
    assert!(cluster.control(&["backup", &file]).status.success());
    assert!(cluster.control(&["backend", "weight", "s", "a", "7"]).status.success());
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&bad, bytes).unwrap();
    let out = cluster.control(&["restore", &bad, "--yes"]);
    assert!(out.status.code() == Some(1) && out.error().contains("damaged"), "{out:?}");
    let epoch = cluster.control(&["status", "--json"]).json()["epoch"].as_u64().unwrap();
    assert!(cluster.control(&["restore", &file, "--yes"]).status.success());
    let shown = cluster.control(&["get", "backend/s/a", "--json"]).json();
    assert_eq!(shown["object"]["backend"]["weight"], 100);
    assert!(cluster.control(&["status", "--json"]).json()["epoch"].as_u64() > Some(epoch));
    // Into another cluster, as after a disaster.
    let other = Cluster::of(1, "");
    assert!(other.control(&["restore", &file, "--yes"]).status.success());
    assert_eq!(other.control(&["get", "backend/s/a", "--json"]).json()["object"]["backend"]["weight"], 100);
}

#[test]
fn members_come_lead_and_go() {
    let mut cluster = Cluster::of(3, "");
    assert!(cluster.control(&["backend", "add", "s", "a", "10.0.0.1:80"]).status.success());
    let members = || cluster.control(&["members", "--json"]).json()["members"].as_array().cloned().unwrap_or_default();
    let leader =
        |list: &[Value]| list.iter().find(|member| member["leader"] == true).map(|member| member["node"].clone());
    let before = members();
    assert_eq!(before.iter().filter(|member| member["voter"] == true).count(), 3);
    let heir = before.iter().find(|member| member["leader"] == false).unwrap()["node"].clone();
    assert!(cluster.control(&["transfer", &heir.to_string()]).status.success());
    wait_for("the hand-over", || (leader(&members()) == Some(heir.clone())).then_some(()));
    // One dies for good, another takes its place.
    let dead = members()
        .iter()
        .find(|member| member["leader"] == false && !member["api_address"].as_str().unwrap().is_empty())
        .unwrap()
        .clone();
    let index = cluster.urls.iter().position(|url| url.ends_with(dead["api_address"].as_str().unwrap())).unwrap();
    cluster.kill(index);
    let new = cluster.join(&["--replace", &dead["node"].to_string()]);
    let control = |args: &[&str]| cluster.control_at(new, args);
    wait_for("the replacement", || {
        let list = control(&["members", "--json"]).json()["members"].as_array()?.clone();
        let gone = !list.iter().any(|member| member["node"] == dead["node"]);
        (gone && list.iter().filter(|member| member["voter"] == true).count() == 3).then_some(())
    });
    assert_eq!(control(&["get", "backend/s/a", "--json"]).json()["object"]["backend"]["address"], "10.0.0.1:80");
    assert!(control(&["backend", "weight", "s", "a", "50"]).status.success());
}

#[test]
fn an_embedded_member_is_enough_for_one_machine() {
    let (api, peers, listen) = (free_address(), free_address(), free_address());
    let directory = tempfile::tempdir().unwrap();
    let backend = Backend::echo("a");
    let ringway = Ringway::start(&format!(
        "admin: {{ address: ADMIN }}\n\
         control: {{ embedded: true, directory: {:?}, member: {{ directory: {:?}, address: \"{api}\", peer_address: \"{peers}\" }} }}\n\
         listeners: [ {{ name: web, address: \"{listen}\", service: s }} ]\n",
        directory.path().join("proxy"),
        directory.path().join("member"),
    ));
    let url = format!("http://{api}");
    wait_for("the member", || (curl(&url, "GET", "/readyz", &Value::Null).status == 200).then_some(()));
    assert_eq!(get(listen, "/").unwrap().status, 503, "nobody has said what s is");
    let text = json!({ "text": service(&[("a", backend.address)]) });
    assert_eq!(curl(&url, "PUT", "/v1/objects/document/main", &text).status, 200);
    wait_for("the service", || (get(listen, "/")?.status == 200).then_some(()));
    ringway.signal("TERM");
    drop(ringway);
}

#[test]
fn what_was_refused_leaves_what_was_there() {
    let cluster = Cluster::of(1, "");
    let url = &cluster.urls[0];
    let put = |path: &str, body: Value| curl(url, "PUT", path, &body);
    let good = json!({ "address": "10.0.0.1:80" });
    let lease = put("/v1/objects/backend/s/a?ttl=30s", good.clone()).json()["lease"].clone();
    // A registration that is refused does not end the one that holds.
    let wrong = put("/v1/objects/backend/s/a?ttl=30s", json!({ "address": "10.0.0.1:80", "weight": 5000 }));
    assert_eq!((wrong.status, wrong.json()["code"].as_str()), (422, Some("out_of_range")));
    assert_eq!(registered(&cluster, "s"), ["a"]);
    assert_eq!(put("/v1/objects/backend/s/a?ttl=30s", good.clone()).json()["lease"], lease);
    // A lease that carries a lock as well outlives its backend.
    let shared = curl(url, "POST", "/v1/leases", &json!({ "ttl": "30s" })).json()["id"].clone();
    assert_eq!(put("/v1/locks/l", json!({ "lease": shared, "owner": "me" })).status, 200);
    assert_eq!(put("/v1/objects/backend/s/z", json!({ "address": "10.0.0.2:80", "lease": shared })).status, 200);
    assert_eq!(curl(url, "DELETE", "/v1/objects/backend/s/z", &Value::Null).status, 200);
    assert_eq!(curl(url, "GET", "/v1/locks", &Value::Null).json()["locks"].as_array().unwrap().len(), 1);
    // A request's name is for one request.
    let named = |path: &str| {
        let target = format!("{url}{path}");
        let args = ["-s", "-X", "PUT", "-H", "idempotency-key: k", "-d", r#"{"address":"10.0.0.3:80"}"#, &target];
        run("curl", &args).json()
    };
    let first = named("/v1/objects/backend/s/x");
    assert_eq!(named("/v1/objects/backend/s/x"), first);
    assert_eq!(named("/v1/objects/backend/s/y")["code"], "idempotency_mismatch");
    // What a text means does not depend on a member's disk.
    let file = cluster.write("sorry.html", "sorry");
    let text = format!(
        "listeners: [ {{ name: w, address: \"127.0.0.1:1\", service: s, errors: [ {{ status: [ 503 ], file: {file:?} }} ] }} ]\n\
         services: [ {{ name: s }} ]\n"
    );
    let before = put("/v1/objects/document/main", json!({ "text": text })).json();
    assert!(before["revision"].is_u64(), "{before}");
    std::fs::remove_file(&file).unwrap();
    let mut cluster = cluster;
    cluster.kill(0);
    cluster.bring_back(0);
    wait_for("the document to be there again", || {
        let status = curl(&cluster.urls[0], "GET", "/v1/status", &Value::Null).json();
        (status["revision"] == before["revision"]).then_some(())
    });
    // Its log is for its user alone: certificates' keys are in it.
    use std::os::unix::fs::PermissionsExt;
    let mode = |name: &str| std::fs::metadata(cluster.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("member-1/raft.redb"), mode("member-1")), (0o600, 0o700));
}

#[test]
fn a_connection_that_asks_nothing_is_closed() {
    use std::io::{Read, Write};
    let cluster = Cluster::of(1, "");
    let address: std::net::SocketAddr = cluster.urls[0].trim_start_matches("http://").parse().unwrap();
    let silent = ["", "P", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/1.1\r\n"].map(|begin| {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(begin.as_bytes()).unwrap();
        stream.set_read_timeout(Some(patience())).unwrap();
        (begin, stream)
    });
    for (begin, mut stream) in silent {
        let mut rest = Vec::new();
        // Closed or reset: over, within the test's patience.
        let end = stream.read_to_end(&mut rest);
        let waited = end.is_err_and(|error| matches!(error.kind(), std::io::ErrorKind::WouldBlock));
        assert!(!waited, "{begin:?} is kept");
    }
    // Who asks is kept: a watch stream outlives that time.
    let target = format!("{}/v1/watch", cluster.urls[0]);
    let watched = run("curl", &["-s", "-N", "--max-time", "12", &target]);
    assert_eq!(watched.status.code(), Some(28), "the stream ends with the client's patience: {}", watched.text());
    assert!(watched.text().matches("\"ping\"").count() >= 2, "{}", watched.text());
}

/// Ids of a service's registered backends.
fn registered(cluster: &Cluster, service: &str) -> Vec<String> {
    let prefix = format!("backend/{service}/");
    let shown = cluster.control(&["get", &prefix, "--json"]).json();
    let list = shown["objects"].as_array().cloned().unwrap_or_default();
    list.iter().map(|entry| entry["key"].as_str().unwrap().trim_start_matches(&prefix).to_owned()).collect()
}

/// A name server that knows the addresses of a file, read again on SIGHUP, and these SRV records.
fn name_server(server: std::net::SocketAddr, hosts: &std::path::Path, services: &[&str]) -> Running {
    let running = std::process::Command::new("dnsmasq")
        .args(["--no-daemon", "--no-resolv", "--no-hosts", "--listen-address=127.0.0.1", "--bind-interfaces"])
        .args([format!("--port={}", server.port()), format!("--addn-hosts={}", hosts.display())])
        .args(services.iter().map(|service| format!("--srv-host=_http._tcp.srv.test,{service}")))
        .args(["--user=root", "--conf-file=/dev/null", "--local=/test/"])
        .stderr(std::process::Stdio::null())
        .spawn();
    Running(running.unwrap())
}

#[test]
fn backends_are_found_by_dns_and_survive_its_loss() {
    if require("dnsmasq").is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let hosts = directory.path().join("hosts");
    let write = |text: &str| std::fs::write(&hosts, text).unwrap();
    write("10.1.0.1 api.test\n10.1.0.2 api.test\n10.1.0.9 one.test\nfd00::9 two.test\n");
    let server = free_address();
    let mut dns = name_server(server, &hosts, &["one.test,8001,10,30", "two.test,8002,20,70"]);
    let source = |name: &str, rest: &str| {
        format!(
            "{{ name: {name}, dns: {{ {rest}, servers: [ \"{server}\" ], interval_min: 200ms, interval_max: 400ms }} }}"
        )
    };
    let cluster = Cluster::of(
        1,
        &format!(
            ", sources: [ {}, {} ]",
            source("a", "service: api, name: api.test, port: 80"),
            source("srv", "service: srv, name: _http._tcp.srv.test, record: srv")
        ),
    );
    wait_for("the addresses", || (registered(&cluster, "api") == ["10.1.0.1-80", "10.1.0.2-80"]).then_some(()));
    wait_for("the services", || (registered(&cluster, "srv") == ["one.test-8001", "two.test-8002"]).then_some(()));
    let two = cluster.control(&["get", "backend/srv/two.test-8002", "--json"]).json()["object"]["backend"].clone();
    assert_eq!((&two["address"], &two["weight"], &two["tier"]), (&json!("[fd00::9]:8002"), &json!(70), &json!(1)));
    write("10.1.0.2 api.test\n10.1.0.3 api.test\n10.1.0.9 one.test\nfd00::9 two.test\n");
    signal(dns.0.id(), "HUP");
    wait_for("the change", || (registered(&cluster, "api") == ["10.1.0.2-80", "10.1.0.3-80"]).then_some(()));
    // Without records, and without a server: nobody takes a service down like that.
    write("10.1.0.9 one.test\n");
    signal(dns.0.id(), "HUP");
    wait_for("the warning", || cluster.log(0).contains("a source cannot be seen").then_some(()));
    dns.0.kill().unwrap();
    // Time in which nothing may happen.
    leave_time(Duration::from_secs(1));
    assert_eq!(registered(&cluster, "api"), ["10.1.0.2-80", "10.1.0.3-80"]);
    assert_eq!(registered(&cluster, "srv"), ["one.test-8001", "two.test-8002"]);
}

#[test]
fn a_host_of_both_families_is_one_backend_by_either_address_and_two_where_that_is_wanted() {
    if require("dnsmasq").is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let hosts = directory.path().join("hosts");
    let write = |text: &str| std::fs::write(&hosts, text).unwrap();
    write("10.1.0.9 dual.test\nfd00::9 dual.test\n");
    let server = free_address();
    let dns = name_server(server, &hosts, &["dual.test,80,10,30"]);
    let source = |name: &str, rest: &str| {
        format!(
            "{{ name: {name}, dns: {{ service: {name}, name: _http._tcp.srv.test, record: srv{rest}, servers: [ \"{server}\" ], \
             interval_min: 200ms, interval_max: 400ms }} }}"
        )
    };
    let sources = [
        source("default", ""),
        source("all", ", families: all"),
        source("v4", ", families: v4"),
        source("v6", ", families: v6"),
    ];
    let cluster = Cluster::of(1, &format!(", sources: [ {} ]", sources.join(", ")));
    // Whatever has two addresses waits until all members know that there is such a thing.
    let of = |service: &str| -> Vec<(String, Value, Value)> {
        let shown = |id: String| {
            let backend = cluster.control(&["get", &format!("backend/{service}/{id}"), "--json"]).json();
            let backend = backend["object"]["backend"].clone();
            (id, backend["address"].clone(), backend["additional_address"].clone())
        };
        registered(&cluster, service).into_iter().map(shown).collect()
    };
    let (four, six, id) = (json!("10.1.0.9:80"), json!("[fd00::9]:80"), "dual.test-80".to_owned());
    let one = |address: &Value, more: &Value| vec![(id.clone(), address.clone(), more.clone())];
    wait_for("one backend", || (of("default") == one(&four, &six)).then_some(()));
    let two = [one(&four, &Value::Null), vec![("dual.test-80-fd00::9".to_owned(), six.clone(), Value::Null)]].concat();
    wait_for("two backends", || (of("all") == two).then_some(()));
    wait_for("one of IPv4", || (of("v4") == one(&four, &Value::Null)).then_some(()));
    wait_for("one of IPv6", || (of("v6") == one(&six, &Value::Null)).then_some(()));
    // It loses one, and then has the other alone: its id stays.
    for (text, expected) in [
        ("10.1.0.9 dual.test\n", one(&four, &Value::Null)),
        ("fd00::9 dual.test\n", one(&six, &Value::Null)),
        ("10.1.0.9 dual.test\nfd00::9 dual.test\n", one(&four, &six)),
    ] {
        write(text);
        signal(dns.0.id(), "HUP");
        wait_for("the change", || (of("default") == expected).then_some(()));
    }
}

#[test]
fn a_second_address_is_registered_with_and_without_a_lease_and_refused_where_it_is_of_the_same_family() {
    let cluster = Cluster::of(1, "");
    let add = |more: &[&str]| cluster.control(&[&["backend", "add", "s", "a", "10.0.0.1:80"], more].concat());
    let shown = || cluster.control(&["get", "backend/s/a", "--json"]).json()["object"]["backend"].clone();
    for more in [&["--ttl", "1h"][..], &[]] {
        let added = add(&[&["--additional-address", "[fd00::1]:80"], more].concat());
        assert!(added.status.success(), "{}", added.error());
        assert_eq!(shown()["additional_address"], "[fd00::1]:80");
        assert!(add(more).status.success());
        assert!(shown().get("additional_address").is_none());
    }
    // A proxy puts it into force, and reaches it by the one that is there.
    let echo = Backend::echo("by either");
    let proxy = FleetProxy::start(&cluster, "p1", "");
    let file = cluster.write("fleet.yaml", "services: [ { name: s } ]\n");
    assert!(cluster.control(&["apply", &file, "--yes", "--direct"]).status.success());
    let nobody = format!("[::1]:{}", free_port());
    let object = json!({ "address": nobody, "additional_address": echo.address.to_string() });
    let put = curl(&cluster.urls[0], "PUT", "/v1/objects/backend/s/a", &object);
    assert_eq!(put.status, 200, "{put:?}");
    wait_for("the answer", || (get(proxy.listen, "/")?.text() == "by either").then_some(()));
    let topology = &proxy.ringway.status()["topology"];
    assert_eq!(topology["published"]["digest"], topology["digest"], "proxies come to the digest that members have");
    for (wrong, said) in [("10.0.0.2:80", "is IPv4, as the backend's `address` is"), ("[fd00::1]", "is not an address")]
    {
        let refused = add(&["--additional-address", wrong]);
        let text = refused.error();
        assert!(!refused.status.success() && text.contains(said), "{text}");
    }
}

#[test]
fn backends_are_found_in_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let beside = directory.path().join("beside");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, directory.path().join(name)).unwrap();
    };
    write(
        "one.yaml",
        "- { service: s, id: a, address: \"10.0.0.1:80\" }\n- { service: s, id: b, address: \"10.0.0.2:80\" }\n",
    );
    let cluster =
        Cluster::of(3, &format!(", sources: [ {{ name: files, directory: {{ path: {:?} }} }} ]", directory.path()));
    wait_for("the files", || (registered(&cluster, "s") == ["a", "b"]).then_some(()));
    // Whoever leads next goes on with it.
    let members = cluster.control(&["members", "--json"]).json()["members"].clone();
    let heir = members.as_array().unwrap().iter().find(|member| member["leader"] == false).unwrap()["node"].to_string();
    assert!(cluster.control(&["transfer", &heir]).status.success());
    write("two.yaml", "- { service: s, id: c, address: \"10.0.0.3:80\", weight: 50 }\n");
    wait_for("the second file", || (registered(&cluster, "s") == ["a", "b", "c"]).then_some(()));
    write("two.yaml", "- { service: s, id: c, adress: \"10.0.0.3:80\" }\n");
    let told = || (0..3).any(|index| cluster.log(index).contains("unknown field `adress`"));
    wait_for("the finding", || told().then_some(()));
    assert_eq!(registered(&cluster, "s"), ["a", "b", "c"], "what it said before stays");
    std::fs::remove_file(directory.path().join("two.yaml")).unwrap();
    wait_for("the removal", || (registered(&cluster, "s") == ["a", "b"]).then_some(()));
}

#[test]
fn certificates_come_from_the_control_plane() {
    if require("openssl").is_none() {
        return;
    }
    let cluster = Cluster::of(1, "");
    let backend = Backend::echo("a");
    let proxy = FleetProxy::start(&cluster, "p1", "");
    let (certificate, key) = (cluster.path("c.pem"), cluster.path("k.pem"));
    let make = |name: &str| {
        let subject = format!("/CN={name}");
        let args =
            ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
        let rest = [
            "-subj",
            subject.as_str(),
            "-addext",
            "subjectAltName=DNS:localhost",
            "-keyout",
            &key,
            "-out",
            &certificate,
        ];
        assert!(run("openssl", &[&args[..], &rest[..]].concat()).status.success());
        assert!(cluster.control(&["certificate", "put", "web", &certificate, &key]).status.success());
    };
    make("first");
    let tls = free_address();
    let listeners = format!(
        "listeners: [ {{ name: tls, address: \"{tls}\", service: s, tls: {{ certificates: [ {{ certificate: \"control:web\", key: \"control:web\" }} ] }} }} ]\n"
    );
    let file = cluster.write("f.yaml", &format!("{}{listeners}", service(&[("a", backend.address)])));
    let out = cluster.control(&["apply", &file, "--yes"]);
    assert!(out.status.success(), "{}", out.error());
    let subject = |at: std::net::SocketAddr| {
        let out = run("curl", &["-skv", "--max-time", "2", &format!("https://{at}/")]);
        let shown = out.error();
        shown.lines().find_map(|line| line.split_once("subject: CN=").map(|(_, name)| name.trim().to_owned()))
    };
    wait_for("TLS", || (subject(tls)? == "first").then_some(()));
    // A proxy's own file may name it as well.
    let (own, stored) = (free_address(), tempfile::tempdir().unwrap());
    let with = |name: &str, members: &[String]| {
        format!(
            "admin: {{ address: ADMIN }}\ncontrol: {{ proxy: p2, directory: {:?}, members: {members:?} }}\n\
             listeners: [ {{ name: own, address: \"{own}\", service: s, tls: {{ certificates: [ {{ certificate: \"control:{name}\", key: \"control:{name}\" }} ] }} }} ]\n",
            stored.path().join("stored")
        )
    };
    // The fleet's listener is left to the first proxy: the last one goes only if that is meant.
    let alone = format!("{}listeners: []\n", service(&[("a", backend.address)]));
    assert!(cluster.control(&["apply", &cluster.write("alone.yaml", &alone), "--yes", "--force"]).status.success());
    let second = Ringway::start(&with("web", &cluster.urls));
    wait_for("TLS by its own file", || (subject(own)? == "first").then_some(()));
    make("second");
    wait_for("the new certificate", || (subject(own)? == "second").then_some(()));
    assert_eq!(proxy.ringway.metric("ringway_topology_stuck "), 0.0);
    assert_eq!(second.metric("ringway_topology_stuck "), 0.0);
    drop(second);
    // One that nobody has, or whom nobody can ask for it, is refused in words.
    let nobody = [format!("http://{}", free_address())];
    let elsewhere = tempfile::tempdir().unwrap();
    for (text, told) in [
        (with("wbe", &cluster.urls), "the control plane has no certificate"),
        (with("web", &nobody).replace(path_text(stored.path()), path_text(elsewhere.path())), "start when it answers"),
    ] {
        let file = cluster.write("own.yaml", &text.replace("ADMIN", "\"127.0.0.1:0\""));
        assert!(ringway(&["check", &file]).status.success(), "only the control plane can say whether it is there");
        let ended = ringway(&["run", "--config", &file]);
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(ended.status.code() == Some(2) && said.contains(told), "{said}");
    }
}
