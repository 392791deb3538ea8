//! Those who only look: at who leads, at the members' histories, at the watch streams.

use crate::client;
use crate::common::pace;
use crate::workload::value_of;
use ringway_control::watch::view::{View, ViewError};
use ringway_control::watch::wire::Message;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What was changed, by revision: keys, and the values of those that are registers.
pub(crate) type Log = BTreeMap<u64, Vec<(String, u64)>>;

/// A member said to lead, between when it was asked and when it had answered.
#[derive(Debug)]
struct Claim {
    node: u64,
    asked: Instant,
    answered: Instant,
}

#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    /// Who said to lead with a quorum, by term.
    leaders: Mutex<BTreeMap<u64, Vec<Claim>>>,
    log: Mutex<Log>,
    /// Where watchers are.
    views: Mutex<BTreeMap<SocketAddr, (u64, u64, String)>>,
    lines: AtomicUsize,
    violations: Mutex<Vec<String>>,
}

pub(crate) struct Witness {
    seen: Arc<Seen>,
    threads: Vec<JoinHandle<()>>,
}

impl Witness {
    pub(crate) fn start(apis: &[SocketAddr]) -> Self {
        let seen = Arc::new(Seen::default());
        let mut threads = Vec::new();
        for api in apis.iter().copied() {
            let own = Arc::clone(&seen);
            threads.push(std::thread::spawn(move || own.watch(api)));
            let own = Arc::clone(&seen);
            threads.push(std::thread::spawn(move || own.look(api)));
        }
        Self { seen, threads }
    }

    /// Waits until every watcher is where a member is, and ends. Gives the history.
    pub(crate) fn finish(mut self, member: SocketAddr) -> Log {
        crate::common::wait_for("all watchers to have the last revision", || {
            let status = client::get(member, "/v1/status")?;
            let wanted =
                (status["epoch"].as_u64()?, status["revision"].as_u64()?, status["digest"].as_str()?.to_owned());
            let views = self.seen.views.lock().unwrap();
            let logged = self.seen.log.lock().unwrap().last_key_value().map(|(revision, _)| *revision);
            (views.len() * 2 == self.threads.len()
                && views.values().all(|view| *view == wanted)
                && logged == Some(wanted.1))
            .then_some(())
        });
        self.seen.stop.store(true, SeqCst);
        // Watchers look up with the next line: this is it.
        let last = json!({ "address": "127.0.0.1:9", "source": "the-end" });
        client::must(member, "PUT", "/v1/objects/backend/probe/p?force=true", &last);
        for thread in self.threads.drain(..) {
            thread.join().expect("a witness panicked");
        }
        let violations = self.seen.violations.lock().unwrap();
        assert!(violations.is_empty(), "{violations:#?}");
        // The engine counts leaders by term and number: within a term a greater number may follow a smaller one, once
        // that one's lease is over, and never the other way.
        for (term, leaders) in &*self.seen.leaders.lock().unwrap() {
            for later in leaders {
                let before = leaders.iter().find(|one| one.answered < later.asked && one.node > later.node);
                assert!(before.is_none(), "term {term} was led by {before:?}, and then by {later:?}");
            }
        }
        let log = self.seen.log.lock().unwrap().clone();
        let (first, last) = (*log.first_key_value().unwrap().0, *log.last_key_value().unwrap().0);
        assert_eq!(log.len() as u64, last - first + 1, "the history has holes");
        log
    }

    pub(crate) fn summary(&self) -> String {
        let terms = self.seen.leaders.lock().unwrap().len();
        format!("{terms} terms with a leader, {} lines watched", self.seen.lines.load(SeqCst))
    }
}

impl Seen {
    fn violation(&self, what: String) {
        self.violations.lock().unwrap().push(what);
    }

