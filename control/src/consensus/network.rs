//! The engine's calls to other members, and theirs to it.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use openraft::RaftNetworkFactory;
use openraft::RaftNetworkV2;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::error::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};

use super::convert;
use super::machine::Raft;
use super::options::Timing;
use super::status::Heard;
use super::to_end::to_end;
use super::types::{Snapshot, Types, Vote};
use crate::store::record::MemberInfo;
use crate::transport::{
    AppendAnswer, AppendCall, Call, CallError, Dialer, Handler, Peer, Reply, Rpc, SnapshotAnswer, SnapshotCall,
    TransferAnswer, TransferCall, VoteAnswer, VoteCall,
};

type TransferResponse = Result<(), openraft::raft::TransferLeaderError<Types>>;

/// Makes the engine's clients. Entries, heartbeats, snapshots and votes each get a connection of their own: a full
/// pipe of one must not hold up the others.
pub(super) struct Network {
    pub(super) dialer: Arc<Dialer>,
    pub(super) timing: Timing,
}

/// One purpose's calls to one member.
pub(super) struct Client {
    peer: Peer,
    timing: Timing,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Client;

    // The engine asks for each purpose by itself; `new_heartbeat_client` and `new_snapshot_client` come here too, and
    // every client has a connection of its own.
    async fn new_client(&mut self, target: u64, node: &MemberInfo) -> Client {
        let peer = Peer::new(Arc::clone(&self.dialer), target, node.peer_address.clone());
        Client { peer, timing: self.timing.clone() }
    }
}

/// `Unreachable` makes the engine pause before it tries again, `Network` does not.
fn rpc_error(error: &CallError) -> RPCError<Types> {
    match error {
        CallError::Dial { .. } | CallError::Status { .. } => RPCError::Unreachable(Unreachable::new(&shown(error))),
        _ => RPCError::Network(NetworkError::new(&shown(error))),
    }
}

/// The engine keeps an error's text only: with its cause, then.
fn shown(error: &CallError) -> io::Error {
    match std::error::Error::source(error) {
        Some(source) => io::Error::other(format!("{error}: {source}")),
        None => io::Error::other(error.to_string()),
    }
}

impl Client {
    async fn ask(
        &self,
        rpc: Rpc,
        request: VoteRequest<Types>,
        option: &RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let call = VoteCall {
            vote: convert::vote(&request.vote),
            last: request.last_log_id.as_ref().map(convert::log_id),
            transfer: request.leadership_transfer,
        };
        let answer: Result<VoteAnswer, _> = self.peer.call(rpc, &call, option.soft_ttl()).await;
        let answer = answer.map_err(|error| rpc_error(&error))?;
        let last = answer.last.map(convert::to_log_id);
        Ok(VoteResponse { vote: convert::to_vote(answer.vote), vote_granted: answer.granted, last_log_id: last })
    }
}

