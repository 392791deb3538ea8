//! Calls from where they should not come, and bytes that are no calls.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use ringway_control::consensus::{Node, Options, StartError};
use ringway_control::store::record::Vote;
use ringway_control::transport::{CallError, Dialer, Peer, Rpc, VoteAnswer, VoteCall};

use super::harness::{Cluster, Registers, deadline, set, until};
use crate::disk::Random;

async fn ask(cluster: &str, node: u64, address: &str) -> Result<VoteAnswer, CallError> {
    let dialer = Dialer::new(cluster.to_owned(), None, deadline(), None);
    let call = VoteCall { vote: Vote { term: 1_000, leader: 9, committed: false }, last: None, transfer: false };
    Peer::new(Arc::new(dialer), node, address.to_owned()).call(Rpc::PreVote, &call, deadline()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_other_clusters_and_calls_for_other_members_are_refused() {
    let mut cluster = Cluster::of_three().await;
    let options = cluster.options(4).await;
    let address = options.listener.local_addr().unwrap().to_string();
    let green = Options { cluster: "green".to_owned(), ..options };
    let info = green.info.clone();
    let stranger = Node::start(green, Registers::default()).await.unwrap();
    for (name, node) in [("blue", 4), ("green", 5)] {
        let refused = ask(name, node, &address).await;
        assert!(matches!(refused, Err(CallError::Status { status: StatusCode::CONFLICT, .. })), "{refused:?}");
    }
    assert!(ask("green", 4, &address).await.is_ok());
    // Added by mistake, it stays empty: what the leader sends is never served.
    let leader = cluster.leader().await.node.clone();
    leader.add_learner(4, info).await.unwrap();
    for value in 0..50 {
        cluster.write(set("a", value)).await;
        // Time for what must not come, in a client's rhythm.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(stranger.status().last_log, None);
    assert_eq!(stranger.status().term, 0);
    stranger.stop().await;
    leader.remove(4).await.unwrap();
    cluster.stop().await;
}

/// Random bytes, and almost right ones, to every call: refused, and the member goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_calls_are_refused_and_harm_nothing() {
    let mut cluster = Cluster::of_one(5000, 1000).await;
    cluster.kill(1).await;
    let options = cluster.options(1).await;
    let address = options.listener.local_addr().unwrap();
    let node = Node::start(options, Registers::default()).await.unwrap();
    until("it leads", || node.status().leader).await;
    let before = node.status();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut random = Random::new(3);
    for trial in 0..400u64 {
        let path = ["append", "vote", "pre-vote", "snapshot", "transfer"][(trial % 5) as usize];
        let mut body: Vec<u8> = (0..random.below(300)).map(|_| random.below(256) as u8).collect();
        if trial % 2 == 0 && body.len() > 13 {
            // Sound on the outside: what is wrong is only found by parsing.
            body[4] = 1;
            body[5..13].copy_from_slice(&(trial % 5 + 1).to_le_bytes());
            let crc = crc32fast::hash(&body[4..]);
            body[..4].copy_from_slice(&crc.to_le_bytes());
            // Nothing that happens to be a small message.
            body.resize(body.len() + 64, 0xff);
        }
        let request = Request::post(format!("http://peer/raft/{path}"))
            .header("ringway-cluster", "blue")
            .header("ringway-to-node", "1")
            .header("ringway-proto", "1")
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        let answer = tokio::time::timeout(deadline(), sender.send_request(request)).await.unwrap().unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "trial {trial}");
    }
    let statuses = [
        ("/raft/append", "2", "10", StatusCode::CONFLICT),
        ("/raft/unknown", "1", "10", StatusCode::NOT_FOUND),
        ("/raft/append", "1", "9000000", StatusCode::PAYLOAD_TOO_LARGE),
        ("/raft/vote", "1", "70000", StatusCode::PAYLOAD_TOO_LARGE),
        ("/raft/snapshot", "1", "90000000", StatusCode::PAYLOAD_TOO_LARGE),
    ];
    for (path, protocol, length, expected) in statuses {
        let request = Request::post(format!("http://peer{path}"))
            .header("ringway-cluster", "blue")
            .header("ringway-to-node", "1")
            .header("ringway-proto", protocol)
            .header("content-length", length)
            .body(Full::new(Bytes::from(vec![0; length.parse().unwrap()])))
            .unwrap();
        let answer = tokio::time::timeout(deadline(), sender.send_request(request)).await.unwrap().unwrap();
        assert_eq!(answer.status(), expected, "{path} with {length} bytes");
    }
    let after = node.status();
    assert_eq!((after.term, after.last_log), (before.term, before.last_log));
    node.propose(set("a", 1)).await.unwrap();
    node.stop().await;
}

#[tokio::test]
async fn a_cluster_name_that_no_header_can_carry_is_refused() {
    let mut cluster = Cluster::of_one(5000, 1000).await;
    for name in ["", "two words", "gr\u{fc}n", &"x".repeat(129)] {
        let options = Options { cluster: name.to_owned(), ..cluster.options(2).await };
        let refused = Node::start(options, Registers::default()).await;
        assert!(matches!(refused, Err(StartError::ClusterName)), "{name:?}");
    }
    drop(TcpListener::bind("127.0.0.1:0").unwrap());
    cluster.stop().await;
}
