//! What the documentation lists is what there is: fields of the status, fields of the access log.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;
use common::control::{Cluster, FleetProxy};
use common::*;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const OPERATIONS: &str = include_str!("../docs/operations.md");
const FAILURE_MODES: &str = include_str!("../docs/failure-modes.md");
const ARCHITECTURE: &str = include_str!("../ARCHITECTURE.md");
const CONTRIBUTING: &str = include_str!("../CONTRIBUTING.md");

/// Objects that only traffic of a certain kind brings about: listed in the documentation, and not looked for here.
const RARE: [&str; 6] = [
    "services[].backends[].override",
    "services[].backends[].stands_out",
    "services[].hot_keys[]",
    "services[].shadow",
    "services[].stands_out",
    "last_reload.diagnostics[]",
];

/// The text between a heading and the next.
fn section(heading: &str) -> &'static str {
    let (_, rest) = OPERATIONS.split_once(&format!("## {heading}\n")).unwrap();
    rest.split("\n## ").next().unwrap()
}

/// What stands between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Every object of a JSON text that has fields of its own: its path, and their names.
fn objects(value: &Value, path: &str, found: &mut BTreeMap<String, BTreeSet<String>>) {
    match value {
        Value::Object(fields) => {
            found.entry(path.to_owned()).or_default().extend(fields.keys().cloned());
            for (name, value) in fields {
                let separator = if path.is_empty() { "" } else { "." };
                objects(value, &format!("{path}{separator}{name}"), found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| objects(item, &format!("{path}[]"), found)),
        _ => {}
    }
}

#[test]
fn every_field_of_the_status_is_documented_and_no_other() {
    let cluster = Cluster::of(1, "");
    let backend = Backend::echo("a");
    let service = format!(
        "services:\n  - name: s\n    balance: {{ hash_key: [ {{ path: {{}} }} ], shed: {{ scope: fleet }} }}\n    handoff: {{ window: 1h }}\n    panic_threshold: 0\n\
         \x20   health: {{ tcp: {{}}, interval: 100ms, timeout: 100ms, fall: 1 }}\n    backends:\n\
         \x20     - {{ id: a, address: \"{}\" }}\n      - {{ id: b, address: \"{}\" }}\n",
        backend.address,
        free_address()
    );
    let directory = tempfile::tempdir().unwrap();
    let authority = directory.path().join("ca.pem");
    let made = rcgen::generate_simple_self_signed(vec!["ca.test".to_owned()]).unwrap();
    std::fs::write(&authority, made.cert.pem()).unwrap();
    let service = format!(
        "{service}  - name: t\n    tls: {{ ca: \"{}\" }}\n    backends: [ {{ id: c, address: \"127.0.0.1:9\" }} ]\n",
        path_text(&authority)
    );
    let proxy = FleetProxy::start(&cluster, "one", &service);
    let ringway = &proxy.ringway;
    let mut found = BTreeMap::new();
    wait_for("a backend to go down", || {
        let status = ringway.status();
        (!status["services"][0]["backends"][1]["last_change"].is_null()).then_some(())
    });
    objects(&ringway.status(), "", &mut found);
    let text = std::fs::read_to_string(&ringway.config).unwrap();
    ringway.write_config(&text.replace("id: a", "id: a, weight: 50"));
    // Not the next generation: what comes from the control plane makes one too.
    let reloaded =
        wait_for("the change", || Some(ringway.status()).filter(|status| !status["last_reload"]["moved"][0].is_null()));
    objects(&reloaded, "", &mut found);
    ringway.write_config(&text.replace("id: a", "id: a, wait: 50"));
    wait_for("the refusal", || (ringway.status()["last_reload"]["result"] == "refused").then_some(()));
    objects(&ringway.status(), "", &mut found);

    let mut documented: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in section("Admin listener").lines().filter(|line| line.starts_with("| ") && line.matches('|').count() == 3)
    {
        let (object, fields) = row[2..].split_once(" | ").unwrap();
        let Some(object) = quoted(object).first().copied() else { continue };
        if object.starts_with("GET ") || object.starts_with("POST ") {
            continue;
        }
        let object = if object == "/status" { "" } else { object };
        documented.insert(
            object.to_owned(),
            quoted(fields.split(';').next().unwrap()).iter().map(|&name| name.to_owned()).collect(),
        );
    }
    for (object, fields) in &found {
        if RARE.contains(&object.as_str()) {
            continue;
        }
        assert_eq!(documented.get(object), Some(fields), "docs/operations.md, the row of `{object}`");
    }
    for object in documented.keys() {
        assert!(found.contains_key(object) || RARE.contains(&object.as_str()), "nobody gives `{object}`");
    }
}

#[test]
fn every_field_of_the_access_log_is_documented_and_no_other() {
    let backend = Backend::echo("a");
    let listen = free_address();
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("access.log");
    let text = format!("access_log: {{ target: {log:?}, format: json }}\n");
    let config = simple(listen, "balance: { hash_key: [ { path: {} } ] }", &[("a", backend.address)]);
    let _ringway = Ringway::start(&format!("{text}{config}"));
    assert_eq!(get(listen, "/").unwrap().status, 200);
    let line = wait_for("the line", || {
        let text = std::fs::read_to_string(&log).ok()?;
        text.ends_with('\n').then(|| text.lines().next().map(str::to_owned))?
    });
    let line: Value = serde_json::from_str(&line).unwrap();
    let logged: BTreeSet<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
    let (_, list) = section("Access log").split_once("One line a request:").unwrap();
    let documented: BTreeSet<&str> = quoted(list.split(". ").next().unwrap()).into_iter().collect();
    assert_eq!(documented, logged);
}

#[test]
fn every_reason_is_documented_with_its_status() {
    let source = include_str!("../proxy/src/error.rs");
    let body = |function: &str| source.split_once(function).unwrap().1.split_once("\n    }\n").unwrap().0;
    let reasons: Vec<&str> = body("pub fn reason(self)").split('"').skip(1).step_by(2).collect();
    assert!(reasons.len() > 30, "{reasons:?}");
    for reason in reasons {
        assert!(FAILURE_MODES.contains(&format!("`{reason}`")), "docs/failure-modes.md lacks `{reason}`");
    }
}

/// All sources, and the names of files that are tests by their being there.
fn sources() -> String {
    let mut sources = String::new();
    let mut directories = vec![std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR"))];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).unwrap().flatten() {
            let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                directories.push(path);
            } else if name.ends_with(".rs") {
                sources.push_str(&std::fs::read_to_string(&path).unwrap());
            } else if name.ends_with(".yaml") {
                sources.push_str(&format!("fn {}(", name.trim_end_matches(".yaml")));
            }
        }
    }
    sources
}

