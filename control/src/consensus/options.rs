//! A member's settings, and what the engine is told of them.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::{Config, SnapshotPolicy};

use crate::store::StoreError;
use crate::store::record::{Identity, MemberInfo};
use crate::transport::tls::Renewed;

/// TLS between members. Both sides are expected to demand certificates: a peer that may connect may vote. Their ALPN is `h2`.
#[derive(Clone, Debug)]
pub struct PeerTls {
    /// For calls from other members.
    pub server: Renewed<rustls::ServerConfig>,
    /// For calls to other members; checks the host of their peer address.
    pub client: Renewed<rustls::ClientConfig>,
}

/// How long members wait for each other.
///
/// A leader is missed after `election_max` plus a random time within `election_min..election_max`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// The shortest time until an election.
    pub election_min: Duration,
    /// The longest, and the length of a leader's lease.
    pub election_max: Duration,
    /// For a connection: name, TCP, TLS, HTTP/2.
    pub connect: Duration,
    /// For entries to reach a follower's disk.
    pub append: Duration,
    /// For a snapshot to be sent and installed.
    pub snapshot: Duration,
    /// For a proposal, a read barrier or a membership change to be decided.
    pub decide: Duration,
}

impl Timing {
    /// Members in one data centre.
    pub fn lan() -> Self {
        let ms = Duration::from_millis;
        Self {
            heartbeat: ms(50),
            election_min: ms(150),
            election_max: ms(300),
            connect: ms(200),
            append: ms(2_000),
            snapshot: ms(30_000),
            decide: ms(5_000),
        }
    }

    /// Members up to some 100 ms apart.
    pub fn wan() -> Self {
        let ms = Duration::from_millis;
        Self {
            heartbeat: ms(250),
            election_min: ms(750),
            election_max: ms(1_500),
            connect: ms(1_000),
            append: ms(5_000),
            snapshot: ms(120_000),
            decide: ms(15_000),
        }
    }
}

/// What answers other members' questions to whatever is above consensus, see [`super::Node::ask`].
pub type Answerer = Arc<dyn Fn(Bytes) -> futures_util::future::BoxFuture<'static, Vec<u8>> + Send + Sync>;

/// A member's settings.
pub struct Options {
    /// For `raft.redb`, `node.json` and `LOCK`; made where there is none.
    pub directory: PathBuf,
    /// The cluster's name: 1 to 128 visible ASCII characters. Members of another cluster are refused.
    pub cluster: String,
    /// This member: random, never given to another, not even after its disk is lost.
    pub node: u64,
    /// Where it is reached.
    pub info: MemberInfo,
    /// Where other members call.
    pub listener: TcpListener,
    /// `None`: plain TCP, for loopback only.
    pub tls: Option<PeerTls>,
    /// See [`Timing`].
    pub timing: Timing,
    /// Entries from one snapshot to the next; 5000 is usual.
    pub snapshot_every: u64,
    /// `None`: nobody asks here.
    pub answerer: Option<Answerer>,
    /// Entries that stay in the log behind a snapshot, for followers that lag a little; 1000 is usual.
    pub keep: u64,
}

/// Why a member does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is out of bounds.
    #[error("the cluster's name must be 1 to 128 visible ASCII characters")]
    ClusterName,
    /// Time-outs that cannot work together.
    #[error("timing: {0}")]
    Timing(String),
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The listener.
    #[error("listen for members: {0}")]
    Listen(#[source] std::io::Error),
    /// The log cannot be replayed: the machine refuses a snapshot, for instance.
    #[error("replay the log: {0}")]
    Replay(String),
}

pub(super) fn identity(options: &Options) -> Result<Identity, StartError> {
    let cluster = &options.cluster;
    // It travels in a header.
    if cluster.is_empty() || cluster.len() > 128 || !cluster.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(StartError::ClusterName);
    }
    Ok(Identity { cluster: cluster.clone(), node: options.node })
}

/// What of a member's settings has nothing to do with directories and sockets.
pub(crate) struct Core {
    pub(crate) identity: Identity,
    pub(crate) info: MemberInfo,
    pub(crate) timing: Timing,
    pub(crate) snapshot_every: u64,
    pub(crate) keep: u64,
    pub(crate) answerer: Option<Answerer>,
}

impl Core {
    pub(super) fn of(options: &Options) -> Result<Self, StartError> {
        Ok(Self {
            identity: identity(options)?,
            info: options.info.clone(),
            timing: options.timing.clone(),
            snapshot_every: options.snapshot_every,
            keep: options.keep,
            answerer: options.answerer.clone(),
        })
    }
}

pub(super) fn config(options: &Core) -> Result<Config, StartError> {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let timing = &options.timing;
    let config = Config {
        cluster_name: options.identity.cluster.clone(),
        heartbeat_interval: ms(timing.heartbeat),
        election_timeout_min: ms(timing.election_min),
        election_timeout_max: ms(timing.election_max),
        install_snapshot_timeout: ms(timing.snapshot),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(options.snapshot_every),
        max_in_snapshot_log_to_keep: options.keep,
        // A follower that lags by more is faster served with a snapshot; must exceed `snapshot_every`, or a new
        // snapshot would not end the lag.
        replication_lag_threshold: options.snapshot_every.saturating_add(options.keep).saturating_add(1),
        max_payload_entries: 1024,
        enable_pre_vote: Some(true),
        // A restarted leader stands for election like anyone: others may have moved on.
        enable_leader_restore: Some(false),
        allow_log_reversion: Some(false),
        backoff: backoff(timing),
        ..Config::default()
    };
    config.validate().map_err(|error| StartError::Timing(error.to_string()))
}

/// How long a member waits before it calls an unreachable one again, in the engine's notation.
fn backoff(timing: &Timing) -> String {
    let first = timing.heartbeat.max(Duration::from_millis(10)).as_millis();
    format!("{first}ms {}ms {}ms ...{}ms", first * 2, first * 4, first * 10)
}
