//! What the programs of this crate share.

pub mod attack;
pub mod compare;
pub mod control;
pub mod instructions;
pub mod seen;
pub mod simulate;
