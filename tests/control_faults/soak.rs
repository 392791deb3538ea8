//! Everything that happens to a control plane in a bad year, in an hour, under the traffic of its proxies: members die and
//! stop and are replaced, changes are rolled out and refused, backups are restored, all disks are lost, or all but one. No
//! request notices, and in the end every proxy has what the members have.
//!
//! `control/soak 60` runs an hour of it and prints a report; without `RINGWAY_SOAK_MINUTES`, each thing happens once.

use crate::client;
use crate::cluster::{Cluster, ringway_ok};
use crate::common::{Backend, get, note, output, pace, path_text, takes, wait_for};
use crate::proxy::{Proxy, Traffic, publish};
use crate::random::Random;
use crate::workload::KEYS;
use ringway_control::watch::view::{View, ViewError};
use ringway_control::watch::wire::Message;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    LeaderKilled,
    MajorityKilled,
    AllKilled,
    LeaderStopped,
    LeaderCutOff,
    Handover,
    RolloutCommitted,
    RolloutRefused,
    RestoredInPlace,
    MemberReplaced,
    WipedAndRestored,
    OneSurvives,
    ProxyRestarted,
}

const EVENTS: [Event; 13] = [
    Event::LeaderKilled,
    Event::MajorityKilled,
    Event::AllKilled,
    Event::LeaderStopped,
    Event::LeaderCutOff,
    Event::Handover,
    Event::RolloutCommitted,
    Event::RolloutRefused,
    Event::RestoredInPlace,
    Event::MemberReplaced,
    Event::WipedAndRestored,
    Event::OneSurvives,
    Event::ProxyRestarted,
];

/// Who writes and who watches all the time.
#[derive(Default)]
struct Crowd {
    stop: AtomicBool,
    written: AtomicUsize,
    lines: AtomicUsize,
    violations: Mutex<Vec<String>>,
}

impl Crowd {
    /// Weights change all the time, through whoever answers.
    fn write(&self, apis: &[SocketAddr], backends: &[SocketAddr], mut random: Random) {
        while !self.stop.load(SeqCst) {
            pace(Duration::from_millis(50));
            let at = random.below(KEYS.len() as u64) as usize;
            let body = json!({ "address": backends[at], "weight": 50 + random.below(100) });
            let path = format!("/v1/objects/{}?force=true", KEYS[at]);
            if client::json(*random.pick(apis), "PUT", &path, &body).is_ok() {
                self.written.fetch_add(1, SeqCst);
            }
        }
    }

    /// A stream has no gap, and never goes back; what it adds up to is what the member says it is.
    fn watch(&self, api: SocketAddr) {
        let mut view: Option<View> = None;
        while !self.stop.load(SeqCst) {
            let from = view.as_ref().map(|view| (view.epoch, view.revision));
            let _ = client::watch(api, from, |line| {
                self.line(api, &mut view, line);
                !self.stop.load(SeqCst)
            });
            pace(Duration::from_millis(100));
        }
    }

    fn line(&self, api: SocketAddr, view: &mut Option<View>, line: &[u8]) {
        self.lines.fetch_add(1, SeqCst);
        let message: Message = match serde_json::from_slice(line) {
            Ok(message) => message,
            Err(error) => return self.violation(format!("{api} sends what does not parse: {error}")),
        };
        let digest = match &message {
            Message::Snapshot(snapshot) => Some(snapshot.digest.clone()),
            Message::Delta(delta) => Some(delta.digest.clone()),
            _ => None,
        };
        let before = view.as_ref().map(|view| (view.epoch, view.revision));
        let sign_of_life = matches!(message, Message::Ping(_));
        let taken = match (view.as_mut(), message) {
            (Some(view), message) => view.handle(message).map(drop),
            (None, Message::Snapshot(snapshot)) => View::from_snapshot(snapshot, None).map(|first| *view = Some(first)),
            (None, _) => Ok(()),
        };
        match taken {
            Ok(()) => {}
            // A member that has come back, and has not heard of a leader yet, says where it is: behind. It shows nothing of it.
            Err(ViewError::Older { .. }) if sign_of_life => {}
            Err(error) => self.violation(format!("what {api} sends does not follow: {error}")),
        }
        let Some(view) = view else { return };
        if before.is_some_and(|before| before > (view.epoch, view.revision)) {
            self.violation(format!("{api} went from {before:?} back to {}.{}", view.epoch, view.revision));
        }
        if digest.is_some_and(|digest| digest != view.digest.to_string()) {
            self.violation(format!("{api}: {}.{} has another digest", view.epoch, view.revision));
        }
    }