/// The names of tests among what is quoted in `text`; every one is there.
fn tests_named<'a>(text: &'a str, sources: &str) -> Vec<&'a str> {
    let named = quoted(text).into_iter().filter(|name| name.contains('_'));
    let is_name = |name: &&str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    let named: Vec<&str> = named.filter(is_name).collect();
    for name in &named {
        let there = [format!("fn {name}("), format!("fn {name}<"), format!("\"{name}\"")]
            .iter()
            .any(|text| sources.contains(text));
        assert!(there, "there is no `{name}`: {text}");
    }
    named
}

/// As [`tests_named`], each after the file that it is in.
fn tests_in_files(text: &str, sources: &str) -> usize {
    let named = tests_named(text, sources).len();
    for group in text.split("; ") {
        let Some(file) = group.split_whitespace().find(|word| word.ends_with(".rs")) else { continue };
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let source = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}: {text}"));
        for name in quoted(group) {
            assert!(source.contains(&format!("fn {name}(")), "{file} has no `{name}`");
        }
    }
    named
}

#[test]
fn every_failure_mode_names_the_tests_that_hold_it() {
    let sources = sources();
    let rows: Vec<&str> =
        FAILURE_MODES.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| what happens ")).collect();
    assert!(rows.len() > 70);
    for row in rows {
        let (_, held) =
            row.split_once("<!-- held by ").unwrap_or_else(|| panic!("docs/failure-modes.md, held by whom? {row}"));
        let is_nobodys = held.starts_with("nobody: ");
        assert!(is_nobodys || tests_in_files(held.split(" -->").next().unwrap(), &sources) > 0, "{row}");
    }
}

