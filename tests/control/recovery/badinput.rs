//! What no client should send, and some do: backups that are damaged, forged, old or another's; texts without measure; proxies
//! that lie. It is refused by a stable code, or bounded, and nothing of it holds by half.

use crate::common::control::{Cluster, FleetProxy, Said, curl, ringway_said, run};
use crate::common::{free_address, get, wait_for};
use ringway_control::state::{Lease, RULES, State};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

const CONTROLS: &str = "\u{1b}]0;owned\u{7}\u{9b}2J\r\n";

/// Numbers below a bound, from a seed: splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

fn status(url: &str) -> Value {
    wait_for("a member to answer", || {
        let said = curl(url, "GET", "/v1/status", &Value::Null);
        (said.status == 200).then(|| said.json())
    })
}

/// Where the cluster stands, and how long its log is.
fn standing(url: &str) -> Vec<Value> {
    let status = status(url);
    let fields = ["cluster", "epoch", "revision", "digest", "objects"].map(|field| status[field].clone());
    fields.into_iter().chain([status["member"]["last_log"].clone()]).collect()
}

fn change(url: &str, id: &str, weight: u64) {
    let body = json!({ "address": "127.0.0.1:9", "weight": weight });
    wait_for("a change to be taken", || {
        (curl(url, "PUT", &format!("/v1/objects/backend/s/{id}"), &body).status == 200).then_some(())
    });
}

