//! What a worker tells of itself to an operator who looks for what it is busy with.

use super::listener_id::ListenerKind;

/// A worker, as it was when it was asked.
#[derive(Debug, Default)]
pub(crate) struct WorkerReport {
    /// The version of the configuration that its requests read.
    pub(crate) generation: u64,
    pub(crate) is_draining: bool,
    /// Commands that wait behind the one which asked.
    pub(crate) commands: usize,
    /// Tasks of its runtime.
    pub(crate) tasks: usize,
    /// Timers that connections have, and those of them with a deadline.
    pub(crate) timers: usize,
    pub(crate) timers_armed: usize,
    /// Clients' connections that are open.
    pub(crate) connections: usize,
    /// Those that were accepted elsewhere, and whose listener is not known here yet.
    pub(crate) connections_early: usize,
    /// Connections by the kind of their listener and their state, what is under way by its protocol and state: how many of each.
    pub(crate) connections_by: Vec<(&'static str, &'static str, usize)>,
    pub(crate) under_way_by: Vec<(&'static str, &'static str, usize)>,
    pub(crate) buffers: BufferCounts,
    /// Buffers and windows of HTTP/2: bytes of bodies not taken yet, heads not taken yet, bytes by which windows have grown, bytes kept.
    pub(crate) http2_body_bytes: usize,
    pub(crate) http2_heads: usize,
    pub(crate) http2_window_bytes: usize,
    pub(crate) http2_kept_bytes: usize,
    /// Bytes of requests' bodies that are kept to be sent again.
    pub(crate) replay_bytes: usize,
    /// Copies of requests under way.
    pub(crate) mirrors: usize,
    /// Responses being compressed.
    pub(crate) compressions: usize,
    /// Transfers that wait for their turn.
    pub(crate) bulk_waiting: usize,
    pub(crate) listeners: Vec<ListenerReport>,
    /// Backends of all services, and those that it has most to do with.
    pub(crate) backends: usize,
    pub(crate) upstreams: Vec<UpstreamReport>,
}

/// A worker's buffers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct BufferCounts {
    /// Kept for the next who needs one.
    pub(crate) small_kept: usize,
    pub(crate) large_kept: usize,
    pub(crate) heads_kept: usize,
    /// Large ones that are in use.
    pub(crate) large_used: usize,
}

/// A listener that it accepts from, or that has connections left.
#[derive(Debug)]
pub(crate) struct ListenerReport {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) kind: ListenerKind,
    /// It has not begun to close.
    pub(crate) is_open: bool,
    /// Those of this worker.
    pub(crate) connections: usize,
    /// Permits taken, over all workers.
    pub(crate) taken: usize,
}

/// What it has of a backend.
#[derive(Debug)]
pub(crate) struct UpstreamReport {
    pub(crate) service: String,
    pub(crate) backend: String,
    /// Requests, sessions and flows of this worker.
    pub(crate) in_flight: usize,
    /// Connections that idle in its pool.
    pub(crate) idle: usize,
    /// Connections that carry several requests at once, and the streams on them.
    pub(crate) shared: usize,
    pub(crate) streams: usize,
}
