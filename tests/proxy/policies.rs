//! Policies, tiers, zones, splits, keys, cookies, hot keys, limits: as clients meet them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::*;
use std::collections::BTreeMap;
use std::net::SocketAddr;

fn counts(listen: SocketAddr, requests: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for number in 0..requests {
        let answer = get_with(listen, "/", &format!("X-Key: {number}\r\n")).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        *counts.entry(answer.text()).or_insert(0) += 1;
    }
    counts
}

#[test]
fn every_policy_carries_traffic_and_leaves_out_weight_zero() {
    for policy in ["ring", "maglev", "hrw", "round_robin", "random", "p2c", "least_request", "peak_ewma", "first"] {
        let fleet = echoes(4);
        let listen = free_address();
        let keys = if matches!(policy, "ring" | "maglev" | "hrw") { ", hash_key: [ { header: x-key } ]" } else { "" };
        let config = simple(listen, &format!("balance: {{ policy: {policy}{keys} }}"), &targets(&fleet))
            .replace("id: d,", "id: d, weight: 0,");
        let ringway = Ringway::start(&config);
        let counts = counts(listen, 60);
        assert!(!counts.contains_key("d"), "{policy}: {counts:?}");
        match policy {
            "first" => assert_eq!(counts["a"], 60),
            "round_robin" => assert!(counts.values().all(|&count| count == 20), "{counts:?}"),
            _ => assert_eq!(counts.len(), 3, "{policy}: {counts:?}"),
        }
        assert_eq!(ringway.status()["services"][0]["policy"], policy);
        if !keys.is_empty() {
            // The same key, the same backend; and `explain` knows which.
            for key in ["k1", "k2", "k3"] {
                let fields = format!("X-Key: {key}\r\n");
                let first = get_with(listen, "/", &fields).unwrap().text();
                assert_eq!(get_with(listen, "/", &fields).unwrap().text(), first);
                let arguments =
                    ["explain", "--config", path_text(&ringway.config), "--service", "s", "--key", key, "--json"];
                let explained: serde_json::Value =
                    serde_json::from_slice(&crate::common::ringway(&arguments).stdout).unwrap();
                assert_eq!(explained["owner"], first.as_str(), "{policy}");
            }
        }
    }
}