/// Status and answer.
fn post(cluster: &Cluster, method: &str, path: &str, body: &[u8]) -> (u16, String) {
    let file = cluster.path("body");
    std::fs::write(&file, body).unwrap();
    let (target, data) = (format!("{}{path}", cluster.urls[0]), format!("@{file}"));
    let args = ["-s", "--max-time", "60", "-X", method, "--data-binary", &data, "-w", "\n%{http_code}", &target];
    let text = run("curl", &args).text();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

fn code(answer: &(u16, String)) -> String {
    let problem: Value = serde_json::from_str(&answer.1).unwrap_or_else(|error| panic!("{error}: {answer:?}"));
    problem["code"].as_str().unwrap_or_default().to_owned()
}

fn backup(cluster: &Cluster) -> Vec<u8> {
    let file = cluster.path("backup");
    assert!(cluster.control(&["backup", &file]).status.success());
    std::fs::read(file).unwrap()
}

fn seal(state: &State) -> Vec<u8> {
    let mut bytes = state.encode().unwrap();
    let checksum = blake3::hash(&bytes);
    bytes.extend_from_slice(checksum.as_bytes());
    bytes
}

#[test]
fn a_backup_that_is_cut_off_or_flipped_anywhere_is_refused_and_nothing_of_it_holds() {
    let cluster = Cluster::of(1, "");
    for weight in 1..30 {
        change(&cluster.urls[0], &format!("b{weight}"), weight);
    }
    let good = backup(&cluster);
    change(&cluster.urls[0], "after", 1);
    let before = standing(&cluster.urls[0]);
    let seed = 12;
    println!("seed {seed}");
    let mut random = Random(seed);
    let mut bad: Vec<(String, Vec<u8>)> = Vec::new();
    let ends = [0, 1, 31, 32, 33, good.len() - 33, good.len() - 32, good.len() - 1];
    for end in ends.into_iter().chain((0..30).map(|_| random.below(good.len()))) {
        bad.push((format!("cut at {end}"), good[..end].to_vec()));
    }
    for bit in (0..8).chain((0..60).map(|_| random.below(good.len() * 8))) {
        let mut flipped = good.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        bad.push((format!("bit {bit}"), flipped));
    }
    for more in [1, 32, 1000] {
        bad.push((format!("{more} bytes more"), [good.clone(), vec![0; more]].concat()));
    }
    for (what, bytes) in bad {
        for query in ["", "?other_cluster=true"] {
            let answer = post(&cluster, "POST", &format!("/v1/restore{query}"), &bytes);
            assert_eq!((answer.0, code(&answer).as_str()), (422, "damaged"), "{what}: {answer:?}");
        }
    }
    assert_eq!(standing(&cluster.urls[0]), before, "nothing of them is even in the log");
    let answer = post(&cluster, "POST", "/v1/restore", &good);
    assert_eq!(answer.0, 200, "what is whole is taken: {answer:?}");
}

#[test]
fn a_backup_that_no_cluster_can_have_made_is_refused_whatever_its_checksum_says() {
    let cluster = Cluster::of(1, "");
    change(&cluster.urls[0], "a", 1);
    let good = backup(&cluster);
    let before = standing(&cluster.urls[0]);
    let state = || State::decode(&good[..good.len() - 32]).unwrap();
    type Lie = fn(&mut State);
    let lies: [Lie; 8] = [
        |state| state.revision = u64::MAX,
        |state| state.epoch = u64::MAX,
        |state| state.next_id = u64::MAX,
        |state| state.rules = u32::MAX,
        |state| state.cluster = CONTROLS.into(),
        |state| state.objects_bytes = usize::MAX,
        |state| state.objects = Default::default(),
        |state| state.leases.insert_mut(1, Lease { ttl_ms: u64::MAX, owner: String::new() }),
    ];
    for (number, lie) in lies.into_iter().enumerate() {
        let mut forged = state();
        lie(&mut forged);
        let answer = post(&cluster, "POST", "/v1/restore?other_cluster=true", &seal(&forged));
        assert_eq!((answer.0, code(&answer).as_str()), (422, "damaged"), "{number}: {answer:?}");
    }
    assert_eq!(standing(&cluster.urls[0]), before);
    change(&cluster.urls[0], "b", 2);
    assert_eq!(post(&cluster, "POST", "/v1/restore", &seal(&state())).0, 200);
}

#[test]
fn a_backup_of_another_cluster_leaves_no_trace_unless_it_is_meant() {
    let (one, other) = (Cluster::of(1, ""), Cluster::of(1, ""));
    change(&one.urls[0], "a", 1);
    change(&other.urls[0], "b", 2);
    let (theirs, before) = (backup(&one), standing(&other.urls[0]));
    let answer = post(&other, "POST", "/v1/restore", &theirs);
    assert_eq!((answer.0, code(&answer).as_str()), (409, "other_cluster"), "{answer:?}");
    for cluster in [&one, &other] {
        let name = status(&cluster.urls[0])["cluster"].as_str().unwrap().to_owned();
        assert!(answer.1.contains(&name), "both are named: {answer:?}");
    }
    assert!(answer.1.contains("--other-cluster"), "and the way to say yes: {answer:?}");
    assert_eq!(standing(&other.urls[0]), before, "nothing of it is even in the log");
    assert_eq!(post(&other, "POST", "/v1/restore?other_cluster=true", &theirs).0, 200);
    assert_eq!(status(&other.urls[0])["cluster"], before[0]);
}

/// The proxy has what the members have.
fn follows(cluster: &Cluster, proxy: &FleetProxy) {
    wait_for("the proxy to have what the members have", || {
        let members = status(&cluster.urls[0]);
        let said = get(proxy.ringway.admin, "/status")?;
        let here = serde_json::from_slice::<Value>(&said.body).ok()?["topology"].clone();
        let same = ["cluster", "epoch", "revision", "digest"].iter().all(|field| members[field] == here[field]);
        (same && here["error"].is_null()).then_some(())
    });
}

#[test]
fn a_backup_of_an_older_epoch_makes_a_newer_one_and_proxies_follow() {
    let cluster = Cluster::of(1, "");
    let url = &cluster.urls[0];
    change(url, "old", 1);
    let proxy = FleetProxy::start(&cluster, "p", "");
    let (old, digest) = (backup(&cluster), status(url)["digest"].clone());
    let mut epoch = status(url)["epoch"].as_u64().unwrap();
    for round in 0..3 {
        change(url, "new", 10 + round);
        follows(&cluster, &proxy);
        assert_eq!(post(&cluster, "POST", "/v1/restore", &old).0, 200);
        let now = status(url);
        assert!(now["epoch"].as_u64().unwrap() > epoch, "{now}");
        assert_eq!(now["digest"], digest, "objects are the backup's");
        epoch = now["epoch"].as_u64().unwrap();
        follows(&cluster, &proxy);
    }
}

#[test]
fn texts_without_measure_are_refused_or_cut_and_answers_stay_short() {
    let cluster = Cluster::of(1, "");
    let url = &cluster.urls[0];
    change(url, "a", 1);
    let lease = curl(url, "POST", "/v1/leases", &json!({ "ttl": "1h" })).json()["id"].clone();
    let before = (status(url)["revision"].clone(), status(url)["locks"].clone(), status(url)["leases"].clone());
    let long = CONTROLS.repeat((1 << 20) / CONTROLS.len());
    let member = |field: &str| {
        let mut body = json!({ "node": 5, "name": "m", "peer_address": "127.0.0.1:1", "api_address": "127.0.0.1:1" });
        body[field] = json!(long);
        body["voter"] = json!(false);
        body
    };
    let object = json!({ "backend": { "address": "10.0.0.1:80" } });
    let put = |key: &str| json!({ "ops": [{ "put": { "key": key, "object": object } }] });
    let asks = [
        ("POST", "/v1/members", member("name")),
        ("POST", "/v1/members", member("peer_address")),
        ("POST", "/v1/members", member("api_address")),
        ("PUT", "/v1/locks/l", json!({ "lease": lease, "owner": long })),
        ("POST", "/v1/leases", json!({ "ttl": long })),
        ("POST", "/v1/leases", json!({ "ttl": "10s", "owner": long })),
        ("PUT", "/v1/tokens/t", json!({ "role": "read", "ttl": long })),
        ("PUT", "/v1/tokens/t", json!({ "role": long })),
        ("POST", "/v1/txn", put(&long)),
        ("POST", "/v1/txn", json!({ "ops": [{ "delete": { "key": "backend/s/a" } }], "note": long })),
        ("PUT", "/v1/objects/backend/s/b", json!({ "address": long })),
        ("PUT", "/v1/objects/backend/s/b", json!({ "address": "10.0.0.1:80", "zone": long })),
        ("PUT", "/v1/objects/document/main", json!({ "text": format!("services: {long:?}\n") })),
        ("PUT", "/v1/objects/certificate/c", json!({ "certificate": long, "key": long })),
        ("POST", "/v1/rollback", json!({ "to": 1, "note": long })),
        ("POST", "/v1/rollouts/1/abort", json!({ "reason": long })),
        ("POST", "/v1/transfer", json!({ "to": long })),
    ];
    for (method, path, body) in asks {
        let answer = post(&cluster, method, path, body.to_string().as_bytes());
        assert!((400..500).contains(&answer.0), "{method} {path}: {} {:.300}", answer.0, answer.1);
        assert!(!code(&answer).is_empty(), "{method} {path}");
        assert!(answer.1.len() < 256 << 10, "{method} {path}: {} bytes", answer.1.len());
    }
    let after = (status(url)["revision"].clone(), status(url)["locks"].clone(), status(url)["leases"].clone());
    assert_eq!(before, after);
    let members = curl(url, "GET", "/v1/members", &Value::Null).json();
    assert_eq!(members["members"].as_array().map(Vec::len), Some(1), "{members}");
    // A proxy's words: whole ones are too many, and of what is taken each is cut off.
    let mut heartbeat = says(status(url)["epoch"].as_u64().unwrap(), 1);
    heartbeat["stuck"] = json!(long);
    assert_eq!(post(&cluster, "PUT", "/v1/proxies/p", heartbeat.to_string().as_bytes()).0, 413);
    for field in ["stuck", "version", "digest", "cluster"] {
        heartbeat["stuck"] = Value::Null;
        heartbeat[field] = json!(&long[..20_000]);
    }
    assert_eq!(post(&cluster, "PUT", "/v1/proxies/p", heartbeat.to_string().as_bytes()).0, 200);
    let fleet = curl(url, "GET", "/v1/proxies", &Value::Null).json();
    let told = &fleet["proxies"][0]["heartbeat"];
    for field in ["version", "digest", "cluster"] {
        assert!(told[field].as_str().unwrap().len() <= 4096, "{field}");
    }
    for args in [&["proxies"][..], &["members"], &["verify"], &["history"]] {
        let Said { out, err, .. } = cluster.control(args);
        assert!([out, err].concat().iter().all(|byte| *byte >= 0x20 || *byte == b'\n'), "{args:?}");
    }
    let log = cluster.log(0);
    assert!(log.len() < 1 << 20 && !log.contains('\u{1b}') && !log.contains('\u{9b}'), "{} bytes", log.len());
}

fn says(epoch: u64, revision: u64) -> Value {
    json!({
        "version": "1", "epoch": epoch, "revision": revision, "digest": "d", "rings": {}, "stuck": null, "generation": 1,
        "vote": null, "down": [], "requests": 0, "failed": 0, "canary": null,
    })
}

#[test]
fn proxies_that_lie_move_the_epoch_a_little_and_keep_nobody_from_being_served() {
    let cluster = Cluster::of(3, "");
    let url = &cluster.urls[0];
    change(url, "a", 1);
    let honest = FleetProxy::start(&cluster, "honest", "");
    follows(&cluster, &honest);
    let (began, first) = (Instant::now(), status(url)["epoch"].as_u64().unwrap());
    let name = status(url)["cluster"].as_str().unwrap().to_owned();
    for round in 0..20_u64 {
        let epoch = status(url)["epoch"].as_u64().unwrap();
        let mut huge = says(u64::MAX, u64::MAX);
        for field in ["requests", "failed", "generation", "canary", "instance"] {
            huge[field] = json!(u64::MAX);
        }
        huge["vote"] = json!([u64::MAX, { "refusal": null, "digest": "d", "moved_ppm": u32::MAX }]);
        huge["down"] = json!(["backend/s/a", "backend/none/none"]);
        let mut named = says(epoch, u64::MAX);
        named["cluster"] = json!(name);
        let mut stranger = says(epoch + 9, 9);
        stranger["cluster"] = json!("another");
        let far = says(epoch + (1 << 20), round);
        for (lie, body) in [huge, named, stranger, far, says(0, u64::MAX)].into_iter().enumerate() {
            let path = format!("/v1/proxies/liar-{lie}-{}", if lie == 3 { round } else { 0 });
            wait_for("a heartbeat to be taken", || {
                (curl(&cluster.urls[lie % 3], "PUT", &path, &body).status == 200).then_some(())
            });
        }
        change(url, "a", 2 + round);
    }
    wait_for("the epoch to have been moved at all", || (status(url)["epoch"].as_u64()? > first).then_some(()));
    let after = status(url)["epoch"].as_u64().unwrap();
    // Five times a minute at most, by 2^20 each; a leader that is new counts anew.
    let moves = 10 * (1 + began.elapsed().as_secs() / 60);
    assert!(after - first <= moves * ((1 << 20) + 2), "from {first} to {after}");
    follows(&cluster, &honest);
    wait_for("who is not believed to be named", || {
        curl(url, "PUT", "/v1/proxies/liar", &says(u64::MAX, u64::MAX));
        let fleet = curl(url, "GET", "/v1/proxies", &Value::Null).json();
        let liar = fleet["proxies"].as_array()?.iter().find(|proxy| proxy["name"] == "liar")?.clone();
        (liar["state"] == "ahead").then_some(())
    });
    let object = json!({ "document": { "text": "services: [ { name: s } ]\n" } });
    let rollout = json!({
        "ops": [{ "put": { "key": "document/main", "object": object } }],
        "policy": { "deadline_ms": 500, "quorum_percent": 1 },
    });
    wait_for("a rollout to begin", || (curl(url, "POST", "/v1/rollouts", &rollout).status == 200).then_some(()));
    for (index, url) in cluster.urls.iter().enumerate() {
        let address = url.trim_start_matches("http://").parse().unwrap();
        wait_for("each member to be ready", || (get(address, "/readyz")?.status == 200).then_some(()));
        assert!(!cluster.log(index).contains("panicked"));
    }
}

/// Asks with a token.
fn with_token(url: &str, token: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let (target, bearer, body) = (format!("{url}{path}"), format!("Authorization: Bearer {token}"), body.to_string());
    let args = ["-s", "--max-time", "20", "-X", method, "-H", &bearer, "-d", &body, "-w", "\n%{http_code}", &target];
    let text = run("curl", &args).text();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), serde_json::from_str(body).unwrap_or(Value::Null))
}