impl RaftNetworkV2<Types> for Client {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let call = AppendCall {
            vote: convert::vote(&request.vote),
            previous: request.prev_log_id.as_ref().map(convert::log_id),
            entries: request.entries.iter().map(convert::entry).collect(),
            committed: request.leader_commit.as_ref().map(convert::log_id),
        };
        // The engine's budget is the heartbeat's interval. Entries wait for the follower's disk, which may take
        // longer and still get there; a dead connection is found by its PING.
        let deadline = if call.entries.is_empty() { option.hard_ttl() } else { self.timing.append };
        let answer: Result<AppendAnswer, _> = self.peer.call(Rpc::Append, &call, deadline).await;
        Ok(match answer.map_err(|error| rpc_error(&error))? {
            AppendAnswer::Done => AppendEntriesResponse::Success,
            AppendAnswer::Through(id) => AppendEntriesResponse::PartialSuccess(id.map(convert::to_log_id)),
            // The engine looks at `previous` after a conflict: nobody can conflict with nothing.
            AppendAnswer::Conflict if call.previous.is_none() => {
                return Err(RPCError::Network(NetworkError::from_string("a conflict without an entry before")));
            }
            AppendAnswer::Conflict => AppendEntriesResponse::Conflict,
            AppendAnswer::HigherVote(vote) => AppendEntriesResponse::HigherVote(convert::to_vote(vote)),
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask(Rpc::Vote, request, &option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask(Rpc::PreVote, request, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let content = snapshot.snapshot;
        let head = SnapshotCall {
            vote: convert::vote(&vote),
            meta: convert::meta(&snapshot.meta),
            digest: *blake3::hash(&content).as_bytes(),
        };
        let answer = tokio::select! {
            biased;
            closed = cancel => return Err(closed.into()),
            answer = self.peer.send_snapshot(&head, content, self.timing.snapshot) => answer,
        };
        let answer = answer.map_err(|error| StreamingError::from(rpc_error(&error)))?;
        Ok(SnapshotResponse::new(convert::to_vote(answer.vote)))
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferResponse, RPCError<Types>> {
        use openraft::raft::TransferLeaderError::{LogNotFlushed, VoteChanged};
        let call = TransferCall {
            from: convert::vote(request.from_leader()),
            to: *request.to_node_id(),
            last: request.last_log_id().map(convert::log_id),
        };
        let answer: Result<TransferAnswer, _> = self.peer.call(Rpc::Transfer, &call, option.soft_ttl()).await;
        Ok(match answer.map_err(|error| rpc_error(&error))? {
            TransferAnswer::Started => Ok(()),
            TransferAnswer::VoteChanged { expected, actual } => {
                Err(VoteChanged { expected: convert::to_vote(expected), actual: convert::to_vote(actual) })
            }
            TransferAnswer::LogBehind { expected, actual } => Err(LogNotFlushed {
                expected: expected.map(convert::to_log_id),
                actual: actual.map(convert::to_log_id),
            }),
        })
    }
}

/// What the other members call.
pub(super) struct Server {
    pub(super) raft: Raft,
    pub(super) node: u64,
    pub(super) answerer: Option<super::Answerer>,
    pub(super) heard: Heard,
}

impl Handler for Server {
    async fn handle(&self, call: Call) -> Option<Reply> {
        match call {
            Call::Append(call) => self.append(call).await.map(Reply::Append),
            Call::Vote(call) => {
                let raft = self.raft.clone();
                to_end(async move { raft.vote(vote_request(call)).await }).await?.ok().map(vote_reply)
            }
            Call::PreVote(call) => {
                let raft = self.raft.clone();
                to_end(async move { raft.pre_vote(vote_request(call)).await }).await?.ok().map(vote_reply)
            }
            Call::Snapshot(call, content) => self.snapshot(call, content).await.map(Reply::Snapshot),
            Call::Transfer(call) => self.transfer(call).await.map(Reply::Transfer),
            Call::Ask(bytes) => match &self.answerer {
                Some(answer) => Some(Reply::Ask(answer(bytes).await.into())),
                None => None,
            },
        }
    }
}

fn vote_request(call: VoteCall) -> VoteRequest<Types> {
    VoteRequest {
        vote: convert::to_vote(call.vote),
        last_log_id: call.last.map(convert::to_log_id),
        leadership_transfer: call.transfer,
    }
}

fn vote_reply(response: VoteResponse<Types>) -> Reply {
    Reply::Vote(VoteAnswer {
        vote: convert::vote(&response.vote),
        granted: response.vote_granted,
        last: response.last_log_id.as_ref().map(convert::log_id),
    })
}

impl Server {
    async fn append(&self, call: AppendCall) -> Option<AppendAnswer> {
        let entries: Result<Vec<_>, _> = call.entries.iter().map(convert::to_entry).collect();
        let request = AppendEntriesRequest {
            vote: convert::to_vote(call.vote),
            prev_log_id: call.previous.map(convert::to_log_id),
            entries: entries.inspect_err(|error| tracing::warn!(%error, "an append call")).ok()?,
            leader_commit: call.committed.map(convert::to_log_id),
        };
        let raft = self.raft.clone();
        let response = to_end(async move { raft.append_entries(request).await }).await?.ok()?;
        if !matches!(response, AppendEntriesResponse::HigherVote(_)) {
            self.heard.note();
        }
        Some(match response {
            AppendEntriesResponse::Success => AppendAnswer::Done,
            AppendEntriesResponse::PartialSuccess(id) => AppendAnswer::Through(id.as_ref().map(convert::log_id)),
            AppendEntriesResponse::Conflict => AppendAnswer::Conflict,
            AppendEntriesResponse::HigherVote(vote) => AppendAnswer::HigherVote(convert::vote(&vote)),
        })
    }

    async fn snapshot(&self, call: SnapshotCall, snapshot: Bytes) -> Option<SnapshotAnswer> {
        let meta = convert::to_meta(call.meta).inspect_err(|error| tracing::warn!(%error, "a snapshot")).ok()?;
        // The engine panics on a snapshot that contradicts what is committed here; that is another cluster's past.
        let committed = self.raft.metrics().borrow_watched().local_committed;
        let contradicts = |committed: super::types::LogId| {
            meta.last_log_id.is_some_and(|last| last > committed && last.index() <= committed.index())
        };
        if committed.is_some_and(contradicts) {
            tracing::error!(?committed, last = ?meta.last_log_id, "a snapshot contradicts the committed log");
            return None;
        }
        let vote = convert::to_vote(call.vote);
        let raft = self.raft.clone();
        let installed = async move { raft.install_full_snapshot(vote, Snapshot { meta, snapshot }).await };
        let response = to_end(installed).await?.ok()?;
        Some(SnapshotAnswer { vote: convert::vote(&response.vote) })
    }

    async fn transfer(&self, call: TransferCall) -> Option<TransferAnswer> {
        use openraft::raft::TransferLeaderError::{LogNotFlushed, VoteChanged};
        if call.to != self.node {
            return None;
        }
        let last = call.last.map(convert::to_log_id);
        let request = TransferLeaderRequest::new(convert::to_vote(call.from), call.to, last);
        let raft = self.raft.clone();
        let handled = to_end(async move { raft.handle_transfer_leader(request).await }).await?;
        Some(match handled.ok()? {
            Ok(()) => TransferAnswer::Started,
            Err(VoteChanged { expected, actual }) => {
                TransferAnswer::VoteChanged { expected: convert::vote(&expected), actual: convert::vote(&actual) }
            }
            Err(LogNotFlushed { expected, actual }) => TransferAnswer::LogBehind {
                expected: expected.as_ref().map(convert::log_id),
                actual: actual.as_ref().map(convert::log_id),
            },
        })
    }
}
