//! What is measured, one function a figure. Rows: name, figure, aim.

use super::members::Members;
use super::percentile;
use crate::compare::Result;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Method;
use ringway_control::http::Api;
use ringway_control::state::{Key, Vote};
use ringway_control::watch::view::View;
use ringway_control::watch::wire::{Heartbeat, Message};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// A line of the table.
pub struct Row {
    /// What.
    pub name: String,
    /// How it came out.
    pub figure: String,
    /// What it should be.
    pub aim: &'static str,
}

pub(super) fn row(name: impl Into<String>, figure: String, aim: &'static str) -> Row {
    Row { name: name.into(), figure, aim }
}

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Watchers.
    pub watchers: usize,
    /// Changes that they wait for.
    pub changes: usize,
    /// Leaders killed.
    pub kills: usize,
    /// Seconds of load.
    pub seconds: u64,
    /// Registered backends.
    pub backends: usize,
    /// Light proxies.
    pub proxies: usize,
    /// MiB of state.
    pub state_mib: usize,
}

pub(super) fn text<E: std::fmt::Display>(what: &str) -> impl Fn(E) -> String + '_ {
    move |error| format!("{what}: {error}")
}

async fn put(api: &Api, key: &str, weight: u64) -> std::result::Result<u64, String> {
    // Never 0: a service that would be emptied by it is guarded.
    let body = json!({ "address": "10.0.0.1:80", "weight": 1 + weight % 1600 });
    let answer = api.json(Method::PUT, &format!("/v1/objects/backend/{key}"), Some(&body)).await;
    answer.map_err(text("put"))?["revision"].as_u64().ok_or_else(|| "no revision".to_owned())
}

/// Follows the topology over a stream; tells each revision as it is applied.
async fn follow(
    api: Api,
    name: Option<String>,
    refuses: bool,
    told: mpsc::UnboundedSender<(u64, Instant)>,
) -> Result<()> {
    let member = api.members().first().ok_or("nobody to follow")?.clone();
    let mut link = api.connect(&member).await.map_err(text("connect"))?;
    let response = api.begin(&mut link, Method::GET, "/v1/watch", Bytes::new()).await.map_err(text("watch"))?;
    if !response.status().is_success() {
        return Err(format!("watch: {}", response.status()));
    }
    let mut body = response.into_body();
    let (mut line, mut view): (Vec<u8>, Option<View>) = (Vec::new(), None);
    let mut beats = match &name {
        Some(_) => Some(api.connect(&member).await.map_err(text("connect"))?),
        None => None,
    };
    let mut beat = tokio::time::interval(Duration::from_secs(2));
    let mut vote = None;
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            _ = beat.tick(), if name.is_some() && view.is_some() => {
                if let (Some(name), Some(link), Some(view)) = (&name, &mut beats, &view) {
                    heartbeat(&api, link, name, view, vote.clone()).await?;
                }
                continue;
            }
        };
        let frame = frame.ok_or("the stream has ended")?.map_err(text("stream"))?;
        let Some(data) = frame.data_ref() else { continue };
        for part in data.split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(part);
            if !line.ends_with(b"\n") {
                continue;
            }
            let message: Message = serde_json::from_slice(&line).map_err(text("a line"))?;
            line.clear();
            match (&mut view, message) {
                (None, Message::Snapshot(snapshot)) => {
                    view = Some(View::from_snapshot(snapshot, None).map_err(text("view"))?)
                }
                (Some(view), message) => drop(view.handle(message).map_err(text("view"))?),
                (None, _) => {}
            }
            let Some(view) = &view else { continue };
            // Whoever listened may have what it waited for.
            let _ = told.send((view.revision, Instant::now()));
            let rollout = view.rollout.as_ref().map(|rollout| rollout.id);
            if let (Some(name), Some(link), Some(id)) = (&name, &mut beats, rollout)
                && vote.as_ref().is_none_or(|(known, _)| *known != id)
            {
                let refusal = refuses.then(|| "cannot bind".to_owned());
                vote = Some((id, Vote { refusal, digest: "same".into(), moved_ppm: 0 }));
                heartbeat(&api, link, name, view, vote.clone()).await?;
            }
        }
    }
}

