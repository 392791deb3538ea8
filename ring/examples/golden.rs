//! Prints `testdata/placement-v1.txt` anew. Its output must not differ from the file: if it does, placement has changed,
//! and every fleet would move its keys.
#![allow(clippy::print_stdout, reason = "a generator: it prints")]

use ringway_ring::{Member, Ring, RingParams, hash_key};

fn main() {
    println!(
        "# ring <points> <seed> <id*weight,...>, then <key> <hash> <owner> <second> <third>, then digest <digest>"
    );
    for (count, points, seed) in [(3, 256, 0), (10, 256, 0), (10, 160, 77), (100, 256, 0)] {
        let members: Vec<(String, u32)> =
            (0..count).map(|index| (format!("backend-{index}"), [100, 100, 50, 200, 25][index % 5])).collect();
        let list: Vec<String> = members.iter().map(|(id, weight)| format!("{id}*{weight}")).collect();
        println!("ring {points} {seed} {}", list.join(","));
        let built: Vec<_> = members.iter().map(|(id, weight)| Member { id, weight: *weight }).collect();
        let ring = Ring::build(&built, RingParams { points, seed }).expect("the members are good");
        let mut ids: Vec<&str> = members.iter().map(|(id, _)| id.as_str()).collect();
        ids.sort_unstable();
        for key in 0..60 {
            let key = format!("key-{key}");
            let hash = hash_key(key.as_bytes(), seed);
            let mut candidates = ring.candidates(hash);
            let names: Vec<&str> =
                (0..3).filter_map(|_| candidates.next(&ring)).map(|slot| ids[usize::from(slot.0)]).collect();
            println!("{key} {hash:016x} {}", names.join(" "));
        }
        println!("digest {:016x}", ring.digest());
    }
}