    fn violation(&self, what: String) {
        self.violations.lock().unwrap().push(what);
    }
}

struct Soak {
    cluster: Cluster,
    /// The last one takes no traffic, and is restarted.
    proxies: Vec<Proxy>,
    random: Random,
    crowd: Arc<Crowd>,
    threads: Vec<JoinHandle<()>>,
    /// With the newest backup.
    directory: tempfile::TempDir,
    done: BTreeMap<Event, usize>,
    /// Longest time until every proxy had what the members have.
    longest: Duration,
}

impl Soak {
    fn start(backends: &[SocketAddr]) -> Self {
        let mut random = Random::from_environment("no_request_notices_a_bad_year");
        let cluster = Cluster::new("soak", 3, &mut random);
        publish(cluster.member(1).api, backends);
        let apis = cluster.apis();
        let proxies: Vec<Proxy> = (1..=3).map(|number| Proxy::new(&format!("p{number}"), &apis)).collect();
        for proxy in &proxies {
            wait_for("the fleet's backends", || (get(proxy.listen, "/")?.status == 200).then_some(()));
        }
        let crowd = Arc::new(Crowd::default());
        let mut threads = Vec::new();
        let (own, all, to, fork) = (Arc::clone(&crowd), apis.clone(), backends.to_vec(), random.fork());
        threads.push(std::thread::spawn(move || own.write(&all, &to, fork)));
        for api in apis {
            let own = Arc::clone(&crowd);
            threads.push(std::thread::spawn(move || own.watch(api)));
        }
        let directory = tempfile::tempdir().unwrap();
        let this = Self {
            cluster,
            proxies,
            random,
            crowd,
            threads,
            directory,
            done: BTreeMap::new(),
            longest: Duration::ZERO,
        };
        this.back_up();
        this
    }

    fn backup(&self) -> PathBuf {
        self.directory.path().join("backup")
    }

    /// `ringway control`, through whoever answers, until it does.
    fn control(&self, arguments: &[&str]) {
        let apis: Vec<String> = self.cluster.apis().iter().map(|api| format!("http://{api}")).collect();
        let apis = apis.join(",");
        let arguments = [&["control", "--members", &apis], arguments].concat();
        wait_for("a command to succeed", || {
            let out = output(env!("CARGO_BIN_EXE_ringway"), &arguments);
            let said = [out.stdout, out.stderr].concat();
            note(format!("{arguments:?}: {}", String::from_utf8_lossy(&said)));
            out.status.success().then_some(())
        });
    }

    fn back_up(&self) {
        let path = self.backup();
        let _ = std::fs::remove_file(&path);
        self.control(&["backup", path.to_str().unwrap()]);
    }

    fn lasting(&mut self) {
        takes(Duration::from_millis(700 + self.random.below(700)));
    }

    fn happens(&mut self, event: Event) {
        let count = self.cluster.members.len();
        let leader = self.cluster.leader_or(&mut self.random);
        match event {
            Event::LeaderKilled => self.cluster.member_mut(leader).kill(),
            Event::MajorityKilled => {
                (1..=count)
                    .filter(|number| *number != leader)
                    .for_each(|number| self.cluster.member_mut(number).kill());
            }
            Event::AllKilled => (1..=count).for_each(|number| self.cluster.member_mut(number).kill()),
            Event::LeaderStopped => self.cluster.member_mut(leader).pause(),
            Event::LeaderCutOff => {
                for other in (1..=count).filter(|number| *number != leader) {
                    self.cluster.cut(leader, other);
                    self.cluster.cut(other, leader);
                }
            }
            Event::Handover => {
                let heir = self.cluster.member(1 + leader % count).node;
                let _ = client::json(self.cluster.member(leader).api, "POST", "/v1/transfer", &json!({ "to": heir }));
            }
            Event::RolloutCommitted => return self.rolls_out(true),
            Event::RolloutRefused => return self.rolls_out(false),
            Event::RestoredInPlace => {
                self.control(&["restore", self.backup().to_str().unwrap(), "--yes"]);
                return self.back_up();
            }
            Event::MemberReplaced => return self.member_is_replaced(1 + leader % count),
            Event::WipedAndRestored => return self.all_is_lost(),
            Event::OneSurvives => return self.one_survives(1 + leader % count),
            Event::ProxyRestarted => {
                let last = self.proxies.last_mut().unwrap();
                last.kill();
                last.start();
                return;
            }
        }
        self.lasting();
        self.cluster.mend();
    }

