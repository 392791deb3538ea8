//! Between the engine's types and those of disk and wire, field by field.
//!
//! From the engine every conversion succeeds. Towards it a membership may be refused: bytes can be sound and still
//! name a voter without an address.

use std::collections::{BTreeMap, BTreeSet};

use openraft::EntryPayload;
use openraft::impls::leader_id_adv::LeaderId;

use super::types::{self, Proposal};
use crate::store::record::{self, Payload};

/// A membership that the engine does not accept.
#[derive(Debug, thiserror::Error)]
#[error("not a membership: {0}")]
pub(super) struct BadMembership(String);

pub(super) fn log_id(id: &types::LogId) -> record::LogId {
    let leader = id.committed_leader_id();
    record::LogId { term: leader.term, leader: leader.node_id, index: id.index() }
}

pub(super) fn to_log_id(id: record::LogId) -> types::LogId {
    types::LogId::new(LeaderId { term: id.term, node_id: id.leader }, id.index)
}

pub(super) fn vote(vote: &types::Vote) -> record::Vote {
    record::Vote { term: vote.leader_id.term, leader: vote.leader_id.node_id, committed: vote.committed }
}

pub(super) fn to_vote(vote: record::Vote) -> types::Vote {
    types::Vote { leader_id: LeaderId { term: vote.term, node_id: vote.leader }, committed: vote.committed }
}

pub(super) fn membership(membership: &types::Membership) -> record::Membership {
    record::Membership {
        configs: membership.get_joint_config().iter().map(|config| config.iter().copied().collect()).collect(),
        nodes: membership.nodes().map(|(node, info)| (*node, info.clone())).collect(),
    }
}

pub(super) fn to_membership(membership: record::Membership) -> Result<types::Membership, BadMembership> {
    let configs: Vec<BTreeSet<u64>> =
        membership.configs.into_iter().map(|config| config.into_iter().collect()).collect();
    let nodes: BTreeMap<u64, record::MemberInfo> = membership.nodes.into_iter().collect();
    types::Membership::new(configs, nodes).map_err(|error| BadMembership(error.to_string()))
}

pub(super) fn entry(entry: &types::Entry) -> record::Entry {
    let payload = match &entry.payload {
        EntryPayload::Blank => Payload::Blank,
        EntryPayload::Normal(Proposal(bytes)) => Payload::Command(bytes.clone()),
        EntryPayload::Membership(change) => Payload::Membership(membership(change)),
    };
    record::Entry { id: log_id(&entry.log_id), payload }
}

pub(super) fn to_entry(entry: &record::Entry) -> Result<types::Entry, BadMembership> {
    let payload = match &entry.payload {
        Payload::Blank => EntryPayload::Blank,
        Payload::Command(bytes) => EntryPayload::Normal(Proposal(bytes.clone())),
        Payload::Membership(change) => EntryPayload::Membership(to_membership(change.clone())?),
    };
    Ok(types::Entry { log_id: to_log_id(entry.id), payload })
}

pub(super) fn meta(meta: &types::SnapshotMeta) -> record::SnapshotMeta {
    record::SnapshotMeta {
        last: meta.last_log_id.as_ref().map(log_id),
        membership_at: meta.last_membership.log_id().as_ref().map(log_id),
        membership: membership(meta.last_membership.membership()),
    }
}

pub(super) fn to_meta(meta: record::SnapshotMeta) -> Result<types::SnapshotMeta, BadMembership> {
    let membership = to_membership(meta.membership)?;
    Ok(types::SnapshotMeta {
        last_log_id: meta.last.map(to_log_id),
        last_membership: types::StoredMembership::new(meta.membership_at.map(to_log_id), membership),
    })
}
