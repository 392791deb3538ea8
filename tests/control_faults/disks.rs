//! Disks that are full, damaged, torn, from the future, or somebody else's.

use crate::client;
use crate::cluster::{Cluster, Member};
use crate::common::{output, skipped, wait_for};
use crate::random::Random;
use serde_json::{Value, json};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A small disk of its own, gone when dropped.
struct Tmpfs(PathBuf);

impl Tmpfs {
    /// `None`, said aloud, where mounts are not allowed.
    fn mount(path: &Path, mebibytes: u32) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let size = format!("size={mebibytes}m");
        let done = output("mount", &["-t", "tmpfs", "-o", &size, "none", path.to_str().unwrap()]);
        if !done.status.success() {
            skipped(&format!("a disk that fills up needs root: {}", String::from_utf8_lossy(&done.stderr)));
            return None;
        }
        Some(Self(path.to_owned()))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: whoever still has a file there is being killed.
        output("umount", &["--lazy", self.0.to_str().unwrap()]);
    }
}

/// Writes a backend of this name, until it is acknowledged.
fn put(api: SocketAddr, name: &str, note: &str) {
    let body = json!({ "address": "127.0.0.1:9", "source": name });
    let path = format!("/v1/objects/backend/disk/{name}?force=true&note={note}");
    wait_for("a write to be acknowledged", || client::json(api, "PUT", &path, &body).ok());
}

/// Names of all backends, read linearizably.
fn names(api: SocketAddr) -> Option<Vec<String>> {
    let list = client::json(api, "GET", "/v1/objects?prefix=backend/disk/", &Value::Null).ok()?;
    let name = |object: &Value| object["object"]["backend"]["source"].as_str().map(str::to_owned);
    Some(list["objects"].as_array()?.iter().filter_map(name).collect())
}

/// Starts a member that must refuse; gives what it says.
fn refuses(cluster: &mut Cluster, number: usize) -> String {
    let before = cluster.member(number).log().len();
    cluster.start(number);
    let status = cluster.member_mut(number).ended();
    let said = cluster.member(number).log()[before..].to_owned();
    assert!(!status.success() && status.code().is_some(), "{status}: {said}");
    said
}

#[test]
fn a_member_whose_disk_is_full_stops_and_comes_back() {
    let mut random = Random::from_environment("a_member_whose_disk_is_full_stops_and_comes_back");
    let mut disk = None;
    let cluster = Cluster::with("full", 3, &mut random, |member| {
        if member.number == 3 {
            disk = Tmpfs::mount(&member.directory, 8);
        }
    });
    let (mut cluster, Some(disk)) = (cluster, disk) else { return };
    cluster.settled();
    let filler = disk.0.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    let (api, note) = (cluster.member(1).api, "x".repeat(3000));
    let mut written = 0;
    let status = wait_for("the member with the full disk to stop", || {
        put(api, &format!("full-{written}"), &note);
        written += 1;
        cluster.member_mut(3).exit()
    });
    let said = cluster.member(3).log();
    assert!(!status.success() && status.code().is_some(), "{status}");
    let last = said.lines().last().unwrap_or_default();
    assert!(last.contains("raft.redb") && last.contains("No space left on device"), "{said}");
    put(api, "after", "");
    cluster.member_mut(3).ended();
    std::fs::remove_file(filler).unwrap();
    cluster.start(3);
    cluster.settled();
    let all = names(cluster.member(3).api).unwrap();
    assert_eq!(all.len(), written + 1, "{all:?}");
    println!("stopped after {written} writes");
}

