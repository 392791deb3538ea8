//! Consensus: one log, one machine, several members that stay the same.
//!
//! The only module that sees the engine (openraft). The rest of the crate proposes commands, waits for read barriers
//! and watches a [`Status`]; disk and wire carry structs of `store/record.rs`.
//!
//! ```text
//! propose -> engine -> log.rs -> store           (this member's disk)
//!               |-> network.rs -> transport      (the others' disks)
//!               '-> machine.rs -> Machine::apply (once a quorum has it)
//! ```

mod care;
mod convert;
mod log;
mod machine;
mod members;
mod network;
mod options;
pub mod replica;
mod status;
#[cfg(test)]
mod suite;
mod survivor;
mod types;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use openraft::ReadPolicy;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::error::{ClientWriteError, ForwardToLeader, LinearizableReadError, RaftError};
use openraft::raft::ClientWriteResponse;
use openraft::type_config::TypeConfigExt as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use self::log::Log;
use self::machine::{Retired, StateMachine};
pub use self::members::MemberError;
use self::network::{Network, Server};
pub(crate) use self::options::Core;
pub use self::options::{Answerer, Options, PeerTls, StartError, Timing};
use self::options::{config, identity};
pub use self::status::{MemberStatus, Role, Status};
pub use self::survivor::{Beginning, Survivor};
use self::types::{Command, Raft, Types};
pub use crate::store::record::{Identity, MemberInfo};
use crate::store::{Store, StoreError};
use crate::transport::{self, Dialer};

/// The largest command, in bytes: an append call holds several.
pub const COMMAND_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Connections that are kept for questions: more than a cluster has members.
const PEERS_MAX: usize = 64;

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Its index in the log; grows by one, with gaps where the log had other entries than commands.
    pub index: u64,
    /// The term that it belongs to.
    pub term: u64,
    /// The member whose term it is. A deposed leader's command never carries a later leader's id.
    pub leader: u64,
}

/// Why a machine cannot go on. The member stops: skipping an entry would make its state differ from the others'.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the machine halts: {reason}")]
pub struct Halt {
    /// For the log and the operator.
    pub reason: String,
}

/// Why a snapshot's bytes are not a state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("restore the machine: {reason}")]
pub struct RestoreError {
    /// For the log and the operator.
    pub reason: String,
}

/// A state of one moment that serialises itself when it is called. A state that has no bytes is no snapshot.
pub type Frozen = Box<dyn FnOnce() -> Result<Vec<u8>, Halt> + Send>;

/// What the log decides over. Deterministic: no clock, no randomness, no floats, no order of hash maps.
pub trait Machine: Send + Sync + 'static {
    /// Applies one committed command; the answer goes to whoever proposed it here.
    ///
    /// Fails only on a command that this build does not know, which stops the member. A panic does too.
    fn apply(&mut self, at: At, command: &[u8]) -> Result<Vec<u8>, Halt>;

    /// The whole state, to be written into a snapshot. Cheap to take: it is serialised later, off the path of `apply`.
    fn freeze(&self) -> Frozen;

    /// Replaces the state by a snapshot's.
    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError>;
}

/// Why a proposal or a read has no good answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another member leads, as far as this one knows. Nothing was proposed.
    #[error("member {} leads", .leader.as_ref().map_or_else(|| "none".to_owned(), |(node, info)| format!("{node} ({})", info.name)))]
    NotLeader {
        /// Who does; `None` during an election.
        leader: Option<(u64, MemberInfo)>,
    },
    /// This leader has no quorum, or not yet, or is handing over. Nothing was proposed; try again.
    #[error("no quorum")]
    Unavailable,
    /// Proposed and not decided in time, or the leader changed meanwhile. It may be, or may yet become, committed:
    /// only a command that can be recognised may be tried again.
    #[error("proposed, and not known to be committed")]
    Unknown,
    /// Nothing: it would be an entry of the log that no member can read.
    #[error("a command without content is none")]
    Empty,
    /// Longer than [`COMMAND_BYTES_MAX`].
    #[error("{bytes} bytes are more than a command may have ({COMMAND_BYTES_MAX})")]
    TooLarge {
        /// The command's length.
        bytes: usize,
    },
    /// This member had stopped or failed before; nothing was proposed. See [`Node::failed`].
    #[error("this member has stopped")]
    Stopped,
}

