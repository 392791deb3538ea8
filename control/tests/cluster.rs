//! Members in one process over real sockets, every directed pair through a relay that can cut or delay it.
//!
//! Nothing here depends on speed: what must come is waited for up to a deadline, what must not come is asked for until
//! something else proves that it had its chance.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails, and says where it was")]

mod chaos;
mod disks;
mod failover;
mod harness;
mod membership;
mod relay;
mod strangers;
mod tls;
