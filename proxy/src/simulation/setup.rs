//! The setup of a seed: a configuration, as text, and how much goes wrong.

use super::random::Random;
use std::fmt::Write;

/// Values that are drawn once for a run, and some again with each reload.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) workers: usize,
    /// Percent of attempts that go wrong.
    pub(super) faults: u64,
    /// Percent of requests whose clients leave.
    pub(super) leaving: u64,
    /// Backends of the service that speaks HTTP/1.1, of the one that speaks HTTP/2, and of the TCP one.
    pub(super) backends: [usize; 3],
    /// Of each, which are drained, and which are removed.
    pub(super) drained: Vec<usize>,
    pub(super) gone: Vec<usize>,
    pub(super) attempts: usize,
    pub(super) hedges: bool,
    mirrors: bool,
    pub(super) half_close: bool,
    policy: &'static str,
    /// Copies that may be under way, where keys that a change moves are handed over.
    handoff: Option<u32>,
    bound: &'static str,
    all_full: &'static str,
    queue_length: u64,
    backoff: &'static str,
    same_backend: &'static str,
    on: &'static str,
    keeps_body: bool,
    pub(super) limits: Limits,
    idle_max: u64,
    streams_max: u64,
    reject_when_full: bool,
    drain_spread: &'static str,
}

/// 0: none.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Limits {
    pub(super) requests: u64,
    pub(super) connections: u64,
    pub(super) pending: u64,
    pub(super) retries: u64,
    pub(super) backend_requests: u64,
    pub(super) backend_connections: u64,
    pub(super) backend_pending: u64,
    pub(super) clients: u64,
    pub(super) per_ip: u64,
}

impl Setup {
    pub(super) fn draw(random: &mut Random) -> Self {
        let calm = random.chance(20);
        let limited = !calm && random.chance(60);
        let mut limit = |percent: u64, least: u64, span: u64| {
            if limited && random.chance(percent) { least + random.below(span) } else { 0 }
        };
        let limits = Limits {
            requests: limit(30, 4, 8),
            connections: limit(40, 3, 6),
            pending: limit(30, 1, 6),
            retries: limit(30, 1, 3),
            backend_requests: limit(40, 1, 4),
            backend_connections: limit(40, 1, 4),
            backend_pending: limit(30, 1, 3),
            clients: limit(30, 4, 6),
            per_ip: limit(20, 1, 3),
        };
        let drawn = Self {
            workers: if random.chance(50) { 1 } else { 3 },
            faults: if calm { 0 } else { random.below(40) },
            leaving: if calm { 0 } else { random.below(30) },
            backends: [random.size(4) + 1, random.size(2) + 1, random.size(2) + 1],
            drained: Vec::new(),
            gone: Vec::new(),
            attempts: random.size(4),
            hedges: !calm && random.chance(30),
            mirrors: random.chance(30),
            half_close: calm || random.chance(50),
            policy: random.pick(&[
                "ring",
                "maglev",
                "hrw",
                "round_robin",
                "random",
                "p2c",
                "least_request",
                "peak_ewma",
                "first",
            ]),
            handoff: None,
            bound: random.pick(&["off", "balanced", "strict"]),
            all_full: random.pick(if limited {
                &["queue", "reject", "queue"]
            } else {
                &["owner", "least_loaded", "queue"]
            }),
            queue_length: random.below(20) + 1,
            backoff: random.pick(&["0", "0", "60ms"]),
            same_backend: random.pick(&["never", "never", "last_resort", "always"]),
            on: random.pick(&[
                "connect, reset, bad_answer, timeout",
                "connect, reset, bad_answer, timeout, server_errors, throttled",
                "connect",
            ]),
            keeps_body: random.chance(70),
            limits,
            idle_max: random.pick(&[0, 1, 8]),
            streams_max: random.pick(&[1, 3, 100]),
            reject_when_full: random.chance(50),
            drain_spread: random.pick(&["0", "2s"]),
        };
        match random.below(100) {
            0..15 => drawn.crowded(random),
            15..50 => drawn.handing(random),
            _ => drawn,
        }
    }

