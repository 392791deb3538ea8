//! One immutable value per version of the configuration, and the live state that outlives it.
//!
//! A request reads one [`Snapshot`], once. State that must survive a reload (loads, health, counters) belongs to the
//! backend's id in the [`Registry`] and is carried from snapshot to snapshot.

pub(crate) mod admin_access;
mod backend;
pub(crate) mod certificates;
mod check_delay;
pub(crate) mod concurrency;
pub(crate) mod connection_life;
pub(crate) mod connection_slot;
pub(crate) mod connections;
mod fleet_bounds;
pub(crate) mod handoff;
pub(crate) mod handoff_copy;
pub(crate) mod handoff_events;
mod handoff_placement;
pub(crate) mod handoff_request;
pub(crate) mod health_events;
mod hot_table;
pub(crate) mod journal;
mod kept;
mod members;
mod previous_owner;
pub(crate) mod rate_limiter;
mod registry;
mod service;
pub(crate) mod shadow;
mod version;

pub use admin_access::AdminAccessError;
pub use backend::{Backend, BackendState};
pub(crate) use check_delay::Pace;
pub use fleet_bounds::{OfferedTable, TableRefusal, TableStamp};
pub(crate) use hot_table::HotTable;
pub(crate) use registry::sets_up_alike;
pub use registry::{Registry, SnapshotError};
pub(crate) use service::cookie_value;
pub use service::{Service, ServiceLive};
pub(crate) use version::{COPY_FIELD, ListenerTable};
pub use version::{Current, Snapshot};