#[test]
fn whose_a_backend_is_is_known_when_the_history_has_forgotten_it() {
    let cluster = Cluster::of(1, ", anonymous: admin");
    let url = &cluster.urls[0];
    let token = |name: &str| {
        let said = cluster.control(&["token", "create", name, "--role", "register"]);
        assert!(said.status.success(), "{said:?}");
        said.text().trim().to_owned()
    };
    let long = format!("long-{}", "x".repeat(120));
    let (mine, theirs, third) = (token("mine"), token("theirs"), token(&long));
    let put = |token: &str, id: &str, body: Value| {
        let (status, said) = with_token(url, token, "PUT", &format!("/v1/objects/backend/s/{id}"), &body);
        assert_eq!(status, 200, "{id}: {said}");
    };
    put(&mine, "kept", json!({ "address": "10.0.0.1:80" }));
    put(&mine, "dns", json!({ "address": "10.0.0.1:80", "source": "dns" }));
    put(&third, "long", json!({ "address": "10.0.0.1:80" }));
    // A name that is somebody else's is not taken.
    put(&theirs, "posed", json!({ "address": "10.0.0.1:80", "source": "registrar:mine" }));
    let operators = curl(url, "PUT", "/v1/objects/backend/s/operators", &json!({ "address": "10.0.0.1:80" }));
    assert_eq!(operators.status, 200);
    // Sixteen mebibytes of history, and what was before is forgotten.
    let pair = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    for round in 0..30 {
        let certificate = format!("{}{}", format!("# {round}\n").repeat(180_000), pair.cert.pem());
        let body = json!({ "certificate": certificate, "key": pair.signing_key.serialize_pem() });
        let answer = post(&cluster, "PUT", "/v1/objects/certificate/padding", body.to_string().as_bytes());
        assert_eq!(answer.0, 200, "{:.300}", answer.1);
    }
    let forgotten = curl(url, "GET", "/v1/history/5", &Value::Null);
    assert_eq!(forgotten.status, 404, "{:.300}", forgotten.body);
    let delete = |token: &str, id: &str| {
        let (status, said) = with_token(url, token, "DELETE", &format!("/v1/objects/backend/s/{id}"), &Value::Null);
        (status, said["code"].as_str().unwrap_or_default().to_owned())
    };
    let (yes, no) = ((200, String::new()), (403, "not_yours".to_owned()));
    for (id, whose) in [("kept", &mine), ("long", &third), ("posed", &theirs)] {
        for other in [&mine, &theirs, &third].into_iter().filter(|other| *other != whose) {
            assert_eq!(delete(other, id), no, "{id}");
        }
    }
    for id in ["operators", "dns"] {
        assert_eq!(delete(&theirs, id), no, "{id}");
    }
    let (status, said) = with_token(url, &theirs, "DELETE", "/v1/objects/backend/s/kept", &Value::Null);
    assert!(status == 403 && said["detail"].as_str().unwrap().contains("mine"), "{said}");
    // What they have put again in the meantime is theirs as well.
    put(&mine, "kept", json!({ "address": "10.0.0.2:80" }));
    for (id, whose) in [("kept", &mine), ("long", &third), ("posed", &theirs)] {
        assert_eq!(delete(whose, id), yes, "{id}");
    }
}