    /// Few connections allowed, for which many clients wait.
    fn crowded(self, random: &mut Random) -> Self {
        let limits = Limits { backend_requests: 1 + random.below(2), clients: 0, per_ip: 0, ..Limits::default() };
        let (policy, leaving) = (random.pick(&["random", "round_robin", "least_request"]), self.leaving.max(1));
        let backends = [1 + random.size(2), 1, 1];
        Self { limits, policy, leaving, backends, all_full: "queue", attempts: 0, hedges: false, ..self }
    }

    /// Keys are handed over as changes move them.
    fn handing(self, random: &mut Random) -> Self {
        let (policy, handoff) = (random.pick(&["ring", "maglev", "hrw"]), Some(random.pick(&[0, 1, 1, 2])));
        let (backends, faults) = ([2 + random.size(3), self.backends[1], self.backends[2]], self.faults.max(5));
        Self { policy, handoff, backends, faults, ..self }
    }

    /// Attempts of a request that are allowed: each may have a hedge.
    pub(super) fn tries(&self) -> usize {
        (1 + self.attempts) * if self.hedges { 2 } else { 1 }
    }

    /// Whether a request that waits for room may get a reservation on any backend that has room.
    pub(super) fn has_simple_queue(&self) -> bool {
        let Limits { connections, backend_connections, backend_pending, .. } = self.limits;
        let limits_connections = connections + backend_connections + backend_pending > 0;
        let bounded = matches!(self.policy, "ring" | "maglev" | "hrw") && self.bound != "off";
        self.attempts == 0 && !self.hedges && !limits_connections && !bounded
    }

    /// Whether nothing goes wrong but what a request itself causes.
    pub(super) fn is_calm(&self) -> bool {
        self.faults == 0 && self.leaving == 0
    }

    /// Whether keys are handed over as changes move them.
    pub(super) fn hands_over(&self) -> bool {
        self.handoff.is_some()
    }

    /// Percent of the steps in which something happens.
    pub(super) fn happenings(&self) -> u64 {
        if self.hands_over() { 16 } else { 12 }
    }

    /// One change by an operator.
    pub(super) fn change(&mut self, random: &mut Random) -> String {
        let index = random.size(self.backends[0]);
        let toggle = |list: &mut Vec<usize>| match list.iter().position(|known| *known == index) {
            Some(at) => drop(list.swap_remove(at)),
            None => list.push(index),
        };
        match random.below(6) {
            // Whoever drains can be asked for what it has.
            1 if self.hands_over() => toggle(&mut self.drained),
            0 => toggle(&mut self.drained),
            1 | 2 if self.gone.len() + 1 < self.backends[0] || self.gone.contains(&index) => toggle(&mut self.gone),
            3 if self.hands_over() => self.policy = random.pick(&["ring", "maglev"]),
            3 => self.policy = random.pick(&["ring", "round_robin", "least_request", "p2c"]),
            4 if self.limits.backend_connections > 0 => self.limits.backend_connections = 1 + random.below(4),
            5 => self.idle_max = random.pick(&[0, 1, 8]),
            _ => self.attempts = random.size(4),
        }
        format!(
            "drained {:?}, gone {:?}, {}, {} attempts, {:?}",
            self.drained, self.gone, self.policy, self.attempts, self.limits
        )
    }

