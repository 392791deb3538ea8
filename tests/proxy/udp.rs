//! Flows of datagrams: dnsmasq behind, dig in front, and flaps between.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::*;
use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Answers each datagram with its name, a colon and the datagram.
struct Echo {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Echo {
    fn start(name: &'static str) -> Self {
        Self::on(name, UdpSocket::bind("127.0.0.1:0").unwrap())
    }

    fn on(name: &'static str, socket: UdpSocket) -> Self {
        let (address, stop) = (socket.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let stopped = Arc::clone(&stop);
        std::thread::spawn(move || {
            let mut buffer = [0; 65_535];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((count, from)) = socket.recv_from(&mut buffer) {
                    let answer = [name.as_bytes(), b":", &buffer[..count]].concat();
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self { address, stop }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn proxy(udp: &str, service: &str, backends: &[(&str, SocketAddr)]) -> (Ringway, SocketAddr, String) {
    let listen = free_address();
    let config = simple(listen, service, backends)
        .replace("service: s } ]", &format!("protocol: udp, udp: {{ {udp} }}, service: s }} ]"));
    (Ringway::start(&config), listen, config)
}

fn client(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    socket
}

fn ask(client: &UdpSocket, text: &str) -> Option<String> {
    client.send(text.as_bytes()).ok()?;
    let mut buffer = [0; 65_535];
    let count = client.recv(&mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..count]).into_owned())
}

#[test]
fn names_are_resolved_through_the_proxy() {
    if require("dnsmasq").is_none() || require("dig").is_none() {
        return;
    }
    let port = free_port();
    let server = Command::new("dnsmasq")
        .args(["-k", "-C", "/dev/null", "--no-resolv", "--no-hosts", "--bind-interfaces", "--listen-address=127.0.0.1"])
        .args(["--user=root", "--pid-file=", "--address=/a.test/192.0.2.7", &format!("--port={port}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _server = Running(server);
    // Names go over both: datagrams, and connections where the answer is long.
    let (dns, listen) = (format!("127.0.0.1:{port}").parse::<SocketAddr>().unwrap(), free_address());
    let config = format!(
        "workers: 2\nadmin: {{ address: \"ADMIN\" }}\nlisteners:\n\
         \x20 - {{ name: udp, address: \"{listen}\", protocol: udp, service: dns }}\n\
         \x20 - {{ name: tcp, address: \"{listen}\", protocol: tcp, service: dns }}\n\
         services: [ {{ name: dns, health: {{ tcp: {{}}, interval: 100ms }}, backends: [ {{ id: a, address: \"{dns}\" }} ] }} ]\n"
    );
    let ringway = Ringway::start(&config);
    wait_for("dnsmasq", || (backend_status(&ringway, "a")["state"] == "up").then_some(()));
    // Another one that listens on all addresses: dig takes an answer from the one only that it has asked.
    let everywhere = free_port();
    let wild = config.replace(
        "name: tcp,",
        &format!("name: wild, address: \"0.0.0.0:{everywhere}\", protocol: udp, service: dns }}\n  - {{ name: tcp,"),
    );
    ringway.reconfigure(&wild);
    let port = everywhere.to_string();
    let done = output("dig", &["@127.0.0.77", "-p", &port, "+short", "+tries=1", "+notcp", "a.test"]);
    assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), "192.0.2.7");
    for more in ["+notcp", "+tcp"] {
        let arguments = ["@127.0.0.1", "-p", &listen.port().to_string(), "+short", "+tries=3", more, "a.test"];
        let done = output("dig", &arguments);
        assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), "192.0.2.7", "{more}");
    }
}

#[test]
fn flows_stay_where_they_are_while_backends_come_and_go() {
    let fleet: Vec<(&str, Echo)> = ["a", "b", "c"].into_iter().map(|name| (name, Echo::start(name))).collect();
    let targets: Vec<(&str, SocketAddr)> = fleet.iter().map(|(name, echo)| (*name, echo.address)).collect();
    // A source key with the port in it would be nobody's: all flows of one address have one owner.
    let (ringway, listen, config) = proxy("idle: 1s", "balance: { policy: round_robin }", &targets);
    let clients: Vec<UdpSocket> = (0..12).map(|_| client(listen)).collect();
    let homes: Vec<String> = clients.iter().map(|client| ask(client, "x").unwrap()).collect();
    for name in ["a:x", "b:x", "c:x"] {
        assert_eq!(homes.iter().filter(|home| *home == name).count(), 4, "{homes:?}");
    }
    let again = || clients.iter().map(|client| ask(client, "x").unwrap()).collect::<Vec<_>>();
    assert_eq!(again(), homes);
    // One is drained and one joins: what is there stays.
    ringway.reconfigure(&config.replace("id: a,", "id: a, drain: true,"));
    assert_eq!(again(), homes);
    let fresh: Vec<String> = (0..6).map(|_| ask(&client(listen), "y").unwrap()).collect();
    assert!(!fresh.contains(&"a:y".to_owned()), "{fresh:?}");
    // The largest datagram, whole.
    let long = "z".repeat(60_000);
    assert_eq!(ask(&clients[0], &long).unwrap().len(), long.len() + 2);
    // Idle flows end, and are given back.
    wait_for("flows to end", || {
        let status = ringway.status();
        (status["services"][0]["in_flight"] == 0 && ringway.metric("ringway_downstream_connections") == 0.0)
            .then_some(())
    });
    let class = |name: &str| ringway.metric(&format!("ringway_requests_total{{service=\"s\",class=\"{name}\"}}"));
    assert_eq!((class("session"), class("2xx"), class("5xx")), (18.0, 0.0, 0.0));
    let moved = clients.iter().filter(|client| ask(client, "x").unwrap().starts_with('a')).count();
    assert_eq!(moved, 0, "a drained backend gets no new flow");
}

#[test]
fn a_backend_that_is_gone_loses_its_flows_only() {
    let (a, b) = (Echo::start("a"), Echo::start("b"));
    let service = "balance: { policy: round_robin }\noutlier: { consecutive_failures: 1, base_ejection: 30s, max_ejection_percent: 100 }";
    let (ringway, listen, _) = proxy("idle: 30s", service, &[("a", a.address), ("b", b.address)]);
    let clients: Vec<UdpSocket> = (0..8).map(|_| client(listen)).collect();
    let homes: Vec<String> = clients.iter().map(|client| ask(client, "x").unwrap()).collect();
    let gone = a.address;
    drop(a);
    // Its socket is closed within the time that it waits for a datagram.
    wait_for("the backend to be gone", || UdpSocket::bind(gone).ok().map(drop));
    for (client, home) in clients.iter().zip(&homes) {
        client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let answer = wait_for("an answer", || ask(client, "x"));
        assert!(answer == "b:x", "{answer} at first {home}");
    }
    assert_eq!(backend_status(&ringway, "a")["state"], "ejected");
}

#[test]
fn flows_are_bounded() {
    let echo = Echo::start("a");
    let (ringway, listen, _) = proxy("idle: 30s, flows_max: 4", "balance: {}", &[("a", echo.address)]);
    let clients: Vec<UdpSocket> = (0..20).map(|_| client(listen)).collect();
    let served = clients
        .iter()
        .filter(|client| {
            client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            ask(client, "x").is_some()
        })
        .count();
    assert!((1..=4).contains(&served), "{served} flows");
    assert!(ringway.metric("ringway_rejected_requests_total{reason=\"udp_flows_max\"}") >= 16.0);
    // Who has a flow keeps it.
    let status = ringway.status();
    assert_eq!(status["services"][0]["in_flight"], served);
}

#[test]
fn flows_leave_half_of_the_places_to_connections() {
    let (echo, backend) = (Echo::start("u"), Backend::echo("h"));
    let (datagrams, http) = (free_address(), free_address());
    let text =
        simple(http, "", &[("a", backend.address)]).replace("workers: 2", "workers: 2\nconnections_max: 8").replace(
            "listeners: [ ",
            &format!(
                "listeners: [ {{ name: d, address: \"{datagrams}\", protocol: udp, udp: {{ idle: 1h }}, service: u }}, "
            ),
        ) + &format!("  - {{ name: u, backends: [ {{ id: u, address: \"{}\" }} ] }}\n", echo.address);
    let ringway = Ringway::start(&text);
    let clients: Vec<UdpSocket> = (0..20).map(|_| client(datagrams)).collect();
    let served = clients
        .iter()
        .filter(|client| {
            client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            ask(client, "x").is_some()
        })
        .count();
    assert!((1..=4).contains(&served), "{served} flows");
    assert!(ringway.metric("ringway_rejected_requests_total{reason=\"udp_flows_max\"}") >= 16.0);
    let kept: Vec<_> = (0..4).map(|_| send(http, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    for mut connection in kept {
        assert_eq!(read_answer(&mut connection, true).unwrap().status, 200);
    }
}

#[test]
fn datagrams_of_both_families_come_by_one_listener_and_are_answered_from_where_they_went() {
    if UdpSocket::bind("[::1]:0").is_err() {
        skipped("there is no IPv6 here");
        return;
    }
    let echo = Echo::start("a");
    let listen: SocketAddr = format!("[::]:{}", free_port()).parse().unwrap();
    let config = simple(listen, "", &[("a", echo.address)])
        .replace("service: s } ]", "protocol: udp, service: s } ]")
        .replace("workers: 2", "workers: 2\naccess_log: { format: text, target: stderr }");
    let ringway = Ringway::start(&config);
    for (own, to) in [("127.0.0.1:0", "127.0.0.3"), ("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "[::1]")] {
        let client = UdpSocket::bind(own).unwrap();
        // Takes datagrams from there alone.
        client.connect(format!("{to}:{}", listen.port())).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        assert_eq!(wait_for("an answer", || ask(&client, "x")), "a:x");
    }
    drop(ringway);
}

#[test]
fn flows_max_holds_over_all_workers() {
    let echo = Echo::start("a");
    let (_ringway, listen, _) = proxy("idle: 600s, flows_max: 3", "balance: {}", &[("a", echo.address)]);
    let clients: Vec<UdpSocket> = (0..24).map(|_| client(listen)).collect();
    let mut served = vec![false; clients.len()];
    let look = |served: &mut Vec<bool>| {
        for (client, served) in clients.iter().zip(served) {
            client.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            *served = *served || ask(client, "x").is_some();
        }
    };
    let count = |served: &[bool]| served.iter().filter(|served| **served).count();
    wait_for("places to be taken", || {
        look(&mut served);
        (count(&served) >= 3).then_some(())
    });
    look(&mut served);
    assert_eq!(count(&served), 3);
}

#[test]
fn answers_come_from_the_address_that_was_asked() {
    let echo = Echo::start("a");
    for (listen, addresses) in [("0.0.0.0", &["127.0.0.1", "127.0.0.2", "127.7.7.7"][..]), ("[::]", &["[::1]"])] {
        let port = free_port();
        let listen: SocketAddr = format!("{listen}:{port}").parse().unwrap();
        let config =
            simple(listen, "", &[("a", echo.address)]).replace("service: s } ]", "protocol: udp, service: s } ]");
        let ringway = Ringway::start(&config);
        // One socket that asks all of them, and one that is connected for each, and takes no answer from elsewhere.
        let one = UdpSocket::bind((listen.ip(), 0)).unwrap();
        one.set_read_timeout(Some(patience())).unwrap();
        for address in addresses {
            let to: SocketAddr = format!("{address}:{port}").parse().unwrap();
            for number in 0..3 {
                let mut buffer = [0; 64];
                one.send_to(format!("{number}").as_bytes(), to).unwrap();
                let (count, from) = one.recv_from(&mut buffer).unwrap();
                assert_eq!((&buffer[..count], from), (format!("a:{number}").as_bytes(), to));
            }
            let connected = UdpSocket::bind((listen.ip(), 0)).unwrap();
            connected.connect(to).unwrap();
            connected.set_read_timeout(Some(patience())).unwrap();
            assert_eq!(ask(&connected, "x").as_deref(), Some("a:x"), "{to}");
        }
        let flows = ringway.status()["services"][0]["in_flight"].as_u64().unwrap();
        assert_eq!(flows, 2 * addresses.len() as u64);
    }
}

#[test]
fn flows_that_nobody_answers_make_room_for_others() {
    // Answers nothing to those who say nothing, as to addresses that are nobody's.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((count, from)) = socket.recv_from(&mut buffer) {
            if count > 0 && buffer[0] != b'-' {
                let _ = socket.send_to(&buffer[..count], from);
            }
        }
    });
    let (ringway, listen, _) = proxy("idle: 600s, flows_max: 16", "", &[("a", address)]);
    let asks = |socket: &UdpSocket, text: &[u8]| {
        let mut buffer = [0; 64];
        // Datagrams may be lost.
        (0..5).any(|_| {
            socket.send(text).unwrap();
            matches!(socket.recv(&mut buffer), Ok(count) if &buffer[..count] == text)
        })
    };
    let before: Vec<UdpSocket> = (0..3).map(|_| client(listen)).collect();
    assert!(before.iter().all(|socket| asks(socket, b"before")));
    for _ in 0..3 {
        let silent: Vec<UdpSocket> = (0..40).map(|_| client(listen)).collect();
        for socket in &silent {
            socket.send(b"-").unwrap();
        }
        assert!(asks(&client(listen), b"new"), "a new client's flow begins");
    }
    assert!(before.iter().all(|socket| asks(socket, b"again")));
    // Those who were answered have stayed where they were.
    let flows = || ringway.metric("ringway_downstream_accepted_total");
    // Datagrams of the silent ones may wait with another worker still.
    let now = wait_for("all flows to have begun", || Some(flows()).filter(|flows| *flows >= 126.0));
    assert!(before.iter().all(|socket| asks(socket, b"once more")));
    assert_eq!(flows(), now);
}

#[test]
fn the_first_datagram_that_nobody_takes_counts_although_its_client_sends_no_more() {
    let mut fleet: Vec<(&str, Echo)> = ["a", "b", "c"].into_iter().map(|name| (name, Echo::start(name))).collect();
    let targets: Vec<(&str, SocketAddr)> = fleet.iter().map(|(name, echo)| (*name, echo.address)).collect();
    let (ringway, listen, _) = proxy("idle: 600s", "", &targets);
    // All clients of one address have one owner.
    let owner = ask(&client(listen), "x").unwrap().split(':').next().unwrap().to_owned();
    let index = fleet.iter().position(|(name, _)| *name == owner).unwrap();
    let (owner, echo) = fleet.remove(index);
    let gone = echo.address;
    drop(echo);
    wait_for("the owner to be gone", || UdpSocket::bind(gone).ok().map(drop));
    // One datagram, from a port of its own, that nobody waits for an answer to.
    client(listen).send(b"lost").unwrap();
    wait_for("its failure to count", || (backend_status(&ringway, owner)["state"] == "ejected").then_some(()));
    assert_eq!(ringway.metric(&format!("ringway_backend_failures_total{{service=\"s\",backend=\"{owner}\"}}")), 1.0);
    assert_eq!(ringway.metric("ringway_proxy_errors_total{service=\"s\",reason=\"refused\"}"), 1.0);
    for number in 0..40 {
        let client = client(listen);
        client.set_read_timeout(Some(patience())).unwrap();
        let answer = ask(&client, &format!("{number}")).expect("another backend takes the flow");
        assert!(!answer.starts_with(owner), "{answer}");
    }
    assert_eq!(ringway.metric(&format!("ringway_backend_failures_total{{service=\"s\",backend=\"{owner}\"}}")), 1.0);
}

#[test]
fn flows_are_held_against_their_service_s_limits() {
    let echo = Echo::start("a");
    let patient = |listen| {
        let socket = client(listen);
        socket.set_read_timeout(Some(patience())).unwrap();
        socket
    };
    for (limit, reason) in
        [("rate_limit: { requests: 2, per: 1h }", "rate_limited"), ("limits: { requests_max: 2 }", "service_full")]
    {
        let (ringway, listen, _) = proxy("idle: 600s", limit, &[("a", echo.address)]);
        let begun: Vec<UdpSocket> = (0..2).map(|_| patient(listen)).collect();
        for socket in &begun {
            assert_eq!(ask(socket, "x").as_deref(), Some("a:x"));
        }
        client(listen).send(b"one too many").unwrap();
        wait_for("a refusal", || {
            let text = get(ringway.admin, "/metrics")?.text();
            text.contains(&format!("ringway_rejected_requests_total{{reason=\"{reason}\"}} 1")).then_some(())
        });
        // What has begun goes on.
        for socket in &begun {
            assert_eq!(ask(socket, "y").as_deref(), Some("a:y"));
        }
        assert_eq!(ringway.status()["services"][0]["in_flight"], 2);
    }
}

#[test]
fn a_listener_that_is_removed_and_comes_back_finds_its_flows_and_its_clients() {
    let echo = Echo::start("a");
    let (ringway, listen, config) = proxy("idle: 60s", "", &[("a", echo.address)]);
    let kept: Vec<UdpSocket> = (0..8).map(|_| client(listen)).collect();
    kept.iter().for_each(|client| assert_eq!(ask(client, "x").unwrap(), "a:x"));
    let elsewhere = free_address();
    ringway.reconfigure(&config.replace(&listen.to_string(), &elsewhere.to_string()));
    // What had begun goes on, nothing new does.
    kept.iter().for_each(|client| assert_eq!(ask(client, "y").unwrap(), "a:y"));
    ringway.reconfigure(&config);
    kept.iter().for_each(|client| assert_eq!(ask(client, "z").unwrap(), "a:z"));
    // Whichever socket the kernel gives a client to: the sockets of before are open still.
    for _ in 0..16 {
        let fresh = client(listen);
        wait_for("an answer", || (ask(&fresh, "n")? == "a:n").then_some(()));
    }
}

#[test]
fn datagrams_are_served_on_when_their_listener_is_to_have_other_families() {
    let echo = Echo::start("a");
    let port = free_port();
    let config = |more: &str| {
        format!(
            "workers: 2\nadmin: {{ address: \"ADMIN\" }}\nlisteners:\n\
             \x20 - {{ name: u, address: \"[::]:{port}\", protocol: udp, service: s{more} }}\n\
             services: [ {{ name: s, backends: [ {{ id: a, address: \"{}\" }} ] }} ]\n",
            echo.address
        )
    };
    let ringway = Ringway::start(&config(""));
    let six = UdpSocket::bind("[::1]:0").unwrap();
    six.connect(format!("[::1]:{port}")).unwrap();
    six.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    assert_eq!(ask(&six, "x").unwrap(), "a:x");
    ringway.reconfigure(&config(", v6_only: true"));
    for _ in 0..8 {
        let fresh = UdpSocket::bind("[::1]:0").unwrap();
        fresh.connect(format!("[::1]:{port}")).unwrap();
        fresh.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        wait_for("an answer", || (ask(&fresh, "n")? == "a:n").then_some(()));
    }
    assert_eq!(ask(&six, "y").unwrap(), "a:y");
}

/// From an address of its own, as often as it is asked for.
fn client_at(host: [u8; 4], to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(SocketAddr::from((host, 0))).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    socket
}

/// Which backend has a new flow of this address.
fn owner(host: [u8; 4], listen: SocketAddr) -> String {
    // A datagram may be lost.
    wait_for("an answer", || ask(&client_at(host, listen), "x")).split(':').next().unwrap().to_owned()
}

#[test]
fn the_shadow_of_flows_counts_those_that_then_move() {
    let names = ["a", "b", "c", "d", "e"];
    let fleet = names.map(Echo::start);
    let targets: Vec<(&str, SocketAddr)> =
        names.into_iter().zip(&fleet).map(|(name, one)| (name, one.address)).collect();
    let listen = free_address();
    let config = |backends: &[(&str, SocketAddr)]| {
        simple(listen, "", backends).replace("service: s } ]", "protocol: udp, service: s } ]")
    };
    let owners = || (1..=100).map(|host| owner([127, 0, 1, host], listen)).collect();
    let (shadow, moved) = shadow_and_moves(&config(&targets[..4]), &config(&targets), owners);
    assert!(moved > 0 && moved < 60, "{moved}");
    // A client whose first datagram was lost has asked twice.
    let compared = shadow["compared"].as_u64().unwrap();
    assert!(compared >= 100, "{shadow}");
    if compared == 100 {
        assert_eq!(shadow["would_move"], moved);
    }
}

/// A key is a key, whatever has it: as a request's (`policies::hot_key_is_spread_and_cools_down_again`).
#[test]
fn flows_of_a_hot_key_are_spread_and_datagrams_that_are_refused_make_none_hot() {
    let names = ["a", "b", "c", "d", "e", "f"];
    let fleet = names.map(Echo::start);
    let targets: Vec<(&str, SocketAddr)> =
        names.into_iter().zip(&fleet).map(|(name, one)| (name, one.address)).collect();
    let (open, full) = (free_address(), free_address());
    let config = simple(open, "balance: { hot_keys: { min_volume: 100 } }", &targets).replace(
        "service: s } ]",
        &format!(
            "protocol: udp, service: s }}, {{ name: full, address: \"{full}\", protocol: udp, udp: {{ flows_max: 1 }}, service: s }} ]"
        ),
    );
    let ringway = Ringway::start(&config.replacen("workers: 2", "workers: 1", 1));
    // One flow has the only place, and keeps it, since it was answered.
    let holder = client_at([127, 0, 0, 3], full);
    wait_for("the place to be taken", || ask(&holder, "x"));
    let refused = || ringway.metric("ringway_rejected_requests_total{reason=\"udp_flows_max\"}");
    let hot = || ringway.status()["services"][0]["hot_keys"].as_array().or_not_yet().clone();
    // Another's flood is refused, and is all that comes: if it counted, its key would be hot at the next look, once a second.
    let begun = std::time::Instant::now();
    wait_for("a flood to be refused", || {
        for _ in 0..50 {
            client_at([127, 0, 0, 2], full).send(b"x").unwrap();
        }
        assert_eq!(hot(), Vec::<serde_json::Value>::new());
        (refused() >= 1_000.0 && begun.elapsed() > Duration::from_secs(3)).then_some(())
    });
    let spread = || ringway.metric("ringway_hot_requests_total{service=\"s\"}");
    let mut served = std::collections::BTreeSet::new();
    wait_for("the flows of an address to be spread", || {
        served.extend((0..30).map(|_| owner([127, 0, 0, 1], open)));
        (spread() > 0.0 && served.len() >= 3).then_some(())
    });
    assert_eq!(hot().len(), 1);
}
