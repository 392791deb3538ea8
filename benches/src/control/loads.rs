//! What it costs the leader to make one table of what a whole fleet reports of its loads, four times a second.

use super::members::Members;
use super::scenario::{Effort, Row, row, text};
use crate::compare::Result;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Method;
use ringway_control::Code;
use ringway_control::http::{Api, ApiError};
use ringway_control::loads::{Reports, ServiceLoad};
use ringway_ring::{FleetParams, HotParams, LOAD_UNIT, LoadReport, Report, ShedParams};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Proxies that report.
const PROXIES: usize = 64;
/// Members of the service.
const BACKENDS: usize = 1_000;
/// Mean load of a member in the sum of all.
const LOAD: f64 = 38.0;
/// Time between two reports of a proxy.
const SPAN: Duration = Duration::from_millis(250);
/// Requests of a proxy in that time, where each takes 50 ms: by how many there are it is judged what is noise.
const REQUESTS: u32 = (LOAD * BACKENDS as f64 / PROXIES as f64 / 0.05 * 0.25) as u32;

/// Bytes both ways, as they stand in bodies.
#[derive(Default)]
struct Moved {
    reported: AtomicU64,
    told: AtomicU64,
    tables: AtomicU64,
    lost: AtomicU64,
}

/// Numbers from 0 to below 1, the same every time.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Mean load of a member at this time, over the mean of all: most are between a half and one and a half of it, each of a fifth of them rises and falls
/// by a third within a minute, and one in twenty has twice as much as it should have, another one every ten seconds.
fn uneven(index: usize, seconds: f64) -> f64 {
    let rest = 0.7 + 0.6 * (index as f64 * 0.618).fract();
    let phase = index as f64 * 2.4;
    let swings =
        if index.is_multiple_of(5) { 0.33 * (seconds * std::f64::consts::TAU / 60.0 + phase).sin() } else { 0.0 };
    let is_hot = (index + (seconds / 10.0) as usize).is_multiple_of(20);
    (rest + swings).max(0.1) * if is_hot { 2.0 } else { 1.0 }
}

/// What one proxy sees: a 64th of the loads, as noisy as so few requests are. Some keys cost much, and which, changes.
fn service(random: &mut Random, seconds: f64) -> ServiceLoad {
    let part = LOAD / PROXIES as f64;
    let load = |index: usize, random: &mut Random| {
        // About as wide as a mean of a quarter of a second's requests.
        let noise = (random.unit() + random.unit() - 1.0) * part;
        ((part * uneven(index, seconds) + noise).max(0.0) * f64::from(LOAD_UNIT)).round() as u16
    };
    let loads = (0..BACKENDS).map(|index| load(index, random)).collect();
    let first = (seconds / 2.0) as u64;
    let key = |key: u64, random: &mut Random| {
        (key.wrapping_mul(0x9e37_79b9_7f4a_7c15), 2_000 + (random.unit() * 200.0) as u32)
    };
    let keys = (first..first + 64).map(|index| key(index, random)).collect();
    let seen = Report { requests: 100_000, total: 1_000_000, keys };
    ServiceLoad {
        name: "s".into(),
        digest: 7,
        members_digest: 7,
        revision: 0,
        params: FleetParams { shed: ShedParams { target: 1.2, share_max: 0.9 }, hot: Some(HotParams::default()) },
        report: LoadReport { span_millis: 250, requests: REQUESTS, loads, seen },
        holds: None,
        in_force: None,
    }
}

