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
//! health.set_members(&[Member::new("a"), Member::new("b")], start);
//! let later = start + Duration::from_secs(2);
//! while let Some(id) = health.poll_probe(later) {
//!     let result = if &*id == "a" { Probe::Success } else { Probe::Failure(CheckFailure::Connect) };
//!     health.handle_probe(&id, result, later);
//! }
//! assert_eq!((health.share("a"), health.share("b")), (Some(u16::MAX), Some(0)));
//! ```
#![warn(missing_docs)]

mod agent;
mod due;
mod event;
mod levels;
mod member;
mod member_view;
mod params;
mod ramp;
mod recurring;
mod schedule;
mod service;
mod standing_out;
mod statistics;

pub use agent::{AgentMode, AgentParams, AgentReport};
pub use event::{Cause, CheckFailure, Event, EventKind, Outcome, Probe, Window};
pub use member::{MemberKey, MemberRef};
pub use member_view::MemberView;
pub use params::{
    CheckParams, FailurePercentageParams, Initial, LatencyParams, OutlierOn, OutlierParams, PanicMode, Params,
    SlowStartParams, SuccessRateParams,
};
pub use service::{Member, STATES, ServiceHealth};
pub use standing_out::{Failing, Observed, Reason, StandingOut, StandsOut, Told, Whole};
pub use statistics::mean_latency_micros;
