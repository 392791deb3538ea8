//! Placement from outside: policies, bounds, walks, shares, vectors.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bounds;
mod concurrency;
mod generations;
mod policies;
mod properties;
mod shares;
mod table;
mod vectors;
mod walks;
