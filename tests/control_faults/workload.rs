//! Clients that write, read, lock and stay alive, and remember all they were told.

use crate::client::{self, ANSWER_TIMEOUT, Failure};
use crate::common::{pace, takes};
use crate::linear::{self, Call, Operation};
use crate::random::Random;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The registers: backends of a service, so that every write is one that a proxy has to take as well.
pub(crate) const KEYS: [&str; 3] = ["backend/web/a", "backend/web/b", "backend/web/c"];
/// Between two operations of a client: histories stay shorter than what members remember.
const BREATH: Duration = Duration::from_millis(8);
/// Of the lease that is kept alive.
const LEASE: Duration = Duration::from_secs(5);

/// What became of a write of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// With this revision.
    Written(u64),
    Failed,
    Unknown,
}

/// A lock that was held.
#[derive(Debug, Clone)]
struct Hold {
    token: u64,
    invoked: u64,
    returned: u64,
    /// When its holder began to give it back.
    until: u64,
}

/// What all clients were told.
pub(crate) struct Record {
    origin: Instant,
    next_value: AtomicU64,
    operations: Mutex<Vec<(usize, Operation)>>,
    writes: Mutex<BTreeMap<u64, (usize, Outcome)>>,
    holds: Mutex<Vec<Hold>>,
    keep_alives: AtomicU64,
    /// What must not happen.
    violations: Mutex<Vec<String>>,
    stop: AtomicBool,
}

/// Clients at work.
pub(crate) struct Workload {
    pub(crate) record: Arc<Record>,
    threads: Vec<JoinHandle<()>>,
    apis: Vec<SocketAddr>,
    addresses: Vec<SocketAddr>,
}

impl Record {
    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap()
    }

    fn stopped(&self) -> bool {
        self.stop.load(SeqCst)
    }

    pub(crate) fn violation(&self, what: String) {
        self.violations.lock().unwrap().push(what);
    }

    fn done(&self, key: usize, call: Call, invoked: u64, returned: Option<u64>) {
        self.operations.lock().unwrap().push((key, Operation { call, invoked, returned }));
    }

    /// A failure that a client may meet; all others are defects.
    fn expected(&self, what: &str, status: u16, code: &str) {
        if !matches!((status, code), (0, _) | (503, "no_leader")) {
            self.violation(format!("{what} was answered {status} {code}"));
        }
    }
}

/// Value and revision of a register.
fn read(member: SocketAddr, key: usize, patience: Duration) -> Result<(u64, u64), Failure> {
    let answer = client::ask(member, "GET", &format!("/v1/objects/{}", KEYS[key]), "", "", patience)?;
    let strange = |_| Failure::Unknown("it is no JSON".into());
    let entry: Value = serde_json::from_slice(&answer.body).map_err(strange)?;
    Ok((value_of(&entry["object"]).expect("a register"), entry["modified"].as_u64().unwrap()))
}

/// The value is in the backend's `source`, which nobody else looks at.
pub(crate) fn value_of(object: &Value) -> Option<u64> {
    object["backend"]["source"].as_str()?.strip_prefix('w')?.parse().ok()
}

