//! Every metric: name, kind, unit, labels, help. `docs/metrics.md` is printed from here.

/// What a metric's number means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts per bucket, and a sum.
    Histogram,
}

impl Kind {
    /// The word of the exposition format.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Name, unit last.
    pub name: &'static str,
    /// Kind.
    pub kind: Kind,
    /// Label names; their values come from bounded sets.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
}

macro_rules! catalogue {
    ($($constant:ident = $name:literal, $kind:ident, [$($label:literal),*], $help:literal;)*) => {
        $(#[doc = $help] pub const $constant: Metric = Metric {
            name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help,
        };)*
        /// All of them, in the order of the documentation.
        pub const ALL: &[Metric] = &[$($constant),*];
    };
}

catalogue! {
    REQUESTS = "ringway_requests_total", Counter, ["service", "class"], "Requests, sessions and flows ended, by class of the status that the client got (1xx to 5xx, or none; a call of gRPC counts by what its grpc-status means); TCP sessions and UDP flows that a backend has taken are session, others none.";
    REQUEST_DURATION = "ringway_request_duration_seconds", Histogram, ["service"], "From a request's head being complete to the end of its response.";
    RETRIES = "ringway_retries_total", Counter, ["service"], "Tries after the first.";
    SPILLS = "ringway_spills_total", Counter, ["service"], "Requests, sessions and flows that the bound sent to another backend than the first eligible one of their candidate sequence, or than the one that still has their key while keys are handed over.";
    KEPT = "ringway_drained_kept_requests_total", Counter, ["service"], "Requests that an affinity cookie brought to a backend that is drained or has no weight, which keeps its clients until drain_timeout.";
    OWNED = "ringway_owner_served_total", Counter, ["service"], "Requests, sessions and flows with a key that were served by the key's owner: while keys are handed over, by whoever still has it.";
    KEYED = "ringway_keyed_requests_total", Counter, ["service"], "Requests, sessions and flows that were placed by key; with ringway_owner_served_total, the affinity hit ratio.";
    SPILL_DISTANCE = "ringway_spill_distance_total", Counter, ["service"], "Backends that requests, sessions and flows passed over in their candidate sequences, because of the bound or of health, summed.";
    HOT = "ringway_hot_requests_total", Counter, ["service"], "Requests, sessions and flows with a hot key, spread over its owners.";
    HOT_KEYS = "ringway_hot_keys", Gauge, ["service"], "Keys that are hot now.";
    BUDGET_EXHAUSTED = "ringway_retry_budget_exhausted_total", Counter, ["service"], "Retries that the retry budget did not allow.";
    RETRIES_REFUSED = "ringway_retries_refused_total", Counter, ["service", "limit"], "Retries that a limit did not allow, by limit: retries_max (of the service), budget, backend_retries_max (every backend that was left has as many as it may).";
    HEDGES = "ringway_hedges_total", Counter, ["service"], "Second tries beside a slow first one.";
    HEDGES_WON = "ringway_hedges_won_total", Counter, ["service"], "Second tries whose response was taken.";
    HEDGE_BUDGET_EXHAUSTED = "ringway_hedge_budget_exhausted_total", Counter, ["service"], "Second tries that the hedge budget did not allow.";
    HANDOFF_PREVIOUS = "ringway_handoff_previous_total", Counter, ["service"], "Requests whose key a change has moved, that went to the backend that had the key before, without a copy to the next one.";
    HANDOFF_COPIES = "ringway_handoff_copies_total", Counter, ["service"], "Requests of this kind of which a copy has gone to the next owner of the key, which has it once it has answered that.";
    HANDOFF_COPIES_FAILED = "ringway_handoff_copies_failed_total", Counter, ["service"], "Copies of these that brought the next owner nothing, as far as its response says (none, one that broke off, or 5xx): the key stayed where it was, to be copied again after a while that doubles with each.";
    HANDOFF_COPIES_REFUSED = "ringway_handoff_copies_refused_total", Counter, ["service"], "Copies that were not made because the next owner or `handoff.copy.in_flight_max` left no place for them: the key stayed where it was.";
    HANDOFF_MOVED = "ringway_handoff_moved_total", Counter, ["service"], "Requests whose key has been handed over, that went to its next owner and named the previous one.";
    HANDOFF_PROGRESS = "ringway_handoff_progress", Gauge, ["service"], "Share of the keys that the last change has moved which may be handed over by now; 1 where no change is under way.";
    MIRRORED = "ringway_mirrored_total", Counter, ["service"], "Requests of which a copy was made for a mirror.";
    MIRROR_LEFT_OUT = "ringway_mirror_left_out_total", Counter, ["service"], "Requests of which a mirror was to have a copy, and got none: the body is longer than 8 KiB, or came while the response did, or 256 copies of the worker's are under way.";
    SHADOWED = "ringway_shadow_compared_total", Counter, ["service"], "Requests, sessions and flows whose placement was compared with the shadow configuration's.";
    SHADOW_MOVED = "ringway_shadow_moved_total", Counter, ["service"], "Of these, those that the shadow configuration would send elsewhere.";
    FLEET_TABLE_AGE = "ringway_fleet_table_age_seconds", Gauge, ["service"], "Since the fleet's table of shed shares and hot keys was made or confirmed; +Inf without one, there only with `shed.scope: fleet`.";
    FLEET_TABLE_REFUSED = "ringway_fleet_table_refused_total", Counter, ["service"], "Tables of the fleet that were not obeyed: of another ring, or older than the one that is known; there only with `shed.scope: fleet`.";
    KEYS_MOVED = "ringway_keys_moved_ratio", Gauge, ["service"], "Share of the key space that the last change of the service's membership, weights or drains moved.";
    PEAK_SHARE = "ringway_ring_peak_share_ratio", Gauge, ["service"], "Largest share of the key space for its weight that a backend owns, over the fair one.";
    QUEUED = "ringway_queued_total", Counter, ["service"], "Requests and sessions that waited for a backend with room.";
    PROXY_ERRORS = "ringway_proxy_errors_total", Counter, ["service", "reason"], "Responses that Ringway gave itself, by reason.";
    REJECTED = "ringway_rejected_requests_total", Counter, ["reason"], "Requests refused before a service was chosen, and datagrams for which no flow could begin, by reason.";
    BACKEND_REQUESTS = "ringway_backend_requests_total", Counter, ["service", "backend"], "Requests, sessions and flows sent to a backend, retries counted each.";
    BACKEND_FAILURES = "ringway_backend_failures_total", Counter, ["service", "backend"], "Tries that failed: refused, reset, timed out, garbage.";
    BACKEND_SPILLS = "ringway_backend_spills_total", Counter, ["service", "backend"], "Requests, sessions and flows that a backend has served although the bound had to send them on from an earlier one of their candidate sequence.";
    BACKEND_RESPONSES = "ringway_backend_responses_total", Counter, ["service", "backend", "class"], "Tries on a backend that have ended, by class of its response (1xx to 5xx); none: without one, because the try failed, another was faster or the client left; TCP sessions and UDP flows are session.";
    BACKEND_REQUEST_DURATION = "ringway_backend_request_duration_seconds", Histogram, ["service", "backend"], "From a try's start, its connection included, to the end of its response, as ringway_backend_responses_total counts them.";
    BACKEND_CONNECTS = "ringway_backend_connects_total", Counter, ["service", "backend"], "Connections opened to a backend.";
    BACKEND_PRECONNECTS = "ringway_backend_preconnects_total", Counter, ["service", "backend"], "Connections to a backend that were open before a request needed one (pool.idle_min).";
    ADDITIONAL_CONNECTS = "ringway_additional_address_connects_total", Counter, ["service"], "Of the connections opened to the service's backends, those by their additional_address.";
    BACKEND_IN_FLIGHT = "ringway_backend_in_flight", Gauge, ["service", "backend"], "Requests, sessions and flows that a backend carries now.";
    BACKEND_CAP = "ringway_backend_cap", Gauge, ["service", "backend"], "Load that the bound allows a backend now.";
    BACKEND_CONCURRENCY_LIMIT = "ringway_backend_concurrency_limit", Gauge, ["service", "backend"], "Requests in flight that a backend may have by its latency, under adaptive_concurrency.";
    BACKEND_CONCURRENCY_LIMITED = "ringway_backend_concurrency_limited_total", Counter, ["service", "backend"], "Times that a request found a backend at that limit, and went on.";
    BACKEND_SHARE = "ringway_backend_ring_share", Gauge, ["service", "backend"], "Share of the key space that a backend owns.";
    BACKEND_ACCEPT = "ringway_backend_accept_share", Gauge, ["service", "backend"], "Share of its weight that counts now: 0 down or drained, between in a ramp or where a check asks for less, 1 all.";
    BACKEND_SHED = "ringway_backend_shed_share", Gauge, ["service", "backend"], "Share of its keys that a backend sheds because it has more load than the others.";
    BACKEND_CONNECTIONS = "ringway_backend_connections", Gauge, ["service", "backend"], "Connections open to a backend, idle ones included.";
    BACKEND_STATE = "ringway_backend_state", Gauge, ["service", "backend", "state"], "1 for the state that a backend is in, as /status names it, 0 for the others: up, degraded, down, unknown, ejected, draining, drained.";
    BACKENDS_REDUCED = "ringway_backends_reduced", Gauge, [], "Backends of which this page leaves out durations, responses by class and states, or everything, as `metrics.backends` says.";
    RECEIVED_BYTES = "ringway_downstream_received_bytes_total", Counter, [], "Bytes read from clients.";
    SENT_BYTES = "ringway_downstream_sent_bytes_total", Counter, [], "Bytes written to clients.";
    CONNECTIONS = "ringway_downstream_connections", Gauge, [], "Client connections open now.";
    LISTENER_CONNECTIONS = "ringway_listener_connections", Gauge, ["listener"], "Client connections (of datagrams: flows) that a listener has open now.";
    LISTENER_ACCEPTED = "ringway_listener_accepted_total", Counter, ["listener"], "Client connections (of datagrams: flows) that a listener has taken.";
    LISTENER_CLOSED = "ringway_listener_closed_total", Counter, ["listener"], "Of these, those that have ended.";
    LISTENER_REQUESTS = "ringway_listener_requests_total", Counter, ["listener", "class"], "Requests, sessions and flows of a listener that have ended, those that went to no service included, by class as in ringway_requests_total.";
    LISTENER_RECEIVED_BYTES = "ringway_listener_received_bytes_total", Counter, ["listener"], "Bytes that came with them, counted at their ends; of requests that went to no service, none.";
    LISTENER_SENT_BYTES = "ringway_listener_sent_bytes_total", Counter, ["listener"], "Bytes that their clients were sent, counted at their ends.";
    LISTENER_FULL = "ringway_listener_full", Gauge, ["listener"], "1 while a client waits because connections_max, of the listener or of the process, are open; more may wait in the kernel's queue.";
    LISTENER_FULL_TIMES = "ringway_listener_full_total", Counter, ["listener"], "Times that clients began to wait for that; with when_full reject, clients turned away.";
    LISTENER_FULL_SECONDS = "ringway_listener_full_seconds_total", Counter, ["listener"], "Time in which clients waited for that.";
    ACCEPTED = "ringway_downstream_accepted_total", Counter, [], "Client connections accepted.";
    UPSTREAM_IDLE = "ringway_upstream_idle_connections", Gauge, [], "Upstream connections kept for the next request.";
    PIPES = "ringway_splice_pipes", Gauge, [], "Pipes in use, through which bulk goes from socket to socket without being copied.";
    SPLICED_BYTES = "ringway_spliced_bytes_total", Counter, [], "Bytes of tunnels and TCP sessions that have gone through them.";
    COMPRESSED = "ringway_compressed_responses_total", Counter, [], "Responses that were compressed.";
    COMPRESSION_SKIPPED = "ringway_compression_skipped_total", Counter, [], "Responses that were not, because as many as may be were being compressed.";
    COMPRESSION_INPUT = "ringway_compression_input_bytes_total", Counter, [], "Bytes of responses before their compression.";
    COMPRESSION_OUTPUT = "ringway_compression_output_bytes_total", Counter, [], "Bytes of responses after their compression.";
    GENERATION = "ringway_config_generation", Gauge, [], "Version of the configuration in force.";
    CERTIFICATE_NOT_AFTER = "ringway_certificate_not_after_seconds", Gauge, ["used_by", "name", "file"], "When a file of certificates ends to be valid, in seconds of Unix time: a chain with its first to end, authorities with their last.";
    RING_DIGEST = "ringway_ring_digest_info", Gauge, ["service", "digest"], "Always 1; the digest of the service's ring as a label.";
    TOPOLOGY_AGE = "ringway_topology_age_seconds", Gauge, [], "Since the control plane was heard of; there only with `control`.";
    TOPOLOGY_REVISION = "ringway_topology_revision", Gauge, [], "Revision of the fleet's topology that is in force; there only with `control`.";
    TOPOLOGY_EPOCH = "ringway_topology_epoch", Gauge, [], "Epoch of the fleet's topology that is in force; there only with `control`.";
    TOPOLOGY_CONNECTED = "ringway_topology_connected", Gauge, [], "1 while a member of the control plane is followed; there only with `control`.";
    TOPOLOGY_STUCK = "ringway_topology_stuck", Gauge, [], "1 while the fleet's topology cannot be put into force here; there only with `control`.";
    RELOADS = "ringway_reloads_total", Counter, ["result"], "Reloads by result: applied, unchanged, refused.";
    RELOAD_LAST_OK = "ringway_config_last_reload_successful", Gauge, [], "1 if the last reload was applied or unchanged, 0 if it was refused.";
    ADMIN_DENIED = "ringway_admin_denied_total", Counter, ["reason"], "Requests to the admin listener that were refused for who sent them: no_credentials, bad_token, role, foreign (a page of another origin), handshake (TLS).";
    ADMIN_EVICTED = "ringway_admin_connections_evicted_total", Counter, [], "Connections to the admin listener or its socket, of clients without credentials, that were closed because newer ones needed their places.";
    HEALTH_CHANGES = "ringway_health_changes_total", Counter, ["service", "to", "reason"], "Changes of a backend's state, by the state it changed to and why.";
    CHECKS = "ringway_checks_total", Counter, ["service", "result"], "Active checks ended, by result: success, failure, or not_made, which says nothing of the backend (this host was short of something).";
    CHECKS_LATE = "ringway_checks_late_total", Counter, ["service"], "Checks and questions to agents that began a quarter of their interval late or more, as health.concurrency were under way already: of prompt backends, or of slow ones.";
    AGENT_CHECKS = "ringway_agent_checks_total", Counter, ["service", "result"], "Questions to agents ended, by result: answered, silent (nobody there, nothing known, too late: nothing changes), or not_made (this host was short of something).";
    PANIC_MODE = "ringway_panic_mode", Gauge, ["service"], "1 while health is ignored because too few backends are healthy.";
    BACKENDS_STANDING_OUT = "ringway_backends_standing_out", Gauge, ["service", "reason"], "Backends that stand out from their peers, by reason: failing (more 5xx and failed tries), slow; see outlier_warnings.";
    ACCEPT_ERRORS = "ringway_accept_errors_total", Counter, [], "Errors of accept, out of descriptors among them.";
    LOCAL_SHORTAGE = "ringway_local_shortage_total", Counter, ["operation", "resource"], "What could not be done because this host is short of something (descriptors, system_descriptors, ports, buffers, memory): accept, admin_accept, connect, check, flow. Never counted against a backend.";
    OVERLOAD_STAGE = "ringway_overload_stage", Gauge, [], "What is stopped under overload: 0 nothing, 1 keep-alive, 2 new requests by their priority too, 3 all of them (503), 4 accepting too.";
    OVERLOAD_REFUSED = "ringway_overload_refused_share", Gauge, ["priority"], "Share of new requests, sessions and flows that is refused under overload (1 is all), by priority: low, default, high.";
    OVERLOAD_PRESSURE = "ringway_overload_pressure", Gauge, ["resource"], "Share of a resource that is used (1 is all): memory, lag, connections, descriptors; 0 where there is no limit or it is not looked at.";
    OVERLOAD_ENTERED = "ringway_overload_stage_entered_total", Counter, ["stage"], "Times that overload has risen to a stage: stop_keep_alive, shed_low_priority, refuse_requests, stop_accepting.";
    WORKER_LAG = "ringway_worker_lag_seconds", Gauge, ["worker"], "How late a worker was, at most, for what was due within the last quarter of a second.";
    WORKER_BUSY = "ringway_worker_busy_ratio", Gauge, ["worker"], "Share of the last two seconds in which a worker was not waiting; 1 while it is stuck.";
    WORKER_STUCK = "ringway_worker_stuck", Gauge, ["worker"], "1 while a worker has not looked at what is due for 3 seconds or longer: its clients wait, new ones are served by others.";
    PANICS = "ringway_panics_total", Counter, [], "Connections, streams, checks and other tasks that ended by a panic: a bug, please report it.";
    TLS_HANDSHAKES = "ringway_tls_handshakes_total", Counter, ["listener", "version", "resumed"], "TLS handshakes of clients, by version (1.2, 1.3) and whether they resumed a session (true, false).";
    TLS_HANDSHAKE_ERRORS = "ringway_tls_handshake_errors_total", Counter, ["listener", "reason"], "TLS handshakes of clients that failed, by reason; debug logs name the client.";
    TRACE_SPANS = "ringway_trace_spans_total", Counter, ["result"], "Spans of traces by what became of them: exported (the collector has taken them), refused (it did not want them), failed (it could not be reached, for all tries), dropped (more came than it took).";
    ACCESS_LOG_LOST = "ringway_access_log_lost_total", Counter, [], "Access log lines lost: the writer could not keep up, or the disk was full.";
    BUILD_INFO = "ringway_build_info", Gauge, ["version", "revision"], "Always 1; what runs, the revision empty where whoever built it has not named it.";
    PROCESS_CPU = "process_cpu_seconds_total", Counter, [], "Processor time of this process, in user mode and in the kernel.";
    PROCESS_START = "process_start_time_seconds", Gauge, [], "When this process began, in seconds of Unix time.";
    PROCESS_THREADS = "process_threads", Gauge, [], "Threads of this process.";
    PROCESS_VIRTUAL = "process_virtual_memory_bytes", Gauge, [], "Virtual memory of this process.";
    PROCESS_RESIDENT = "process_resident_memory_bytes", Gauge, [], "Resident memory of this process.";
    PROCESS_OPEN_FDS = "process_open_fds", Gauge, [], "Descriptors that this process has open.";
    PROCESS_MAX_FDS = "process_max_fds", Gauge, [], "Descriptors that it may have.";
}
