//! The admin listener: metrics, status, health of the process itself, reload.

mod access;
mod changes;
mod dispatch;
pub(crate) mod explain;
mod fleet_table;
mod foreign;
mod hot_keys;
mod live;
mod log;
mod metrics;
mod names;
mod page;
mod patient;
mod peak_share;
pub(crate) mod plan;
mod query;
mod reply;
mod serve;
mod sessions;
mod shown;
mod standing_out;
mod status;
mod strict_json;
mod tap;
mod words;
mod workers;

pub(crate) use live::live;
pub(crate) use serve::{Socket, serve};
