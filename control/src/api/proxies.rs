//! The fleet, and what proxies say of themselves.

use super::member::Api;
use super::objects::{parse, placed};
use super::request::{Call, number};
use super::response::{Body, cut, json, problem};
use crate::Code;
use crate::http::Problem;
use crate::state::Role;
use crate::watch::wire::Heartbeat;
use hyper::Response;
use ringway_config::plain::is_dots;
use serde_json::json as value;

/// Largest heartbeat: digests of a thousand rings, and some thousand backends that are down.
const HEARTBEAT_BYTES_MAX: usize = 256 << 10;
/// Texts in one are cut off here.
const TEXT_BYTES_MAX: usize = 4096;

pub(super) async fn proxies(api: &Api, ask: &Call<'_>) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Read)?;
    let fleet = api.plane.fleet().await?;
    let state = api.plane.state();
    Ok(placed(
        api,
        json(&value!({
            "epoch": state.epoch, "revision": state.revision, "digest": state.digest.to_string(),
            "proxies": fleet.proxies, "frozen": fleet.frozen, "settled": api.plane.knows_fleet(),
        })),
    ))
}

pub(super) async fn heartbeat(api: &Api, ask: &Call<'_>, name: &str, body: &[u8]) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Register)?;
    if !crate::state::is_name(name) || is_dots(name) {
        return Err(problem(
            400,
            Code::BadName,
            "a proxy's name has 1 to 128 letters, digits and `._:-`, and is neither `.` nor `..`",
        ));
    }
    if body.len() > HEARTBEAT_BYTES_MAX {
        return Err(problem(
            413,
            Code::TooLarge,
            format!("a heartbeat has more than {} KiB", HEARTBEAT_BYTES_MAX >> 10),
        ));
    }
    let mut heartbeat = parse::<Heartbeat>(body)?;
    let refusal = heartbeat.vote.as_mut().and_then(|(_, vote)| vote.refusal.as_mut());
    let own = [&mut heartbeat.version, &mut heartbeat.digest, &mut heartbeat.cluster].map(Some);
    let texts = own.into_iter().chain([heartbeat.stuck.as_mut(), refusal]);
    for text in texts.flatten() {
        cut(text, TEXT_BYTES_MAX);
    }
    api.plane.heartbeat(name.to_owned(), heartbeat).await?;
    Ok(json(&value!({})))
}

/// A proxy's own word that it ends; or an operator's, that it does not come back.
pub(super) async fn sign_off(api: &Api, ask: &Call<'_>, name: &str) -> Result<Response<Body>, Problem> {
    let instance = ask.parameter("instance").map(number).transpose()?;
    ask.caller.needs(if instance.is_some() { Role::Register } else { Role::Operate })?;
    api.plane.sign_off(name.to_owned(), instance).await?;
    Ok(json(&value!({})))
}
