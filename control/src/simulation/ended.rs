//! What is asked of a member whose engine ends meanwhile, by some who give up just then.

use std::time::Duration;

use tokio::time::timeout;

use super::disk::Fault;
use super::faults::{Cluster, ms};
use super::scheduler::Scheduler;
use super::world::World;
use crate::consensus::{ProposeError, Read};
use crate::state::Command;

/// Orders in which those who ask run.
const SEEDS: u64 = 40;
/// Of each kind.
const ASKED: u64 = 8;
const SOON: Duration = Duration::from_secs(20);

/// Seed 308 of the whole simulation: after a full disk, a call that somebody had given up made the next one panic.
#[test]
fn whoever_asks_a_member_whose_engine_has_ended_is_told_so_also_after_others_have_given_up() {
    for seed in 1..=SEEDS {
        Scheduler::run(seed, async move {
            let scheduler = Scheduler::current().expect("a simulation runs");
            let world = World::new(false, None);
            let mut cluster = Cluster::new(seed, world.clone(), scheduler.clone());
            cluster.found(1, Command::Init { cluster: "simulated".to_owned() }).await;
            let life = cluster.whoever().expect("one member runs");
            cluster.members[&life.id].fail_disk(seed % 8, Fault::Full);
            for number in 0..ASKED * 2 {
                let node = life.node.clone();
                drop(scheduler.spawn(life.group, async move {
                    let ask = async {
                        while number % 2 == 1 && node.read_barrier(Read::Index).await.is_ok() {
                            tokio::time::sleep(ms(1)).await;
                        }
                        node.propose(vec![0; 64]).await
                    };
                    tokio::select! {
                        biased;
                        // As a member does all that it does until then.
                        _ = node.failed() => {}
                        _ = ask => {}
                    }
                }));
            }
            assert!(timeout(SOON, life.node.failed()).await.is_ok(), "{seed}: the disk is full");
            tokio::time::sleep(ms(5)).await;
            for read in [Read::Index, Read::Lease] {
                assert!(matches!(life.node.read_barrier(read).await, Err(ProposeError::Stopped)), "{seed}");
            }
            assert!(life.node.propose(vec![0; 64]).await.is_err(), "{seed}");
        });
    }
}
