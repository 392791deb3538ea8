//! Policies, limits, retries, hedges, queues, checks and ejections where two rules meet that are right alone.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cookies;
mod hedges;
mod input;
pub(crate) mod limits;
mod listeners;
mod probes;
mod queue;
mod reasons;
mod retries;
mod shares;
mod weights;
