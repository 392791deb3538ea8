//! Whether a backend may be sent traffic: active checks, ejection, panic, slow start, drain.
//!
//! Pure: time is an argument, jitter comes from a seed, effects are returned as [`Event`]s. What comes out is one number
//! per backend, the share of its keys that it takes ([`ServiceHealth::share`]): the balancing walk consults nothing else.
//!
//! ```
//! # use ringway_health::*; use std::time::{Duration, Instant};
//! let start = Instant::now();
//! let params = Params { check: Some(CheckParams { fall: 2, ..CheckParams::default() }), ..Params::default() };
//! let mut health = ServiceHealth::new(params, 7, start);
//! health.set_members(&[Member { id: "a", weight: 100, drain: false }, Member { id: "b", weight: 100, drain: false }], start);
//! let later = start + Duration::from_secs(2);
//! while let Some(id) = health.poll_probe(later) {
//!     let result = if id == "a" { Probe::Success } else { Probe::Failure(CheckFailure::Connect) };
//!     health.handle_probe(&id, result, later);
//! }
//! assert_eq!((health.share("a"), health.share("b")), (Some(u16::MAX), Some(0)));
//! ```
#![warn(missing_docs)]

mod event;
mod member;
mod params;
mod service;

pub use event::{CheckFailure, Event, EventKind, Outcome, Probe};
pub use member::MemberView;
pub use params::{CheckParams, Initial, OutlierOn, OutlierParams, Params, SlowStartParams};
pub use service::{Member, ServiceHealth};
