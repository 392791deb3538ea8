//! The control plane and its fleets, end to end: members, etcd, proxies and operators as processes. A file for each promise.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../common/mod.rs"]
mod common;
mod etcd;
mod fleet;
mod handoff;
mod loads;
mod overrides;
mod page;
mod recovery;
mod tls;
