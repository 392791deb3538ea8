//! Leaders that are lost, cut off, or hand over; restarts.

use std::time::{Duration, Instant};

use ringway_control::consensus::{MemberError, ProposeError, Read, Role};

use super::harness::{Cluster, eventually, set, swap, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_one_decides_alone_and_is_made_once() {
    let cluster = Cluster::of_one(5000, 1000).await;
    let node = &cluster.members[&1].node;
    assert_eq!(node.initialize().await, Err(MemberError::NotPristine));
    let first = cluster.write(swap("a", None, 1)).await;
    assert_eq!(first.answer, [1]);
    let second = cluster.write(swap("a", None, 2)).await;
    assert_eq!((second.answer.as_slice(), second.index), ([0].as_slice(), first.index + 1));
    assert_eq!(cluster.read("a").await, Some(1));
    let status = node.status();
    assert_eq!((status.role, status.voters.len(), status.learners.len()), (Role::Leader, 1, 0));
    assert_eq!(node.remove(1).await, Err(MemberError::LastVoter { node: 1 }));
    assert!(matches!(node.propose(vec![0; 3 << 20]).await, Err(ProposeError::TooLarge { .. })));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_on_after_the_leader_is_killed() {
    let mut cluster = Cluster::of_three().await;
    for round in 0..5 {
        cluster.write(set("before", round)).await;
        let leader = cluster.leader().await.node.status().id;
        let start = Instant::now();
        cluster.kill(leader).await;
        cluster.write(set("after", round)).await;
        println!("fail-over {round}: {:?}", start.elapsed());
        assert_eq!(cluster.read("before").await, Some(round));
        cluster.launch(leader).await;
        let registers = cluster.agreed().await;
        assert_eq!(registers["after"], round);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_serves_nothing_and_comes_back_quietly() {
    let cluster = Cluster::of_three().await;
    cluster.write(set("a", 1)).await;
    let old = cluster.leader().await;
    let old_id = old.node.status().id;
    cluster.relay.isolate(old_id, cluster.ids(), true);
    let new = cluster.leader_but(old_id).await;
    let term = new.node.status().term;
    eventually("a write on the new side", || new.node.propose(set("a", 2))).await;
    // The old side has no way to know of the write; it must not answer as if it knew.
    let refused = |result: Result<(), ProposeError>| {
        matches!(result, Err(ProposeError::Unavailable | ProposeError::NotLeader { .. }))
    };
    assert_ne!(old.node.status().role, Role::Leader);
    for policy in [Read::Lease, Read::Index] {
        let result = old.node.read_barrier(policy).await;
        assert!(refused(result.clone()), "{policy:?}: {result:?}");
    }
    let result = old.node.propose(set("a", 3)).await.map(|_| ());
    assert!(refused(result.clone()), "{result:?}");
    assert_eq!(old.registers.get("a"), Some(1));
    cluster.relay.isolate(old_id, cluster.ids(), false);
    until("the old leader follows", || (old.node.status().role == Role::Follower).then_some(())).await;
    let registers = cluster.agreed().await;
    assert_eq!(registers["a"], 2);
    let status = new.node.status();
    assert_eq!((status.role, status.term), (Role::Leader, term), "the healthy leader was deposed");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_cut_off_does_not_depose_the_leader() {
    let cluster = Cluster::of_three().await;
    cluster.write(set("a", 1)).await;
    let leader = cluster.leader().await;
    let before = leader.node.status();
    let follower = cluster.ids().into_iter().find(|id| *id != before.id).unwrap();
    cluster.relay.isolate(follower, cluster.ids(), true);
    // Long enough for it to stand for election several times over.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3).mul_f64(cluster.slowness) {
        eventually("a write", || leader.node.propose(set("a", 2))).await;
        // A client's rhythm.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cluster.relay.isolate(follower, cluster.ids(), false);
    cluster.agreed().await;
    let after = leader.node.status();
    assert_eq!((after.role, after.term), (Role::Leader, before.term));
    assert_eq!(cluster.status(follower).term, before.term, "it raised its term without a pre-vote");
    cluster.stop().await;
}

/// One-way: the leader's calls arrive, a follower's do not. Nothing may change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_cannot_call_is_no_harm() {
    let cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    let before = leader.node.status();
    let follower = cluster.ids().into_iter().find(|id| *id != before.id).unwrap();
    for other in cluster.ids().into_iter().filter(|id| *id != follower) {
        cluster.relay.set(follower, other, super::relay::Link { cut: true, ..Default::default() });
    }
    for value in 0..100 {
        eventually("a write", || leader.node.propose(set("a", value))).await;
        // A client's rhythm: all the writes take longer than it takes to miss a leader.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    cluster.agreed().await;
    assert_eq!(leader.node.status().term, before.term);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_without_an_outage() {
    let cluster = Cluster::of_three().await;
    for round in 0..6 {
        cluster.write(set("a", round)).await;
        let leader = cluster.leader().await;
        let from = leader.node.status().id;
        let to = cluster.ids().into_iter().find(|id| *id == from % 3 + 1).unwrap();
        let start = Instant::now();
        leader.node.transfer(to).await.unwrap();
        let successor = &cluster.members[&to];
        eventually("a write after the hand-over", || successor.node.propose(set("b", round))).await;
        println!("hand-over {from} -> {to}: {:?}", start.elapsed());
        assert_eq!(cluster.read("a").await, Some(round));
    }
    let leader = cluster.leader().await;
    assert_eq!(leader.node.transfer(9).await, Err(MemberError::NotFound { node: 9, expected: "voter" }));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_all_members_keeps_every_acknowledged_write() {
    let mut cluster = Cluster::of_three_with(40, 10).await;
    let mut expected = Vec::new();
    for round in 0..3 {
        for value in 0..75 {
            let key = format!("{round}.{value}");
            cluster.write(set(&key, value)).await;
            expected.push((key, value));
        }
        for id in cluster.ids() {
            cluster.kill(id).await;
        }
        for id in [3, 1, 2] {
            cluster.launch(id).await;
        }
        let registers = cluster.agreed().await;
        for (key, value) in &expected {
            assert_eq!(registers.get(key), Some(value), "{key} after restart {round}");
        }
    }
    assert!(cluster.members[&1].node.recovered(super::harness::deadline()).await);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_lags_past_the_log_catches_up_by_a_snapshot() {
    let mut cluster = Cluster::of_three_with(50, 10).await;
    cluster.write(set("a", 0)).await;
    let leader = cluster.leader().await.node.status().id;
    let follower = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    let behind = cluster.status(follower).last_log.unwrap();
    cluster.kill(follower).await;
    for value in 0..300 {
        cluster.write(set(&format!("k{}", value % 40), value)).await;
    }
    let leader = cluster.members[&leader].node.clone();
    until("the log is purged past the follower", || leader.status().purged.filter(|at| *at > behind)).await;
    cluster.launch(follower).await;
    let registers = cluster.agreed().await;
    assert_eq!(registers["k39"], 279);
    until("the follower has a snapshot", || cluster.status(follower).snapshot.filter(|at| *at > behind)).await;
    // Taken on demand too.
    leader.snapshot().await.unwrap();
    let applied = leader.status().applied.unwrap();
    until("a snapshot of now", || leader.status().snapshot.filter(|at| *at >= applied)).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_is_watched_and_followers_name_the_leader() {
    let cluster = Cluster::of_three().await;
    let leader = cluster.leader().await.node.status();
    let follower = &cluster.members[&cluster.ids().into_iter().find(|id| *id != leader.id).unwrap()];
    let refused = follower.node.propose(set("a", 1)).await;
    let Err(ProposeError::NotLeader { leader: Some((id, info)) }) = refused else { panic!("{refused:?}") };
    assert_eq!((id, info.name), (leader.id, format!("m{}", leader.id)));
    assert!(matches!(follower.node.read_barrier(Read::Index).await, Err(ProposeError::NotLeader { .. })));
    let mut watched = follower.node.watch_status();
    let written = cluster.write(set("a", 1)).await.index;
    let seen = watched.wait_for(|status| status.applied.is_some_and(|applied| applied >= written));
    tokio::time::timeout(super::harness::deadline(), seen).await.unwrap().unwrap();
    cluster.relay.isolate(leader.id, cluster.ids(), true);
    let mut watched = cluster.members[&leader.id].node.watch_status();
    let lost = watched.wait_for(|status| status.role == Role::LeaderWithoutQuorum || status.role == Role::Follower);
    tokio::time::timeout(super::harness::deadline(), lost).await.unwrap().unwrap();
    cluster.stop().await;
}
