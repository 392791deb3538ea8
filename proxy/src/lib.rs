//! The data path and what steers it.
//!
//! One thread per core carries traffic (`worker`): accept, parse, route, pick, exchange, log, all without crossing
//! threads. One more runs everything else ([`Proxy`]): reloads, active checks, the admin listener, signals. Between the
//! two stand one atomic pointer to an immutable [`Snapshot`] and the atomics of the loads.

mod accept;
mod actions;
mod admin;
mod affinity;
mod ambient;
mod answer;
mod bind;
mod budget;
mod buffers;
mod checks;
mod clock;
mod compress;
mod connections;
mod control;
mod end;
mod error;
mod exchange;
mod explain;
mod files;
mod fleet;
mod forwarded;
mod front;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod handle;
mod hello;
mod http;
mod http2;
mod inflight;
mod key;
mod mirror;
mod perip;
mod pktinfo;
mod plan;
mod planted;
mod presence;
mod probe;
mod proxyproto;
mod quic;
mod rate;
mod refusals;
mod request;
mod retry;
mod route;
mod shadow;
mod shortage;
#[cfg(test)]
mod simulation;
mod snapshot;
mod status;
mod stream;
mod tcp;
mod timer;
mod tls;
mod transport;
mod tunnel;
mod udp;
mod upstream;
mod watch;
mod websocket;
mod worker;

pub use control::{Applied, Proxy, ReloadError, Source, StartError};
pub use error::{ProxyError, RetryWhen, Side};
pub use explain::{ExplainError, Explanation, explain};
pub use files::{findings, verified};
pub use fleet::{Prepared, Report, TopologyStatus};
pub use handle::Handle;
pub use plan::{Plan, PlanError, RoutePlan, Scope, ServicePlan, plan};
pub use ringway_ring::{Method as MovementMethod, Movement};
pub use shadow::{ShadowError, ring_digest};
pub use snapshot::{Backend, BackendState, Current, Registry, Service, ServiceLive, Snapshot, SnapshotError};
pub use tls::TlsError;
pub use watch::watch;
