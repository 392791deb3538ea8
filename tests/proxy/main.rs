//! The proxy, end to end: real processes, strangers' clients, backends that do what they are told. A file for each promise.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod access_log;
mod adaptive;
mod admin;
mod balance;
mod changes;
mod cli;
mod clients;
#[path = "../common/mod.rs"]
mod common;
mod compression;
mod doors;
mod drain;
mod edge;
mod edges_of_balancing;
mod explain;
mod faults;
mod framing;
mod h2_upstream;
mod health;
mod hostile;
mod http;
mod identity;
mod main_job;
mod metrics;
mod operator;
mod outliers;
mod overload;
mod overrides;
mod page;
mod plan;
mod policies;
mod preconnect;
mod prometheus;
mod protocols;
mod quic;
mod reload;
mod resumption;
mod retries;
mod routes;
mod saved;
mod sessions;
mod shortage;
mod tcp;
mod tracing;
mod udp;
