//! Which policy when: balance, movement and cost of each, in virtual time and on this machine. Prints Markdown.
//!
//!     cargo run --profile dist -p ringway-benches --bin simulate [-- REQUESTS]      (1000000 if not said otherwise)
//!
//! And fleets of proxies, with what they say to each other:
//!
//!     cargo run --profile dist -p ringway-benches --bin simulate -- fleet [--short] [--seed N]
#![allow(clippy::print_stdout, reason = "it prints tables")]

use ringway_benches::simulate::fleet::{Balancer, Fleet, Kind, bound, run};
use ringway_benches::simulate::placement;
use ringway_benches::simulate::table::{self, Effort};
use ringway_benches::simulate::workload::Workload;
use ringway_ring::{MaglevParams, PeakEwmaParams, PolicyParams, RendezvousParams, RingParams};

const RING: PolicyParams = PolicyParams::Ring(RingParams { points: 256, seed: 0 });
const MAGLEV: PolicyParams = PolicyParams::Maglev(MaglevParams { table_size: 65_537, seed: 0 });
const RENDEZVOUS: PolicyParams = PolicyParams::Rendezvous(RendezvousParams { seed: 0 });

fn balancers() -> Vec<Balancer> {
    let of =
        |name, policy, bound, hot_keys, shed| Balancer { name, kind: Kind::Ringway { policy, bound, hot_keys, shed } };
    let ringway = |name, policy, bound| of(name, policy, bound, false, false);
    vec![
        ringway("round_robin", PolicyParams::RoundRobin, None),
        ringway("random", PolicyParams::Random, None),
        ringway("p2c", PolicyParams::PowerOfTwo, None),
        ringway("least_request", PolicyParams::LeastRequest, None),
        ringway("ring, no bound", RING, None),
        ringway("ring, strict (1.25)", RING, bound(1.25, 0.0)),
        ringway("ring, balanced (1.25), no hot keys", RING, bound(1.25, 2.0)),
        of("ring, balanced (1.25), hot keys (the default)", RING, bound(1.25, 2.0), true, false),
        of("ring, affinity (1.25), hot keys", RING, bound(1.25, 3.0), true, false),
        of("ring, balanced, hot keys, shed", RING, bound(1.25, 2.0), true, true),
        ringway("maglev, balanced", MAGLEV, bound(1.25, 2.0)),
        ringway("hrw, balanced", RENDEZVOUS, bound(1.25, 2.0)),
        Balancer { name: "HAProxy's rule, 125", kind: Kind::HaproxyRule(125) },
        Balancer { name: "Envoy's rule, 125", kind: Kind::EnvoyRule(125) },
    ]
}

/// The arguments after `fleet`.
fn effort(rest: &[String]) -> Option<Effort> {
    let mut effort = Effort { is_short: false, seed: 42 };
    let mut rest = rest.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--short" => effort.is_short = true,
            "--seed" => effort.seed = rest.next()?.parse().ok()?,
            _ => return None,
        }
    }
    Some(effort)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((_, rest)) = arguments.split_first().filter(|(first, _)| *first == "fleet") {
        let Some(effort) = effort(rest) else {
            println!("simulate [REQUESTS] | simulate fleet [--short] [--seed N]");
            std::process::exit(2);
        };
        println!("Seed {}.\n", effort.seed);
        table::fleets(effort, |line| println!("{line}"));
        return;
    }
    let requests: u64 = arguments.first().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let fleet = Fleet { backends: 20, keys: 200_000, requests, utilisation: 0.6, hits_assumed: 0.7 };
    println!(
        "Traffic: {} backends with caches for a fifth of {} keys, {requests} requests, a quarter to warm up.\n",
        fleet.backends, fleet.keys
    );
    let mut broken = 0;
    for workload in Workload::ALL {
        // What the fleet must carry depends on what its caches can hold.
        let hits_assumed = match workload {
            Workload::Uniform => 0.2,
            Workload::Zipf(exponent) if exponent > 1.2 => 0.96,
            Workload::Zipf(exponent) if exponent > 1.0 => 0.9,
            _ => 0.7,
        };
        let fleet = Fleet { hits_assumed, ..fleet };
        println!(
            "| {} | hit ratio | mean ms | p99 ms | peak/average load | the same at an instant, p99 | by the owner | past the cap |",
            workload.name()
        );
        println!("|---|---|---|---|---|---|---|---|");
        for balancer in balancers() {
            let outcome = run(&fleet, &balancer, workload, 42);
            broken += outcome.violations;
            println!(
                "| {} | {:.3} | {:.2} | {:.1} | {:.2} | {:.2} | {:.1} % | {} |",
                balancer.name,
                outcome.hits,
                outcome.mean_ms,
                outcome.p99_ms,
                outcome.peak,
                outcome.peak_instant,
                outcome.owned * 100.0,
                outcome.violations
            );
        }
        println!();
    }
    println!("| keys moved, over the least that must move | join | leave | weight 100 to 150 |");
    println!("|---|---|---|---|");
    for (name, policy) in [("ring", RING), ("maglev, 65537", MAGLEV), ("hrw", RENDEZVOUS)] {
        for count in [10, 100, 1000] {
            if name == "hrw" && count > 100 {
                continue;
            }
            let [join, leave, grow] = placement::movement(policy, count);
            println!("| {name}, {count} backends | {join:.3} | {leave:.3} | {grow:.3} |");
        }
    }
    println!();
    println!("| cost | pick and release, ns | build, ms | bytes | largest share, over the fair one |");
    println!("|---|---|---|---|---|");
    let policies = [
        ("ring", RING),
        ("maglev, 65537", MAGLEV),
        ("hrw", RENDEZVOUS),
        ("round_robin", PolicyParams::RoundRobin),
        ("random", PolicyParams::Random),
        ("p2c", PolicyParams::PowerOfTwo),
        ("peak_ewma", PolicyParams::PeakEwma(PeakEwmaParams { decay_millis: 10_000 })),
        ("least_request", PolicyParams::LeastRequest),
    ];
    for (name, policy) in policies {
        for count in [10, 100, 1000] {
            let (nanos, build_ms, bytes, peak) = placement::cost(policy, count);
            println!("| {name}, {count} backends | {nanos:.0} | {build_ms:.2} | {bytes} | {peak:.2} |");
        }
    }
    if broken > 0 {
        println!("\n{broken} admissions passed the cap as it stood");
        std::process::exit(1);
    }
}
