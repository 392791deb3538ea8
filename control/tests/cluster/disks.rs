//! Disks that fail or hang under a running member.

use ringway_control::consensus::{Failure, Halt, Machine, Node, ProposeError, Role};
use ringway_control::store::record::Identity;
use ringway_control::store::{Store, StoreError};

use super::harness::{Cluster, Member, Registers, deadline, eventually, set, until};
use crate::disk::{Disk, Fault};

/// A member on a disk of the test's.
async fn launch_on(cluster: &mut Cluster, id: u64, disk: &Disk) -> ringway_control::consensus::MemberInfo {
    let options = cluster.options(id).await;
    let info = options.info.clone();
    let identity = Identity { cluster: "blue".to_owned(), node: id };
    let store = Store::open_on(&identity, false, disk.clone()).unwrap();
    let registers = Registers::default();
    let node = Node::start_on(options, registers.clone(), store).await.unwrap();
    cluster.members.insert(id, Member { node, registers });
    info
}

/// Three voters, the third on `disk`, and the third leads.
async fn led_from(disk: &Disk) -> Cluster {
    let mut cluster = Cluster::of_one(5000, 1000).await;
    let leader = cluster.leader().await.node.clone();
    let second = cluster.launch(2).await;
    let third = launch_on(&mut cluster, 3, disk).await;
    for (id, info) in [(2, second), (3, third)] {
        eventually("add", || leader.add_learner(id, info.clone())).await;
        eventually("promote", || leader.promote(id)).await;
    }
    eventually("hand over to 3", || leader.transfer(3)).await;
    cluster.write(set("a", 1)).await;
    assert_eq!(cluster.leader().await.node.status().id, 3);
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_disk_is_reported_and_the_others_go_on() {
    let disk = Disk::new(1);
    let mut cluster = led_from(&disk).await;
    let broken = cluster.members[&3].node.clone();
    disk.fail_after(0, Fault::Broken);
    // Whatever it says, it is not that the write is known to be in the log.
    let refused = broken.propose(set("a", 2)).await;
    println!("the write on the failing disk: {refused:?}");
    let failure = tokio::time::timeout(deadline(), broken.failed()).await.unwrap();
    let Failure::Store(error) = &failure else { panic!("{failure}") };
    assert!(matches!(**error, StoreError::Write { .. }), "{error}");
    until("it has stopped", || (broken.status().role == Role::Stopped).then_some(())).await;
    assert_eq!(broken.propose(set("a", 9)).await, Err(ProposeError::Stopped));
    let new = cluster.leader_but(3).await.node.clone();
    eventually("a write", || new.propose(set("a", 3))).await;
    cluster.kill(3).await;
    assert_eq!(cluster.read("a").await, Some(3));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_hangs_hands_over() {
    let disk = Disk::new(1);
    let cluster = led_from(&disk).await;
    let slow = cluster.members[&3].node.clone();
    disk.hang(true);
    // The other two are a quorum: the write is decided without the hanging disk.
    eventually("a write beside the hanging disk", || slow.propose(set("a", 2))).await;
    let new = cluster.leader_but(3).await.node.clone();
    eventually("a write", || new.propose(set("a", 3))).await;
    disk.hang(false);
    assert_eq!(cluster.agreed().await["a"], 3);
    cluster.stop().await;
}

/// Halts at a command that it does not know.
struct Old;

impl Machine for Old {
    fn apply(&mut self, at: ringway_control::consensus::At, command: &[u8]) -> Result<Vec<u8>, Halt> {
        match command {
            b"old" => Ok(at.index.to_le_bytes().to_vec()),
            b"panic" => panic!("a bug"),
            _ => Err(Halt { reason: "a command of a newer build".to_owned() }),
        }
    }

    fn freeze(&self) -> ringway_control::consensus::SnapshotWriter {
        Box::new(|| Ok(Vec::new()))
    }

    fn restore(&mut self, _: &[u8]) -> Result<(), ringway_control::consensus::RestoreError> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_cannot_go_on_stops_its_member() {
    let mut cluster = Cluster::of_one(5000, 1000).await;
    for (id, command, expected) in [(8, "new", "a command of a newer build"), (9, "panic", "panicked")] {
        let node = Node::start(cluster.options(id).await, Old).await.unwrap();
        node.initialize().await.unwrap();
        let index = eventually("a known command", || node.propose(b"old".to_vec())).await;
        assert_eq!(index.answer, index.index.to_le_bytes());
        let lost = node.propose(command.as_bytes().to_vec()).await;
        assert!(matches!(lost, Err(ProposeError::Unknown | ProposeError::Stopped)), "{lost:?}");
        let failure = tokio::time::timeout(deadline(), node.failed()).await.unwrap();
        assert!(failure.to_string().contains(expected), "{failure}");
        node.stop().await;
    }
    cluster.stop().await;
}
