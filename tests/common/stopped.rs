//! A thread of a process that has stopped: what a worker is that somebody's code keeps busy.

use super::{Ringway, require, skipped};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// Stops one thread of a process, until its input ends.
const STOP_THREAD: &str = "import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
thread = int(sys.argv[1])
if libc.ptrace(16, thread, None, None) != 0:
    print(os.strerror(ctypes.get_errno()), flush=True)
    sys.exit()
os.waitpid(thread, 0x40000000)
print('stopped', flush=True)
sys.stdin.read()
libc.ptrace(17, thread, None, None)
";

/// It goes on when this is dropped.
pub struct StoppedWorker(Child);

impl StoppedWorker {
    /// `None`, said aloud, where threads cannot be stopped.
    pub fn new(ringway: &Ringway, number: usize) -> Option<Self> {
        require("python3")?;
        let tasks = std::fs::read_dir(format!("/proc/{}/task", ringway.pid())).unwrap().flatten();
        let name = |path: &std::path::Path| std::fs::read_to_string(path.join("comm")).unwrap_or_default();
        let wanted = format!("worker-{number}\n");
        let thread = tasks.map(|task| task.path()).find(|path| name(path) == wanted).unwrap();
        let thread = thread.file_name().unwrap().to_str().unwrap();
        let mut stop = Command::new("python3")
            .args(["-c", STOP_THREAD, thread])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(stop.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let this = Self(stop);
        if said != "stopped\n" {
            skipped(&format!("a thread cannot be stopped here: {said}"));
            return None;
        }
        Some(this)
    }
}

impl Drop for StoppedWorker {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
