//! The machine of health from outside: transcripts, simulations.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod agents;
mod ejections;
mod ramps;
mod simulation;
mod told;
mod transcripts;
mod words;