#[test]
fn every_invariant_names_the_tests_that_hold_it() {
    let sources = sources();
    let (_, invariants) = ARCHITECTURE.split_once("## Invariants\n").unwrap();
    let invariants = invariants.split("\n## ").next().unwrap();
    let rows: Vec<&str> =
        invariants.lines().filter(|line| line.starts_with("| ") && !line.ends_with("| held by |")).collect();
    assert!(rows.len() > 20);
    for row in rows {
        let held = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        for group in held.split("; ") {
            assert!(group.split(' ').next().unwrap().ends_with(".rs"), "in which file? {group}");
        }
        assert!(tests_in_files(held, &sources) > 0, "ARCHITECTURE.md, held by whom? {row}");
    }
}

/// From the repository's root, or from the `src/` of a crate.
#[test]
fn every_source_file_that_the_architecture_or_the_contributors_page_names_is_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = std::fs::read_dir(root).unwrap().flatten().map(|entry| entry.path().join("src"));
    let roots: Vec<_> = folders.filter(|path| path.is_dir()).chain([root.to_owned(), root.join("src")]).collect();
    for (document, text) in [("ARCHITECTURE.md", ARCHITECTURE), ("CONTRIBUTING.md", CONTRIBUTING)] {
        let is_of_path = |character: char| character.is_ascii_alphanumeric() || "_-./".contains(character);
        let paths: BTreeSet<&str> =
            text.split(|character| !is_of_path(character)).filter(|word| word.ends_with(".rs")).collect();
        assert!(paths.len() > 10, "{document}: {paths:?}");
        for path in paths {
            let found: Vec<_> = roots.iter().filter(|root| root.join(path).is_file()).collect();
            assert!(!found.is_empty(), "{document} names {path}, which is not there");
            assert!(found.len() == 1 || root.join(path).is_file(), "{document}: {path} is in {found:?}");
        }
    }
}

#[test]
fn every_row_of_what_holds_names_the_tests_that_hold_it() {
    let sources = sources();
    let (_, holds) = include_str!("../docs/balancing.md").split_once("## What holds\n").unwrap();
    let holds = holds.split("\n## ").next().unwrap();
    let is_row = |line: &&str| line.starts_with("| ") && !line.ends_with("| held by |");
    let rows: Vec<&str> = holds.lines().filter(is_row).collect();
    assert!(rows.len() > 15);
    for row in rows {
        let held = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        assert!(tests_in_files(held, &sources) > 0 || held.starts_with("the same"), "{row}");
    }
}

#[test]
fn every_row_of_cookies_and_drains_names_the_tests_that_hold_it() {
    let sources = sources();
    let (_, cookies) = include_str!("../docs/balancing.md").split_once("## Cookies and drains\n").unwrap();
    let rows = cookies.split("\n## ").next().unwrap().lines().filter(|line| line.starts_with("| ")).skip(1);
    for row in rows {
        let (_, held) = row.split_once("<!-- held by ").unwrap_or_else(|| panic!("held by whom? {row}"));
        assert!(tests_in_files(held.split(" -->").next().unwrap(), &sources) > 0, "{row}");
    }
}

#[test]
fn what_the_table_of_field_faults_names_is_there() {
    let sources = sources();
    let field = include_str!("../docs/field.md");
    let rows: Vec<&str> =
        field.lines().filter(|line| line.starts_with("| ") && line.as_bytes()[2].is_ascii_digit()).collect();
    let numbers: BTreeSet<u32> =
        rows.iter().map(|row| row[2..].split([' ', '|']).next().unwrap().parse().unwrap()).collect();
    assert_eq!(numbers, (1..=57).collect());
    let control = field
        .lines()
        .filter(|line| (line.starts_with("| C") || line.starts_with("| E")) && line.as_bytes()[3].is_ascii_digit());
    for row in rows.into_iter().chain(control) {
        let tests = row.split('|').nth(2).unwrap();
        tests_named(tests, &sources);
    }
}