/// Why a member cannot go on. The process should exit with an error and be restarted; boot verifies the disk.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// The disk failed.
    #[error(transparent)]
    Store(Arc<StoreError>),
    /// The engine stopped by itself: the machine halted, or an invariant broke.
    #[error("consensus failed: {0}")]
    Engine(String),
}

/// A committed and applied command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// Where in the log it stands.
    pub index: u64,
    /// What [`Machine::apply`] said.
    pub answer: Vec<u8>,
}

/// How a read makes sure that this member still leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// Asks a quorum.
    Index,
    /// Trusts the lease: no round trip, but clocks that run at different speeds could break it.
    Lease,
}

/// A member. Cheap to clone; all clones are one member.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    id: u64,
    info: MemberInfo,
    timing: Timing,
    raft: Raft,
    store: Store,
    retired: Retired,
    /// By [`Node::stop`].
    stopped: AtomicBool,
    /// One membership change of this member's at a time.
    changing: tokio::sync::Mutex<()>,
    heard: status::Heard,
    status: watch::Receiver<Status>,
    failure: watch::Receiver<Option<Failure>>,
    server: Mutex<Option<transport::Server>>,
    dialer: Arc<Dialer>,
    /// For [`Node::ask`]: connections to members, by id, with the address.
    peers: Mutex<BTreeMap<u64, (String, Arc<transport::Peer>)>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("id", &self.inner.id).finish_non_exhaustive()
    }
}

impl Node {
    /// Starts a member: verifies its disk, replays its log and serves other members.
    ///
    /// A new member is nobody's until it is initialised ([`Node::initialize`]) or added by a leader
    /// ([`Node::add_learner`]).
    pub async fn start<M: Machine>(options: Options, machine: M) -> Result<Self, StartError> {
        let (directory, identity) = (options.directory.clone(), identity(&options)?);
        let store = tokio::task::spawn_blocking(move || Store::open(&directory, &identity)).await;
        let store = store.map_err(|error| StartError::Replay(error.to_string()))??;
        Self::start_on(options, machine, store).await
    }

    /// Starts a member on a store of the caller's; `directory` is not used. For tests that make disks fail.
    pub async fn start_on<M: Machine>(options: Options, machine: M, store: Store) -> Result<Self, StartError> {
        let core = Core::of(&options)?;
        let source = options.listener.local_addr().map_err(StartError::Listen)?.ip();
        let client_tls = options.tls.as_ref().map(|tls| tls.client.clone());
        let dialer = Dialer::new(options.cluster, Some(source), options.timing.connect, client_tls);
        let identity = core.identity.clone();
        let (listener, server_tls) = (options.listener, options.tls.as_ref().map(|tls| tls.server.clone()));
        let serve = |handler| transport::Server::start(listener, server_tls, identity, handler).map(Some);
        Self::assemble(core, Arc::new(dialer), machine, store, serve).await
    }

    /// Starts a member without sockets; beside it, where calls to it go.
    #[cfg(test)]
    pub(crate) async fn start_carried<M: Machine>(
        core: Core,
        machine: M,
        store: Store,
        carrier: Arc<dyn transport::Carrier>,
    ) -> Result<(Self, transport::Inbox), StartError> {
        let dialer = Dialer::carried(core.identity.cluster.clone(), carrier);
        let mut inbox = None;
        let serve = |handler| {
            inbox = Some(transport::inbox(handler));
            Ok(None)
        };
        let node = Self::assemble(core, Arc::new(dialer), machine, store, serve).await?;
        Ok((node, inbox.expect("a member that has started serves")))
    }

