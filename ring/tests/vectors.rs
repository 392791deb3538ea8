//! Placement is pinned: these numbers were made by another implementation of XXH3 and by hand; they never change without
//! a new ring version.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use ringway_ring::{Member, Ring, RingParams, Slot, hash_key};

fn ring(ids: &[&str]) -> Ring {
    let members: Vec<_> = ids.iter().map(|id| Member { id, weight: 100 }).collect();
    Ring::build(&members, RingParams::default()).unwrap()
}

#[test]
fn key_hashes_are_plain_xxh3() {
    assert_eq!(hash_key(b"", 0), 0x2d06_8005_38d3_94c2);
    assert_eq!(hash_key(b"k0", 0), 0xbbb0_8e67_2f91_90b3);
    assert_eq!(hash_key(b"user:42", 0), 0x9fc1_e605_fa71_74aa);
    assert_eq!(hash_key(b"/index.html", 0), 0xaa8f_18ab_73b5_f828);
    assert_ne!(hash_key(b"k0", 1), hash_key(b"k0", 2));
}

#[test]
fn three_members_own_what_they_always_owned() {
    let ring = ring(&["a", "b", "c"]);
    let owner = |key: &str| ["a", "b", "c"][usize::from(ring.owner(hash_key(key.as_bytes(), 0)).unwrap().0)];
    let owners: Vec<_> = ["k0", "k1", "k2", "k3", "user:42", "/index.html"].map(owner).into();
    assert_eq!(owners, ["b", "b", "c", "a", "c", "c"]);
    assert_eq!(ring.points(), 768);
    assert_eq!(ring.digest(), 0x2e4f_9100_377f_c665);
}

#[test]
fn first_and_last_point_are_where_they_always_were() {
    let ring = ring(&["a", "b", "c"]);
    // The last point before the wrap is at ffdf2e2ddfed: what lies after it belongs to the first, at 0006f34e8230.
    assert_eq!(ring.owner(0x0006_f34e_8230_0000), Some(Slot(0)));
    assert_eq!(ring.owner(0xffdf_2e2d_dfed_0000), Some(Slot(0)));
    assert_eq!(ring.owner(0xffdf_2e2d_dfee_0000), ring.owner(0));
}

/// `members: id*weight,…` then `key hash first second third` lines, then the digest.
const GOLDEN: &str = include_str!("../testdata/placement-v1.txt");

#[test]
fn golden_placements_never_change() {
    let mut checked = 0;
    let mut current: Option<(Ring, Vec<String>)> = None;
    for line in GOLDEN.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[0] {
            "ring" => {
                let members: Vec<(&str, u32)> = words[3]
                    .split(',')
                    .map(|member| member.split_once('*').unwrap())
                    .map(|(id, weight)| (id, weight.parse().unwrap()))
                    .collect();
                let params = RingParams { points: words[1].parse().unwrap(), seed: words[2].parse().unwrap() };
                let built: Vec<_> = members.iter().map(|&(id, weight)| Member { id, weight }).collect();
                let mut ids: Vec<String> = members.iter().map(|(id, _)| (*id).to_owned()).collect();
                ids.sort();
                current = Some((Ring::build(&built, params).unwrap(), ids));
            }
            "digest" => {
                assert_eq!(format!("{:016x}", current.as_ref().unwrap().0.digest()), words[1], "{line}");
                checked += 1;
            }
            key => {
                let (ring, ids) = current.as_ref().unwrap();
                let hash = hash_key(key.as_bytes(), ring.params().seed);
                assert_eq!(format!("{hash:016x}"), words[1], "{line}");
                let mut candidates = ring.candidates(hash);
                for expected in &words[2..] {
                    let found = candidates.next(ring).map(|slot| ids[usize::from(slot.0)].as_str());
                    assert_eq!(found, Some(*expected), "{line}");
                }
                checked += 1;
            }
        }
    }
    assert!(checked > 200, "the golden file has been cut: {checked}");
}