impl Workload {
    /// Makes the registers, and begins.
    pub(crate) fn start(apis: &[SocketAddr], addresses: &[SocketAddr], random: &mut Random) -> Self {
        let record = Arc::new(Record {
            origin: Instant::now(),
            next_value: AtomicU64::new(1),
            operations: Mutex::default(),
            writes: Mutex::default(),
            holds: Mutex::default(),
            keep_alives: AtomicU64::new(0),
            violations: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let mut this = Self { record, threads: Vec::new(), apis: apis.to_vec(), addresses: addresses.to_vec() };
        for (key, name) in KEYS.iter().enumerate() {
            let address = this.addresses[key % addresses.len()];
            let body = json!({ "address": address, "source": "w0" });
            client::must(apis[0], "PUT", &format!("/v1/objects/{name}"), &body);
        }
        for _ in 0..8 {
            let mut client = this.client(random.fork());
            this.threads.push(std::thread::spawn(move || client.registers()));
        }
        for name in ["left", "right"] {
            let mut client = this.client(random.fork());
            this.threads.push(std::thread::spawn(move || client.locks(name)));
        }
        let mut client = this.client(random.fork());
        this.threads.push(std::thread::spawn(move || client.lease()));
        this
    }

    fn client(&self, random: Random) -> Client {
        Client { record: Arc::clone(&self.record), apis: self.apis.clone(), addresses: self.addresses.clone(), random }
    }

    /// Ends the clients; on return nothing is under way.
    pub(crate) fn stop(&mut self) {
        self.record.stop.store(true, SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().expect("a client panicked");
        }
    }

    /// Reads every register once more, through every member.
    pub(crate) fn read_all(&self) {
        for member in &self.apis {
            for key in 0..KEYS.len() {
                let invoked = self.record.now();
                let (value, _) = read(*member, key, ANSWER_TIMEOUT).expect("a settled member is read");
                self.record.done(key, Call::Read(value), invoked, Some(self.record.now()));
            }
        }
    }

    /// Everything that was told, against itself and against the members' own history. Gives the number of operations.
    pub(crate) fn check(&self, log: &BTreeMap<u64, Vec<(String, u64)>>) -> usize {
        let violations = self.record.violations.lock().unwrap();
        assert!(violations.is_empty(), "{violations:#?}");
        let operations = self.record.operations.lock().unwrap();
        for (key, name) in KEYS.iter().enumerate() {
            let of_key: Vec<Operation> = operations.iter().filter(|(of, _)| *of == key).map(|(_, one)| *one).collect();
            linear::check(0, &of_key).unwrap_or_else(|why| panic!("{name} is not linearizable: {why}"));
        }
        self.check_writes(log);
        self.check_locks();
        operations.len()
    }

    fn check_writes(&self, log: &BTreeMap<u64, Vec<(String, u64)>>) {
        let mut places: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (revision, changes) in log {
            for (_, value) in changes {
                places.entry(*value).or_default().push(*revision);
            }
        }
        for (value, (key, outcome)) in &*self.record.writes.lock().unwrap() {
            let found = places.get(value).map(Vec::as_slice).unwrap_or_default();
            match outcome {
                Outcome::Written(revision) => {
                    assert_eq!(found, [*revision], "w{value} of {} was acknowledged", KEYS[*key]);
                }
                Outcome::Failed => assert!(found.is_empty(), "w{value} was refused, and is revision {found:?}"),
                Outcome::Unknown => assert!(found.len() <= 1, "w{value} was written twice: {found:?}"),
            }
        }
    }

    fn check_locks(&self) {
        let mut holds = self.record.holds.lock().unwrap().clone();
        holds.sort_by_key(|hold| hold.token);
        for pair in holds.windows(2) {
            let [before, after] = pair else { continue };
            assert_ne!(before.token, after.token, "one token for two holders: {before:?}, {after:?}");
            // Held one after the other, in the order of their tokens.
            assert!(before.invoked < after.returned, "an older token came later: {before:?}, {after:?}");
            assert!(before.until <= after.returned, "held by two at once: {before:?}, {after:?}");
        }
    }

    pub(crate) fn summary(&self) -> String {
        let writes = self.record.writes.lock().unwrap();
        let count = |wanted: fn(&Outcome) -> bool| writes.values().filter(|(_, outcome)| wanted(outcome)).count();
        format!(
            "{} operations, {} writes acknowledged, {} refused or failed, {} unknown; {} locks held, {} heartbeats of a lease",
            self.record.operations.lock().unwrap().len(),
            count(|outcome| matches!(outcome, Outcome::Written(_))),
            count(|outcome| matches!(outcome, Outcome::Failed)),
            count(|outcome| matches!(outcome, Outcome::Unknown)),
            self.record.holds.lock().unwrap().len(),
            self.record.keep_alives.load(SeqCst),
        )
    }
}

struct Client {
    record: Arc<Record>,
    apis: Vec<SocketAddr>,
    addresses: Vec<SocketAddr>,
    random: Random,
}

impl Client {
    fn registers(&mut self) {
        let mut known: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
        while !self.record.stopped() {
            let key = self.random.below(KEYS.len() as u64) as usize;
            match (self.random.below(10), known.get(&key).copied()) {
                (0, _) => self.write(key, None, &mut known),
                (1..=6, Some(expected)) => self.write(key, Some(expected), &mut known),
                _ => self.read(key, &mut known),
            }
            pace(BREATH);
        }
    }

    fn read(&mut self, key: usize, known: &mut BTreeMap<usize, (u64, u64)>) {
        let member = *self.random.pick(&self.apis);
        let invoked = self.record.now();
        match read(member, key, Duration::from_secs(3)) {
            Ok((value, revision)) => {
                self.record.done(key, Call::Read(value), invoked, Some(self.record.now()));
                known.insert(key, (value, revision));
            }
            Err(Failure::Definite(status, code)) => self.record.expected("a read", status, &code),
            // The connection was lost, or it took too long; a member itself knows what came of a read.
            Err(Failure::Unknown(why)) => {
                if why == "unknown_outcome" {
                    self.record.violation("the outcome of a read is not known".into());
                }
            }
        }
    }

    /// Unconditionally, or only over what is `expected`: a value, and the revision that wrote it.
    fn write(&mut self, key: usize, expected: Option<(u64, u64)>, known: &mut BTreeMap<usize, (u64, u64)>) {
        let member = *self.random.pick(&self.apis);
        let value = self.record.next_value.fetch_add(1, SeqCst);
        let body = json!({
            "address": self.addresses[key % self.addresses.len()],
            "weight": 50 + self.random.below(100), "source": format!("w{value}"),
        });
        let fields = expected.map(|(_, revision)| format!("If-Match: \"{revision}\"\r\n")).unwrap_or_default();
        let path = format!("/v1/objects/{}?force=true", KEYS[key]);
        let call = expected.map_or(Call::Write(value), |(expected, _)| Call::Swap(expected, value));
        // Some clients are impatient: what they gave up on may come about all the same.
        let patience = if self.random.below(4) == 0 { Duration::from_millis(400) } else { ANSWER_TIMEOUT };
        let invoked = self.record.now();
        let outcome = match client::ask(member, "PUT", &path, &fields, &body.to_string(), patience) {
            Ok(answer) => {
                let done: Value = serde_json::from_slice(&answer.body).unwrap();
                let revision = done["revision"].as_u64().unwrap();
                self.record.done(key, call, invoked, Some(self.record.now()));
                known.insert(key, (value, revision));
                Outcome::Written(revision)
            }
            Err(Failure::Definite(412, _)) if expected.is_some() => {
                let refused = Call::Refused(expected.map_or(0, |(value, _)| value));
                self.record.done(key, refused, invoked, Some(self.record.now()));
                known.remove(&key);
                Outcome::Failed
            }
            Err(Failure::Definite(status, code)) => {
                self.record.expected("a write", status, &code);
                Outcome::Failed
            }
            Err(Failure::Unknown(_)) => {
                self.record.done(key, call, invoked, None);
                known.remove(&key);
                Outcome::Unknown
            }
        };
        self.record.writes.lock().unwrap().insert(value, (key, outcome));
    }

    /// Takes the one lock, holds it for a moment, gives it back.
    fn locks(&mut self, owner: &str) {
        let mut lease = None;
        let mut last = 0;
        while !self.record.stopped() {
            pace(BREATH);
            let member = *self.random.pick(&self.apis);
            let Some(id) = lease else {
                let granted = client::json(member, "POST", "/v1/leases", &json!({ "ttl": "3s", "owner": owner }));
                lease = granted.ok().and_then(|done| done["id"].as_u64());
                continue;
            };
            match client::json(member, "PUT", &format!("/v1/leases/{id}"), &Value::Null) {
                Ok(_) => {}
                Err(Failure::Definite(404, _)) => {
                    // It may have expired while nobody answered.
                    lease = None;
                    continue;
                }
                Err(_) => continue,
            }
            let invoked = self.record.now();
            let taken = client::json(member, "PUT", "/v1/locks/door", &json!({ "lease": id, "owner": owner }));
            let Some(token) = taken.ok().and_then(|taken| taken["token"].as_u64()) else { continue };
            let returned = self.record.now();
            takes(Duration::from_millis(self.random.below(20)));
            let until = self.record.now();
            if token != last {
                last = token;
                self.record.holds.lock().unwrap().push(Hold { token, invoked, returned, until });
            }
            // Unknown: asked for again, it is found to be held still, or not.
            let _ = client::json(member, "DELETE", &format!("/v1/locks/door?token={token}"), &Value::Null);
        }
    }

    /// Keeps a lease alive, by whoever answers.
    fn lease(&mut self) {
        let mut lease: Option<u64> = None;
        let mut heard = Instant::now();
        while !self.record.stopped() {
            let member = *self.random.pick(&self.apis);
            let begun = Instant::now();
            let Some(id) = lease else {
                let body = json!({ "ttl": format!("{}s", LEASE.as_secs()), "owner": "kept" });
                lease = client::json(member, "POST", "/v1/leases", &body).ok().and_then(|done| done["id"].as_u64());
                heard = begun;
                continue;
            };
            match client::ask(member, "PUT", &format!("/v1/leases/{id}"), "", "", Duration::from_secs(1)) {
                Ok(_) => {
                    heard = begun;
                    self.record.keep_alives.fetch_add(1, SeqCst);
                    pace(Duration::from_millis(300));
                }
                Err(Failure::Definite(404, _)) => {
                    // Nobody answered for as long as it lives: that is what it is there for.
                    if heard.elapsed() < LEASE {
                        let silence = heard.elapsed();
                        self.record.violation(format!("lease {id} is gone {silence:?} after it was kept alive"));
                    }
                    lease = None;
                }
                Err(_) => pace(Duration::from_millis(20)),
            }
        }
    }
}

/// A lease that nobody keeps alive ends, and the lock that hangs on it is free again.
pub(crate) fn abandoned_lease_expires(member: SocketAddr) {
    let grant = client::must(member, "POST", "/v1/leases", &json!({ "ttl": "1s", "owner": "abandoned" }));
    let lease = &grant["id"];
    let first = client::must(member, "PUT", "/v1/locks/left-behind", &json!({ "lease": lease }));
    let later = client::must(member, "POST", "/v1/leases", &json!({ "ttl": "60s", "owner": "heir" }));
    let second = crate::common::wait_for("an abandoned lease to expire", || {
        client::json(member, "PUT", "/v1/locks/left-behind", &json!({ "lease": later["id"] })).ok()
    });
    assert!(second["token"].as_u64() > first["token"].as_u64(), "{first} {second}");
    let leases = client::must(member, "GET", "/v1/leases", &Value::Null);
    let ids: BTreeSet<u64> = leases["leases"].as_array().unwrap().iter().filter_map(|one| one["id"].as_u64()).collect();
    assert!(!lease.as_u64().is_some_and(|id| ids.contains(&id)), "{leases}");
}
