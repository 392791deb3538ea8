//! How a member starts.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use openraft::type_config::TypeConfigExt as _;
use tokio::sync::watch;

use super::machine::{Raft, Retired};
use super::status::{self};
use super::types::Types;
use crate::store::Store;
use crate::transport::{self, Dialer};

use super::housekeeping;
use super::log::Log;
use super::machine::StateMachine;
use super::network::{Network, Server};
use super::node::{Inner, Node};
use super::options::{Core, Options, StartError, config, identity};
use super::replicated::Machine;

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
        let raft = Raft::build(id, config, network, log, machine).await;
        let raft = or_close(raft.map_err(|error| StartError::Replay(error.to_string())), &store).await?;
        let heard = status::Heard::default();
        let server = Server { raft: raft.clone(), node: id, answerer: core.answerer, heard: heard.clone() };
        let server = or_close(serve(server).map_err(StartError::Listen), &store).await?;
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
            Types::spawn(housekeeping::report(raft, store, failure_sender)),
            Types::spawn(housekeeping::watch(Arc::downgrade(&inner))),
        ];
        if let Some(places) = places {
            tasks.push(Types::spawn(housekeeping::know(inner.status.clone(), places)));
        }
        *inner.tasks.lock().unwrap_or_else(PoisonError::into_inner) = tasks;
        Ok(Self { inner })
    }
}

/// A start that fails leaves no store open.
async fn or_close<T>(result: Result<T, StartError>, store: &Store) -> Result<T, StartError> {
    if result.is_err() {
        store.close().await;
    }
    result
}
