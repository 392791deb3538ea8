//! The rooms of each crate, and the rule of the house: who is above uses who is below, and no two files use each other.

use crate::graph::{knots, shortest};
use crate::paths::{Edges, edges};
use crate::sources::Krate;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Crates in rooms, from the top down: a room uses those below it alone. A room is a folder with the file of its name, or a
/// file.
const ROOMS: &[(&str, &[&[&str]])] = &[
    (
        "ringway-control",
        &[
            &["lib.rs"],
            &["member"],
            &["client"],
            &["api"],
            &["discovery"],
            &["plane"],
            &["lessor"],
            &["etcd"],
            &["watch"],
            &["loads"],
            &["consensus"],
            &["http"],
            &["transport"],
            &["store"],
            &["state"],
        ],
    ),
    (
        "ringway-config",
        &[
            &["lib.rs"],
            &["joiner"],
            &["load", "reference", "changes"],
            &["effective", "edit"],
            &["check"],
            &["schema"],
            &["decode", "fleet"],
            &["env"],
            &["findings"],
            &["node", "diff"],
            &["model"],
            &["files", "limits"],
            &["diagnostic", "browser", "plain", "stamp"],
        ],
    ),
    (
        "ringway-proxy",
        &[
            &["lib.rs"],
            &["proxy"],
            &["admin"],
            &["apply"],
            &["run"],
            &["downstream"],
            &["l4"],
            &["exchange"],
            &["upstream"],
            &["routing"],
            &["worker"],
            &["codec"],
            &["dispatcher"],
            &["snapshot"],
            &["routes"],
            &["probe"],
            &["error"],
            &["overload"],
            &["net"],
            &["ambient", "planted"],
        ],
    ),
    ("ringway-fleet", &[&["lib.rs"], &["follow"], &["course", "loads", "rollout", "standing", "services", "reason"]]),
    (
        "ringway",
        &[
            &["main.rs"],
            &["control"],
            &["demo", "explain", "log", "operate", "sessions", "tap", "top", "workers"],
            &["status"],
            &["live"],
            &["admin", "save"],
            &["run", "plan"],
            &["terminal"],
            &["allocator", "table"],
        ],
    ),
];

/// Files that may still be in a cycle, by crate and the beginning of their paths. It only gets shorter.
const KNOTTED: &[(&str, &str)] = &[];

/// A package's own sources, and who uses whom in them.
pub(crate) struct Package {
    name: String,
    /// Where they stand: `control/src`.
    pub(crate) folder: String,
    pub(crate) files: Vec<String>,
    edges: Edges,
    /// Files that tests alone are built from.
    tests: Vec<String>,
    /// Every `.rs` file under the source folder.
    present: Vec<String>,
}

/// Read once for all tests.
pub(crate) fn packages() -> &'static [Package] {
    static PACKAGES: OnceLock<Vec<Package>> = OnceLock::new();
    PACKAGES.get_or_init(|| crate::packages().iter().map(package).collect())
}

fn package(metadata: &serde_json::Value) -> Package {
    let manifest = PathBuf::from(metadata["manifest_path"].as_str().unwrap());
    let source = manifest.parent().unwrap().join("src");
    let (mut roots, mut library) = (Vec::new(), None);
    for target in metadata["targets"].as_array().unwrap() {
        let kinds: Vec<&str> = target["kind"].as_array().unwrap().iter().filter_map(|kind| kind.as_str()).collect();
        let root = PathBuf::from(target["src_path"].as_str().unwrap());
        if kinds.contains(&"lib") {
            library = Some(target["name"].as_str().unwrap().replace('-', "_"));
            roots.insert(0, root);
        } else if kinds.contains(&"bin") {
            roots.push(root);
        }
    }
    let krate = Krate::read(&source, &roots, library.as_deref(), &|path| std::fs::read_to_string(path).ok());
    let mut present = Vec::new();
    files_under(&source, &source, &mut present);
    Package {
        name: metadata["name"].as_str().unwrap().into(),
        folder: source.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().display().to_string(),
        files: krate.files.iter().map(|file| file.path.clone()).collect(),
        edges: edges(&krate),
        tests: krate.test_files,
        present,
    }
}

fn files_under(source: &Path, folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_under(source, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path.strip_prefix(source).unwrap().display().to_string());
        }
    }
}

/// `a.rs -> b.rs (3: crate::b::B) -> a.rs (7: super::A)`
pub(crate) fn told(files: &[String], edges: &Edges, way: &[usize]) -> String {
    let mut text = way.first().map(|&first| files[first].clone()).unwrap_or_default();
    for pair in way.windows(2) {
        let place = &edges[&(pair[0], pair[1])];
        text.push_str(&format!(" -> {} ({}: {})", files[pair[1]], place.line, place.path));
    }
    text
}

/// The room of a file: its place in the list, from the top.
pub(crate) fn room_of(rooms: &[&[&str]], path: &str) -> Option<usize> {
    let is_in = |room: &str| path == room || path == format!("{room}.rs") || path.starts_with(&format!("{room}/"));
    let of_each = rooms.iter().enumerate().flat_map(|(index, names)| names.iter().map(move |name| (index, *name)));
    of_each.filter(|(_, name)| is_in(name)).max_by_key(|(_, name)| name.len()).map(|(index, _)| index)
}

