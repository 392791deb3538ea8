//! The control plane as processes, under faults: members are killed, stopped, cut off, their disks filled and damaged,
//! while clients write, lock and watch, and a proxy serves. What they saw is checked afterwards.
//!
//! Everything is drawn from a seed, which is printed: `RINGWAY_SEED=N cargo test --test control_faults` draws the same
//! faults again. `RINGWAY_FAULTS=1000 cargo test --release --test control_faults -- --nocapture` injects that many, with and
//! without a network between, instead of one of each kind; damages a log in 750 places; and has the control plane dead for
//! ten minutes instead of ten seconds. Namespaces, full disks and wrong clocks need root, iproute2 and faketime; without,
//! those tests say that they are skipped.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that cannot go on fails, and says where it was"
)]

#[path = "control_faults/chaos.rs"]
mod chaos;
#[path = "control_faults/client.rs"]
mod client;
#[path = "control_faults/clocks.rs"]
mod clocks;
#[path = "control_faults/cluster.rs"]
mod cluster;
mod common;
#[path = "control_faults/cut.rs"]
mod cut;
#[path = "control_faults/disks.rs"]
mod disks;
#[path = "../control/tests/linear/mod.rs"]
mod linear;
#[path = "control_faults/namespace.rs"]
mod namespace;
#[path = "control_faults/proxy.rs"]
mod proxy;
#[path = "control_faults/random.rs"]
mod random;
#[path = "control_faults/relay.rs"]
mod relay;
#[path = "control_faults/soak.rs"]
mod soak;
#[path = "control_faults/traffic.rs"]
mod traffic;
#[path = "control_faults/witness.rs"]
mod witness;
#[path = "control_faults/workload.rs"]
mod workload;
