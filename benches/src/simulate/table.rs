//! The tables of fleets of proxies: what each way to bound loads comes to, and what becomes of it when the exchange fails or the traffic
//! changes.

use super::proxies::{Fault, Outcome, Plan, Scope, run};

/// Backends, proxies, requests that a backend serves at once, Zipf's exponent: in flight is six tenths of those on average.
type Size = (usize, usize, usize, f64);

/// What is played.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// The short form: one small size, few seconds.
    pub is_short: bool,
    /// Of everything that is drawn.
    pub seed: u64,
}

impl Effort {
    fn sizes(self) -> Vec<Size> {
        if self.is_short {
            return vec![(40, 16, 16, 0.9)];
        }
        vec![(40, 16, 64, 0.9), (40, 64, 16, 0.9), (100, 64, 64, 0.9), (100, 16, 32, 0.9), (40, 16, 64, 1.1)]
    }

    fn plan(self, (backends, proxies, workers, exponent): Size, scope: Scope, fault: Fault) -> Plan {
        let (warm, seconds) = if self.is_short { (6, 6) } else { (30, 30) };
        Plan { backends, proxies, workers, exponent, scope, fault, warm, seconds, seed: self.seed }
    }
}

fn size_name((backends, proxies, workers, exponent): Size) -> String {
    format!("Zipf {exponent}, {backends} backends, {proxies} proxies, {} in flight a backend", workers * 6 / 10)
}

fn row(name: &str, outcome: &Outcome, best: f64) -> String {
    format!(
        "| {name} | {:.1} % | {:.1} % | {:.3} | {:.3} | {:.0} | {:.2} | {:.2} |",
        outcome.away * 100.0,
        outcome.not_owner * 100.0,
        outcome.hits,
        outcome.hits / best,
        outcome.mean_ms,
        outcome.peak,
        outcome.peak_instant
    )
}

const HEAD: &str = "away | no owner | hit ratio | of unbounded | mean ms | peak/average | at an instant, p99 |\n|---|---|---|---|---|---|---|---|";
const WAYS: [(&str, Scope, Fault); 6] = [
    ("no bound", Scope::Unbound, Fault::None),
    ("the default (z=2, hot keys), each by itself", Scope::Default, Fault::None),
    ("hot keys and shed, each by itself", Scope::Proxy, Fault::None),
    ("hot keys and shed of the fleet", Scope::Fleet, Fault::None),
    ("the same, reports 1 s late, a fifth lost", Scope::Fleet, Fault::LateReports),
    ("the same, tables too", Scope::Fleet, Fault::Late),
];

/// Tells each line as soon as it is known.
pub fn fleets(effort: Effort, mut tell: impl FnMut(&str)) {
    for size in effort.sizes() {
        tell(&format!("| {} | {HEAD}", size_name(size)));
        let mut best = 1.0;
        for (name, scope, fault) in WAYS {
            let outcome = run(&effort.plan(size, scope, fault));
            if scope == Scope::Unbound {
                best = outcome.hits;
            }
            tell(&row(name, &outcome, best));
        }
        tell("");
    }
    let first = effort.sizes()[0];
    tell(&format!("| each quarter of the proxies has other frequent keys; {} | {HEAD}", size_name(first)));
    let mut best = 1.0;
    for (name, scope, _) in &WAYS[..4] {
        let outcome = run(&effort.plan(first, *scope, Fault::Groups));
        if *scope == Scope::Unbound {
            best = outcome.hits;
        }
        tell(&row(name, &outcome, best));
    }
    tell("");
    faults(effort, first, &mut tell);
}

fn faults(effort: Effort, first: Size, tell: &mut impl FnMut(&str)) {
    tell(
        "| what happens | hit ratio | lowest of a second | peak/average | highest of three seconds | below 1.35 for good after | largest step of requests away |\n|---|---|---|---|---|---|---|",
    );
    let (backends, proxies, workers, _) = first;
    let skewed = (backends, proxies, workers, 1.1);
    let rows = [
        ("nothing", first, Scope::Fleet, Fault::None),
        ("the exchange is cut", first, Scope::Fleet, Fault::Cut),
        ("all frequent keys are replaced; each by itself", skewed, Scope::Proxy, Fault::NewKeys),
        ("the same, by the fleet's table", skewed, Scope::Fleet, Fault::NewKeys),
    ];
    for (name, size, scope, fault) in rows {
        let outcome = run(&effort.plan(size, scope, fault));
        let (lowest, highest) = outcome.extremes();
        tell(&format!(
            "| {name}; {} | {:.3} | {lowest:.3} | {:.2} | {highest:.2} | {} s | {:.1} points |",
            size_name(size),
            outcome.hits,
            outcome.peak,
            outcome.settled_below(1.35),
            outcome.largest_step() * 100.0
        ));
    }
}
