//! What Ringway tells about itself: metrics, logs, the access log, traces.
//!
//! Two kinds of metrics. What the data path counts lies in [`counters`]: plain per-worker numbers with one writer each,
//! summed when somebody scrapes. What happens seldom (reloads, health changes, panics) goes through the `metrics`
//! facade. Both are named in one [`catalogue`].

pub mod access;
mod buckets;
pub mod catalogue;
mod cell;
pub mod counters;
pub mod exemplars;
pub mod exposition;
pub mod listener;
pub mod logs;
pub mod process;
mod render;
mod sums;
pub mod threads;
pub mod traces;

pub use render::{Metrics, OfBackends};
pub use sums::Sums;