    async fn assemble<M: Machine>(
        core: Core,
        dialer: Arc<Dialer>,
        machine: M,
        store: Store,
        serve: impl FnOnce(Server) -> std::io::Result<Option<transport::Server>>,
    ) -> Result<Self, StartError> {
        let config = Arc::new(config(&core)?);
        let (id, timing) = (core.identity.node, core.timing);
        let retired = Retired::default();
        let network = Network { dialer: Arc::clone(&dialer), timing: timing.clone() };
        let log = Log { store: store.clone() };
        let machine = StateMachine::new(Box::new(machine), store.clone(), Arc::clone(&retired));
        let raft = match Raft::build(id, config, network, log, machine).await {
            Ok(raft) => raft,
            Err(error) => {
                store.close().await;
                return Err(StartError::Replay(error.to_string()));
            }
        };
        let heard = status::Heard::default();
        let server = match serve(Server { raft: raft.clone(), node: id, answerer: core.answerer, heard: heard.clone() })
        {
            Ok(server) => server,
            Err(error) => {
                store.close().await;
                return Err(StartError::Listen(error));
            }
        };
        let places = server.as_ref().map(|server| Arc::clone(server.places()));
        raft.run();
        let (status_sender, status) = watch::channel(status::of(&raft, &heard, timing.election_max));
        let (failure_sender, failure) = watch::channel(None);
        let inner = Arc::new(Inner {
            id,
            info: core.info,
            raft: raft.clone(),
            store: store.clone(),
            retired,
            stopped: AtomicBool::new(false),
            changing: tokio::sync::Mutex::default(),
            heard: heard.clone(),
            status,
            failure,
            server: Mutex::new(server),
            dialer,
            peers: Mutex::default(),
            tasks: Mutex::default(),
            timing: timing.clone(),
        });
        let mut tasks = vec![
            Types::spawn(status::publish(raft.clone(), heard.clone(), timing, status_sender)),
            Types::spawn(care::report(raft, store, failure_sender)),
            Types::spawn(care::watch(Arc::downgrade(&inner))),
        ];
        if let Some(places) = places {
            tasks.push(Types::spawn(care::know(inner.status.clone(), places)));
        }
        *inner.tasks.lock().unwrap_or_else(PoisonError::into_inner) = tasks;
        Ok(Self { inner })
    }