#[test]
fn every_test_binary_that_a_document_names_is_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(root.join("tests")).unwrap().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "rs") || path.join("main.rs").is_file() {
            names.insert(path.file_stem().unwrap().to_str().unwrap().to_owned());
        }
    }
    for manifest in std::fs::read_dir(root).unwrap().flatten().map(|entry| entry.path().join("Cargo.toml")) {
        let text = std::fs::read_to_string(manifest).unwrap_or_default();
        let named = text.split("[[test]]\nname = \"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
        names.extend(named);
    }
    let documents = std::fs::read_dir(root.join("docs")).unwrap().chain(std::fs::read_dir(root).unwrap());
    for path in documents.flatten().map(|entry| entry.path()) {
        // What was, and the commands of its time.
        let is_history = path.ends_with("CHANGELOG.md");
        if is_history || path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for rest in text.split("--test ").skip(1) {
            let name: String =
                rest.chars().take_while(|&character| character.is_alphanumeric() || character == '_').collect();
            assert!(names.contains(&name), "{} names the test binary {name:?}; there are {names:?}", path.display());
        }
    }
}

/// A file that no binary names is compiled by nobody, and its tests never run.
#[test]
fn every_file_below_tests_is_a_part_of_a_binary() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let crates = std::fs::read_dir(root).unwrap().flatten().map(|entry| entry.path().join("tests"));
    let mut directories: Vec<_> = crates.chain([root.join("tests")]).filter(|path| path.is_dir()).collect();
    let (mut files, mut named) = (Vec::new(), BTreeSet::new());
    while let Some(directory) = directories.pop() {
        for path in std::fs::read_dir(&directory).unwrap().flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let names = text.lines().filter_map(|line| line.split_once("mod ")?.1.strip_suffix(';'));
                named.extend(names.map(str::to_owned));
                files.push(path);
            }
        }
    }
    for path in files {
        let (within, name) = (path.parent().unwrap(), path.file_stem().unwrap().to_str().unwrap());
        let module = if name == "mod" { within.file_name().unwrap().to_str().unwrap() } else { name };
        let tests = path.ancestors().find(|above| above.ends_with("tests")).unwrap();
        let manifest = std::fs::read_to_string(tests.with_file_name("Cargo.toml")).unwrap();
        let is_root = if manifest.contains("\nautotests = false\n") {
            let file = path.strip_prefix(tests.parent().unwrap()).unwrap();
            manifest.contains(&format!("\npath = \"{}\"\n", path_text(file)))
        } else {
            within == tests || name == "main" && within.parent() == Some(tests)
        };
        assert!(is_root || named.contains(module), "nobody compiles {}", path.display());
    }
}

/// A machine that is busy is slower than any time that somebody has thought of: what can be waited for is waited for. Below `tests/` of the
/// root, who sleeps does so by one of the names in tests/common/pace.rs, which say why.
#[test]
fn nobody_below_tests_sleeps_without_saying_why() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let crates = std::fs::read_dir(root).unwrap().flatten().map(|entry| entry.path().join("tests"));
    let mut directories: Vec<_> = crates.chain([root.join("tests")]).filter(|path| path.is_dir()).collect();
    let (mut slept, mut without) = (0, Vec::new());
    while let Some(directory) = directories.pop() {
        for path in std::fs::read_dir(&directory).unwrap().flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let file = path.strip_prefix(root).unwrap();
            let (Ok(text), false) = (std::fs::read_to_string(&path), file.ends_with("docs.rs")) else { continue };
            let lines: Vec<&str> = text.lines().collect();
            let may_sleep = file.starts_with("tests/common") || !file.starts_with("tests");
            for (index, _) in lines.iter().enumerate().filter(|(_, line)| line.contains("sleep(")) {
                slept += 1;
                let is_told = lines[index.saturating_sub(2)..=index]
                    .iter()
                    .any(|line| line.contains("// ") || line.contains("# ") || line.contains("/// "));
                if !is_told || !may_sleep && lines[index].contains("std::thread::sleep") {
                    without.push(format!("{}:{}", file.display(), index + 1));
                }
            }
        }
    }
    assert!(slept > 10, "nothing is looked at");
    assert_eq!(without, Vec::<String>::new(), "see tests/common/pace.rs, and wait_for");
}
