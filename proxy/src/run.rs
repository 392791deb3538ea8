//! Runs the workers: their threads, their commands, the passing of time. The only place that starts `downstream/` and `l4/`.

mod commands;
mod crew;

#[cfg(test)]
pub(crate) use commands::{WorkerLoop, work};
pub(crate) use crew::Crew;
