//! Places on the listeners of members: who is known comes first.

use crate::common::control::{Cluster, FleetProxy, curl, ringway_said, run};
use crate::common::{pace, patience, skipped, wait_for};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::Read;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Open at a time, in all.
const SILENT: usize = 10_000;

/// Connections that say nothing, from many loopback addresses, begun anew as soon as they are closed; until it is dropped.
struct Silence {
    ends: Arc<AtomicBool>,
    begun: Arc<AtomicUsize>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Silence {
    fn towards(targets: Vec<SocketAddr>) -> Self {
        let (ends, begun) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (over, count) = (Arc::clone(&ends), Arc::clone(&begun));
        let thread = std::thread::spawn(move || {
            let mut open: Vec<Option<Socket>> = (0..SILENT).map(|_| None).collect();
            while !over.load(Relaxed) {
                for (index, slot) in open.iter_mut().enumerate() {
                    if over.load(Relaxed) {
                        return;
                    }
                    if slot.as_mut().is_some_and(is_open) {
                        continue;
                    }
                    // Every second one comes from where members come from too.
                    let last = if index % 2 == 0 { 1 } else { 2 + index % 200 };
                    *slot = silent(targets[index % targets.len()], last as u8);
                    count.fetch_add(usize::from(slot.is_some()), Relaxed);
                    // All that it may have are open; those that were closed come again, a thousand in a second: the same on any machine.
                    if count.load(Relaxed) > SILENT {
                        pace(Duration::from_millis(1));
                    }
                }
            }
        });
        Self { ends, begun, thread: Some(thread) }
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        self.ends.store(true, Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}

fn silent(target: SocketAddr, last: u8) -> Option<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
    socket.bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, last], 0)))).ok()?;
    socket.connect_timeout(&target.into(), Duration::from_millis(200)).ok()?;
    socket.set_nonblocking(true).ok()?;
    Some(socket)
}

