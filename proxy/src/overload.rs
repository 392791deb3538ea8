//! Overload: how much of what this process may use is used, and what it stops doing as that comes to its end. The control side measures
//! and decides ([`stage`]); workers read the stage ([`OverloadState`]).

mod busy;
pub(crate) mod memory;
mod own_work;
pub(crate) mod released;
mod shed;
mod stage;
mod state;
mod ticks;

pub(crate) use busy::BusyMeter;
pub(crate) use own_work::OwnWork;
pub(crate) use shed::Shed;
pub(crate) use stage::{Change, Resource, Stage, Stages, Usage};
pub(crate) use state::OverloadState;
pub(crate) use ticks::{Turn, Watchdog};
