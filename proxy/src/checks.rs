//! Active checks, and the driver that gives each service's health machine its time.

use crate::snapshot::{Current, Service, ServiceLive};
use ringway_config::model::{CheckKind, HealthCheck};
use ringway_health::{CheckFailure, Event, EventKind, Probe};
use ringway_http1::{Limits, Method, ResponseHead, parse_response};
use ringway_telemetry::catalogue;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Checks of a service that may be under way at once.
const CHECKS_MAX: usize = 256;
/// Shortest time between two looks at what is due.
const COALESCE: Duration = Duration::from_millis(2);
/// Bytes of a check's answer that are looked at: a head, no more.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// Logs and counts what a health machine has said.
pub(crate) fn tell(service: &Service, events: &[Event]) {
    for Event { id, kind } in events {
        let name = &service.config.name;
        metrics::counter!(catalogue::HEALTH_CHANGES.name, "service" => name.clone(), "to" => kind.name()).increment(1);
        match kind {
            EventKind::Down(failure) => {
                tracing::warn!(service = %name, backend = %id, reason = %failure, "backend is down")
            }
            EventKind::Ejected { failures, duration } => tracing::warn!(
                service = %name, backend = %id, failures, seconds = duration.as_secs_f64(), "backend is ejected"
            ),
            EventKind::EjectionWithheld => tracing::warn!(
                service = %name, backend = %id, "backend fails, but too many are ejected already"
            ),
            EventKind::PanicBegan => {
                tracing::error!(service = %name, "too few backends are healthy: health is ignored")
            }
            EventKind::PanicEnded => tracing::info!(service = %name, "enough backends are healthy again"),
            kind => tracing::info!(service = %name, backend = %id, state = kind.name(), "backend changed"),
        }
    }
}

/// Drives one service's health until the service is gone from the configuration. The caller owns the task.
pub(crate) async fn drive(current: Arc<Current>, live: Arc<ServiceLive>) {
    let permits = Arc::new(Semaphore::new(CHECKS_MAX));
    let mut running = JoinSet::new();
    loop {
        let snapshot = current.load_full();
        let Some(service) = snapshot.service(&live.name).filter(|service| Arc::ptr_eq(&service.live, &live)) else {
            return;
        };
        let now = Instant::now();
        let (next, due) = {
            let mut health = live.health();
            health.handle_timeout(now);
            let due: Vec<String> = std::iter::from_fn(|| health.poll_probe(now)).collect();
            // Most checks change nothing: then nothing is written where requests read.
            let events =
                if health.take_changed() { service.apply_health(&mut health) } else { Service::events(&mut health) };
            let next = health.poll_timeout();
            drop(health);
            tell(service, &events);
            (next, due)
        };
        for id in due {
            if let (Some(check), Some(slot)) = (&service.config.health, service.slot_of(&id)) {
                let (check, address, permits) = (check.clone(), service.address(slot), Arc::clone(&permits));
                running.spawn(async move {
                    // The semaphore is never closed.
                    let _permit = permits.acquire().await;
                    let probe = probe(&check, address).await;
                    (id, probe)
                });
            } else {
                // Gone since: the machine will hear of it with the next membership.
                live.health().handle_probe(&id, Probe::Success, now);
            }
        }
        let sleep = async {
            match next {
                // What is due within a moment is done together: with many backends, something always is.
                Some(at) => tokio::time::sleep_until(at.max(now + COALESCE).into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(first) = running.join_next() => {
                let ended = std::iter::once(first).chain(std::iter::from_fn(|| running.try_join_next()));
                for (id, probe) in ended.flatten() {
                    let result = if probe == Probe::Success { "success" } else { "failure" };
                    let name = live.name.to_string();
                    metrics::counter!(catalogue::CHECKS.name, "service" => name, "result" => result).increment(1);
                    live.health().handle_probe(&id, probe, Instant::now());
                }
            }
            () = sleep => {}
            () = live.health_changed.notified() => {}
        }
    }
}

/// One check, its time bounded.
async fn probe(check: &HealthCheck, mut address: SocketAddr) -> Probe {
    if let Some(port) = check.port {
        address.set_port(port);
    }
    let result = tokio::time::timeout(check.params.timeout, async {
        let mut stream = TcpStream::connect(address).await.map_err(|_| CheckFailure::Connect)?;
        match &check.kind {
            CheckKind::Tcp => Ok(()),
            CheckKind::Http { method, path, host, headers, expect } => {
                let default_host = address.to_string();
                let host = host.as_deref().unwrap_or(&default_host);
                let mut request = format!(
                    "{method} {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: ringway-check\r\nconnection: close\r\n"
                );
                for (name, value) in headers {
                    request.push_str(&format!("{name}: {value}\r\n"));
                }
                request.push_str("\r\n");
                stream.write_all(request.as_bytes()).await.map_err(|_| CheckFailure::Closed)?;
                let status = read_status(&mut stream, method == "HEAD").await?;
                let good = expect.iter().any(|&(low, high)| (low..=high).contains(&status));
                if good { Ok(()) } else { Err(CheckFailure::Status(status)) }
            }
        }
    })
    .await;
    match result {
        Ok(Ok(())) => Probe::Success,
        Ok(Err(failure)) => Probe::Failure(failure),
        Err(_) => Probe::Failure(CheckFailure::Timeout),
    }
}

/// Reads the head of the answer, no more of it than there is room for.
async fn read_status(stream: &mut TcpStream, is_head: bool) -> Result<u16, CheckFailure> {
    let limits = Limits { head_bytes_max: ANSWER_BYTES_MAX, fields_max: 256 };
    let method = if is_head { Method::Head } else { Method::Get };
    let mut bytes = Vec::with_capacity(1024);
    let mut head = ResponseHead::default();
    loop {
        let count = stream.read_buf(&mut bytes).await.map_err(|_| CheckFailure::Closed)?;
        if count == 0 {
            return Err(CheckFailure::Closed);
        }
        loop {
            match parse_response(&bytes, &limits, method, false, &mut head) {
                Ok(true) if head.is_interim() => drop(bytes.drain(..head.head_len)),
                Ok(true) => return Ok(head.status),
                Ok(false) => break,
                Err(_) => return Err(CheckFailure::Garbage),
            }
            if bytes.is_empty() {
                break;
            }
        }
    }
}