    /// What no proxy can put into force is in force nowhere.
    fn rolls_out(&mut self, good: bool) {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listener =
            format!("listeners: [ {{ name: more, address: \"{}\", service: web }} ]", taken.local_addr().unwrap());
        let number = self.random.below(1 << 40);
        let text = format!("services: [ {{ name: web }} ] # {number}\n{}", if good { "" } else { &listener });
        let ops = json!([{ "put": { "key": "document/main", "object": { "document": { "text": text } } } }]);
        let ask = json!({ "ops": ops, "policy": { "deadline_ms": 60_000 } });
        let apis = self.cluster.apis();
        wait_for("a rollout to end as it should", || {
            let api = *self.random.pick(&apis);
            let begun = client::json(api, "POST", "/v1/rollouts", &ask).ok()?;
            let Some(id) = begun["id"].as_u64() else { return good.then_some(()) };
            let phase = wait_for("a rollout to end", || {
                let phase = client::get(api, &format!("/v1/rollouts/{id}"))?["phase"].clone();
                (!phase["committed"].is_null() || !phase["aborted"].is_null()).then_some(phase)
            });
            assert_eq!(phase["aborted"].is_null(), good, "{phase}");
            Some(())
        });
    }

    fn rejoins(&mut self, number: usize, arguments: &[&str]) {
        self.cluster.join(number, arguments);
        self.cluster.member_mut(number).read_plan();
        self.cluster.start(number);
        let (node, api) = (self.cluster.member(number).node, self.cluster.member(number).api);
        wait_for("a member to vote", || {
            let members = client::get(api, "/v1/members")?;
            let voters = members["members"].as_array()?.iter().filter(|member| member["voter"] == true);
            voters.filter_map(|member| member["node"].as_u64()).any(|voter| voter == node).then_some(())
        });
    }

    fn lose(&mut self, number: usize) {
        self.cluster.member_mut(number).kill();
        std::fs::remove_dir_all(&self.cluster.member(number).directory).unwrap();
    }

    fn member_is_replaced(&mut self, number: usize) {
        let old = self.cluster.member(number).node.to_string();
        self.lose(number);
        self.rejoins(number, &["--replace", &old]);
    }

    /// The disaster: no member is left, and there is a backup.
    fn all_is_lost(&mut self) {
        let count = self.cluster.members.len();
        self.back_up();
        (1..=count).for_each(|number| self.lose(number));
        let first = self.cluster.member(1).config.clone();
        ringway_ok(&["control", "init", "--backup", path_text(&self.backup()), "-c", path_text(&first)]);
        self.begins(1);
    }

    /// All but one are lost for good: it goes on with what it has.
    fn one_survives(&mut self, survivor: usize) {
        let count = self.cluster.members.len();
        (1..=count).filter(|number| *number != survivor).for_each(|number| self.lose(number));
        self.cluster.member_mut(survivor).kill();
        let config = self.cluster.member(survivor).config.clone();
        // What lies between members takes their connections even when they are gone.
        let names: Vec<String> =
            (1..=count).filter(|number| *number != survivor).map(|number| format!("m{number}")).collect();
        let lost = names.iter().flat_map(|name| ["--lost", name]);
        let arguments: Vec<&str> =
            ["control", "recover", "--yes", "-c", path_text(&config)].into_iter().chain(lost).collect();
        ringway_ok(&arguments);
        self.begins(survivor);
    }