async fn heartbeat(
    api: &Api,
    link: &mut ringway_control::http::Link,
    name: &str,
    view: &View,
    vote: Option<(u64, Vote)>,
) -> Result<()> {
    let beat = Heartbeat {
        version: "0".into(),
        epoch: view.epoch,
        revision: view.revision,
        digest: view.digest.to_string(),
        rings: BTreeMap::new(),
        stuck: None,
        generation: 1,
        vote,
        down: Vec::<Key>::new(),
        requests: 0,
        failed: 0,
        canary: None,
        instance: 1,
        cluster: String::new(),
    };
    let body = serde_json::to_vec(&beat).map_err(text("heartbeat"))?;
    let answer = api.ask(link, Method::PUT, &format!("/v1/proxies/{name}"), body.into()).await;
    answer.map(drop).map_err(text("heartbeat"))
}

/// Change committed -> applied by every watcher; and what a watcher costs a member.
///
/// # Errors
/// A watcher that ended.
pub async fn watchers(members: &Members, effort: &Effort) -> Result<Vec<Row>> {
    let api = members.api()?;
    let before = members.memory(0);
    let (told, mut hear) = mpsc::unbounded_channel();
    // All on one member: a fleet of three would have three times as many.
    let one = members.api_of(&[members.list[0].url.clone()])?;
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..effort.watchers {
        tasks.spawn(follow(one.clone(), None, false, told.clone()));
        // Handshakes, a few at a time.
        if index % 50 == 49 {
            for _ in 0..50 {
                hear.recv().await;
            }
        }
    }
    for _ in 0..effort.watchers % 50 {
        hear.recv().await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let each = (members.memory(0) - before) / effort.watchers as f64;
    let mut all = Vec::new();
    for change in 0..effort.changes {
        while hear.try_recv().is_ok() {}
        let revision = put(&api, "watch/a", change as u64 + 1).await?;
        let committed = Instant::now();
        let mut waiting = effort.watchers;
        while waiting > 0 {
            let next = tokio::time::timeout(Duration::from_secs(20), hear.recv()).await;
            let (seen, at) =
                next.map_err(|_| format!("{waiting} watchers have not heard"))?.ok_or("watchers are gone")?;
            if seen >= revision {
                waiting -= 1;
                all.push(at.saturating_duration_since(committed).as_secs_f64() * 1e3);
            }
        }
        if let Some(Ok(Err(error))) = tasks.try_join_next() {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let (middle, p99) = (percentile(&mut all, 0.5), percentile(&mut all, 0.99));
    let count = effort.watchers;
    Ok(vec![
        row(
            format!("commit to applied, {count} watchers, TLS"),
            format!("p50 {middle:.1} ms, p99 {p99:.1} ms"),
            "p99 50 ms (1,000), 300 ms (10,000)",
        ),
        row(format!("memory of a member for each of {count} watchers, TLS"), format!("{each:.1} KiB"), "40 KiB"),
    ])
}

/// Leader killed -> first write accepted again; and planned hand-over.
///
/// # Errors
/// No leader comes back.
pub async fn failover(members: &mut Members, effort: &Effort) -> Result<Vec<Row>> {
    let (mut unplanned, mut planned) = (Vec::new(), Vec::new());
    for round in 0..effort.kills {
        let leader = members.leader(&members.api()?).await?;
        let others: Vec<String> = members
            .list
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != leader)
            .map(|(_, one)| one.url.clone())
            .collect();
        let api = members.api_of(&others)?;
        // A hand-over of a moment ago may still have an answer that nobody knows.
        members.wait("a write", async || put(&api, "failover/a", 1 + round as u64 * 2).await.ok()).await?;
        let began = Instant::now();
        members.kill(leader)?;
        members.wait("a write", async || put(&api, "failover/a", 2 + round as u64 * 2).await.ok()).await?;
        unplanned.push(began.elapsed().as_secs_f64());
        members.bring_back(leader)?;
        let back = members.api_of(&[members.list[leader].url.clone()])?;
        members.wait("the member", async || back.json(Method::GET, "/v1/objects?prefix=none", None).await.ok()).await?;
        let leader = members.leader(&api).await?;
        let successor = (leader + 1) % members.list.len();
        let all = members.api()?;
        let began = Instant::now();
        let body = json!({ "to": members.list[successor].node });
        if let Err(error) = all.json(Method::POST, "/v1/transfer", Some(&body)).await {
            return Err(format!("round {round}: hand over: {error}"));
        }
        members.wait("a write", async || put(&all, "failover/b", round as u64 + 1).await.ok()).await?;
        planned.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let stuck = unplanned.iter().filter(|seconds| **seconds > 15.0).count();
    let figures = |values: &mut Vec<f64>| (percentile(values, 0.5), percentile(values, 0.99));
    let (middle, worst) = figures(&mut unplanned);
    let (planned_middle, planned_worst) = figures(&mut planned);
    Ok(vec![
        row(
            format!("leader killed to first write, {} times", effort.kills),
            format!("p50 {middle:.2} s, p99 {worst:.2} s, {stuck} stuck"),
            "p50 0.6 s, p99 1.0 s, 0 stuck",
        ),
        row(
            format!("planned hand-over to first write, {} times", effort.kills),
            format!("p50 {planned_middle:.0} ms, p99 {planned_worst:.0} ms"),
            "50 ms",
        ),
    ])
}

/// Durable writes by 64 clients over mutual TLS.
///
/// # Errors
/// A write that fails.
pub async fn writes(members: &Members, effort: &Effort) -> Result<Vec<Row>> {
    const CLIENTS: usize = 64;
    let leader = members.leader(&members.api()?).await?;
    let api = members.api_of(&[members.list[leader].url.clone()])?;
    let (stop, counted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut tasks = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let (api, stop, counted) = (api.clone(), Arc::clone(&stop), Arc::clone(&counted));
        tasks.spawn(async move {
            let member = api.members()[0].clone();
            let mut link = api.connect(&member).await.map_err(text("connect"))?;
            let (mut times, mut round) = (Vec::new(), 0_u64);
            while !stop.load(Relaxed) {
                round += 1;
                let body = json!({ "address": "10.0.0.1:80", "weight": 1 + round % 1000 }).to_string();
                let began = Instant::now();
                let path = format!("/v1/objects/backend/writes/c{client}");
                api.ask(&mut link, Method::PUT, &path, body.into()).await.map_err(text("write"))?;
                times.push(began.elapsed().as_secs_f64() * 1e3);
                counted.fetch_add(1, Relaxed);
            }
            Ok::<_, String>(times)
        });
    }
    let began = Instant::now();
    tokio::time::sleep(Duration::from_secs(effort.seconds)).await;
    let rate = counted.load(Relaxed) as f64 / began.elapsed().as_secs_f64();
    stop.store(true, Relaxed);
    let mut all = Vec::new();
    while let Some(times) = tasks.join_next().await {
        all.extend(times.map_err(text("client"))??);
    }
    let p99 = percentile(&mut all, 0.99);
    Ok(vec![row(
        "durable writes, 64 clients, mutual TLS",
        format!("{rate:.0}/s, p99 {p99:.1} ms"),
        "5,000/s, p99 20 ms",
    )])
}

/// Registered backends that send heartbeats: what they cost the leader.
///
/// # Errors
/// A heartbeat that fails.
pub async fn heartbeats(members: &Members, effort: &Effort) -> Result<Vec<Row>> {
    const AGENTS: usize = 100;
    /// A third of the ttl.
    const EVERY: Duration = Duration::from_secs(10);
    let leader = members.leader(&members.api()?).await?;
    let api = members.api_of(&[members.list[leader].url.clone()])?;
    let each = effort.backends / AGENTS;
    let (go, started) = watch::channel(false);
    let mut tasks = tokio::task::JoinSet::new();
    let (ready, mut heard) = mpsc::unbounded_channel();
    for agent in 0..AGENTS {
        let (api, ready, mut started) = (api.clone(), ready.clone(), started.clone());
        tasks.spawn(async move {
            let member = api.members()[0].clone();
            let mut link = api.connect(&member).await.map_err(text("connect"))?;
            let mut ids = Vec::new();
            for index in 0..each {
                let body = json!({ "address": format!("10.0.{agent}.{}:80", index % 250 + 1) }).to_string();
                let path = format!("/v1/objects/backend/beats/a{agent}-{index}?ttl=30s");
                let answer = api.ask(&mut link, Method::PUT, &path, body.into()).await.map_err(text("register"))?;
                let answer: serde_json::Value = serde_json::from_slice(&answer).map_err(text("register"))?;
                ids.push(answer["lease"].as_u64().ok_or("no lease")?);
            }
            // The one who waits is there.
            let _ = ready.send(());
            let _ = started.wait_for(|go| *go).await;
            // One request for each backend, as agents beside them would send.
            let mut due = tokio::time::interval(EVERY / each as u32);
            for round in 0_usize.. {
                due.tick().await;
                let path = format!("/v1/leases/{}", ids[round % ids.len()]);
                api.ask(&mut link, Method::PUT, &path, Bytes::new()).await.map_err(text("heartbeat"))?;
            }
            Ok::<(), String>(())
        });
    }
    for _ in 0..AGENTS {
        tokio::select! {
            _ = heard.recv() => {}
            Some(ended) = tasks.join_next() => return Err(format!("an agent has ended: {ended:?}")),
        }
    }
    go.send_replace(true);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (before, began) = (members.cpu(leader), Instant::now());
    tokio::time::sleep(Duration::from_secs(effort.seconds.max(3))).await;
    let share = (members.cpu(leader) - before) / began.elapsed().as_secs_f64() * 100.0;
    if let Some(ended) = tasks.try_join_next() {
        return Err(format!("an agent has ended: {ended:?}"));
    }
    let rate = effort.backends as f64 / EVERY.as_secs_f64();
    Ok(vec![row(
        format!("{} backends, a heartbeat each 10 s ({rate:.0}/s), mutual TLS", effort.backends),
        format!("{share:.0} % of a core at the leader"),
        "20 %",
    )])
}

/// Two-phase rollout over light proxies.
///
/// # Errors
/// It does not end as it should.
pub async fn rollout(members: &Members, effort: &Effort) -> Result<Vec<Row>> {
    let api = members.api()?;
    let mut rows = Vec::new();
    for refusing in [false, true] {
        let (told, mut hear) = mpsc::unbounded_channel();
        let mut tasks = tokio::task::JoinSet::new();
        for index in 0..effort.proxies {
            let member = members.list[index % members.list.len()].url.clone();
            let refuses = refusing && index == effort.proxies / 2;
            let name = format!("light-{}-{index}", u8::from(refusing));
            tasks.spawn(follow(members.api_of(&[member])?, Some(name), refuses, told.clone()));
            if index % 50 == 49 {
                for _ in 0..50 {
                    hear.recv().await;
                }
            }
        }
        // Every one has sent a heartbeat.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        let document = format!("services: [ {{ name: r{}, drain_ramp: {}s }} ]", u8::from(refusing), effort.proxies);
        let body = json!({
            "ops": [{ "put": { "key": "document/main", "object": { "document": { "text": document } } } }],
            "policy": { "stages_percent": [], "deadline_ms": 10_000 },
        });
        members
            .wait("the leader to know all proxies", async || {
                let fleet = api.json(Method::GET, "/v1/proxies", None).await.ok()?;
                (fleet["settled"] == true).then_some(())
            })
            .await?;
        while hear.try_recv().is_ok() {}
        let before = api.json(Method::GET, "/v1/status", None).await.map_err(text("status"))?["revision"].as_u64();
        let before = before.unwrap_or(0);
        let began = Instant::now();
        let started = api.json(Method::POST, "/v1/rollouts", Some(&body)).await.map_err(text("rollout"))?;
        let (id, participants) = (started["id"].clone(), started["participants"].as_u64().unwrap_or(0));
        if refusing {
            members
                .wait("the abort", async || {
                    let rollout = api.json(Method::GET, &format!("/v1/rollouts/{id}"), None).await.ok()?;
                    rollout["phase"].get("aborted").map(drop)
                })
                .await?;
            let seconds = began.elapsed().as_secs_f64();
            tokio::time::sleep(Duration::from_millis(300)).await;
            let mut changed = 0;
            while let Ok((revision, _)) = hear.try_recv() {
                changed += usize::from(revision > before);
            }
            rows.push(row(
                format!("rollout over {participants} proxies, one of which refuses"),
                format!("aborted within {seconds:.2} s, {changed} proxies changed"),
                "1 s, 0 changed",
            ));
        } else {
            let mut waiting = effort.proxies;
            while waiting > 0 {
                let next = tokio::time::timeout(Duration::from_secs(20), hear.recv()).await;
                let (revision, _) =
                    next.map_err(|_| format!("{waiting} proxies have not changed"))?.ok_or("proxies are gone")?;
                waiting -= usize::from(revision > before);
            }
            let seconds = began.elapsed().as_secs_f64();
            rows.push(row(
                format!("rollout over {participants} proxies, prepared, committed, applied"),
                format!("{seconds:.2} s"),
                "2 s",
            ));
        }
        tasks.shutdown().await;
    }
    Ok(rows)
}

/// Memory of a member that has nothing to do; and restart with a large state.
///
/// # Errors
/// It does not come back.
pub async fn restart(members: &mut Members, effort: &Effort) -> Result<Vec<Row>> {
    let api = members.api()?;
    // A configuration that proxies would take, which is mostly a comment: what counts is the size of what a member reads again.
    let text_of = |index: usize| format!("services: [ {{ name: d{index} }} ]\n# {}", "x".repeat((1 << 20) - 64));
    for index in 0..effort.state_mib {
        let body = json!({ "text": text_of(index) });
        api.json(Method::PUT, &format!("/v1/objects/document/d{index}"), Some(&body)).await.map_err(text("fill"))?;
    }
    let leader = members.leader(&api).await?;
    let index = (leader + 1) % members.list.len();
    tokio::time::sleep(Duration::from_secs(2)).await;
    members.kill(index)?;
    let began = Instant::now();
    members.bring_back(index)?;
    let one = members.api_of(&[members.list[index].url.clone()])?;
    let last = format!("/v1/objects?prefix=document/d{}&consistency=stale", effort.state_mib.saturating_sub(1));
    members
        .wait("the member", async || {
            let answer = one.json(Method::GET, &last, None).await.ok()?;
            (!answer["objects"].as_array()?.is_empty()).then_some(())
        })
        .await?;
    let seconds = began.elapsed().as_secs_f64();
    Ok(vec![row(
        format!("restart with {} MiB of state, integrity check included, to its last object", effort.state_mib),
        format!("{seconds:.2} s"),
        "1 s (64 MiB)",
    )])
}

/// Memory of members that have nothing to do.
#[must_use]
pub fn idle(members: &Members) -> Vec<Row> {
    let most = (0..members.list.len()).map(|index| members.memory(index)).fold(0.0, f64::max) / 1024.0;
    vec![row("memory of an idle member", format!("{most:.1} MiB"), "30 MiB")]
}
