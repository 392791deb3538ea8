//! Members of the control plane.

use super::member::Api;
use super::objects::{parse, placed};
use super::request::{Call, bounded};
use super::response::{Body, json};
use crate::consensus::{MemberStatus, Status};
use crate::http::Problem;
use crate::plane::{Health, MemberChange};
use crate::state::Role;
use hyper::Response;
use serde::Deserialize;
use serde_json::{Value, json as value};

/// One member, as the one that answers sees it: what a member that does not answer lacks is known to nobody.
pub(super) fn member_json(member: &MemberStatus, status: &Status, health: Option<&Health>, voter: bool) -> Value {
    let leader = status.acknowledged_leader().is_some_and(|(node, _)| *node == member.node);
    let mut shown = value!({
        "node": member.node, "name": member.info.name, "peer_address": member.info.peer_address,
        "api_address": member.info.api_address, "voter": voter, "leader": leader,
    });
    let own = status.last_log.unwrap_or(0);
    let told = match health {
        None => value!({
            "reachable": true, "last_heard_ms": 0, "role": status.role.name(), "term": status.term, "lag": 0,
            "version": env!("CARGO_PKG_VERSION"), "why": null,
        }),
        Some(health) => {
            let view = health.view.as_ref();
            let answers = health.answers();
            // Only the leader knows what a follower has on its disk; from others it is what the member says of itself.
            let lag = member.lag.or(view.map(|view| own.saturating_sub(view.last_log))).filter(|_| answers);
            value!({
                "reachable": answers, "last_heard_ms": health.heard_age().map(|age| age.as_millis() as u64),
                "role": view.filter(|_| answers).map(|view| &view.role), "term": view.map(|view| view.term), "lag": lag,
                "version": view.map(|view| &view.version), "why": health.silent,
            })
        }
    };
    if let (Some(shown), Value::Object(told)) = (shown.as_object_mut(), told) {
        shown.extend(told);
    }
    shown
}

pub(super) async fn members(api: &Api, ask: &Call<'_>) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Read)?;
    // Who led may have gone while the others were asked.
    let roll = api.plane.call_roll().await;
    let status = api.plane.status();
    let unasked = Health::default();
    let health = |node: u64| (node != status.id).then(|| roll.get(&node).unwrap_or(&unasked));
    let voters = status.voters.iter().map(|member| member_json(member, &status, health(member.node), true));
    let learners = status.learners.iter().map(|member| member_json(member, &status, health(member.node), false));
    let list: Vec<Value> = voters.chain(learners).collect();
    let (answering, all) = api.plane.voters_that_answer(&status, &roll);
    let cluster = api.plane.state().cluster.clone();
    Ok(placed(
        api,
        json(&value!({
            "cluster": cluster, "term": status.term, "answered_by": status.id, "members": list,
            "leader": status.acknowledged_leader().map(|(node, info)| value!({ "node": node, "name": info.name })),
            "quorum": { "voters": all, "reachable": answering, "needed": all / 2 + 1 },
        })),
    ))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JoinBody {
    node: u64,
    name: String,
    peer_address: String,
    api_address: String,
    #[serde(default = "yes")]
    voter: bool,
    #[serde(default)]
    replace: Option<u64>,
}

pub(super) fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct To {
    pub(super) to: u64,
}

pub(super) async fn join(api: &Api, ask: &Call<'_>, body: &[u8]) -> Result<Response<Body>, Problem> {
    let JoinBody { node, name, peer_address, api_address, voter, replace } = parse(body)?;
    for (what, text) in [("member's name", &name), ("peer address", &peer_address), ("API address", &api_address)] {
        bounded(what, text)?;
    }
    let info = (name, peer_address, api_address);
    change_member(api, ask, MemberChange::Join { node, info, voter, replace }).await
}

pub(super) async fn change_member(api: &Api, ask: &Call<'_>, change: MemberChange) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Admin)?;
    api.plane.change_members(change).await?;
    Ok(json(&value!({})))
}
