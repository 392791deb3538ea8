//! Whether a backend may be sent traffic: active checks, ejection, panic, slow start.
//!
//! Pure: time is an argument, jitter comes from a seed, effects are returned as events.
#![warn(missing_docs)]

mod params;

pub use params::{CheckParams, Initial, OutlierOn, OutlierParams, SlowStartParams};