struct Alone(Child);

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the builds of rules 1 have left: see `control/tests/compatibility.rs`.
#[test]
fn a_member_goes_on_from_the_directory_of_an_earlier_build() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("control/testdata/v2");
    let (directory, address, peers) = (tempfile::tempdir().unwrap(), free_address(), free_address());
    let member = directory.path().join("member");
    std::fs::create_dir(&member).unwrap();
    for name in ["node.json", "raft.redb"] {
        std::fs::copy(kept.join(name), member.join(name)).unwrap();
    }
    std::fs::write(member.join("member.json"), "{ \"cluster\": \"shop\", \"node\": 7, \"origin\": \"first\" }")
        .unwrap();
    let config = directory.path().join("member.yaml");
    let text = format!(
        "control: {{ member: {{ name: m1, directory: {member:?}, address: \"{address}\", peer_address: \"{peers}\", anonymous: \
         admin }} }}\n"
    );
    std::fs::write(&config, text).unwrap();
    let log = std::fs::File::create(directory.path().join("log")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    command.args(["control", "run", "-c", config.to_str().unwrap()]).stdout(Stdio::null()).stderr(log);
    let _member = Alone(command.spawn().unwrap());
    let url = format!("http://{address}");
    let expected = State::decode(&std::fs::read(kept.join("state")).unwrap()).unwrap();
    let now = status(&url);
    assert_eq!(now["cluster"], "shop");
    assert_eq!(
        (now["epoch"].as_u64(), now["revision"].as_u64(), now["digest"].as_str()),
        (Some(expected.epoch), Some(expected.revision), Some(expected.digest.to_string().as_str()))
    );
    change(&url, "late", 1);
    // It is the only member: what its build knows more than the one before holds at once.
    let file = directory.path().join("now");
    wait_for("the newest rules", || {
        let said = ringway_said(&["control", "--members", &url, "backup", file.to_str().unwrap()]);
        let bytes = said.status.success().then(|| std::fs::read(&file).unwrap())?;
        let state = State::decode(&bytes[..bytes.len() - 32]).unwrap();
        (state.rules == RULES && state.digest != expected.digest).then_some(())
    });
    // And from its backup, into members that have nothing.
    let file = directory.path().join("backup");
    std::fs::write(&file, seal(&expected)).unwrap();
    let fresh = Cluster::of(1, ", anonymous: admin");
    let restored = ringway_said(&["control", "--members", &fresh.urls[0], "restore", file.to_str().unwrap(), "--yes"]);
    assert!(restored.status.success(), "{restored:?}");
    let now = status(&fresh.urls[0]);
    assert_eq!((&now["cluster"], &now["digest"]), (&json!("shop"), &json!(expected.digest.to_string())));
}