#[test]
fn damage_in_the_middle_of_a_log_is_named_and_cured_by_joining_anew() {
    let mut random = Random::from_environment("damage_in_the_middle_of_a_log_is_named_and_cured_by_joining_anew");
    let mut cluster = Cluster::new("damaged", 3, &mut random);
    let api = cluster.member(1).api;
    for name in ["early", "needle-in-the-log", "late"] {
        put(api, name, "");
    }
    cluster.settled();
    wait_for("the third member to have it", || {
        client::get(cluster.member(3).api, "/v1/objects/backend/disk/late?consistency=stale")
    });
    cluster.member_mut(3).terminate();
    let file = cluster.member(3).directory.join("raft.redb");
    let mut bytes = std::fs::read(&file).unwrap();
    let needle = b"needle-in-the-log";
    // Pages are copied before they change: the newest copy is the one that counts.
    let places: Vec<usize> = (0..bytes.len() - needle.len()).filter(|at| bytes[*at..].starts_with(needle)).collect();
    assert!(!places.is_empty());
    places.iter().for_each(|at| bytes[at + 3] ^= 4);
    std::fs::write(&file, &bytes).unwrap();
    let said = refuses(&mut cluster, 3);
    assert!(said.contains(file.to_str().unwrap()), "{said}");
    assert!(said.contains("wipe the directory and rejoin"), "{said}");
    assert_eq!(std::fs::read(&file).unwrap().len(), bytes.len(), "nothing was cut off");
    put(api, "without-the-third", "");

    let old = cluster.member(3).node;
    std::fs::remove_dir_all(&cluster.member(3).directory).unwrap();
    cluster.join(3, &["--replace", &old.to_string()]);
    cluster.member_mut(3).read_plan();
    cluster.start(3);
    let new = cluster.member(3).node;
    wait_for("the new member to vote in the old one's place", || {
        let members = client::get(api, "/v1/members")?.to_string();
        (members.contains(&new.to_string()) && !members.contains(&old.to_string())).then_some(())
    });
    cluster.settled();
    // It does vote: without one of the others, there is a majority with it.
    cluster.member_mut(2).kill();
    put(api, "with-the-new-third", "");
    let all = names(cluster.member(3).api).unwrap();
    assert_eq!(all, ["early", "late", "needle-in-the-log", "with-the-new-third", "without-the-third"]);
}

#[test]
fn a_log_that_was_cut_or_changed_never_serves_less_than_was_acknowledged() {
    let mut random = Random::from_environment("a_log_that_was_cut_or_changed_never_serves_less_than_was_acknowledged");
    let mut cluster = Cluster::new("torn", 1, &mut random);
    let api = cluster.member(1).api;
    let wanted: Vec<String> = (10..40).map(|index| format!("w{index}")).collect();
    wanted.iter().for_each(|name| put(api, name, ""));
    cluster.member_mut(1).kill();
    let file = cluster.member(1).directory.join("raft.redb");
    let whole = std::fs::read(&file).unwrap();
    let length = whole.len();
    let asked: usize = std::env::var("RINGWAY_FAULTS").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut cuts = vec![0, 1, 4096, length / 2, length - 4096, length - 1];
    let mut flips = Vec::new();
    for _ in 0..(asked / 4).max(8) {
        cuts.push(random.below(length as u64) as usize);
        flips.push(random.below(length as u64) as usize);
        // The beginning is where the database says which of its pages count.
        flips.push(random.below(320) as usize);
    }
    // What was killed looks as a power loss would have left it: damage must not pass for a write that was never finished.
    let damages = cuts.iter().map(|at| whole[..*at].to_vec());
    let damages = damages.chain(flips.iter().map(|at| {
        let mut bytes = whole.clone();
        bytes[*at] ^= 1 << random.below(8);
        bytes
    }));
    let (mut served, mut refused) = (0, 0);
    for (index, bytes) in damages.enumerate() {
        std::fs::write(&file, &bytes).unwrap();
        let before = cluster.member(1).log().len();
        cluster.start(1);
        let answer = wait_for("it to serve or to refuse", || match cluster.member_mut(1).exit() {
            Some(status) => Some(Err(status)),
            None => names(api).map(Ok),
        });
        let said = cluster.member(1).log()[before..].to_owned();
        match answer {
            Ok(found) => {
                assert_eq!(found, wanted, "damage {index}: {said}");
                served += 1;
            }
            Err(status) => {
                assert!(status.code().is_some_and(|code| code != 0), "damage {index}: {status}: {said}");
                assert!(said.contains(file.to_str().unwrap()), "damage {index}: {said}");
                refused += 1;
            }
        }
        cluster.member_mut(1).kill();
    }
    println!("{} cuts, {} flipped bits: {refused} refused, {served} served whole", cuts.len(), flips.len());
    std::fs::write(&file, &whole).unwrap();
    from_the_future(&mut cluster, &file);
}

