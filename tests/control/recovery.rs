//! The fleet after its control plane has been through something: restores, lapses, members that go for good, operators at
//! work; with processes as they are deployed.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that cannot go on fails, and says where it was"
)]

mod badinput;
mod connections;
mod epochs;
mod fleet;
mod guards;
mod lapses;
mod metrics;
mod openapi;
mod operator;
mod quorum;
mod resync;
mod scale;
mod writes;
