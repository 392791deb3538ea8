//! Time of the cores that a request costs without traces, and with all or some of them recorded.

use super::process::{Cpu, Ringway};
use super::{http, median};
use crate::compare::{Result, free_port};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// What is asked of each proxy in a turn is asked over so many connections.
const CONNECTIONS: u32 = 16;
/// Longer than spans are gathered for before they are sent.
const DELIVERY: Duration = Duration::from_millis(1300);
/// Turns that are counted in no number: connections and buffers are made in them.
const WARMING: usize = 1;

const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\nserver: bench\r\ncontent-type: text/plain\r\ncontent-length: 10\r\n\r\n0123456789";
const COLLECTED: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";

/// What a request costs, in microseconds of a core.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// All of it.
    pub micros: f64,
    /// Of it the kernel's.
    pub kernel_micros: f64,
    /// How much more it is than without traces, turn by turn, in percent: the median.
    pub more_percent: f64,
}

/// Costs without traces, and with each of these shares of requests recorded. A proxy each; they are asked in turn, so that whatever
/// else the machine does comes over all of them. A turn lasts until its spans are delivered.
///
/// # Errors
/// Something does not start, or a request fails.
pub fn measure(shares: &[&str], (turns, requests): (usize, u64), directory: &Path) -> Result<Vec<Cost>> {
    let (backend, collector) = (http::serve(RESPONSE)?, http::serve(COLLECTED)?);
    let mut proxies = Vec::new();
    for share in [None].into_iter().chain(shares.iter().copied().map(Some)) {
        let port = free_port()?;
        proxies.push((Ringway::start(&config(port, backend, share, collector), directory, port)?, port));
    }
    let mut costs: Vec<Vec<Cpu>> = vec![Vec::new(); proxies.len()];
    for turn in 0..turns + WARMING {
        // Whoever is first is another one each time.
        for place in 0..proxies.len() {
            let index = (turn + place) % proxies.len();
            let (proxy, port) = &proxies[index];
            let before = proxy.cpu()?;
            load(*port, requests)?;
            std::thread::sleep(DELIVERY);
            let after = proxy.cpu()?;
            if turn >= WARMING {
                costs[index].push(Cpu {
                    seconds: after.seconds - before.seconds,
                    kernel_seconds: after.kernel_seconds - before.kernel_seconds,
                });
            }
        }
    }
    let of_each =
        |pick: fn(&Cpu) -> f64, turns: &[Cpu]| median(turns.iter().map(pick).collect()) * 1e6 / requests as f64;
    let without: Vec<f64> = costs[0].iter().map(|cpu| cpu.seconds).collect();
    let cost = |turns: &Vec<Cpu>| Cost {
        micros: of_each(|cpu| cpu.seconds, turns),
        kernel_micros: of_each(|cpu| cpu.kernel_seconds, turns),
        more_percent: median(
            turns.iter().zip(&without).map(|(cpu, without)| (cpu.seconds / without - 1.0) * 100.0).collect(),
        ),
    };
    Ok(costs.iter().map(cost).collect())
}

fn config(port: u16, backend: u16, share: Option<&str>, collector: u16) -> String {
    let tracing = share.map_or_else(String::new, |share| {
        format!("tracing: {{ endpoint: \"http://127.0.0.1:{collector}\", sample: {share} }}\n")
    });
    format!(
        "workers: 1\nadmin: {{ enabled: false }}\n{tracing}\
         listeners: [ {{ name: front, address: \"127.0.0.1:{port}\", service: s }} ]\n\
         services:\n  - name: s\n    balance: {{ policy: ring, hash_key: [ {{ header: x-user-id }} ], bounded_load: {{ factor: 1.25 }} }}\n    \
         backends: [ {{ id: a, address: \"127.0.0.1:{backend}\" }}, {{ id: b, address: \"127.0.0.1:{backend}\" }} ]\n"
    )
}

fn load(port: u16, requests: u64) -> Result<()> {
    let output = Command::new("h2load")
        .args(["--h1", "-t1", "-H", "x-user-id: user-1"])
        .args([format!("-n{requests}"), format!("-c{CONNECTIONS}")])
        .arg(format!("http://127.0.0.1:{port}/a/path?with=query"))
        .output()
        .map_err(|error| format!("run h2load (apt-get install nghttp2-client): {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let good = format!("status codes: {requests} 2xx, 0 3xx, 0 4xx, 0 5xx");
    if text.lines().any(|line| line == good) { Ok(()) } else { Err(format!("not all were answered: {text}")) }
}
