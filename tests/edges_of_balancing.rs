//! Policies, limits, retries, hedges, queues, checks and ejections where two rules meet that are right alone.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

#[path = "edges_of_balancing/cookies.rs"]
mod cookies;
#[path = "edges_of_balancing/hedges.rs"]
mod hedges;
#[path = "edges_of_balancing/input.rs"]
mod input;
#[path = "edges_of_balancing/limits.rs"]
mod limits;
#[path = "edges_of_balancing/listeners.rs"]
mod listeners;
#[path = "edges_of_balancing/probes.rs"]
mod probes;
#[path = "edges_of_balancing/queue.rs"]
mod queue;
#[path = "edges_of_balancing/reasons.rs"]
mod reasons;
#[path = "edges_of_balancing/retries.rs"]
mod retries;
#[path = "edges_of_balancing/shares.rs"]
mod shares;
#[path = "edges_of_balancing/weights.rs"]
mod weights;
