//! Several proxies in front of one tier of caches, each with a part of the same traffic: what a fleet's bounds cost in hits, and what they
//! give in balance. Requests come at random times at a fixed rate, whatever becomes of those before.

use super::cache::{Counts, Habits, Tier};
use super::figures;
use super::peer::{Balance, Control, Peer, Running, Setup, ringway_service};
use super::poisson::Clients;
use super::{Result, free_port, rig, while_doing};
use crate::control::members::Members;
use crate::simulate::workload::{Keys, Workload};
use hyper::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

/// Caches of the tier, and the keys that there are; together the caches hold a fifth of them.
const CACHES: usize = 10;
const KEYS: u64 = 10_000;
/// How long an answer takes from the cache, and when the key must be fetched.
const HIT: Duration = Duration::from_millis(40);
const MISS: Duration = Duration::from_millis(320);

/// Who stands in front of the tier.
#[derive(Debug, Clone, Copy)]
pub struct Fleet {
    /// As in the table.
    pub name: &'static str,
    /// The program.
    pub peer: Peer,
    /// How each of them chooses.
    pub balance: Balance,
    /// How many there are.
    pub proxies: usize,
    /// Members of the control plane that they follow.
    pub members: usize,
}

/// Bounds of the whole fleet.
pub const FLEET_SHED: &str = ", shed: { scope: fleet }";

/// What is compared: `count` proxies each, and before them one without a bound, which is what hits there could be.
#[must_use]
pub fn fleets(count: usize) -> Vec<Fleet> {
    let of = |name, peer, balance| Fleet { name, peer, balance, proxies: count, members: 0 };
    let ringway = |name, balance| of(name, Peer::Ringway, Balance::Own(balance));
    let peer = |name, peer| of(name, peer, Balance::HashBound);
    vec![
        Fleet { proxies: 1, ..of("ringway, one proxy, no bound", Peer::Ringway, Balance::Hash) },
        ringway("ringway, default", ""),
        ringway("ringway, hot_keys off", ", hot_keys: { enabled: false }"),
        ringway("ringway, affinity", ", bounded_load: { preset: affinity }"),
        ringway("ringway, default, shed", ", shed: {}"),
        Fleet { members: 1, ..ringway("ringway, default, shed of the fleet", FLEET_SHED) },
        ringway("ringway, strict", ", bounded_load: { preset: strict }"),
        peer("haproxy, hash-balance-factor 125", Peer::Haproxy),
        peer("envoy, ring_hash 125", Peer::Envoy),
    ]
}

/// How much is asked.
#[derive(Debug, Clone)]
pub struct Effort {
    /// Ringway's program.
    pub ringway: PathBuf,
    /// Requests a second, over all proxies.
    pub rate: f64,
    /// Seconds before anything is counted: the caches fill.
    pub warm: u64,
    /// Seconds that count.
    pub seconds: u64,
    /// Of the requests' times and keys.
    pub seed: u64,
    /// Core of the proxies; caches, load and control plane are where this program is.
    pub core: usize,
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Share of the requests that the cache which they reached could answer.
    pub hits: f64,
    /// Share of the requests that another cache got than the one that had most of their key's.
    pub away: f64,
    /// Requests in the fullest cache, over the mean of all, both averaged over time.
    pub peak: f64,
    /// Requests without an answer.
    pub failed: u64,
}

/// What happens to the control plane under load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// All members are stopped, and say nothing any more.
    Stopped,
    /// The leader is killed.
    LeaderKilled,
}

impl Fault {
    /// Both, in the order of the table.
    pub const ALL: [Self; 2] = [Self::Stopped, Self::LeaderKilled];

    /// As in the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stopped => "the only member is stopped (SIGSTOP)",
            Self::LeaderKilled => "the leader of three members is killed (SIGKILL)",
        }
    }

    fn members(self) -> usize {
        match self {
            Self::Stopped => 1,
            Self::LeaderKilled => 3,
        }
    }
}

