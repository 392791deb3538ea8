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

mod chaos;
mod client;
mod clocks;
mod cluster;
#[path = "../common/mod.rs"]
mod common;
mod cut;
mod disks;
#[path = "../../control/tests/linear/mod.rs"]
mod linear;
mod namespace;
mod proxy;
mod random;
mod relay;
mod soak;
mod tables;
mod traffic;
mod upgrade;
mod witness;
mod workload;