/// The last entry, as a later version might write it: sound, and not for this one.
fn from_the_future(cluster: &mut Cluster, file: &Path) {
    const LOG: redb::TableDefinition<'static, u64, &[u8]> = redb::TableDefinition::new("log");
    let database = redb::Database::open(file).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        use redb::ReadableTable;
        let mut table = transaction.open_table(LOG).unwrap();
        let (index, mut record) = {
            let (index, record) = table.last().unwrap().unwrap();
            (index.value(), record.value().to_vec())
        };
        record[4] = ringway_control::store::record::FORMAT + 1;
        let sum = crc32fast::hash(&record[4..]);
        record[..4].copy_from_slice(&sum.to_le_bytes());
        table.insert(index, record.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    let said = refuses(cluster, 1);
    assert!(said.contains("is newer than the format") && said.contains("run the newer build"), "{said}");
    assert!(!said.contains("wipe"), "there is nothing wrong with it: {said}");
}

#[test]
fn members_of_two_clusters_refuse_each_other() {
    let mut random = Random::from_environment("members_of_two_clusters_refuse_each_other");
    let mut blue = Cluster::new("blue", 3, &mut random);
    let mut green = Cluster::new("green", 2, &mut random);
    put(blue.member(1).api, "blue", "");
    put(green.member(1).api, "green", "");
    blue.member_mut(3).terminate();
    green.member_mut(2).terminate();
    // Each comes up where the other cluster looks for one of its own.
    swap(blue.member(3), green.member(2));
    blue.start(3);
    green.start(2);
    for (cluster, number) in [(&blue, 3), (&green, 2)] {
        wait_for("a stranger to be refused", || {
            cluster.member(number).log().contains("a call is not meant for this member").then_some(())
        });
    }
    put(blue.member(1).api, "still-blue", "");
    wait_for("half a cluster to know that it has no leader", || {
        let refused = client::json(green.member(1).api, "GET", "/v1/objects", &Value::Null);
        matches!(refused, Err(client::Failure::Definite(503, _))).then_some(())
    });
    blue.member_mut(3).kill();
    green.member_mut(2).kill();
    swap(blue.member(3), green.member(2));
    blue.start(3);
    green.start(2);
    blue.settled();
    green.settled();
    for member in &blue.members {
        assert_eq!(names(member.api).unwrap(), ["blue", "still-blue"]);
    }
    for member in &green.members {
        assert_eq!(names(member.api).unwrap(), ["green"]);
    }

    // A directory whose two halves disagree is nobody's.
    blue.member_mut(3).terminate();
    let plan = blue.member(3).directory.join("member.json");
    let text = std::fs::read_to_string(&plan).unwrap();
    std::fs::write(&plan, text.replace("blue", "green")).unwrap();
    let said = refuses(&mut blue, 3);
    assert!(said.contains("of cluster \\\"blue\\\"") || said.contains("of cluster \"blue\""), "{said}");
}

/// Their directories, and all that is in them.
fn swap(one: &Member, other: &Member) {
    let aside = one.directory.with_extension("aside");
    std::fs::rename(&one.directory, &aside).unwrap();
    std::fs::rename(&other.directory, &one.directory).unwrap();
    std::fs::rename(&aside, &other.directory).unwrap();
}
