//! A running proxy: its start, and its end.

pub(crate) mod fleet_bounds;
pub(crate) mod handle;

use crate::admin;
use crate::ambient;
use crate::apply::bind;
use crate::apply::control::Control;
use crate::apply::files;
use crate::apply::handle::ControlHandle;
use crate::apply::outcome::{Applied, ReloadError};
use crate::apply::reload;
use crate::apply::source::Source;
use crate::apply::topology::TopologyStatus;
use crate::apply::{outlier_warnings, overload_driver};
use crate::dispatcher::{Occupancy, PerIp, Shared};
use crate::net::shortage::Shortage;
use crate::net::transport::Network;
use crate::net::unix_socket::{self, SocketFile};
use crate::overload::OverloadState;
use crate::run::Crew;
use crate::snapshot::Snapshot;
use ringway_config::model::{Admin, AdminSocket, Config};
use ringway_config::{Diagnostic, Origin};
use ringway_ring::Published;
use ringway_telemetry::Metrics;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket, UnixListener};

/// A running proxy: its workers' threads, and what steers them.
pub struct Proxy {
    control: Arc<Control>,
    crew: Crew,
    /// Of the admin listener's socket.
    socket: Option<SocketFile>,
}

/// Why a proxy does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A thread cannot be started.
    #[error("start a worker: {0}")]
    Thread(#[source] std::io::Error),
    /// The first configuration cannot be put to work.
    #[error(transparent)]
    Reload(#[from] ReloadError),
    /// The admin listener's address cannot be bound.
    #[error("{0}")]
    Admin(Box<Diagnostic>),
    /// The admin listener's Unix socket cannot be bound.
    #[error("bind the admin listener to {path:?} (`admin.socket`): {source}")]
    AdminSocket {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Proxy {
    /// Starts the workers and puts a configuration into force. Call it on the runtime that is to run the checks and the
    /// admin listener.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running.
    pub async fn start(config: Config, source: Source, metrics: Metrics) -> Result<Self, StartError> {
        let shared = shared(&config, &metrics);
        let crew = Crew::start(&shared).await.map_err(StartError::Thread)?;
        let address = config.admin.as_ref().and_then(|admin| admin.address);
        let control = Arc::new(Control::new(shared, crew.commands(), source, metrics, address));
        let admin = match config.admin.as_ref().zip(address) {
            Some((section, address)) => Some(bind_admin(section, address)?),
            None => None,
        };
        let local = match config.admin.as_ref().and_then(|admin| admin.socket.as_ref()) {
            Some(section) => Some(bind_socket(section)?),
            None => None,
        };
        control.recall();
        control.apply(config)?;
        reload::declare_metrics();
        tokio::spawn(files::watch_ends(Arc::clone(control.current())));
        tokio::spawn(overload_driver::drive(control.shared()));
        tokio::spawn(outlier_warnings::drive(control.shared()));
        let operators = ControlHandle::new(Arc::clone(&control));
        let live = admin::live(operators.clone());
        if let Some(socket) = admin {
            tokio::spawn(admin::serve(operators.clone(), Arc::clone(&live), admin::Socket::Tcp(socket)));
        }
        let mut file = None;
        if let Some((socket, of_socket)) = local {
            tokio::spawn(admin::serve(operators, live, admin::Socket::Unix(socket)));
            file = Some(of_socket);
        }
        Ok(Self { control, crew, socket: file })
    }

    /// Puts a configuration into force: all of it, or nothing.
    ///
    /// # Errors
    /// See [`ReloadError`]; what was in force stays, untouched.
    pub fn apply(&self, config: Config) -> Result<Applied, ReloadError> {
        self.control.apply(config)
    }

    /// A function that gives the files which the configuration in force names: certificates, keys, authorities.
    pub fn files(&self) -> impl Fn() -> Vec<PathBuf> + Send + Sync + 'static {
        let current = Arc::clone(self.control.current());
        // Asked for all the time, and the same as long as the version is.
        let known = std::sync::Mutex::new((std::sync::Weak::new(), Vec::new()));
        move || {
            let snapshot = current.load();
            let mut known = known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if !std::ptr::eq(known.0.as_ptr(), Arc::as_ptr(&snapshot)) {
                let mut files: Vec<PathBuf> = snapshot.config.files().into_iter().map(Into::into).collect();
                // Thousands of services may share a file of authorities.
                files.sort_unstable();
                files.dedup();
                *known = (Arc::downgrade(&snapshot), files);
            }
            known.1.clone()
        }
    }

    /// The address that a listener is bound to.
    #[must_use]
    pub fn address(&self, listener: &str) -> Option<SocketAddr> {
        self.control.address(listener)
    }

    /// The configuration that it was started with was read from these texts: `GET /config` shows it.
    pub fn show_origin(&self, origin: Origin) {
        self.control.show_origin(origin);
    }

    /// From now on, the status and the metrics say where the topology stands. Holds for the first caller.
    pub fn show_topology(&self, source: impl Fn() -> TopologyStatus + Send + Sync + 'static) {
        self.control.show_topology(Box::new(source));
    }

    /// Whether it is ending.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.control.is_draining()
    }

    /// Is ready no longer, and after the configured delay stops accepting, lets requests end, for at most the configured time.
    /// `true`: all have ended.
    pub async fn drain(&self) -> bool {
        self.control.drain().await
    }

    /// Ends the workers, whatever they carry.
    pub fn stop(self) {
        let Self { control, mut crew, socket } = self;
        control.begin_end();
        let ended = crew.end();
        drop((crew, socket));
        // What a stuck worker holds will not come; what the others have told is under way.
        control.end(ambient::now() + if ended { LAST_WORDS } else { LAST_WORDS_WITHOUT_SOME });
    }
}

/// What the workers share, before anything is in force.
pub(crate) fn shared(config: &Config, metrics: &Metrics) -> Arc<Shared> {
    let workers = match config.process.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    };
    let empty = Config { listeners: Vec::new(), services: Vec::new(), ..config.clone() };
    Arc::new(Shared {
        current: Arc::new(Published::new(Arc::new(Snapshot::empty(Arc::new(empty))))),
        counters: Arc::clone(&metrics.counters),
        network: Network::Kernel,
        secret: RandomState::new().hash_one(0_u8),
        instance: RandomState::new().hash_one(1_u8),
        overload: Arc::new(OverloadState::new(workers, ambient::now())),
        shortage: Shortage::new(Arc::clone(&metrics.counters)),
        journal: Arc::default(),
        per_ip: PerIp::new(workers, RandomState::new().hash_one(2_u8)),
        doors: Arc::default(),
        workers,
        occupancy: Arc::new(Occupancy::new(workers)),
        commands: OnceLock::new(),
        access: Arc::default(),
        spans: Arc::default(),
    })
}

