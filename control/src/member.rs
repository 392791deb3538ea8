//! A member as a process has it: its directory, its place in a cluster, its listeners.

pub mod authority;
mod error;
mod plan;
pub mod recover;
mod settings;
mod swap;

pub use self::error::RunError;
use self::plan::{JOIN_RETRY, finish_founding};
pub use self::plan::{Origin, Plan};
pub use self::settings::client_settings;
use self::settings::{followed, peer_tls};
use crate::api;
use crate::consensus::replica::Replica;
use crate::consensus::{Answerer, MemberError, MemberInfo, Node, Options, PeerTls, Timing};
use crate::discovery;
use crate::http::Api as Client;
use crate::plane::{Guards, Plane, PlaneError, unix_ms};
use crate::state::{Command, RULES, State};
use crate::transport::tls::{self, Renewed, TlsError};
use hyper::Method;
use ringway_config::model::{self, Member as Settings};
use rustls::ServerConfig;
use std::fs::OpenOptions;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;

/// Entries from one snapshot to the next, and those that stay behind it.
const SNAPSHOT_EVERY: u64 = 5000;
const KEEP: u64 = 1000;
/// Between two backups.
const BACKUP_EVERY: Duration = Duration::from_secs(3600);
/// Backups that are kept.
const BACKUPS_KEPT: usize = 24;
/// Connections that wait to be accepted: when a member goes, all that followed it come to the others at once.
const BACKLOG: u32 = 4096;

/// A member that runs.
pub struct Member {
    plane: Arc<Plane>,
    tasks: Vec<JoinHandle<()>>,
    stopped: JoinHandle<String>,
    /// Where the API is.
    pub address: SocketAddr,
    /// Where members find it.
    pub peer_address: SocketAddr,
}

impl Member {
    /// Starts a member as its directory says; `embedded` makes an empty directory the first member of a new cluster.
    ///
    /// # Errors
    /// See [`RunError`].
    pub async fn start(settings: &Settings, embedded: bool) -> Result<Self, RunError> {
        let plan = match Plan::read(&settings.directory)? {
            Some(plan) => finish_founding(&settings.directory, plan)?,
            None if embedded => Plan::first(&settings.directory, None)?,
            None => return Err(RunError::Nobody(settings.directory.clone())),
        };
        let bind =
            |what, address: SocketAddr| listen(address).map_err(|source| RunError::Bind { what, address, source });
        let peers = bind("the members' listener", settings.peer_address)?;
        let clients = bind("the API", settings.address)?;
        let local = |listener: &TcpListener, given: SocketAddr| listener.local_addr().unwrap_or(given);
        let (address, peer_address) = (local(&clients, settings.address), local(&peers, settings.peer_address));
        let info = member_info(settings, address, peer_address);
        let mut tasks = Vec::new();
        let peer_tls = settings.peer_tls.as_ref().map(|files| peer_tls(files, &mut tasks)).transpose()?;
        let api_tls = settings.tls.as_ref().map(|files| api_tls(files, &mut tasks)).transpose()?;
        let audit = settings.audit_log.as_ref().map(|path| audit(path)).transpose()?;
        let (replica, published) = Replica::new();
        // Questions come as soon as the listener stands, and what answers them is made of the node: they wait for it.
        let slot: Arc<OnceLock<Weak<Plane>>> = Arc::default();
        let answerer = answerer(Arc::clone(&slot));
        let node = Node::start(options(settings, &plan, &info, peers, peer_tls, answerer), replica).await?;
        let guards = Guards { loss_percent: settings.loss_percent };
        let plane =
            Arc::new(Plane::new(node.clone(), published).with_forget(settings.proxy_forget).with_guards(guards));
        // Set once, here.
        let _ = slot.set(Arc::downgrade(&plane));
        if plan.origin == Origin::First {
            initialize(&node).await?;
        }
        let api = Arc::new(api::Api::new(Arc::clone(&plane), settings, audit, info.clone(), plan.cluster.clone())?);
        if !settings.tokens.is_empty() {
            tasks.push(tokio::spawn(api.follow_tokens(settings)));
        }
        let failed = |source| RunError::Bind { what: "the API", address, source };
        clients.set_nonblocking(true).map_err(failed)?;
        let clients = tokio::net::TcpListener::from_std(clients).map_err(failed)?;
        tasks.push(tokio::spawn(api.serve(clients, api_tls)));
        tasks.push(tokio::spawn({
            let plane = Arc::clone(&plane);
            async move { plane.call_rolls().await }
        }));
        tasks.push(tokio::spawn(name_cluster(Arc::clone(&plane), plan.cluster.clone())));
        let (cluster, node) = (plan.cluster.clone(), plan.node);
        if let Some(join) = join(settings, plan, &plane, info)? {
            tasks.push(join);
        }
        tasks.extend(side_jobs(settings, &plane));
        let stopped = tokio::spawn({
            let plane = Arc::clone(&plane);
            async move { plane.run().await }
        });
        tracing::info!(cluster, node, name = settings.name, %address, %peer_address, "member started");
        Ok(Self { plane, tasks, stopped, address, peer_address })
    }