    /// Makes this member a cluster of one. Only on a member that has never been in one.
    pub async fn initialize(&self) -> Result<(), MemberError> {
        let members = BTreeMap::from([(self.inner.id, self.inner.info.clone())]);
        match self.inner.raft.initialize(members).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(_)) => Err(MemberError::NotPristine),
            Err(RaftError::Fatal(_)) => Err(MemberError::Propose(ProposeError::Stopped)),
        }
    }

    /// Proposes a command; on return it is committed and applied here.
    ///
    /// Waits up to `Timing::decide`. What each error says about the command is told at [`ProposeError`].
    pub async fn propose(&self, command: Vec<u8>) -> Result<Proposed, ProposeError> {
        if command.is_empty() {
            return Err(ProposeError::Empty);
        }
        if command.len() > COMMAND_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes: command.len() });
        }
        self.running()?;
        let write = self.inner.raft.client_write(Command(Bytes::from(command)));
        match timeout(self.inner.timing.decide, write).await {
            Ok(Ok(ClientWriteResponse { log_id, data, .. })) => Ok(Proposed { index: log_id.index(), answer: data }),
            Ok(Err(error)) => Err(self.write_error(error)),
            Err(_) => Err(ProposeError::Unknown),
        }
    }

    /// Makes a read of the machine linearizable: what was committed before the call is applied on return.
    ///
    /// Only on the leader; waits up to `Timing::decide`.
    pub async fn read_barrier(&self, policy: Read) -> Result<(), ProposeError> {
        let policy = match policy {
            Read::Index => ReadPolicy::ReadIndex,
            Read::Lease => ReadPolicy::LeaseRead,
        };
        match timeout(self.inner.timing.decide, self.inner.raft.ensure_linearizable(policy)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)))) => Err(self.forward(forward)),
            Ok(Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)))) | Err(_) => {
                Err(ProposeError::Unavailable)
            }
            Ok(Err(RaftError::Fatal(_))) => Err(ProposeError::Stopped),
        }
    }

    /// Waits after a restart until the machine is as new as the disk's log says it was; until then local reads may
    /// go back in time. `false` when that takes longer than `within`: without a quorum it never comes.
    pub async fn recovered(&self, within: Duration) -> bool {
        self.inner.raft.wait_for_recovery(Some(within)).await.is_ok()
    }

    /// This member's view of the cluster at this moment.
    pub fn status(&self) -> Status {
        status::of(&self.inner.raft, &self.inner.heard, self.inner.timing.election_max)
    }

    /// The view as it changes; `quorum_age` alone does not count as a change.
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.inner.status.clone()
    }

    /// Asks what is above consensus on another member, over the members' own authenticated connections.
    ///
    /// # Errors
    /// [`CallError::is_unsent`](transport::CallError::is_unsent) says whether it may be asked again without a second effect.
    pub async fn ask(
        &self,
        node: u64,
        info: &MemberInfo,
        question: Vec<u8>,
        deadline: Duration,
    ) -> Result<Vec<u8>, transport::CallError> {
        let peer = {
            let mut peers = self.inner.peers.lock().unwrap_or_else(PoisonError::into_inner);
            match peers.get(&node) {
                Some((address, peer)) if *address == info.peer_address => Arc::clone(peer),
                _ => {
                    // Members that have gone for good leave theirs behind.
                    if peers.len() >= PEERS_MAX {
                        peers.clear();
                    }
                    let dialer = Arc::clone(&self.inner.dialer);
                    let peer = Arc::new(transport::Peer::new(dialer, node, info.peer_address.clone()));
                    peers.insert(node, (info.peer_address.clone(), Arc::clone(&peer)));
                    peer
                }
            }
        };
        let answer: Bytes = peer.call(transport::Rpc::Ask, &Bytes::from(question), deadline).await?;
        Ok(answer.into())
    }

    /// How long writes of the log took, until they were on disk.
    #[must_use]
    pub fn disk_writes(&self) -> crate::store::latency::Latencies {
        self.inner.store.writes()
    }

    /// What the log and its snapshots take on disk, in bytes.
    #[must_use]
    pub fn disk_bytes(&self) -> Option<u64> {
        self.inner.store.file_bytes()
    }

    /// Takes a snapshot now; it is on disk some time after the return, see [`Status::snapshot`].
    pub async fn snapshot(&self) -> Result<(), ProposeError> {
        self.inner.raft.trigger().snapshot().await.map_err(|_| ProposeError::Stopped)
    }

    /// Resolves when the disk or the engine has failed for good; never after [`Node::stop`].
    pub async fn failed(&self) -> Failure {
        let mut failure = self.inner.failure.clone();
        match failure.wait_for(Option::is_some).await.map(|failure| failure.clone()) {
            Ok(Some(failure)) => failure,
            // Stopped without a failure.
            _ => std::future::pending().await,
        }
    }

    /// Leaves the network, writes what is queued and closes the disk. Other clones answer `Stopped` from then on.
    ///
    /// Does not hand over: [`Node::transfer`] first spares the others an election.
    pub async fn stop(self) {
        self.inner.stopped.store(true, Ordering::Relaxed);
        let server = self.inner.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(server) = server {
            server.stop().await;
        }
        let tasks = std::mem::take(&mut *self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in &tasks {
            task.abort();
        }
        for task in tasks {
            // Aborted: the error says just that.
            let _ = task.await;
        }
        // An engine that has failed before says so here again.
        let _ = self.inner.raft.shutdown().await;
        self.inner.store.close().await;
    }

    /// What is asked of a member that has ended is certainly not proposed.
    fn running(&self) -> Result<(), ProposeError> {
        let ended = self.inner.stopped.load(Ordering::Relaxed) || self.inner.failure.borrow().is_some();
        if ended { Err(ProposeError::Stopped) } else { Ok(()) }
    }

    fn write_error(&self, error: RaftError<Types, ClientWriteError<Types>>) -> ProposeError {
        match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => self.forward(forward),
            // Appended here and then lost to another leader, who may have it too; or the engine ended with it.
            RaftError::APIError(_) | RaftError::Fatal(_) => ProposeError::Unknown,
        }
    }

    fn forward(&self, forward: ForwardToLeader<Types>) -> ProposeError {
        match (forward.leader_id, forward.leader_node) {
            (Some(leader), Some(info)) if leader != self.inner.id => {
                ProposeError::NotLeader { leader: Some((leader, info)) }
            }
            _ if self.inner.raft.metrics().borrow_watched().state.is_leader() => ProposeError::Unavailable,
            _ => ProposeError::NotLeader { leader: None },
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for task in self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
    }
}
