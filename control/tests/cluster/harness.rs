//! A cluster of members over a relay, and the machine they run.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringway_control::consensus::{
    At, Halt, Machine, MemberInfo, Node, Options, ProposeError, Proposed, Read, RestoreError, Role, SnapshotWriter,
    Status, Timing,
};
use serde::{Deserialize, Serialize};

use super::relay::Relay;
use crate::pace::slowness;

/// What must come comes within this on a quiet machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// The same on this machine, as busy as it is now.
pub(crate) fn deadline() -> Duration {
    DEADLINE.mul_f64(slowness())
}

/// Fails if what began at `begin` has taken too long for a machine as busy as this one is now.
pub(crate) fn assert_in_time(begin: Instant, what: &str) {
    let elapsed = begin.elapsed();
    assert!(elapsed < DEADLINE || elapsed < deadline(), "{what} did not come");
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Command {
    Set {
        key: String,
        value: u64,
    },
    /// Answers whether the register had the expected value.
    Swap {
        key: String,
        expected: Option<u64>,
        value: u64,
    },
}

/// Registers with compare-and-set; the test keeps a handle to look inside.
#[derive(Clone, Default)]
pub(crate) struct Registers(Arc<Mutex<BTreeMap<String, u64>>>);

impl Registers {
    pub(crate) fn get(&self, key: &str) -> Option<u64> {
        self.0.lock().unwrap().get(key).copied()
    }

    pub(crate) fn all(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap().clone()
    }
}

impl Machine for Registers {
    fn apply(&mut self, _: At, command: &[u8]) -> Result<Vec<u8>, Halt> {
        let command = postcard::from_bytes(command).map_err(|error| Halt { reason: error.to_string() })?;
        let mut registers = self.0.lock().unwrap();
        let swapped = match command {
            Command::Set { key, value } => {
                registers.insert(key, value);
                true
            }
            Command::Swap { key, expected, value } if registers.get(&key).copied() == expected => {
                registers.insert(key, value);
                true
            }
            Command::Swap { .. } => false,
        };
        Ok(vec![u8::from(swapped)])
    }

    fn freeze(&self) -> SnapshotWriter {
        let registers = self.all();
        Box::new(move || Ok(postcard::to_stdvec(&registers).unwrap()))
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let registers = postcard::from_bytes(bytes).map_err(|error| RestoreError { reason: error.to_string() })?;
        *self.0.lock().unwrap() = registers;
        Ok(())
    }
}

pub(crate) fn set(key: &str, value: u64) -> Vec<u8> {
    postcard::to_stdvec(&Command::Set { key: key.to_owned(), value }).unwrap()
}

pub(crate) fn swap(key: &str, expected: Option<u64>, value: u64) -> Vec<u8> {
    postcard::to_stdvec(&Command::Swap { key: key.to_owned(), expected, value }).unwrap()
}

pub(crate) struct Member {
    pub(crate) node: Node,
    pub(crate) registers: Registers,
}

pub(crate) struct Cluster {
    pub(crate) relay: Relay,
    pub(crate) members: BTreeMap<u64, Member>,
    infos: BTreeMap<u64, MemberInfo>,
    directory: tempfile::TempDir,
    snapshot_every: u64,
    keep: u64,
    /// As it was at the start: all members have the same time-outs.
    pub(crate) slowness: f64,
}

impl Cluster {
    /// Voters 1, 2 and 3.
    pub(crate) async fn of_three() -> Self {
        Self::of_three_with(5000, 1000).await
    }

    pub(crate) async fn of_three_with(snapshot_every: u64, keep: u64) -> Self {
        let mut cluster = Self::of_one(snapshot_every, keep).await;
        for id in [2, 3] {
            let info = cluster.launch(id).await;
            let leader = cluster.leader().await;
            eventually("add a learner", || leader.node.add_learner(id, info.clone())).await;
            eventually("promote it", || leader.node.promote(id)).await;
        }
        cluster
    }

    pub(crate) async fn of_one(snapshot_every: u64, keep: u64) -> Self {
        let mut cluster = Self {
            relay: Relay::default(),
            members: BTreeMap::new(),
            infos: BTreeMap::new(),
            directory: tempfile::tempdir().unwrap(),
            snapshot_every,
            keep,
            slowness: slowness(),
        };
        cluster.launch(1).await;
        cluster.members[&1].node.initialize().await.unwrap();
        cluster.leader().await;
        cluster
    }

    /// Everything that a member is started with; a new listener each time.
    pub(crate) async fn options(&mut self, id: u64) -> Options {
        let listener = TcpListener::bind((format!("127.0.0.{id}"), 0)).unwrap();
        let usual = Timing::lan();
        if !self.infos.contains_key(&id) {
            let peer_address = self.relay.open(id).await.to_string();
            self.infos.insert(id, MemberInfo { name: format!("m{id}"), peer_address, api_address: String::new() });
        }
        self.relay.set_member(id, Some(listener.local_addr().unwrap()));
        Options {
            directory: self.directory.path().join(id.to_string()),
            cluster: "blue".to_owned(),
            node: id,
            info: self.infos[&id].clone(),
            listener,
            tls: None,
            // A machine that compiles beside the tests starves heartbeats longer than a network does: the busier it is, the
            // longer a member waits before it takes its leader for lost.
            timing: Timing {
                election_min: Duration::from_millis(250).mul_f64(self.slowness),
                election_max: Duration::from_millis(500).mul_f64(self.slowness),
                heartbeat: usual.heartbeat,
                connect: usual.connect.mul_f64(self.slowness),
                append: usual.append.mul_f64(self.slowness),
                snapshot: usual.snapshot.mul_f64(self.slowness),
                decide: usual.decide.mul_f64(self.slowness),
            },
            snapshot_every: self.snapshot_every,
            answerer: None,
            keep: self.keep,
        }
    }

    /// Starts a member, for the first time or again.
    pub(crate) async fn launch(&mut self, id: u64) -> MemberInfo {
        let options = self.options(id).await;
        let registers = Registers::default();
        let node = Node::start(options, registers.clone()).await.unwrap();
        self.members.insert(id, Member { node, registers });
        self.infos[&id].clone()
    }

    /// Ends a member's tasks and closes its sockets.
    pub(crate) async fn kill(&mut self, id: u64) {
        self.relay.set_member(id, None);
        self.members.remove(&id).unwrap().node.stop().await;
    }

    pub(crate) fn ids(&self) -> Vec<u64> {
        self.members.keys().copied().collect()
    }

    /// The member that leads with a quorum behind it.
    pub(crate) async fn leader(&self) -> &Member {
        self.leader_but(0).await
    }

    pub(crate) async fn leader_but(&self, but: u64) -> &Member {
        until("a leader", || {
            let mut members = self.members.values();
            members.find(|member| member.node.status().id != but && member.node.status().role == Role::Leader)
        })
        .await
    }

    /// Proposes to whoever leads until it is committed. Only for commands that may be applied twice.
    pub(crate) async fn write(&self, command: Vec<u8>) -> Proposed {
        eventually("a write", || async {
            let leader = self.leader().await;
            leader.node.propose(command.clone()).await
        })
        .await
    }

    /// A linearizable read through whoever leads.
    pub(crate) async fn read(&self, key: &str) -> Option<u64> {
        eventually("a read", || async {
            let leader = self.leader().await;
            leader.node.read_barrier(Read::Index).await?;
            Ok::<_, ProposeError>(leader.registers.get(key))
        })
        .await
    }

    pub(crate) fn status(&self, id: u64) -> Status {
        self.members[&id].node.status()
    }

    /// Waits until all members have the same registers as the leader has now.
    pub(crate) async fn agreed(&self) -> BTreeMap<String, u64> {
        self.read("").await;
        let expected = self.leader().await.registers.all();
        until("all members agree", || {
            self.members.values().all(|member| member.registers.all() == expected).then_some(())
        })
        .await;
        expected
    }

    pub(crate) async fn stop(mut self) {
        for id in self.ids() {
            self.kill(id).await;
        }
    }
}

/// Waits until `probe` has something.
pub(crate) async fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert_in_time(start, what);
        // Between two looks.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Tries until it works.
pub(crate) async fn eventually<T, E: std::fmt::Display, F>(what: &str, mut attempt: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, E>>,
{
    let start = Instant::now();
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) => assert_in_time(start, &format!("{what}, after {error},")),
        }
        // Between two attempts.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
