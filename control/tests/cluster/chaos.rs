//! Random cuts, kills and hand-overs under clients that count with compare-and-set.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ringway_control::consensus::{Node, ProposeError, Read};
use tokio::sync::RwLock;

use super::harness::{Cluster, Registers, swap};
use crate::disk::Random;

type Members = Arc<RwLock<Vec<(Node, Registers)>>>;

/// Reads linearizably and adds one if nobody else did. Counts what certainly and what possibly was added.
async fn client(members: Members, stop: Arc<AtomicBool>, certain: Arc<AtomicU64>, unknown: Arc<AtomicU64>) {
    let mut seen = 0;
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let (node, registers) = {
            let members = members.read().await;
            members[turn % members.len()].clone()
        };
        let policy = if turn % 2 == 0 { Read::Index } else { Read::Lease };
        if node.read_barrier(policy).await.is_err() {
            // A client's rhythm where nobody leads.
            tokio::time::sleep(Duration::from_millis(2)).await;
            continue;
        }
        let value = registers.get("count");
        let count = value.unwrap_or(0);
        // What this client has read or written before must still be there: no read goes back in time.
        assert!(count >= seen, "a linearizable read returned {count} after {seen}");
        seen = count;
        match node.propose(swap("count", value, count + 1)).await {
            Ok(proposed) if proposed.answer == [1] => {
                certain.fetch_add(1, Ordering::Relaxed);
                seen = count + 1;
            }
            Ok(_) | Err(ProposeError::NotLeader { .. } | ProposeError::Unavailable) => {}
            Err(ProposeError::Unknown | ProposeError::Stopped) => {
                unknown.fetch_add(1, Ordering::Relaxed);
            }
            Err(error @ (ProposeError::TooLarge { .. } | ProposeError::Empty)) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_increment_is_lost_or_doubled_and_no_read_goes_back() {
    let seed = std::env::var("RINGWAY_SEED").map_or(1, |seed| seed.parse().unwrap());
    let rounds = std::env::var("RINGWAY_TRIALS").map_or(12, |rounds| rounds.parse().unwrap());
    println!("seed {seed}, {rounds} rounds");
    let mut random = Random::new(seed);
    let mut cluster = Cluster::of_three_with(300, 50).await;
    let handles = |cluster: &Cluster| -> Vec<(Node, Registers)> {
        cluster.members.values().map(|member| (member.node.clone(), member.registers.clone())).collect()
    };
    let members: Members = Arc::new(RwLock::new(handles(&cluster)));
    let stop = Arc::new(AtomicBool::new(false));
    let (certain, unknown) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let client = client(Arc::clone(&members), Arc::clone(&stop), Arc::clone(&certain), Arc::clone(&unknown));
            tokio::spawn(client)
        })
        .collect();
    for _ in 0..rounds {
        let victim = 1 + random.below(3);
        let pause = Duration::from_millis(200 + random.below(900));
        match random.below(4) {
            0 => {
                cluster.relay.isolate(victim, cluster.ids(), true);
                // The fault lasts.
                tokio::time::sleep(pause).await;
                cluster.relay.isolate(victim, cluster.ids(), false);
            }
            1 => {
                let other = victim % 3 + 1;
                cluster.relay.set(victim, other, super::relay::Link { cut: true, ..Default::default() });
                // The fault lasts.
                tokio::time::sleep(pause).await;
                cluster.relay.set(victim, other, super::relay::Link { delay: pause / 50, ..Default::default() });
            }
            2 => {
                cluster.kill(victim).await;
                // The fault lasts.
                tokio::time::sleep(pause).await;
                cluster.launch(victim).await;
                *members.write().await = handles(&cluster);
            }
            _ => {
                // May well fail in the middle of all this.
                let _ = cluster.leader().await.node.transfer(victim).await;
            }
        }
        // Every round ends with a cluster that works.
        cluster.read("count").await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let count = cluster.agreed().await.get("count").copied().unwrap_or(0);
    let (certain, unknown) = (certain.load(Ordering::Relaxed), unknown.load(Ordering::Relaxed));
    println!("{count} counted, {certain} certain, {unknown} unknown");
    assert!(certain > 0);
    assert!(count >= certain, "{certain} increments were acknowledged, {count} are there");
    assert!(count <= certain + unknown, "{count} are there of {certain} acknowledged and {unknown} unknown");
    cluster.stop().await;
}