/// Edges that go up, and files that are in no room.
pub(crate) fn faults(rooms: &[&[&str]], files: &[String], edges: &Edges) -> Vec<String> {
    let room = |file: usize| room_of(rooms, &files[file]);
    let homeless = files.iter().filter(|file| room_of(rooms, file).is_none());
    let mut faults: Vec<String> = homeless.map(|file| format!("{file} is in no room")).collect();
    for &(from, to) in edges.keys() {
        if let (Some(above), Some(below)) = (room(from), room(to))
            && below < above
        {
            faults.push(format!("up: {}", told(files, edges, &[from, to])));
        }
    }
    for names in rooms {
        for name in *names {
            if !files.iter().any(|file| room_of(&[&[name]], file).is_some()) {
                faults.push(format!("room {name} is empty"));
            }
        }
    }
    faults
}

#[test]
fn every_source_file_is_declared_by_some_module() {
    for package in packages() {
        let declared: BTreeSet<&str> = package.files.iter().map(String::as_str).collect();
        let tests: BTreeSet<&str> = package.tests.iter().map(String::as_str).collect();
        for file in &package.present {
            assert!(declared.contains(file.as_str()) || tests.contains(file.as_str()), "{}: {file}", package.name);
        }
    }
}

#[test]
fn no_two_files_of_a_crate_use_each_other_by_whatever_way() {
    let mut found = Vec::new();
    let mut needed = BTreeSet::new();
    for package in packages() {
        let allowance = |file: &usize| {
            let path = &package.files[*file];
            KNOTTED.iter().position(|(name, begin)| *name == package.name && path.starts_with(begin))
        };
        for knot in knots(&package.edges) {
            let allowances: Vec<Option<usize>> = knot.iter().map(allowance).collect();
            needed.extend(allowances.iter().copied().flatten());
            if allowances.contains(&None) {
                let way = told(&package.files, &package.edges, &shortest(&package.edges, &knot));
                found.push(format!("{}: {} files in a cycle, such as {way}", package.name, knot.len()));
            }
        }
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
    let idle: Vec<_> = KNOTTED.iter().enumerate().filter(|(index, _)| !needed.contains(index)).collect();
    assert!(idle.is_empty(), "in no cycle any more, and still allowed to be: {idle:?}");
}

#[test]
fn rooms_use_only_rooms_below_them() {
    let packages = packages();
    let mut found = Vec::new();
    for (name, rooms) in ROOMS {
        let package = packages.iter().find(|package| package.name == *name).unwrap();
        found.extend(faults(rooms, &package.files, &package.edges).into_iter().map(|fault| format!("{name}: {fault}")));
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// ARCHITECTURE.md has a table of each crate's rooms, from the top down.
#[test]
fn the_architecture_has_the_rooms_as_they_are() {
    let text = include_str!("../../ARCHITECTURE.md");
    for (package, folder) in [("ringway-proxy", "proxy"), ("ringway-control", "control")] {
        let (_, table) = text.split_once(&format!("| room of `{folder}/` |")).unwrap();
        let rows = table.lines().skip(2).take_while(|line| line.starts_with("| "));
        let told: Vec<&str> =
            rows.flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2)).collect();
        let (_, rooms) = ROOMS.iter().find(|(name, _)| *name == package).unwrap();
        let rooms = rooms.iter().flat_map(|names| names.iter().copied());
        // What stands above all rooms, and what is there for tests.
        let there: Vec<&str> = rooms.filter(|name| !["lib.rs", "planted"].contains(name)).collect();
        assert_eq!(told, there, "{package}");
    }
}

/// `cargo test --test edges -- --ignored --nocapture drawing`
#[test]
#[ignore = "prints; for who wants to see"]
#[allow(clippy::print_stdout, reason = "it is there to print")]
fn drawing() {
    let only = std::env::var("CRATE").ok();
    for package in packages() {
        if only.as_ref().is_some_and(|only| *only != package.name) {
            continue;
        }
        let path = |file: usize| package.files[file].as_str();
        let folder =
            |file: usize| path(file).split_once('/').map_or(path(file).trim_end_matches(".rs"), |(folder, _)| folder);
        println!("{}: {} files, {} edges", package.name, package.files.len(), package.edges.len());
        for knot in knots(&package.edges) {
            println!(
                "  cycle of {}: {}",
                knot.len(),
                knot.iter().map(|&file| path(file)).collect::<Vec<_>>().join(" ")
            );
            println!("    {}", told(&package.files, &package.edges, &shortest(&package.edges, &knot)));
            if only.is_some() {
                for (pair, place) in
                    package.edges.iter().filter(|((from, to), _)| knot.contains(from) && knot.contains(to))
                {
                    println!("      {} -> {} ({}: {})", path(pair.0), path(pair.1), place.line, place.path);
                }
            }
        }
        let mut between: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
        for &(from, to) in package.edges.keys().filter(|(from, to)| folder(*from) != folder(*to)) {
            *between.entry(folder(from)).or_default().entry(folder(to)).or_default() += 1;
        }
        for (from, to) in between {
            let to: Vec<String> = to.iter().map(|(name, count)| format!("{name} {count}")).collect();
            println!("  {from} -> {}", to.join(", "));
        }
    }
}
