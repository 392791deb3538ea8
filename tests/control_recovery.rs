//! The fleet after its control plane has been through something: restores, lapses, members that go for good, operators at
//! work; with processes as they are deployed.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that cannot go on fails, and says where it was"
)]

#[path = "control_recovery/badinput.rs"]
mod badinput;
mod common;
#[path = "control_recovery/connections.rs"]
mod connections;
#[path = "control_recovery/epochs.rs"]
mod epochs;
#[path = "control_recovery/fleet.rs"]
mod fleet;
#[path = "control_recovery/guards.rs"]
mod guards;
#[path = "control_recovery/lapses.rs"]
mod lapses;
#[path = "control_recovery/metrics.rs"]
mod metrics;
#[path = "control_recovery/openapi.rs"]
mod openapi;
#[path = "control_recovery/operator.rs"]
mod operator;
#[path = "control_recovery/quorum.rs"]
mod quorum;
#[path = "control_recovery/resync.rs"]
mod resync;
#[path = "control_recovery/scale.rs"]
mod scale;
#[path = "control_recovery/writes.rs"]
mod writes;