fn is_open(socket: &mut Socket) -> bool {
    matches!(socket.read(&mut [0; 64]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

/// One flood at a time: two are more than this process may open.
static ALONE: Mutex<()> = Mutex::new(());

/// Descriptors for the connections of a test and of the members that it starts.
fn has_descriptors() -> bool {
    let mut limit = getrlimit(Resource::Nofile);
    let needed = SILENT as u64 + 2000;
    if limit.maximum.is_some_and(|maximum| maximum < needed) {
        skipped("this process may not open 12,000 descriptors");
        return false;
    }
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).is_ok()
}

fn address(text: &str) -> SocketAddr {
    text.trim_start_matches("http://").parse().unwrap()
}

/// Of each member's listener for members, in the order of `urls`.
fn peers(cluster: &Cluster) -> Vec<SocketAddr> {
    let list = curl(&cluster.urls[0], "GET", "/v1/members", &Value::Null).json();
    let find = |url: &String| {
        let api = url.trim_start_matches("http://");
        let members = list["members"].as_array().unwrap();
        let member = members.iter().find(|member| member["api_address"] == api).unwrap();
        address(member["peer_address"].as_str().unwrap())
    };
    cluster.urls.iter().map(find).collect()
}

fn leader(cluster: &Cluster, without: Option<usize>) -> Option<usize> {
    (0..cluster.urls.len()).filter(|index| Some(*index) != without).find(|index| {
        let status = curl(&cluster.urls[*index], "GET", "/v1/status", &Value::Null);
        status.status == 200 && status.json()["member"]["role"] == "leader"
    })
}

/// The leader dies under the flood, and a write is awaited.
fn writes_go_on(mut cluster: Cluster, targets: impl Fn(&Cluster) -> Vec<SocketAddr>) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let first = wait_for("a leader", || leader(&cluster, None));
    let mut others = targets(&cluster);
    others.remove(first);
    let silence = Silence::towards(others);
    wait_for("the flood", || (silence.begun.load(Relaxed) >= SILENT).then_some(()));
    cluster.kill(first);
    let began = Instant::now();
    let survivor = cluster.urls[(first + 1) % 3].clone();
    let body = json!({ "address": "10.0.0.1:80" });
    let begun = silence.begun.load(Relaxed);
    wait_for("a write after the leader's death", || {
        (curl(&survivor, "PUT", "/v1/objects/backend/s/a", &body).status == 200).then_some(())
    });
    let took = began.elapsed();
    // An election takes a second; before there were places, eight and more.
    assert!(took < Duration::from_secs(4) || took < patience() / 4, "{took:?}");
    wait_for("the flood to have gone on all the time", || (silence.begun.load(Relaxed) > begun).then_some(()));
}

#[test]
fn silent_connections_to_the_listener_for_members_deny_no_election() {
    if has_descriptors() {
        writes_go_on(Cluster::of(3, ""), peers);
    }
}

/// Certificates with which members speak to each other; the setting that names them.
fn peer_tls(directory: &std::path::Path) -> String {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
    let path = |name: &str, text: String| {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (ca, certificate) = (path("ca.pem", authority.pem()), path("member.pem", certificate.pem()));
    let key = path("member.key", key.serialize_pem());
    format!(", peer_tls: {{ ca: {ca:?}, certificate: {certificate:?}, key: {key:?} }}")
}

#[test]
fn silent_connections_deny_no_election_of_members_that_speak_tls() {
    let directory = tempfile::tempdir().unwrap();
    if has_descriptors() {
        writes_go_on(Cluster::of(3, &peer_tls(directory.path())), peers);
    }
}

#[test]
fn silent_connections_to_the_api_shut_nobody_out() {
    if has_descriptors() {
        writes_go_on(Cluster::of(3, ""), |cluster| cluster.urls.iter().map(|url| address(url)).collect());
    }
}

#[test]
fn a_connection_that_says_nothing_is_closed() {
    let cluster = Cluster::of(1, "");
    for target in [address(&cluster.urls[0]), peers(&cluster)[0]] {
        let mut socket = silent(target, 1).unwrap();
        wait_for("the end of a connection that says nothing", || (!is_open(&mut socket)).then_some(()));
    }
}

#[test]
fn tokens_of_a_member_are_as_their_files_are() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("first.token");
    let text = |letter: &str| letter.repeat(32);
    std::fs::write(&file, text("a")).unwrap();
    let cluster = Cluster::of(1, &format!(", tokens: [ {{ name: first, role: admin, file: {file:?} }} ]"));
    let url = format!("{}/v1/status", cluster.urls[0]);
    let status = |letter: &str| {
        let bearer = format!("Authorization: Bearer {}", text(letter));
        run("curl", &["-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", &bearer, &url]).text()
    };
    wait_for("the first token to hold", || (status("a") == "200").then_some(()));
    // Half written, it is none: what was there before stays, and it is said.
    std::fs::write(&file, "").unwrap();
    wait_for("a warning", || cluster.log(0).contains("the old ones stay").then_some(()));
    assert_eq!(status("a"), "200");
    std::fs::write(&file, text("b")).unwrap();
    wait_for("the second token to hold", || (status("b") == "200").then_some(()));
    assert_eq!(status("a"), "401", "what is no longer in the file has no rights");
}

/// The member that a proxy follows, by its place in `urls`.
fn followed(cluster: &Cluster, proxy: &FleetProxy) -> Option<usize> {
    let status = proxy.ringway.status();
    let member = status["topology"]["member"].as_str()?;
    cluster.urls.iter().position(|url| member.contains(url.trim_start_matches("http://")))
}

#[test]
fn a_member_that_was_removed_serves_nobody_and_its_proxies_go_elsewhere() {
    let cluster = Cluster::of(3, "");
    let proxy = FleetProxy::start(&cluster, "p1", "");
    let removed = wait_for("the proxy to follow a member", || followed(&cluster, &proxy));
    let url = &cluster.urls[removed];
    let node = curl(url, "GET", "/v1/status", &Value::Null).json()["member"]["node"].clone();
    let other = &cluster.urls[(removed + 1) % 3];
    let answer = curl(other, "DELETE", &format!("/v1/members/{node}"), &Value::Null);
    assert_eq!(answer.status, 200, "{answer:?}");
    let began = Instant::now();
    wait_for("the proxy to follow another", || {
        followed(&cluster, &proxy).is_some_and(|member| member != removed).then_some(())
    });
    assert!(began.elapsed() < Duration::from_secs(8).max(patience() / 4), "{:?}", began.elapsed());
    let refused = wait_for("the removed member to know", || {
        let answer = curl(url, "GET", "/v1/status", &Value::Null);
        (answer.status == 410).then_some(answer)
    });
    assert_eq!(refused.json()["code"], "removed");
    assert_eq!(curl(url, "GET", "/v1/watch", &Value::Null).status, 410);
    assert_eq!(curl(url, "GET", "/readyz", &Value::Null).status, 503);
    assert_eq!(curl(url, "GET", "/healthz", &Value::Null).status, 200, "it runs: a supervisor need not start it again");
    assert_eq!(cluster.log(removed).matches("this member was removed").count(), 1);
    // Whoever names it first is served by the next.
    let members = format!("{url},{other}");
    let said = ringway_said(&["control", "--members", &members, "status"]);
    assert!(said.status.success(), "{said:?}");
    // The proxy is missed by nobody.
    let fleet = curl(other, "GET", "/v1/proxies", &Value::Null).json();
    assert_ne!(fleet["proxies"][0]["state"], "offline", "{fleet}");
}

#[test]
fn members_without_a_leader_keep_their_proxies() {
    let mut cluster = Cluster::of(3, "");
    let proxy = FleetProxy::start(&cluster, "p1", "");
    let stays = wait_for("the proxy to follow a member", || followed(&cluster, &proxy));
    cluster.kill((stays + 1) % 3);
    cluster.kill((stays + 2) % 3);
    let reconnects = proxy.ringway.status()["topology"]["reconnects"].clone();
    wait_for("the member to have been without a leader for long", || {
        let status = curl(&cluster.urls[stays], "GET", "/v1/status", &Value::Null).json();
        status["leader_age_ms"].as_u64().is_some_and(|age| age > 8_000).then_some(())
    });
    assert_eq!(followed(&cluster, &proxy), Some(stays), "there is nowhere to go");
    assert_eq!(proxy.ringway.status()["topology"]["reconnects"], reconnects, "and nobody goes to and fro");
}