    /// Who leads, and what has changed, as this member says.
    fn look(&self, api: SocketAddr) {
        while !self.stop.load(SeqCst) {
            pace(Duration::from_millis(100));
            let asked = Instant::now();
            let Some(status) = client::get(api, "/v1/status") else { continue };
            let member = &status["member"];
            if member["role"] == "leader" {
                let (term, node) = (member["term"].as_u64().unwrap(), member["node"].as_u64().unwrap());
                self.leaders.lock().unwrap().entry(term).or_default().push(Claim {
                    node,
                    asked,
                    answered: Instant::now(),
                });
            }
            let known = self.log.lock().unwrap().last_key_value().map_or(0, |(revision, _)| *revision);
            let revision = status["revision"].as_u64().unwrap();
            if revision > known {
                let limit = (revision - known + 50).min(1000);
                let Some(history) = client::get(api, &format!("/v1/history?consistency=stale&limit={limit}")) else {
                    continue;
                };
                self.take(api, &history);
            }
        }
    }

    /// All members have one history.
    fn take(&self, api: SocketAddr, history: &Value) {
        let mut log = self.log.lock().unwrap();
        for one in history["revisions"].as_array().unwrap() {
            let changes = one["changes"].as_array().unwrap().iter();
            let changes: Vec<(String, u64)> = changes
                .filter_map(|change| Some((change["key"].as_str()?.to_owned(), value_of(&change["after"])?)))
                .collect();
            let revision = one["revision"].as_u64().unwrap();
            let known = log.entry(revision).or_insert_with(|| changes.clone());
            if *known != changes {
                self.violation(format!("revision {revision} of {api} is {changes:?}, elsewhere it is {known:?}"));
            }
        }
    }

    fn watch(&self, api: SocketAddr) {
        let mut view: Option<View> = None;
        while !self.stop.load(SeqCst) {
            let from = view.as_ref().map(|view| (view.epoch, view.revision));
            // How it ends is the member's business: it is asked again from where this is.
            let _ = client::watch(api, from, |line| {
                self.line(api, &mut view, line);
                !self.stop.load(SeqCst)
            });
            pace(Duration::from_millis(30));
        }
    }

    fn line(&self, api: SocketAddr, view: &mut Option<View>, line: &[u8]) {
        self.lines.fetch_add(1, SeqCst);
        let message: Message = match serde_json::from_slice(line) {
            Ok(message) => message,
            Err(error) => return self.violation(format!("{api} sends what does not parse: {error}")),
        };
        let is_ping = matches!(message, Message::Ping(_));
        let place = match &message {
            Message::Snapshot(snapshot) => Some((snapshot.epoch, snapshot.revision, snapshot.digest.clone())),
            Message::Delta(delta) => Some((delta.epoch, delta.revision, delta.digest.clone())),
            _ => None,
        };
        if let (Some((epoch, revision, _)), Some(view)) = (&place, &view)
            && (*epoch, *revision) < (view.epoch, view.revision)
        {
            self.violation(format!("{api} went from {}.{} back to {epoch}.{revision}", view.epoch, view.revision));
        }
        let taken = match (view.as_mut(), message) {
            (Some(view), message) => view.handle(message).map(drop),
            (None, Message::Snapshot(snapshot)) => View::from_snapshot(snapshot, None).map(|first| *view = Some(first)),
            (None, _) => Ok(()),
        };
        // A member that has come back and hears of nobody says that it lags: whoever watches asks another, and this one again.
        let lags = is_ping && matches!(taken, Err(ViewError::Older { .. }));
        if let Err(error) = taken
            && !lags
        {
            self.violation(format!("what {api} sends does not follow: {error}"));
        }
        if let (Some((epoch, revision, digest)), Some(view)) = (place, &view) {
            if view.digest.to_string() != digest {
                self.violation(format!("{api}: {epoch}.{revision} has the digest {}, not {digest}", view.digest));
            }
            self.views.lock().unwrap().insert(api, (view.epoch, view.revision, digest));
        }
    }
}