#[test]
fn second_tier_serves_while_the_first_is_down_and_no_longer() {
    let fleet = echoes(4);
    let listen = free_address();
    // The first tier's addresses refuse at first.
    let (free_a, free_b) = (free_address(), free_address());
    let service = "balance: { hash_key: [ { header: x-key } ] }\n\
                   health: { http: {}, interval: 100ms, rise: 1, fall: 1, initial: down }";
    let backends = [("a", free_a), ("b", free_b), ("c", fleet[2].1.address), ("d", fleet[3].1.address)];
    let config =
        simple(listen, service, &backends).replace("id: c,", "id: c, tier: 1,").replace("id: d,", "id: d, tier: 1,");
    let ringway = Ringway::start(&config);
    // A first check that fails is what `initial: down` is anyway: it shows by its reason.
    for id in ["a", "b"] {
        wait_for("the first tier", || backend_status(&ringway, id)["check_failure"].is_string().then_some(()));
    }
    for id in ["c", "d"] {
        wait_for("the second tier", || (backend_status(&ringway, id)["state"] == "up").then_some(()));
    }
    let before = counts(listen, 40);
    assert_eq!(before.keys().map(String::as_str).collect::<Vec<_>>(), ["c", "d"]);
    assert_eq!(ringway.status()["services"][0]["panic"], false, "a tier that is left needs no panic");
    // The first tier comes up, somewhere else: everything goes home.
    ringway.reconfigure(
        &config
            .replace(&free_a.to_string(), &fleet[0].1.address.to_string())
            .replace(&free_b.to_string(), &fleet[1].1.address.to_string()),
    );
    wait_for("the first tier", || {
        (backend_status(&ringway, "a")["state"] == "up" && backend_status(&ringway, "b")["state"] == "up").then_some(())
    });
    let after = counts(listen, 40);
    assert_eq!(after.keys().map(String::as_str).collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn own_zone_comes_first_and_keys_that_it_cannot_carry_go_elsewhere() {
    let fleet = echoes(4);
    let listen = free_address();
    let service = "zone_aware: true\nbalance: { hash_key: [ { header: x-key } ] }";
    let mut config = simple(listen, service, &targets(&fleet)).replace("workers: 2", "workers: 2\nzone: here");
    for (id, zone) in [("a", "here"), ("b", "here"), ("c", "there"), ("d", "there")] {
        config = config.replace(&format!("id: {id},"), &format!("id: {id}, zone: {zone},"));
    }
    let ringway = Ringway::start(&config);
    let before: Vec<String> =
        (0..60).map(|key| get_with(listen, "/", &format!("X-Key: {key}\r\n")).unwrap().text()).collect();
    assert!(before.iter().all(|name| name == "a" || name == "b"));
    // Both of the own zone drain: the others take over, by key as well.
    ringway.reconfigure(&config.replace("id: a,", "id: a, drain: true,").replace("id: b,", "id: b, drain: true,"));
    let after = counts(listen, 60);
    assert_eq!(after.keys().map(String::as_str).collect::<Vec<_>>(), ["c", "d"]);
}

#[test]
fn key_stays_in_its_arm_of_a_split_and_a_growing_arm_only_takes() {
    let (stable, canary) = (Backend::echo("stable"), Backend::echo("canary"));
    let listen = free_address();
    let config = |weight: u32| {
        format!(
            "workers: 2\nadmin: {{ address: \"ADMIN\" }}\nlisteners:\n  - name: web\n    address: \"{listen}\"\n    routes:\n      \
             - split: [ {{ service: main, weight: 90 }}, {{ service: next, weight: {weight} }} ]\n        \
             split_key: [ {{ header: x-key }} ]\n\
             services:\n  - {{ name: main, backends: [ {{ id: a, address: \"{}\" }} ] }}\n  \
             - {{ name: next, backends: [ {{ id: a, address: \"{}\" }} ] }}\n",
            stable.address, canary.address
        )
    };
    let ringway = Ringway::start(&config(10));
    let arms = || -> Vec<String> {
        (0..200).map(|key| get_with(listen, "/", &format!("X-Key: user-{key}\r\n")).unwrap().text()).collect()
    };
    let first = arms();
    let in_canary = first.iter().filter(|arm| *arm == "canary").count();
    assert!((5..50).contains(&in_canary), "{in_canary}");
    assert_eq!(first, arms(), "a key never flips");
    ringway.reconfigure(&config(60));
    let second = arms();
    assert!(first.iter().zip(&second).all(|(before, after)| before == after || after == "canary"));
    assert!(second.iter().filter(|arm| *arm == "canary").count() > in_canary + 20);
    ringway.reconfigure(&config(0));
    assert!(arms().iter().all(|arm| arm == "stable"));
}

#[test]
fn keys_come_from_expressions_and_path_segments() {
    let fleet = echoes(4);
    for (keys, same, other) in [
        ("regex: { pattern: \"^/users/([^/]+)\" }", "/users/42/a /users/42/b?x=1 /users/42", "/users/43"),
        ("path: { depth: 2 }", "/t/7/x /t/7/y/z /t/7", "/t/8"),
        ("query: room", "/?room=9 /chat?a=b&room=9 /x?room=9&c", "/?room=10"),
    ] {
        let listen = free_address();
        let service = format!("balance: {{ hash_key: [ {{ {keys} }} ], on_missing: reject }}");
        let ringway = Ringway::start(&simple(listen, &service, &targets(&fleet)));
        let owners: Vec<String> = same.split(' ').map(|path| get(listen, path).unwrap().text()).collect();
        assert!(owners.windows(2).all(|pair| pair[0] == pair[1]), "{keys}: {owners:?}");
        assert_eq!(get(listen, other).unwrap().status, 200);
        if !keys.starts_with("path") {
            let answer = get(listen, "/nothing/here").unwrap();
            assert_eq!((answer.status, answer.header("x-ringway-reason")), (400, Some("hash_key_missing")), "{keys}");
        }
        drop(ringway);
    }
}

#[test]
fn affinity_cookie_keeps_a_client_and_is_not_to_be_forged() {
    for policy in ["ring", "least_request"] {
        let fleet = echoes(4);
        let listen = free_address();
        let service = format!(
            "balance: {{ policy: {policy}, affinity_cookie: {{ name: sid, ttl: 1h, secret: 0123456789abcdef, same_site: strict }} }}"
        );
        let ringway = Ringway::start(&simple(listen, &service, &targets(&fleet)));
        let mut homes = BTreeMap::new();
        for _ in 0..30 {
            let first = get(listen, "/").unwrap();
            let cookie = first.header("set-cookie").unwrap().to_owned();
            let (value, attributes) = cookie.split_once("; ").unwrap();
            assert_eq!(attributes, "Path=/; Max-Age=3600; HttpOnly; SameSite=Strict", "{policy}");
            for _ in 0..3 {
                let again = get_with(listen, "/", &format!("Cookie: a=b; {value}\r\n")).unwrap();
                assert_eq!(again.text(), first.text(), "{policy}");
                assert_eq!(again.header("set-cookie"), None, "{policy}: he has it already");
            }
            *homes.entry(first.text()).or_insert(0) += 1;
            // A cookie of nobody's making is replaced.
            let forged = format!("Cookie: {}0\r\n", &value[..value.len() - 1]);
            let forged =
                if forged.contains(value) { format!("Cookie: {}1\r\n", &value[..value.len() - 1]) } else { forged };
            assert!(get_with(listen, "/", &forged).unwrap().header("set-cookie").is_some(), "{policy}");
        }
        assert!(homes.len() >= 2, "{policy}: {homes:?}");
        drop(ringway);
    }
}

#[test]
fn sticky_client_goes_on_when_its_backend_has_gone() {
    let fleet = echoes(3);
    let listen = free_address();
    let service = "balance: { policy: round_robin, affinity_cookie: { name: sid, secret: 0123456789abcdef } }";
    let config = simple(listen, service, &targets(&fleet));
    let ringway = Ringway::start(&config);
    let first = get(listen, "/").unwrap();
    let cookie = first.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let home = first.text();
    ringway.reconfigure(&config.replace(&format!("id: {home},"), &format!("id: {home}, maintenance: true,")));
    let moved = get_with(listen, "/", &format!("Cookie: {cookie}\r\n")).unwrap();
    assert_eq!(moved.status, 200);
    assert_ne!(moved.text(), home);
    assert!(moved.header("set-cookie").is_some(), "he is told of his new home");
}

/// Shares are of the time in flight, which is the machine's to decide: that one key has most of it is all that is taken for granted.
#[test]
fn hot_key_is_spread_and_cools_down_again() {
    let fleet = echoes(8);
    let listen = free_address();
    let service = "balance: { hash_key: [ { header: x-key } ], hot_keys: { min_volume: 40, half_life: 1s } }";
    let ringway = Ringway::start(&simple(listen, service, &targets(&fleet)));
    let mut client = Client::new(listen);
    let hot = |ringway: &Ringway| ringway.status()["services"][0]["hot_keys"].as_array().or_not_yet().clone();
    let owners = |key: &serde_json::Value| -> Vec<String> {
        key["owners"].as_array().unwrap().iter().map(|owner| owner.as_str().unwrap().to_owned()).collect()
    };
    // Nine of ten requests are of one key: a fourth of the time would give it five owners.
    let mut number = 0_u64;
    let star = wait_for("the key to be hot", || {
        for _ in 0..100 {
            number += 1;
            client.get(&if number.is_multiple_of(10) { format!("k{number}") } else { "star".to_owned() });
        }
        // The one with the greatest share comes first.
        hot(&ringway).into_iter().next().filter(|key| owners(key).len() >= 5)
    });
    assert!(star["share"].as_f64().unwrap() > 0.0, "{star}");
    wait_for("its requests to be spread, over its owners", || {
        let mut served = BTreeMap::new();
        (0..50).for_each(|_| *served.entry(client.get("star")).or_insert(0) += 1);
        let key = hot(&ringway).into_iter().find(|key| key["hash"] == star["hash"])?;
        (served.len() >= 4 && served.keys().all(|name| owners(&key).contains(name))).then_some(())
    });
    wait_for("other keys to stay where they are", || {
        let home = client.get("calm");
        (0..20).all(|_| client.get("calm") == home).then_some(())
    });
    assert!(ringway.metric("ringway_hot_requests_total{service=\"s\"}") > 0.0);
    wait_for("it to be counted", || (ringway.metric("ringway_hot_keys{service=\"s\"}") >= 1.0).then_some(()));
    // Then nobody asks for it any more.
    wait_for("the key to cool down", || {
        for _ in 0..200 {
            number += 1;
            client.get(&format!("k{number}"));
        }
        hot(&ringway).iter().all(|key| key["hash"] != star["hash"]).then_some(())
    });
}

/// A keep-alive connection.
struct Client {
    stream: std::net::TcpStream,
}

impl Client {
    fn new(address: SocketAddr) -> Self {
        let stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    fn get(&mut self, key: &str) -> String {
        use std::io::Write;
        self.stream.write_all(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\n\r\n").as_bytes()).unwrap();
        let answer = read_answer(&mut self.stream, true).unwrap();
        assert_eq!(answer.status, 200);
        answer.text()
    }
}

#[test]
fn rate_limit_is_by_key_and_says_when_to_come_back() {
    let fleet = echoes(2);
    let listen = free_address();
    let service = "rate_limit: { requests: 5, per: 1m, key: [ { header: x-user } ] }";
    let ringway = Ringway::start(&simple(listen, service, &targets(&fleet)));
    let ask = |user: &str| get_with(listen, "/", &format!("X-User: {user}\r\n")).unwrap();
    for _ in 0..5 {
        assert_eq!(ask("ann").status, 200);
    }
    let refused = ask("ann");
    assert_eq!((refused.status, refused.header("x-ringway-reason")), (429, Some("rate_limited")));
    let wait: u32 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=12).contains(&wait), "{wait}");
    assert_eq!(ask("bob").status, 200);
    // Without the field there is no key, and no limit.
    assert!((0..20).all(|_| get(listen, "/").unwrap().status == 200));
    assert!(ringway.metric("ringway_proxy_errors_total{service=\"s\",reason=\"rate_limited\"}") >= 1.0);
    // A reload that leaves the limit alone leaves its memory alone.
    let config = std::fs::read_to_string(&ringway.config).unwrap();
    ringway.reconfigure(&config.replace("id: b,", "id: b, weight: 50,"));
    assert_eq!(ask("ann").status, 429);
}

#[test]
fn connections_of_one_client_are_limited() {
    let fleet = echoes(1);
    let listen = free_address();
    let config =
        simple(listen, "", &targets(&fleet)).replace("service: s }", "service: s, connections_per_ip_max: 3 }");
    let ringway = Ringway::start(&config);
    let mut held: Vec<Client> = (0..3).map(|_| Client::new(listen)).collect();
    held.iter_mut().for_each(|client| drop(client.get("k")));
    let refused = raw(listen, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 429 "), "{refused}");
    assert!(ringway.metric("ringway_rejected_requests_total{reason=\"connections_per_ip\"}") >= 1.0);
    held.pop();
    wait_for("the place to be free again", || (get(listen, "/")?.status == 200).then_some(()));
    drop(held);
}

#[test]
fn a_limit_of_connections_by_address_that_a_reload_brings_counts_those_that_are_open() {
    let fleet = echoes(1);
    let listen = free_address();
    let config = simple(listen, "", &targets(&fleet));
    let ringway = Ringway::start(&config);
    let mut held: Vec<Client> = (0..3).map(|_| Client::new(listen)).collect();
    held.iter_mut().for_each(|client| drop(client.get("k")));
    ringway.reconfigure(&config.replace("service: s }", "service: s, connections_per_ip_max: 2 }"));
    // Those that are open stay; one more would be the fourth.
    held.iter_mut().for_each(|client| drop(client.get("k")));
    let refused = get(listen, "/").unwrap();
    assert_eq!((refused.status, refused.header("x-ringway-reason")), (429, Some("connections_per_ip")));
    // They are counted until they are closed, whether or not there was a limit when they came.
    held.truncate(1);
    wait_for("a place to be free", || (get(listen, "/")?.status == 200).then_some(()));
    drop(held);
}

#[test]
fn service_limit_counts_requests_in_flight() {
    let gate = std::sync::Arc::new(std::sync::Mutex::new(()));
    let closed = gate.lock().unwrap();
    let held = std::sync::Arc::clone(&gate);
    let backend = scripted(move |_| {
        drop(held.lock());
        response("200 OK", "", "ok")
    });
    let listen = free_address();
    let ringway = Ringway::start(&simple(listen, "limits: { requests_max: 2 }", &[("a", backend.address)]));
    let text = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let mut waiting: Vec<_> = (0..2).map(|_| send(listen, text)).collect();
    // Both are there before a third comes: it would wait in the place of one of them.
    wait_for("two in flight", || (backend_status(&ringway, "a")["in_flight"] == 2).then_some(()));
    let refused = get(listen, "/").unwrap();
    assert_eq!((refused.status, refused.header("x-ringway-reason")), (503, Some("service_full")));
    drop(closed);
    for stream in &mut waiting {
        assert_eq!(read_answer(stream, true).unwrap().status, 200);
    }
    assert_eq!(get(listen, "/").unwrap().status, 200);
}

#[test]
fn explanation_is_given_to_whom_it_is_allowed_and_agrees_with_where_requests_go() {
    let fleet = echoes(4);
    let listen = free_address();
    let service = "balance: { hash_key: [ { header: x-key } ] }";
    let config = simple(listen, service, &targets(&fleet));
    let allowed = config.replace("service: s }", "service: s, explain_allow: [ 127.0.0.1 ] }");
    let ringway = Ringway::start(&allowed);
    for key in 0..20 {
        let answer = get_with(listen, "/", &format!("X-Key: k{key}\r\nX-Ringway-Explain: 1\r\n")).unwrap();
        let explanation = answer.header("x-ringway-explain").unwrap().to_owned();
        let backend = answer.text();
        assert!(explanation.contains(&format!("owner={backend}; backend={backend}; spills=0")), "{explanation}");
        let arguments =
            ["explain", "--admin", &ringway.admin.to_string(), "--service", "s", "--key", &format!("k{key}"), "--json"]
                .map(str::to_owned);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let live: serde_json::Value = serde_json::from_slice(&crate::common::ringway(&arguments).stdout).unwrap();
        assert_eq!(live["backend"], backend.as_str());
        assert_eq!(live["walk"].as_array().unwrap().len(), 4);
        assert!(explanation.contains(live["hash"].as_str().unwrap()), "{explanation}");
    }
    // The field never reaches a backend from those who are not trusted.
    assert!(fleet.iter().all(|(_, backend)| !backend.requests().join("").to_lowercase().contains("ringway-explain")));
    // A drained owner is named as what it is.
    let owner = get_with(listen, "/", "X-Key: k1\r\n").unwrap().text();
    ringway.reconfigure(&allowed.replace(&format!("id: {owner},"), &format!("id: {owner}, drain: true,")));
    let output =
        crate::common::ringway(&["explain", "--admin", &ringway.admin.to_string(), "--service", "s", "--key", "k1"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("not eligible") && text.contains("draining: the file, the fleet or an operator says so"),
        "{text}"
    );
    let now = get_with(listen, "/", "X-Key: k1\r\n").unwrap().text();
    assert!(text.contains(&format!("goes to     {now}")), "{text}");
    ringway.reconfigure(&config);
    let answer = get_with(listen, "/", "X-Key: k1\r\nX-Ringway-Explain: 1\r\n").unwrap();
    assert_eq!(answer.header("x-ringway-explain"), None);
    assert_eq!(get(ringway.admin, "/explain?service=nobody&key=k").unwrap().status, 404);
    assert_eq!(get(ringway.admin, "/explain?service=s").unwrap().status, 400);
}

/// Streams of events and the like end when somebody leaves: until then they count, too.
#[test]
fn responses_that_go_on_make_their_key_hot_before_they_end() {
    use std::io::Read;
    // Begins, and goes on for as long as its client is there.
    let endless = |name: &str| {
        let text = format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: {name}\n\n");
        Backend::custom(move |mut stream, _| {
            if read_request(&mut stream).is_some() {
                let _ = std::io::Write::write_all(&mut stream, text.as_bytes());
                let _ = stream.read(&mut [0]);
            }
        })
    };
    let names = ["a", "b", "c", "d"];
    let fleet = names.map(endless);
    let backends: Vec<(&str, SocketAddr)> =
        names.into_iter().zip(&fleet).map(|(name, one)| (name, one.address)).collect();
    let listen = free_address();
    let service =
        "balance: { bounded_load: { preset: off }, hash_key: [ { path: {} } ], hot_keys: { min_volume: 40 } }";
    let ringway = Ringway::start(&simple(listen, service, &backends));
    let open = || {
        let mut stream = send(listen, b"GET /news HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut seen = String::new();
        loop {
            let mut bytes = [0; 512];
            let count = stream.read(&mut bytes).unwrap();
            assert!(count > 0, "{seen}");
            seen.push_str(str::from_utf8(&bytes[..count]).unwrap());
            if let Some(name) = names.iter().find(|name| seen.contains(&format!("data: {name}\n"))) {
                return (stream, *name);
            }
        }
    };
    let mut streams: Vec<_> = (0..50).map(|_| open()).collect();
    wait_for("new ones to be spread", || {
        streams.push(open());
        let served: std::collections::BTreeSet<&str> = streams.iter().map(|(_, name)| *name).collect();
        (served.len() >= 3).then_some(())
    });
    assert_eq!(ringway.metric("ringway_hot_keys{service=\"s\"}"), 1.0);
    assert!(ringway.status()["services"][0]["in_flight"].as_u64().unwrap() > 50, "none has ended");
}
