//! A member at work: proposals find the leader wherever they are made, reads are as fresh as they say, and whoever leads
//! keeps the heartbeats.

mod answer;
mod at_work;
mod error;
mod health;
mod lead;
mod loads;
mod propose;
mod questions;
mod roll;
mod tables;
mod views;

pub use self::at_work::{Lead, Plane, unix_ms};
pub use self::error::PlaneError;
pub use self::health::Health;
#[cfg(any(test, fuzzing))]
pub(crate) use self::questions::fuzz as fuzz_ask;
pub(crate) use self::roll::why_silent;
pub use self::roll::{question, read_answer};
pub use self::tables::Loads;
pub use self::views::{FleetView, LeaderSeen, MemberChange, MemberView, TablesTold};
pub use crate::state::judge::Guards;