    /// What it does.
    #[must_use]
    pub fn plane(&self) -> &Arc<Plane> {
        &self.plane
    }

    /// Resolves when the member cannot go on: the process should end with an error and be started again.
    pub async fn failed(&mut self) -> String {
        match (&mut self.stopped).await {
            Ok(why) => why,
            Err(error) => error.to_string(),
        }
    }

    /// Hands the lead over if it has it, and ends.
    pub async fn stop(self) {
        let status = self.plane.status();
        if status.role == crate::consensus::Role::Leader {
            let heir = status.voters.iter().filter(|voter| voter.node != status.id).min_by_key(|voter| voter.lag);
            if let Some(heir) = heir
                && let Err(error) = self.plane.node().transfer(heir.node).await
            {
                tracing::warn!(%error, "the lead was not handed over: the others will elect");
            }
        }
        for task in &self.tasks {
            task.abort();
        }
        self.stopped.abort();
        self.plane.node().clone().stop().await;
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

/// Of the API's listener, with a task that follows the files.
fn api_tls(files: &model::MemberTls, tasks: &mut Vec<JoinHandle<()>>) -> Result<Renewed<ServerConfig>, TlsError> {
    let files = files.clone();
    let followed = followed(&files);
    let read = move || tls::server(&files.certificate, &files.key, files.ca.as_deref(), false, &[b"h2", b"http/1.1"]);
    let current = Renewed::from(read()?);
    let renewed = current.clone();
    tasks.push(tokio::spawn(followed.0.follow(followed.1, move || {
        renewed.renew(read()?);
        Ok(())
    })));
    Ok(current)
}

fn audit(path: &Path) -> Result<api::AuditLog, RunError> {
    api::AuditLog::open(path).map_err(|source| RunError::File { path: path.to_owned(), source })
}

/// Makes the first member its own cluster.
async fn initialize(node: &Node) -> Result<(), RunError> {
    match node.initialize().await {
        // It has been, when it ran before.
        Ok(()) | Err(MemberError::NotPristine) => Ok(()),
        Err(error) => Err(RunError::Init(error.to_string())),
    }
}

/// What a member does beside: it looks at sources, and writes backups.
fn side_jobs(settings: &Settings, plane: &Arc<Plane>) -> Vec<JoinHandle<()>> {
    let sources = settings.sources.iter();
    let mut jobs: Vec<_> =
        sources.map(|source| tokio::spawn(discovery::follow(Arc::clone(plane), source.clone()))).collect();
    if let Some(directory) = &settings.backups {
        jobs.push(tokio::spawn(backups(Arc::clone(plane), directory.clone())));
    }
    jobs
}

/// How this member takes part in the consensus.
fn options(
    settings: &Settings,
    plan: &Plan,
    info: &MemberInfo,
    listener: TcpListener,
    tls: Option<PeerTls>,
    answerer: Answerer,
) -> Options {
    Options {
        directory: settings.directory.clone(),
        cluster: plan.cluster.clone(),
        node: plan.node,
        info: info.clone(),
        listener,
        tls,
        timing: if settings.wan { Timing::wan() } else { Timing::lan() },
        snapshot_every: SNAPSHOT_EVERY,
        answerer: Some(answerer),
        keep: KEEP,
    }
}

/// Answers other members' questions, once there is something that can.
fn answerer(plane: Arc<OnceLock<Weak<Plane>>>) -> Answerer {
    Arc::new(move |question: bytes::Bytes| {
        let plane = plane.get().and_then(Weak::upgrade);
        Box::pin(async move {
            match plane {
                Some(plane) => plane.answer(&question).await,
                None => Vec::new(),
            }
        })
    })
}

/// What others are told of this member. A port that the system chose is told as it is.
fn member_info(settings: &Settings, address: SocketAddr, peer_address: SocketAddr) -> MemberInfo {
    let told = |told: &str, given: SocketAddr, real: SocketAddr| {
        if told == given.to_string() { real.to_string() } else { told.to_owned() }
    };
    MemberInfo {
        name: settings.name.clone(),
        peer_address: told(&settings.peer_advertise, settings.peer_address, peer_address),
        api_address: told(&settings.advertise, settings.address, address),
    }
}

/// Has a member that is to join taken in by those that are there, for as long as that takes.
fn join(
    settings: &Settings,
    plan: Plan,
    plane: &Arc<Plane>,
    info: MemberInfo,
) -> Result<Option<JoinHandle<()>>, RunError> {
    let Origin::Join { members, token_file, ca, voter, replace } = plan.origin else { return Ok(None) };
    let client = Client::new(&client_settings(&members, token_file, ca))?;
    let joined = Plan { cluster: plan.cluster, node: plan.node, origin: Origin::Joined };
    let (directory, plane) = (settings.directory.clone(), Arc::clone(plane));
    Ok(Some(tokio::spawn(async move {
        enter(&plane, client, joined.node, info, voter, replace).await;
        if let Err(error) = joined.write(&directory) {
            tracing::error!(%error, "that this member has joined cannot be written down");
        }
    })))
}

/// Between two attempts to name the cluster.
const NAME_RETRY: Duration = Duration::from_millis(100);

/// The first entry of the log names the cluster, and sets its rules: its only member knows them. Whoever leads puts it there; the
/// second is refused.
async fn name_cluster(plane: Arc<Plane>, cluster: String) {
    let mut status = plane.node().watch_status();
    while plane.state().cluster.is_empty() {
        if status.wait_for(|status| status.role == crate::consensus::Role::Leader).await.is_err() {
            return;
        }
        // A member that joined was told the name meanwhile.
        if !plane.state().cluster.is_empty() {
            return;
        }
        // Another life of a cluster of this name began earlier: its proxies find a higher epoch here.
        let epoch = unix_ms() / 1000;
        match plane.propose(&Command::Found { cluster: cluster.clone(), epoch, rules: RULES }).await {
            Ok(_) | Err(PlaneError::Refused(_)) => return,
            Err(error) => tracing::debug!(%error, "the cluster is not named yet"),
        }
        tokio::time::sleep(NAME_RETRY).await;
    }
}

/// Asks members that are there to be taken in, until it is.
async fn enter(plane: &Plane, client: Client, node: u64, info: MemberInfo, voter: bool, replace: Option<u64>) {
    let body = serde_json::json!({
        "node": node, "name": info.name, "peer_address": info.peer_address, "api_address": info.api_address,
        "voter": voter, "replace": replace,
    });
    let mut told = String::new();
    loop {
        let status = plane.status();
        let inside = if voter {
            status.voters.iter().any(|member| member.node == node)
        } else {
            status.learners.iter().any(|member| member.node == node)
        };
        // Once inside, for ever: a member that was removed does not come back by itself.
        if inside {
            tracing::info!(node, "this member is in the cluster");
            return;
        }
        if let Err(error) = client.json(Method::POST, "/v1/members", Some(&body)).await {
            let error = error.to_string();
            if error != told {
                tracing::warn!(error, "not taken in yet");
                told = error;
            }
        }
        tokio::time::sleep(JOIN_RETRY).await;
    }
}

/// The leader writes a backup each hour.
async fn backups(plane: Arc<Plane>, directory: PathBuf) {
    let mut last = None;
    loop {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let due = last.is_none_or(|at: Instant| at.elapsed() >= BACKUP_EVERY);
        if !due || plane.status().role != crate::consensus::Role::Leader {
            continue;
        }
        let (state, directory) = (plane.state(), directory.clone());
        let written = tokio::task::spawn_blocking(move || write_backup(&directory, &state)).await;
        match written {
            Ok(Ok(path)) => {
                last = Some(Instant::now());
                tracing::info!(file = %path.display(), "backup written");
            }
            Ok(Err(error)) => tracing::error!(%error, "the backup was not written"),
            Err(error) => tracing::error!(%error, "the backup was not written"),
        }
    }
}

fn write_backup(directory: &Path, state: &State) -> std::io::Result<PathBuf> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::create_dir_all(directory)?;
    let path = directory.join(format!(
        "{}-{:016}-{:04}-{:012}.ringway-backup",
        state.cluster,
        unix_ms(),
        state.epoch,
        state.revision
    ));
    let beside = path.with_extension("new");
    // Certificates' keys are in it.
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(&crate::state::backup::write(state).map_err(std::io::Error::other)?)?;
    file.sync_all()?;
    std::fs::rename(&beside, &path)?;
    let mut known: Vec<PathBuf> = std::fs::read_dir(directory)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "ringway-backup"))
        .collect();
    // Names sort by time.
    known.sort();
    for old in known.iter().take(known.len().saturating_sub(BACKUPS_KEPT)) {
        std::fs::remove_file(old)?;
    }
    Ok(path)
}
