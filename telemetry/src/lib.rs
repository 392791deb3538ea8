//! What Ringway tells about itself: metrics, logs, the access log.
//!
//! Two kinds of metrics. What the data path counts lies in [`counters`]: plain per-worker numbers with one writer each,
//! summed when somebody scrapes. What happens seldom (reloads, health changes, panics) goes through the `metrics`
//! facade. Both are named in one [`catalogue`].

pub mod access;
pub mod catalogue;
pub mod counters;
pub mod logs;
mod render;
mod sums;

pub use render::{Metrics, Sample};
pub use sums::Sums;
