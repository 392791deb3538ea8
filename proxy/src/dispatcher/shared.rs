//! What all workers share.

use super::command::Command;
use super::doors::Doors;
use super::per_ip::PerIp;
use super::permits::Occupancy;
use crate::net::shortage::Shortage;
use crate::net::transport::Network;
use crate::overload::OverloadState;
use crate::snapshot::Current;
use crate::snapshot::journal::Journal;
use ringway_config::model::AccessLogOnly;
use ringway_ring::Published;
use ringway_telemetry::counters::Registry as Counters;
use ringway_telemetry::traces;
use std::sync::{Arc, OnceLock};
use tokio::sync::mpsc;

/// What all workers share.
pub(crate) struct Shared {
    pub(crate) current: Arc<Current>,
    pub(crate) counters: Arc<Counters>,
    /// How connections to backends are opened.
    pub(crate) network: Network,
    /// Seeds the hashes of rate limits' keys, so that no client can choose them.
    pub(crate) secret: u64,
    /// Tells ids of this process from those of others.
    pub(crate) instance: u64,
    /// How many workers there are.
    pub(crate) workers: usize,
    /// Client connections that are open, or on their way to be.
    pub(crate) occupancy: Arc<Occupancy>,
    /// Their listening sockets.
    pub(crate) doors: Arc<Doors>,
    /// The workers' command channels; set once all are started.
    pub(crate) commands: OnceLock<Vec<mpsc::UnboundedSender<Command>>>,
    /// What the process has stopped doing for want of memory, time, connections or descriptors.
    pub(crate) overload: Arc<OverloadState>,
    /// Resources that this host is short of.
    pub(crate) shortage: Arc<Shortage>,
    /// What has happened lately.
    pub(crate) journal: Arc<Journal>,
    /// Client connections by address, where a listener limits them.
    pub(crate) per_ip: PerIp,
    /// Where access log lines go; changes with the configuration.
    pub(crate) access: Arc<Published<Option<AccessSink>>>,
    /// Where spans go; changes with the configuration.
    pub(crate) spans: Arc<Published<Option<traces::Sink>>>,
}

impl Shared {
    /// Whether workers are there, or yet to be started.
    pub(crate) fn has_workers(&self) -> bool {
        !self.commands.get().is_some_and(|commands| commands.iter().all(mpsc::UnboundedSender::is_closed))
    }
}

/// An access log's form and its writer.
pub(crate) struct AccessSink {
    pub(crate) format: ringway_telemetry::access::Format,
    /// Of what it has lines, if not of everything.
    pub(crate) only: Option<AccessLogOnly>,
    pub(crate) sender: std::sync::mpsc::SyncSender<Vec<u8>>,
}