/// What became of a fleet under a fault.
#[derive(Debug, Clone)]
pub struct Disturbed {
    /// What was measured from the end of the warm-up on, the fault included.
    pub outcome: Outcome,
    /// Share of all keys that proxies shed, on average, before the fault and at the end.
    pub shed: [f64; 2],
    /// Largest change of the share of its keys that a proxy sheds, from one second to the next.
    pub largest_step: f64,
    /// What proxies said of the fleet's table before the fault and at the end: fresh, fading or none.
    pub tables: [String; 2],
}

/// Caches, proxies, and whoever they follow.
struct Stand {
    runtime: Runtime,
    tier: Tier,
    members: Option<Members>,
    proxies: Vec<Running>,
    /// Ports of the proxies' admin listeners, where they have any.
    admins: Vec<u16>,
    clients: Clients,
}

impl Stand {
    fn start(fleet: &Fleet, workload: Workload, effort: &Effort, directory: &Path) -> Result<Self> {
        let tier = Tier::with_habits(
            CACHES,
            KEYS as usize / 5 / CACHES,
            Habits { hit: HIT, miss: MISS, ..Habits::default() },
        )?;
        let setup = Setup { balance: fleet.balance, backends: tier.ports.clone(), ..Setup::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = while_doing(runtime, "start a runtime")?;
        let members = match fleet.members {
            0 => None,
            count => Some(runtime.block_on(control_plane(count, &setup, effort, directory))?),
        };
        let program = if fleet.peer == Peer::Ringway { effort.ringway.clone() } else { fleet.peer.find()? };
        let (mut proxies, mut admins) = (Vec::new(), Vec::new());
        for index in 0..fleet.proxies {
            let mut own = setup.clone();
            if let Some(members) = &members {
                let admin = free_port()?;
                own.control = Some(Control {
                    proxy: format!("p{index}"),
                    members: members.list.iter().map(|member| member.url.clone()).collect(),
                    token: members.directory().join("token"),
                    ca: members.directory().join("ca.pem"),
                    admin,
                });
                admins.push(admin);
            }
            proxies.push(fleet.peer.start_program(&program, &own, effort.core, directory)?);
        }
        let ports = proxies.iter().map(|proxy| proxy.port).collect();
        let clients = Clients::new(ports, Keys::new(workload, KEYS), effort.seed);
        let stand = Self { runtime, tier, members, proxies, admins, clients };
        stand.runtime.block_on(stand.wait_for_service())?;
        Ok(stand)
    }

    /// What the control plane says has come to all proxies.
    async fn wait_for_service(&self) -> Result<()> {
        let began = Instant::now();
        for proxy in &self.proxies {
            // Without a key it is a health check to the caches.
            while get(proxy.port, "/").await.is_none_or(|answer| !answer.starts_with("HTTP/1.1 200 ")) {
                if began.elapsed() > Duration::from_secs(30) {
                    return Err("a proxy has got no service".to_owned());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// Traffic until the caches are full, and traffic that counts; gives the failures in that.
    async fn load(&self, effort: &Effort) -> u64 {
        self.clients.run(effort.rate, Duration::from_secs(effort.warm)).await;
        drop(self.clients.take());
        self.tier.take();
        self.tier.take_keys();
        self.clients.run(effort.rate, Duration::from_secs(effort.seconds)).await;
        figures::failed(&self.clients.take())
    }

    fn outcome(&self, failed: u64) -> Outcome {
        let counts = self.tier.take();
        let sum = |of: fn(&Counts) -> f64| counts.iter().map(of).sum::<f64>();
        let asked = sum(|counts| (counts.hits + counts.misses) as f64).max(1.0);
        let fullest = counts.iter().map(|counts| counts.area).fold(0.0, f64::max);
        let by_key = self.tier.take_keys();
        let at_home: u64 = by_key.values().map(|caches| caches.iter().copied().max().unwrap_or(0)).sum();
        Outcome {
            hits: sum(|counts| counts.hits as f64) / asked,
            away: 1.0 - at_home as f64 / asked,
            peak: fullest * CACHES as f64 / sum(|counts| counts.area).max(f64::MIN_POSITIVE),
            failed,
        }
    }
}

/// Members that have the service in a document.
async fn control_plane(count: usize, setup: &Setup, effort: &Effort, directory: &Path) -> Result<Members> {
    let directory = while_doing(tempfile::tempdir_in(directory), "make a directory")?.keep();
    let members = Members::start(&effort.ringway, &directory, count).await?;
    let document = json!({ "text": ringway_service(setup) });
    let put = members.api()?.json(Method::PUT, "/v1/objects/document/main", Some(&document)).await;
    while_doing(put, "tell the members of the service")?;
    Ok(members)
}

/// A whole answer, if there is one.
async fn get(port: u16, path: &str) -> Option<String> {
    let whole = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        String::from_utf8(answer).ok()
    };
    tokio::time::timeout(Duration::from_secs(5), whole).await.ok()?
}

/// Share of its keys that a proxy sheds, and what it says of the fleet's table; out of its status.
fn shed_of(status: &Value) -> Option<(f64, String)> {
    let service = status["services"].as_array()?.first()?;
    let part = |backend: &Value| Some(backend["ring_share"].as_f64()? * backend["shed_share"].as_f64()?);
    let shed = service["backends"].as_array()?.iter().map(part).sum::<Option<f64>>()?;
    Some((shed, service["fleet_table"]["state"].as_str().unwrap_or("none").to_owned()))
}

async fn shed_at(admin: u16) -> Option<(f64, String)> {
    let answer = get(admin, "/status").await?;
    let body = answer.get(answer.find('{')?..=answer.rfind('}')?)?;
    shed_of(&serde_json::from_str(body).ok()?)
}

/// Why this Ringway cannot have bounds of the fleet, if it cannot.
///
/// # Errors
/// The program cannot be run.
pub fn refused(effort: &Effort, directory: &Path) -> Result<Option<String>> {
    let setup = Setup { balance: Balance::Own(FLEET_SHED), backends: vec![9], ..Setup::default() };
    let text = format!(
        "listeners: [ {{ name: f, address: \"127.0.0.1:9\", service: s }} ]\n\
         control: {{ proxy: p, directory: {:?}, members: [ \"http://127.0.0.1:9\" ] }}\n{}",
        directory.join("stored"),
        ringway_service(&setup)
    );
    rig::refused(&effort.ringway, directory, &text)
}

/// One fleet under one workload.
///
/// # Errors
/// A proxy that is missing or does not start.
pub fn measure(fleet: &Fleet, workload: Workload, effort: &Effort, directory: &Path) -> Result<Outcome> {
    let stand = Stand::start(fleet, workload, effort, directory)?;
    let failed = tokio::task::LocalSet::new().block_on(&stand.runtime, stand.load(effort));
    Ok(stand.outcome(failed))
}

/// A fleet with bounds of its own whose control plane fails under load, after a sixth of the time that counts (a second at least).
///
/// # Errors
/// As [`measure`].
pub fn disturb(
    fault: Fault,
    proxies: usize,
    workload: Workload,
    effort: &Effort,
    directory: &Path,
) -> Result<Disturbed> {
    let fleet =
        Fleet { name: "", peer: Peer::Ringway, balance: Balance::Own(FLEET_SHED), proxies, members: fault.members() };
    let mut stand = Stand::start(&fleet, workload, effort, directory)?;
    let members = stand.members.take().ok_or("no members")?;
    let local = tokio::task::LocalSet::new();
    let seen = local.block_on(&stand.runtime, async {
        let (failed, seen) = tokio::join!(stand.load(effort), watch(fault, members, effort, &stand.admins));
        seen.map(|seen| (failed, seen))
    });
    let (failed, seen) = seen?;
    Ok(disturbed(stand.outcome(failed), &seen))
}

/// What the proxies said in one second.
struct Second {
    /// The share of its keys that each sheds.
    shed: Vec<f64>,
    /// The state of the fleet's table, at the last of them.
    table: String,
    /// It was before the fault.
    is_before: bool,
}

async fn watch(fault: Fault, mut members: Members, effort: &Effort, admins: &[u16]) -> Result<Vec<Second>> {
    let began = tokio::time::Instant::now();
    let (counted, breaks) = (effort.warm, effort.warm + (effort.seconds / 6).max(1));
    let mut seconds = Vec::new();
    for second in counted..effort.warm + effort.seconds {
        tokio::time::sleep_until(began + Duration::from_secs(second)).await;
        if second == breaks {
            break_down(fault, &mut members).await?;
        }
        let (mut shed, mut table) = (Vec::new(), String::new());
        for &admin in admins {
            let (share, state) = shed_at(admin).await.ok_or("a proxy does not tell its status")?;
            shed.push(share);
            table = state;
        }
        seconds.push(Second { shed, table, is_before: second < breaks });
    }
    if fault == Fault::Stopped {
        // What is stopped ends as well as what runs.
        (0..members.list.len()).try_for_each(|index| members.signal(index, Signal::CONT))?;
    }
    Ok(seconds)
}

async fn break_down(fault: Fault, members: &mut Members) -> Result<()> {
    match fault {
        Fault::Stopped => (0..members.list.len()).try_for_each(|index| members.signal(index, Signal::STOP)),
        Fault::LeaderKilled => {
            let leader = members.leader(&members.api()?).await?;
            members.kill(leader)
        }
    }
}

fn disturbed(outcome: Outcome, seconds: &[Second]) -> Disturbed {
    let mean = |second: &Second| second.shed.iter().sum::<f64>() / second.shed.len().max(1) as f64;
    let step = |pair: &[Second]| {
        let steps = pair[0].shed.iter().zip(&pair[1].shed).map(|(one, next)| (next - one).abs());
        steps.fold(0.0, f64::max)
    };
    let before = seconds.iter().rfind(|second| second.is_before);
    let ends = [before, seconds.last()];
    Disturbed {
        outcome,
        shed: ends.map(|second| second.map_or(0.0, mean)),
        largest_step: seconds.windows(2).map(step).fold(0.0, f64::max),
        tables: ends.map(|second| second.map_or(String::new(), |second| second.table.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_proxy_sheds_is_read_off_its_status() {
        let backend = |ring: f64, shed: f64| json!({ "ring_share": ring, "shed_share": shed });
        let service = |table: Value| json!({ "services": [ { "fleet_table": table, "backends": [ backend(0.25, 0.5), backend(0.75, 0.0) ] } ] });
        assert_eq!(shed_of(&service(json!({ "state": "fresh" }))), Some((0.125, "fresh".to_owned())));
        assert_eq!(shed_of(&service(Value::Null)), Some((0.125, "none".to_owned())));
        assert_eq!(shed_of(&json!({ "services": [] })), None);
    }

    #[test]
    fn a_step_is_the_largest_of_any_proxy_from_one_second_to_the_next() {
        let second =
            |shed: [f64; 2], table: &str, is_before| Second { shed: shed.to_vec(), table: table.into(), is_before };
        let seconds = [
            second([0.02, 0.04], "fresh", true),
            second([0.03, 0.03], "fresh", true),
            second([0.03, 0.08], "fading", false),
            second([0.02, 0.06], "none", false),
        ];
        let outcome = Outcome { hits: 1.0, away: 0.0, peak: 1.0, failed: 0 };
        let disturbed = disturbed(outcome, &seconds);
        assert!((disturbed.largest_step - 0.05).abs() < 1e-9);
        assert!((disturbed.shed[0] - 0.03).abs() < 1e-9 && (disturbed.shed[1] - 0.04).abs() < 1e-9);
        assert_eq!(disturbed.tables, ["fresh", "none"]);
    }
}
