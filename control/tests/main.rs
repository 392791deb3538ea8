//! The control plane from outside the crate: members in one process, and what they have on their disks.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails")]

mod cluster;
mod compatibility;
mod disk;
#[allow(dead_code, unreachable_pub, reason = "shared with other tests: each uses its part")]
#[path = "../../tests/common/pace.rs"]
mod pace;
mod store_crash;
mod store_directory;