    /// The configuration, as an operator would write it.
    pub(super) fn text(&self) -> String {
        let limits = &self.limits;
        let mut text = format!("workers: {}\ndrain_spread: {}\n", self.workers, self.drain_spread);
        let mirror = if self.mirrors { ", mirror: { service: shade, percent: 50 }" } else { "" };
        let when_full = if self.reject_when_full { "reject" } else { "wait" };
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "listeners:
  - name: web
    address: \"10.1.0.1:80\"
    routes:
      - {{ match: {{ path_prefix: /api }}, service: api{mirror} }}
      - {{ match: {{ path_prefix: /h2 }}, service: grpc }}
    allow_half_close: {}
    connections_max: {}
    connections_per_ip_max: {}
    when_full: {when_full}
    timeouts: {{ idle: 10s, head: 4s, body_idle: 5s, write_idle: 5s, read_rate_min: 0, write_rate_min: 0 }}
  - name: raw
    address: \"10.1.0.1:90\"
    protocol: tcp
    service: bytes
services:
",
            self.half_close, limits.clients, limits.per_ip,
        );
        for (service, lines) in
            [("api", self.service(true)), ("grpc", format!("    protocol: h2\n{}", self.service(false)))]
        {
            let _ = writeln!(text, "  - name: {service}\n{lines}");
            self.write_backends(usize::from(service == "grpc"), &mut text);
        }
        text.push_str("  - name: bytes\n    timeouts: { connect: 1s, idle: 5s }\n    balance: { policy: random }\n");
        self.write_backends(2, &mut text);
        text.push_str("  - name: shade\n    balance: { hash_key: [ { header: x-key } ] }\n    handoff: { window: 1s, header: x-before }\n    timeouts: { connect: 1s, response: 3s }\n    backends: [ { id: shade-1, address: \"10.5.0.1:80\" } ]\n");
        text
    }

    fn service(&self, limited: bool) -> String {
        let keyed = matches!(self.policy, "ring" | "maglev" | "hrw");
        let key = if keyed { "hash_key: [ { header: x-key } ], " } else { "" };
        let bound = match self.policy {
            "first" | "random" | "round_robin" | "p2c" | "least_request" | "peak_ewma" => "off",
            _ => self.bound,
        };
        let mut text = format!(
            "    balance: {{ policy: {}, {key}bounded_load: {{ preset: {bound}, all_full: {}, queue: {{ length_max: {}, timeout: 2s }} }} }}
    health: {{ tcp: {{}}, interval: 1s, fall: 2, rise: 1 }}
    timeouts: {{ connect: 1s, response: 3s, request: 20s, body_idle: 4s, idle: 8s }}
    pool: {{ idle_max: {}, idle_timeout: 4s, streams_max: {} }}
    retry: {{ attempts: {}, same_backend: {}, on: [ {} ], backoff: {}, body_bytes_max: {}, budget: 100, budget_min: 1000 }}
",
            self.policy,
            self.all_full,
            self.queue_length,
            self.idle_max,
            self.streams_max,
            self.attempts,
            self.same_backend,
            self.on,
            self.backoff,
            if self.keeps_body { "16KiB" } else { "0" },
        );
        if let Some(most) = self.handoff {
            let _ =
                writeln!(text, "    handoff: {{ window: 10s, header: x-before, copy: {{ in_flight_max: {most} }} }}");
        }
        if self.hedges {
            text.push_str("    hedge: { after: 200ms, budget: 100, budget_min: 100 }\n");
        }
        let Limits { requests, connections, pending, retries, .. } = self.limits;
        let named = [
            ("requests_max", requests),
            ("connections_max", connections),
            ("pending_max", pending),
            ("retries_max", retries),
        ];
        let named: Vec<String> = named
            .iter()
            .filter(|(_, most)| limited && *most > 0)
            .map(|(name, most)| format!("{name}: {most}"))
            .collect();
        if !named.is_empty() {
            let _ = writeln!(text, "    limits: {{ {} }}", named.join(", "));
        }
        text
    }

    fn write_backends(&self, service: usize, text: &mut String) {
        text.push_str("    backends:\n");
        for index in (0..self.backends[service]).filter(|index| service > 0 || !self.gone.contains(index)) {
            let (id, address) = (backend_id(service, index), backend_address(service, index));
            let mut line = format!("id: {id}, address: \"{address}\"");
            if service == 0 {
                let limits = &self.limits;
                let named = [
                    ("requests_max", limits.backend_requests),
                    ("connections_max", limits.backend_connections),
                    ("pending_max", limits.backend_pending),
                ];
                for (name, most) in named.iter().filter(|(_, most)| *most > 0) {
                    let _ = write!(line, ", {name}: {most}");
                }
                if self.drained.contains(&index) {
                    line.push_str(", drain: true");
                }
            }
            let _ = writeln!(text, "      - {{ {line} }}");
        }
    }
}

pub(super) const SERVICES: [&str; 3] = ["api", "grpc", "bytes"];

pub(super) fn backend_id(service: usize, index: usize) -> String {
    format!("{}-{}", SERVICES[service], index + 1)
}

pub(super) fn backend_address(service: usize, index: usize) -> std::net::SocketAddr {
    ([10, 2 + service as u8, 0, 1 + index as u8], 80).into()
}
