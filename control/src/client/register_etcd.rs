//! Tells etcd how a proxy does, under a key that goes with the proxy.

use super::topology::Topology;
use crate::etcd::grpc::CallError;
use crate::etcd::proto::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, PutRequest, PutResponse,
};
use crate::etcd::{EtcdError, PROXIES, Store, failed};
use crate::watch::wire::Heartbeat;
use bytes::Bytes;
use ringway_config::model::MemberUrl;
use serde_json::json;
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

/// A proxy that has gone is forgotten after so many seconds.
const TTL_SECONDS: i64 = 15;
/// Between two heartbeats.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Between two writes: what changes in between is told by the next.
const WRITE: Duration = Duration::from_secs(1);
/// Longest wait after a failure; each is drawn from nothing up to it.
const PAUSE: Duration = Duration::from_secs(5);

/// For as long as it is polled.
pub(crate) async fn register(store: &Store, topology: &Topology, heartbeat: impl Fn() -> Heartbeat) {
    let mut told = String::new();
    for member in store.endpoints().iter().cycle() {
        let Err(error) = stay(store, member, topology, &heartbeat).await;
        let error = error.to_string();
        if error != told {
            tracing::warn!(error, "etcd cannot be told how this proxy does: who asks there does not see it");
            told = error;
        }
        tokio::time::sleep(PAUSE.mul_f64(topology.spread())).await;
    }
    // There is no address.
    std::future::pending().await
}

async fn stay(
    store: &Store,
    member: &MemberUrl,
    topology: &Topology,
    heartbeat: &impl Fn() -> Heartbeat,
) -> Result<Infallible, EtcdError> {
    let failed = |error: CallError| failed(member, &error);
    let channel = store.connect(member).await?;
    let grant: LeaseGrantResponse =
        channel.call("Lease/LeaseGrant", &LeaseGrantRequest { ttl: TTL_SECONDS }).await.map_err(failed)?;
    if grant.id == 0 {
        return Err(failed(CallError::Strange(format!("no lease: {}", grant.error))));
    }
    let key = Bytes::from(format!("{}{PROXIES}{}", store.prefix(), topology.name));
    let mut written = Bytes::new();
    loop {
        let soonest = Instant::now() + WRITE;
        let value = Bytes::from(value(&heartbeat()));
        if value != written {
            let put = PutRequest { key: key.clone(), value: value.clone(), lease: grant.id };
            let _: PutResponse = channel.call("KV/Put", &put).await.map_err(failed)?;
            written = value;
        }
        let _ = timeout(KEEP_ALIVE, topology.heartbeat_wanted()).await;
        sleep_until(soonest).await;
        let alive: LeaseKeepAliveResponse =
            channel.call("Lease/LeaseKeepAlive", &LeaseKeepAliveRequest { id: grant.id }).await.map_err(failed)?;
        if alive.ttl <= 0 {
            return Err(failed(CallError::Broken("the lease has expired".into())));
        }
    }
}

/// What operators read.
fn value(heartbeat: &Heartbeat) -> String {
    let state = match (&heartbeat.stuck, heartbeat.revision) {
        (Some(_), _) => "stuck",
        (None, 0) => "waiting",
        (None, _) => "synced",
    };
    json!({
        "version": heartbeat.version, "revision": heartbeat.revision, "digest": heartbeat.digest,
        "rings": heartbeat.rings, "generation": heartbeat.generation, "state": state, "reason": heartbeat.stuck,
    })
    .to_string()
}