/// Reports for as long as it is polled.
async fn report(api: Api, index: usize, began: Instant, moved: Arc<Moved>) -> Result<()> {
    let member = api.members().first().cloned().ok_or("no member")?;
    let proxy = format!("p{index}");
    let heartbeat = |requests: u64| {
        json!({
            "version": "1", "epoch": 1, "revision": 0, "digest": "", "rings": {}, "stuck": null, "generation": 1, "vote": null,
            "down": [], "requests": requests, "failed": 0, "canary": null, "instance": 7,
        })
    };
    let mut link = api.connect(&member).await.map_err(text("connect"))?;
    let mut random = Random(index as u64 + 1);
    // Together all report 256 times a second: no burst at the beginning.
    tokio::time::sleep(SPAN.mul_f64(random.unit())).await;
    for seq in 1_u64.. {
        if seq % 8 == 1 {
            let body = Bytes::from(heartbeat(seq * u64::from(REQUESTS)).to_string());
            taken(api.ask(&mut link, Method::PUT, &format!("/v1/proxies/{proxy}"), body).await, &moved)?;
        }
        let services = vec![service(&mut random, began.elapsed().as_secs_f64())];
        let report = Reports { proxy: proxy.clone(), instance: 7, seq, services };
        let body = Bytes::from(report.encode().map_err(text("report"))?);
        moved.reported.fetch_add(body.len() as u64, Relaxed);
        let answer = taken(api.ask_bytes(&mut link, Method::POST, "/v1/loads", body).await, &moved)?;
        // A leader that refuses has nothing to reckon: that would be measured in its place.
        let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap_or_default();
        if let Some(refused) = answer["refused"].as_object().filter(|refused| !refused.is_empty()) {
            return Err(format!("a report is refused: {refused:?}"));
        }
        tokio::time::sleep(SPAN.mul_f64(0.9 + 0.2 * random.unit())).await;
    }
    Ok(())
}

/// What no leader takes is lost, as a proxy's is.
fn taken(answer: std::result::Result<Bytes, ApiError>, moved: &Moved) -> Result<Bytes> {
    match answer {
        Err(error) if error.is(Code::NoLeader) => {
            moved.lost.fetch_add(1, Relaxed);
            Ok(Bytes::new())
        }
        answer => answer.map_err(text("report")),
    }
}

/// Watches for as long as it is polled.
async fn watch(api: Api, moved: Arc<Moved>) -> Result<()> {
    let member = api.members().first().cloned().ok_or("no member")?;
    let mut link = api.connect(&member).await.map_err(text("connect"))?;
    let response = api.begin(&mut link, Method::GET, "/v1/watch?loads=1", Bytes::new()).await.map_err(text("watch"))?;
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(text("watch"))?;
        let data = frame.data_ref().map_or(&[][..], |data| data);
        moved.told.fetch_add(data.len() as u64, Relaxed);
        moved.tables.fetch_add(u64::from(data.starts_with(b"{\"loads\":")), Relaxed);
    }
    Err("a watch stream has ended".into())
}

/// Sixty-four proxies of a service of a thousand backends, a third of them at the leader.
///
/// # Errors
/// What a member refuses.
pub async fn loads(members: &Members, effort: &Effort) -> Result<Vec<Row>> {
    let leader = members.leader(&members.api()?).await?;
    let moved = Arc::new(Moved::default());
    let (mut tasks, began) = (tokio::task::JoinSet::new(), Instant::now());
    for index in 0..PROXIES {
        let member = vec![members.list[index % members.list.len()].url.clone()];
        tasks.spawn(report(members.api_of(&member)?, index, began, Arc::clone(&moved)));
        tasks.spawn(watch(members.api_of(&member)?, Arc::clone(&moved)));
    }
    // Until connections are made, and the first table has been told.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let read = || [&moved.reported, &moved.told, &moved.tables, &moved.lost].map(|count| count.load(Relaxed) as f64);
    let (before, cpu, began) = (read(), members.cpu(leader), Instant::now());
    tokio::time::sleep(Duration::from_secs(effort.seconds.max(3))).await;
    let (after, seconds) = (read(), began.elapsed().as_secs_f64());
    let share = (members.cpu(leader) - cpu) / seconds * 100.0;
    if let Some(ended) = tasks.try_join_next() {
        return Err(format!("a proxy has ended: {ended:?}"));
    }
    if after[2] == 0.0 {
        return Err("no table was told".to_owned());
    }
    let rate = |index: usize| (after[index] - before[index]) / seconds;
    let mib = |index: usize| format!("{:.2} MB/s", rate(index) / 1e6);
    let name =
        |what: &str| format!("loads of {PROXIES} proxies x {BACKENDS} backends, each 250 ms, mutual TLS: {what}");
    Ok(vec![
        row(name("processor"), format!("{share:.1} % of a core at the leader"), "5 %"),
        row(name("reports"), format!("{}, {:.0} lost", mib(0), after[3] - before[3]), "1 MB/s, 0 lost"),
        row(name("tables"), format!("{}, {:.1} a second to each", mib(1), rate(2) / PROXIES as f64), "0.5 MB/s"),
    ])
}
