//! What a member refuses, shown.

use super::access::Access;
use ringway_control::Code;
use ringway_control::http::{ApiError, Problem};
use serde_json::json;
use std::io::Write;
use std::process::ExitCode;

/// What a member would have said, had it been asked.
pub(super) fn refused(access: &Access, code: Code, detail: &str) -> anyhow::Result<ExitCode> {
    let status = if code == Code::NotFound { 404 } else { 409 };
    show_problem(access, &Problem::new(status, code, detail))
}

pub(super) fn show_problem(access: &Access, problem: &Problem) -> anyhow::Result<ExitCode> {
    if access.json {
        writeln!(crate::terminal::stdout(), "{}", json!(problem))?;
    } else {
        // As an error of any other kind would say it.
        writeln!(crate::terminal::stderr(), "ringway: {}", ApiError::Refused(problem.clone()))?;
    }
    Ok(ExitCode::from(1))
}
