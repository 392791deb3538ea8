//! Errors that say what was being done.

use crate::compare::Result;
use std::fmt::Display;

pub(super) fn doing<T, E: Display>(result: std::result::Result<T, E>, what: &str) -> Result<T> {
    result.map_err(|error| format!("{what}: {error}"))
}
