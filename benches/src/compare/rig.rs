//! How the rigs of caches begin and end: on a core beside the proxies', in a directory of their own, with what the Ringway in question knows.

use super::{Result, while_doing};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// The `ringway` that was built beside this program.
///
/// # Errors
/// It is not known where this program is.
pub fn ringway() -> Result<PathBuf> {
    let own = std::env::current_exe().map_err(|error| format!("find this program: {error}"))?;
    Ok(own.with_file_name("ringway"))
}

/// Takes a core beside the proxies', measures in a directory that goes with it, and says what goes wrong.
#[allow(clippy::print_stderr, reason = "it ends a program")]
pub fn run(name: &str, measure: impl FnOnce(&Path) -> Result<()>) -> ExitCode {
    match begin(measure) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn begin(measure: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut own = rustix::thread::CpuSet::new();
    own.set(usize::from(cores > 1));
    rustix::thread::sched_setaffinity(None, &own).map_err(|error| format!("take a core: {error}"))?;
    let directory = tempfile::tempdir().map_err(|error| format!("make a directory: {error}"))?;
    measure(directory.path())
}

/// Why this Ringway cannot have a configuration, if it cannot: in the first line that its `check` prints.
///
/// # Errors
/// The program cannot be run.
pub fn refused(ringway: &Path, directory: &Path, config: &str) -> Result<Option<String>> {
    let file = directory.join("known.yaml");
    while_doing(std::fs::write(&file, config), file.display())?;
    let mut command = Command::new(ringway);
    command.arg("check").arg(&file).stdin(Stdio::null());
    let output = while_doing(command.output(), ringway.display())?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let first = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("nothing").to_owned();
    Ok((!output.status.success()).then_some(first))
}