/// How long the access log and the exporter of spans may take to hand on what they have, once nothing more comes.
const LAST_WORDS: Duration = Duration::from_secs(5);
const LAST_WORDS_WITHOUT_SOME: Duration = Duration::from_secs(3);

/// Connections that the kernel may hold until the admin listener accepts them.
const ADMIN_BACKLOG: u32 = 4096;

fn bind_admin(section: &Admin, address: SocketAddr) -> Result<TcpListener, StartError> {
    let bound = || -> std::io::Result<TcpListener> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        // Who waits behind a flood of others is served, instead of asking again a second later.
        socket.listen(ADMIN_BACKLOG)
    };
    bound().map_err(|error| {
        let what = format!("the admin listener to {address}");
        StartError::Admin(Box::new(bind::finding(&section.site, &what, address, &error)))
    })
}

fn bind_socket(section: &AdminSocket) -> Result<(UnixListener, SocketFile), StartError> {
    let bound = unix_socket::bind(&section.path, section.mode);
    let bound = bound.and_then(|(socket, file)| Ok((UnixListener::from_std(socket)?, file)));
    bound.map_err(|source| StartError::AdminSocket { path: section.path.clone(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::ports::free_port;

    fn workers() -> usize {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let name = |task: &std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        tasks.flatten().filter(|task| name(task).starts_with("worker-")).count()
    }

    #[tokio::test]
    async fn start_that_fails_leaves_no_worker_and_no_socket_behind() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, taken) = (SocketAddr::from(([127, 0, 0, 1], free_port())), taken.local_addr().unwrap());
        let with = |admin: &str, second: &str, log: &str| {
            format!(
                "workers: 3\nadmin: {{ address: \"{admin}\" }}\n{log}\nlisteners:\n\
                 \x20 - {{ name: one, address: \"{address}\", service: s }}\n\
                 \x20 - {{ name: two, address: \"{second}\", service: s }}\n\
                 services: [ {{ name: s, backends: [ {{ id: a, address: \"127.0.0.1:9\" }} ] }} ]\n"
            )
        };
        let (any, taken) = ("127.0.0.1:0", taken.to_string());
        for text in [
            with(any, &taken, ""),
            with(&taken, any, ""),
            with(any, any, "access_log: { format: json, target: /nowhere/at/all }"),
        ] {
            let config = ringway_config::load_str("test", &text, &|_| None).unwrap().config;
            let started = Proxy::start(config, Source::Memory, Metrics::install()).await;
            assert!(started.is_err(), "{text}");
            assert_eq!(workers(), 0, "{text}");
            std::net::TcpListener::bind(address).unwrap();
        }
        let config = ringway_config::load_str("test", &with(any, any, ""), &|_| None).unwrap().config;
        let proxy = Proxy::start(config, Source::Memory, Metrics::install()).await.unwrap();
        assert_eq!(workers(), 3);
        proxy.stop();
        assert_eq!(workers(), 0);
    }
}
