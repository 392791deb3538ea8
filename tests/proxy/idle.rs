//! What idle connections cost: some memory while they last, none after them, and no time.

use crate::common::peers::{Certificates, config, service};
use crate::common::*;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Bytes of memory that are the process's own, and not of files.
fn memory(ringway: &Ringway) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", ringway.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
}

/// Time that it has used, in hundredths of a second.
fn used_time(ringway: &Ringway) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", ringway.pid())).unwrap();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn thousands_of_idle_connections_cost_little_memory_no_time_and_nothing_once_they_have_gone() {
    let Some(certificates) = Certificates::new() else { return };
    certificates.issue("one", "DNS:one.test", "2");
    let backend = Backend::echo("done");
    let (plain, tls) = (free_address(), free_address());
    let listeners = format!(
        "  - {{ name: plain, address: \"{plain}\", service: s, timeouts: {{ idle: 1h }} }}\n\
         \x20 - {{ name: tls, address: \"{tls}\", service: s, timeouts: {{ idle: 1h }}, tls: {{ certificates: [ {} ] }} }}\n",
        certificates.entry("one")
    );
    let ringway = Ringway::start(&config(&listeners, &service("s", "", &[("a", backend.address)])));
    let mut child = Command::new("python3")
        .args(["-c", include_str!("../python/idle_clients.py")])
        .args([plain, tls, plain].map(|address| address.to_string()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let _clients = Running(child);
    let mut lines = BufReader::new(output).lines();
    let open = |count: usize| {
        let is_open = || ringway.metric("ringway_downstream_connections") == count as f64;
        wait_for("connections to be counted", || is_open().then_some(()));
    };
    // The first of each kind bring what is kept for all.
    for (kind, count, bytes_max) in [
        ("plain", 50, f64::MAX),
        ("tls", 50, f64::MAX),
        ("h2", 50, f64::MAX),
        ("tls", 300, TLS_BYTES_MAX),
        ("h2", 400, HTTP2_BYTES_MAX),
        ("plain", 3_000, PLAIN_BYTES_MAX),
    ] {
        let before = memory(&ringway);
        writeln!(input, "{kind} {count}").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "opened");
        open(count);
        let each = (memory(&ringway) - before) / count as f64;
        println!("{kind}: {each:.0} bytes each of {count}");
        assert!(each < bytes_max, "{kind}: {each} bytes each");
        if count == 3_000 {
            // They do nothing, and neither does it: a twentieth of what a look at each twenty times a second would take.
            let begin = used_time(&ringway);
            leave_time(Duration::from_secs(1));
            let used = used_time(&ringway) - begin;
            println!("{used} hundredths of a second for nothing");
            assert!(used <= 30, "{used} hundredths of a second");
        }
        writeln!(input).unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "closed");
        open(0);
        if count > 1_000 {
            wait_for("memory to be given back", || (memory(&ringway) < before * 1.1 + MARGIN_BYTES).then_some(()));
        }
    }
}

/// Of one idle connection, with room for what pools grow by meanwhile; docs/benchmarks.md has what a release takes.
const PLAIN_BYTES_MAX: f64 = 1.75 * 1024.0;
const TLS_BYTES_MAX: f64 = 12.0 * 1024.0;
const HTTP2_BYTES_MAX: f64 = 6.0 * 1024.0;
/// What pools may keep, whatever has come and gone.
const MARGIN_BYTES: f64 = 0.75 * 1024.0 * 1024.0;
