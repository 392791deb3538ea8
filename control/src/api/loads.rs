//! Loads: what proxies report of them, and the tables that the leader makes.

use super::member::Api;
use super::objects::placed;
use super::request::Call;
use super::response::{Body, json, problem};
use crate::Code;
use crate::http::Problem;
use crate::loads::{REPORT_BYTES_MAX, RingTable, Tables};
use crate::state::Role;
use bytes::Bytes;
use hyper::Response;
use ringway_ring::{FRESH_MILLIS, FULL_SHARE};
use serde_json::{Value, json as value};

/// A proxy's report, as bytes.
pub(super) async fn report(api: &Api, ask: &Call<'_>, body: &Bytes) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Register)?;
    if body.len() > REPORT_BYTES_MAX {
        let detail = format!("a report of loads has more than {} KiB", REPORT_BYTES_MAX >> 10);
        return Err(problem(413, Code::TooLarge, detail));
    }
    let answer = api.plane.report_loads(body.to_vec()).await?;
    Ok(json(&value!(answer)))
}

/// The tables of each service, for people.
pub(super) async fn tables(api: &Api, ask: &Call<'_>) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Read)?;
    let told = api.plane.tables().await?;
    let mut tables = Tables::default();
    if let Some(line) = told.line {
        tables.take(line).map_err(|error| problem(500, Code::Internal, error.to_string()))?;
    }
    let mut services: serde_json::Map<String, Value> = serde_json::Map::new();
    for (name, rings) in &tables.services {
        let told = rings.iter().map(|(digest, ring)| table(*digest, ring)).collect::<Vec<_>>();
        services.insert(name.clone(), value!(told));
    }
    Ok(placed(
        api,
        json(&value!({
            "position": told.position, "age_ms": told.age_ms,
            "fresh": told.age_ms.is_some_and(|age| age <= FRESH_MILLIS), "services": services,
        })),
    ))
}

/// Shares in percent, of members by their places in the order of their ids.
fn table(digest: u64, ring: &RingTable) -> Value {
    let percent = |share: u16| (f64::from(share) * 1000.0 / f64::from(FULL_SHARE)).round() / 10.0;
    let shed = ring.table.shed.iter().enumerate().filter(|(_, share)| **share > 0);
    let shed: Vec<Value> = shed.map(|(slot, share)| value!({ "member": slot, "percent": percent(*share) })).collect();
    let hot = ring.table.hot.iter();
    let hot: Vec<Value> =
        hot.map(|(hash, owners)| value!({ "hash": format!("{hash:016x}"), "owners": owners })).collect();
    value!({
        "digest": format!("{digest:016x}"), "revision": ring.revision, "position": ring.position,
        "members": ring.table.shed.len(), "shed": shed, "hot_keys": hot,
    })
}
