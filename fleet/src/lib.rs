//! A proxy in a fleet: its file and the control plane's topology are one configuration, and every change of either is a
//! reload. The control plane is never on the way of a request: what it says is applied, or it is not.
//!
//! [`Fleet`] (`follow`) is all that reads and writes; what it decides stands beside it, pure: `standing` (what is to be in
//! force, what is, why not), `rollout` (who goes first, votes), `course` (what a rollout has come to), `services` (what is the fleet's business), `loads` (what is told of
//! loads, and obeyed), `reason`.
#![warn(missing_docs)]

mod course;
mod follow;
mod loads;
mod reason;
mod rollout;
mod services;
mod standing;

pub use follow::Fleet;
