//! The data path and what steers it.
//!
//! One thread per core carries traffic (`worker`): accept, parse, route, pick, exchange, log, all without crossing
//! threads. One more runs everything else ([`Proxy`]): reloads, active checks, the admin listener, signals. Between the
//! two stand one atomic pointer to an immutable [`Snapshot`] and the atomics of the loads.

mod accept;
mod admin;
mod answer;
mod buffers;
mod checks;
mod control;
mod error;
mod exchange;
mod explain;
mod forwarded;
mod http;
mod inflight;
mod key;
mod request;
mod route;
mod snapshot;
mod status;
mod tcp;
mod timer;
mod tunnel;
mod upstream;
mod watch;
mod worker;

pub use control::{Applied, Proxy, ReloadError, Source, StartError};
pub use error::{ProxyError, RetryWhen, Side};
pub use explain::{ExplainError, Explanation, explain};
pub use snapshot::{Backend, BackendState, Current, Registry, Service, ServiceLive, Snapshot, SnapshotError};
pub use watch::watch;
