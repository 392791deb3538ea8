//! What changes a running proxy: configurations are prepared and committed, sockets bound, files watched, checks driven.

mod access_log;
pub(crate) mod bind;
pub(crate) mod change;
mod commit;
pub(crate) mod control;
mod drain;
mod exporter;
pub(crate) mod files;
pub(crate) mod handle;
pub(crate) mod health_driver;
mod listeners;
mod log_change;
pub(crate) mod log_filter;
mod movements;
pub(crate) mod outcome;
pub(crate) mod outlier_warnings;
pub(crate) mod overload_driver;
pub(crate) mod overrides;
mod prepare;
pub(crate) mod reload;
pub(crate) mod scrapes;
pub(crate) mod source;
mod stand_ins;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod topology;
pub(crate) mod watch;
mod worker_asks;

#[cfg(test)]
#[path = "../../tests/common/ports.rs"]
pub(crate) mod ports;
