//! A proxy as a process, and the time that it has had of the cores.

use crate::compare::Result;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a proxy may take to listen.
const LIMIT: Duration = Duration::from_secs(60);

/// A proxy; dropped, it is killed.
pub struct Ringway(Child);

/// Time of the cores, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Cpu {
    /// All of it, as the scheduler counts: to the nanosecond.
    pub seconds: f64,
    /// Which part of it was the kernel's: by ticks, so roughly.
    pub kernel_seconds: f64,
}

impl Ringway {
    /// Starts the proxy that was built beside this program, and waits until it listens on a port.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(config: &str, directory: &Path, port: u16) -> Result<Self> {
        let file = directory.join(format!("ringway-{port}.yaml"));
        std::fs::write(&file, config).map_err(|error| format!("write {}: {error}", file.display()))?;
        let program = std::env::current_exe().map_err(|error| format!("find this program: {error}"))?;
        let child = Command::new(program.with_file_name("ringway"))
            .args(["run", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // Ten thousand backends at one address are a warning each.
            .stderr(Stdio::null())
            .spawn();
        let mut this = Self(child.map_err(|error| format!("run ringway: {error}"))?);
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Ok(Some(status)) = this.0.try_wait() {
                return Err(format!("the proxy ended: {status}; run it by hand to see why"));
            }
            if begin.elapsed() > LIMIT {
                return Err(format!("nobody listens after {LIMIT:?}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(this)
    }

    /// What all its threads have had so far.
    ///
    /// # Errors
    /// It has ended.
    pub fn cpu(&self) -> Result<Cpu> {
        let (mut nanos, mut ticks) = (0_u64, [0_u64; 2]);
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.0.id())).map_err(|error| error.to_string())?;
        for task in tasks.flatten() {
            let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let first = read("schedstat").split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok());
            nanos += first.unwrap_or(0);
            // Behind the name: state is field 3, user time 14, the kernel's 15.
            let stat = read("stat");
            let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
            for (sum, text) in ticks.iter_mut().zip(rest.split(' ').skip(11)) {
                *sum += text.parse::<u64>().unwrap_or(0);
            }
        }
        let [user, kernel] = ticks.map(|ticks| ticks as f64);
        let seconds = nanos as f64 / 1e9;
        Ok(Cpu { seconds, kernel_seconds: seconds * kernel / (user + kernel).max(1.0) })
    }
}

impl Drop for Ringway {
    fn drop(&mut self) {
        // Most often it runs: whether it has ended by itself is nothing to this.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