    /// A cluster of one grows to what it was.
    fn begins(&mut self, first: usize) {
        self.cluster.member_mut(first).read_plan();
        self.cluster.start(first);
        let api = self.cluster.member(first).api;
        wait_for("the first member to lead", || {
            let status = client::get(api, "/v1/status")?;
            (status["member"]["role"] == "leader").then_some(())
        });
        let others = (1..=self.cluster.members.len()).filter(|number| *number != first);
        others.for_each(|number| self.rejoins(number, &[]));
        // It may be of an epoch before.
        self.back_up();
    }

    /// All is well: every proxy gets what the members have.
    fn comes_to_rest(&mut self) {
        self.cluster.settled();
        let apis = self.cluster.apis();
        let begun = Instant::now();
        for proxy in &self.proxies {
            // Writes go on: what is looked at is later than the event.
            let wanted = wait_for("a member's place", || place(&client::get(apis[0], "/v1/status")?));
            wait_for("a proxy to be where the members are", || {
                let topology = proxy.topology()?;
                (topology["source"] == "control plane" && place(&topology)? >= wanted).then_some(())
            });
        }
        self.longest = self.longest.max(begun.elapsed());
        let violations = self.crowd.violations.lock().unwrap();
        assert!(violations.is_empty(), "{violations:#?}");
    }

    /// Ends the crowd; on return nothing changes any more.
    fn ends(&mut self) {
        self.crowd.stop.store(true, SeqCst);
        // Watchers look up with the next line.
        for thread in self.threads.drain(..) {
            thread.join().expect("somebody of the crowd panicked");
        }
        self.cluster.settled();
        let api = self.cluster.member(1).api;
        wait_for("all proxies to have what the members have", || {
            let status = client::get(api, "/v1/status")?;
            let fleet = client::get(api, "/v1/proxies")?;
            let equal = fleet["proxies"].as_array()?.iter().filter(|proxy| {
                proxy["state"] == "synced"
                    && ["epoch", "revision", "digest"].iter().all(|field| proxy["heartbeat"][field] == status[field])
            });
            (equal.count() == self.proxies.len()).then_some(())
        });
        self.control(&["verify"]);
    }
}

fn place(status: &Value) -> Option<(u64, u64)> {
    Some((status["epoch"].as_u64()?, status["revision"].as_u64()?))
}

#[test]
fn no_request_notices_a_bad_year() {
    let minutes: Option<f64> = std::env::var("RINGWAY_SOAK_MINUTES").ok().and_then(|text| text.parse().ok());
    let backends = ["a", "b", "c"].map(|name| Backend::echo(name).address);
    let mut soak = Soak::start(&backends);
    let traffic: Vec<Traffic> = soak.proxies[..2].iter().map(|proxy| Traffic::start(proxy.listen)).collect();
    let begun = Instant::now();
    loop {
        let mut round = EVENTS;
        soak.random.shuffle(&mut round);
        for event in round {
            let at = Instant::now();
            soak.happens(event);
            soak.comes_to_rest();
            *soak.done.entry(event).or_default() += 1;
            println!("{:>6.0?} {event:?}: {:.1?}", begun.elapsed(), at.elapsed());
            for traffic in &traffic {
                assert_eq!(traffic.failures(), Vec::<String>::new(), "requests failed by {event:?}");
            }
        }
        if begun.elapsed() >= Duration::from_secs_f64(minutes.unwrap_or(0.0) * 60.0) {
            break;
        }
    }
    soak.ends();
    let served: usize = traffic.into_iter().map(Traffic::finish).sum();
    println!("\n| what | how often |\n|---|---:|");
    println!("| minutes | {:.1} |", begun.elapsed().as_secs_f64() / 60.0);
    println!("| requests served | {served} |\n| requests failed | 0 |");
    println!("| writes acknowledged | {} |", soak.crowd.written.load(SeqCst));
    println!("| lines of watch streams, none missing | {} |", soak.crowd.lines.load(SeqCst));
    for (event, times) in &soak.done {
        println!("| {event:?} | {times} |");
    }
    println!("| longest until every proxy had what the members have | {:.1?} |", soak.longest);
    println!("| proxies equal to the members in the end | {} of {} |", soak.proxies.len(), soak.proxies.len());
}
