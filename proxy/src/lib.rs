//! The data path and what steers it.
//!
//! One thread per core carries traffic (`worker`): accept, parse, route, pick, exchange, log, all without crossing
//! threads. One more runs everything else ([`Proxy`]): reloads, active checks, the admin listener, signals. Between the
//! two stand one atomic pointer to an immutable [`Snapshot`] and the atomics of the loads.

mod admin;
mod ambient;
mod apply;
mod codec;
mod dispatcher;
mod downstream;
mod error;
mod exchange;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod l4;
mod net;
mod overload;
mod planted;
mod probe;
mod proxy;
mod routes;
mod routing;
mod run;
#[cfg(test)]
mod simulation;
mod snapshot;
mod upstream;
mod worker;

pub use admin::explain::{
    Described, DescribedError, ExplainError, Explanation, Priorities, explain, explain_hash, explain_request,
};
pub use admin::plan::{Plan, PlanError, RoutePlan, Scope, ServicePlan, plan};
pub use apply::files::{findings, verified};
pub use apply::outcome::{Applied, ReloadError};
pub use apply::source::Source;
pub use apply::topology::{Published, TopologyStatus};
pub use apply::watch::watch;
pub use error::{ProxyError, RetryWhen, Side};
pub use net::tls::TlsError;
pub use net::token::TokenError;
pub use overload::released::released;
pub use proxy::fleet_bounds::ServiceLoad;
pub use proxy::handle::{Handle, Prepared, Report};
pub use proxy::{Proxy, StartError};
pub use ringway_ring::{Method as MovementMethod, Movement};
pub use routes::RouteTable;
pub use snapshot::shadow::{ShadowError, agreed_digest};
pub use snapshot::{
    AdminAccessError, Backend, BackendState, Current, OfferedTable, Registry, Service, ServiceLive, Snapshot,
    SnapshotError, TableRefusal, TableStamp,
};
