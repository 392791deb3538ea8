//! Members in one process over real sockets, every directed pair through a relay that can cut or delay it.
//!
//! Nothing here depends on speed: what must come is waited for up to a deadline, what must not come is asked for until
//! something else proves that it had its chance.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails, and says where it was")]

#[path = "cluster/chaos.rs"]
mod chaos;
#[path = "disk/mod.rs"]
mod disk;
#[path = "cluster/disks.rs"]
mod disks;
#[path = "cluster/failover.rs"]
mod failover;
#[path = "cluster/harness.rs"]
mod harness;
#[path = "cluster/membership.rs"]
mod membership;
#[path = "../../tests/common/pace.rs"]
mod pace;
#[path = "cluster/relay.rs"]
mod relay;
#[path = "cluster/strangers.rs"]
mod strangers;
#[path = "cluster/tls.rs"]
mod tls;
