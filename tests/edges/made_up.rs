//! The reader of paths, on crates small enough to see what it should find.

use crate::graph::{knots, shortest};
use crate::paths::{Edges, edges};
use crate::rooms::{faults, room_of, told};
use crate::sources::Krate;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn read(files: &[(&str, &str)]) -> (Krate, Edges) {
    let texts: BTreeMap<PathBuf, String> =
        files.iter().map(|(path, text)| (Path::new("src").join(path), (*text).to_owned())).collect();
    let read = |path: &Path| texts.get(path).cloned();
    let mut roots = vec![PathBuf::from("src/lib.rs")];
    roots.extend(texts.keys().filter(|path| path.starts_with("src/bin")).cloned());
    let krate = Krate::read(Path::new("src"), &roots, Some("made_up"), &read);
    let edges = edges(&krate);
    (krate, edges)
}

fn paths(krate: &Krate) -> Vec<String> {
    krate.files.iter().map(|file| file.path.clone()).collect()
}

/// The shortest cycle, if there is one.
fn cycle(files: &[(&str, &str)]) -> Option<String> {
    let (krate, edges) = read(files);
    let knots = knots(&edges);
    knots.first().map(|knot| told(&paths(&krate), &edges, &shortest(&edges, knot)))
}

/// All edges, as `a -> b`.
fn pairs(files: &[(&str, &str)]) -> Vec<String> {
    let (krate, edges) = read(files);
    let name = |file: usize| krate.files[file].path.trim_end_matches(".rs");
    edges.keys().map(|&(from, to)| format!("{} -> {}", name(from), name(to))).collect()
}

const TWO: &str = "mod a; mod b;";

#[test]
fn a_cycle_through_use_is_told_with_lines_and_paths() {
    let found = cycle(&[
        ("lib.rs", TWO),
        ("a.rs", "\nuse crate::b::B;\npub struct A(B);"),
        ("b.rs", "use super::a::A as Other;\npub struct B(Box<Other>);"),
    ]);
    assert_eq!(found.as_deref(), Some("a.rs -> b.rs (2: crate::b::B) -> a.rs (1: super::a::A)"));
}

#[test]
fn one_way_is_no_cycle() {
    assert_eq!(
        cycle(&[("lib.rs", TWO), ("a.rs", "use crate::b::B; pub struct A(B);"), ("b.rs", "pub struct B;")]),
        None
    );
}

#[test]
fn a_cycle_through_a_macros_body_is_found() {
    let b = "macro_rules! make { () => { $crate::a::A::new() } }\npub struct B;";
    let found = cycle(&[("lib.rs", TWO), ("a.rs", "use crate::b::B; pub struct A(B);"), ("b.rs", b)]).unwrap();
    assert!(found.contains("a.rs (1: crate::a::A::new)"), "{found}");
}

#[test]
fn a_cycle_through_the_arguments_of_a_macro_is_found() {
    for call in ["matches!(x, crate::a::A::One)", "assert!(super::a::f(1) == [2])", "let _ = vec![vec![a::f(1)]]"] {
        let b = format!("use crate::a;\npub struct B; fn g() {{ {call}; }}");
        let found = cycle(&[("lib.rs", TWO), ("a.rs", "use crate::b::B; pub struct A(B);pub fn f(){}"), ("b.rs", &b)]);
        assert!(found.is_some(), "{call}");
    }
}

#[test]
fn use_inside_the_body_of_a_macro_counts() {
    for tree in ["use crate::{a::A, a::f};", "use crate::a::*;", "use crate::a::{self, A};"] {
        let b = format!("macro_rules! all {{ () => {{ {tree} }} }}");
        assert_eq!(
            pairs(&[("lib.rs", TWO), ("a.rs", "pub struct A; pub fn f() {}"), ("b.rs", &b)]),
            ["b -> a"],
            "{tree}"
        );
    }
}

#[test]
fn a_caller_of_a_macro_uses_the_file_that_has_it() {
    let lib = "#[macro_use] mod a; mod b;";
    assert_eq!(pairs(&[("lib.rs", lib), ("a.rs", "macro_rules! m { () => {} }"), ("b.rs", "m!();")]), ["b -> a"]);
    let exported = "#[macro_export] macro_rules! m { () => {} }";
    assert_eq!(pairs(&[("lib.rs", TWO), ("a.rs", exported), ("b.rs", "fn f() { crate::m!(); }")]), ["b -> a"]);
    let used = "macro_rules! m { () => {} } pub(crate) use m;";
    assert_eq!(pairs(&[("lib.rs", TWO), ("a.rs", used), ("b.rs", "fn f() { crate::a::m!(); }")]), ["b -> a"]);
}

#[test]
fn a_name_is_looked_for_where_it_is_defined_not_where_it_is_exported() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c; pub use b::B as Renamed;"),
        ("a.rs", "use crate::c::Twice; pub struct A(Twice);"),
        ("b.rs", "pub struct B;"),
        ("c.rs", "pub use crate::Renamed as Twice;"),
    ];
    assert_eq!(pairs(&files), ["a -> b", "c -> b"]);
}

#[test]
fn a_cycle_through_a_re_export_is_found() {
    let found = cycle(&[
        ("lib.rs", "mod a; mod b; pub use a::*;"),
        ("a.rs", "use crate::b::B; pub struct A(B);"),
        ("b.rs", "pub struct B; fn f(_: crate::A) {}"),
    ]);
    assert_eq!(found.as_deref(), Some("a.rs -> b.rs (1: crate::b::B) -> a.rs (1: crate::A)"));
}

#[test]
fn a_cycle_through_inline_paths_is_found_wherever_they_stand() {
    let places = [
        "fn f(_: &crate::a::A) {}",
        "fn f() { crate::a::f(); }",
        "fn f(x: u8) { match x { crate::a::ONE => {} _ => {} } }",
        "fn f<T: crate::a::Trait>() {}",
        "impl crate::a::Trait for u8 {}",
        "fn f() -> Vec<Option<crate::a::A>> { vec![] }",
        "#[derive(crate::a::Derive)] struct S;",
        "#[serde(with = \"crate::a\")] struct S; #[serde(default = \"crate::a::f\")] struct T;",
        "struct S { field: crate::a::A }",
        "static S: &dyn crate::a::Trait = &1;",
        "fn f() { let crate::a::A { .. } = x; }",
        "type T = <crate::a::A as Clone>::Owned;",
    ];
    let a =
        "use crate::b::B; pub struct A(B); pub fn f() {} pub const ONE: u8 = 1; pub trait Trait {} pub struct Derive;";
    for place in places {
        let b = format!("pub struct B; {place}");
        assert!(cycle(&[("lib.rs", TWO), ("a.rs", a), ("b.rs", &b)]).is_some(), "{place}");
    }
}

#[test]
fn supers_are_counted_through_inline_modules() {
    let files = [
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "mod c; pub struct A;"),
        ("a/c.rs", "mod inside { use super::super::super::b::B; fn f(_: super::super::A) {} }"),
        ("b.rs", "use super::a; pub struct B; fn f(_: a::A) {}"),
    ];
    assert_eq!(pairs(&files), ["a/c -> a", "a/c -> b", "b -> a"]);
}

#[test]
fn a_parent_that_only_declares_is_no_user_and_one_that_uses_is() {
    let child = ("a/c.rs", "use super::A; pub struct C(A);");
    assert_eq!(cycle(&[("lib.rs", "mod a;"), ("a.rs", "mod c; pub use c::C; pub struct A;"), child]), None);
    for parent in [
        "mod c; pub use self::c::C; pub struct A; fn f(_: C) {}",
        "mod c; use c::C; pub struct A; fn f(_: C) {}",
        "mod c; pub struct A; fn f(_: self::c::C) {}",
        "mod c; pub struct A; fn f() { c::C::new() }",
    ] {
        assert!(cycle(&[("lib.rs", "mod a;"), ("a.rs", parent), child]).is_some(), "{parent}");
    }
}

#[test]
fn a_re_export_of_what_is_not_below_is_a_use() {
    assert_eq!(pairs(&[("lib.rs", TWO), ("a.rs", "pub use crate::b::B;"), ("b.rs", "pub struct B;")]), ["a -> b"]);
}

#[test]
fn what_only_tests_use_does_not_count() {
    let b = "pub struct B;\n\
        #[cfg(test)] use crate::a::A;\n\
        #[cfg(all(test, unix))] fn f(_: crate::a::A) {}\n\
        #[test] fn t() { crate::a::f(); }\n\
        impl B { #[cfg(test)] fn g(_: crate::a::A) {} }\n\
        fn h() { #[cfg(test)] let x = crate::a::f(); }\n\
        #[cfg(test)] mod tests { use crate::a::A; }\n\
        #[cfg(test)] mod more;";
    let more = "use crate::a::A; mod deep;";
    let files = [
        ("lib.rs", TWO),
        ("a.rs", "use crate::b::B; pub struct A(B); pub fn f() {}"),
        ("b.rs", b),
        ("b/more.rs", more),
        ("b/more/deep.rs", ""),
    ];
    assert_eq!(cycle(&files), None);
    assert_eq!(read(&files).0.test_files, ["b/more.rs", "b/more/deep.rs"]);
    let counted = "pub struct B; #[cfg(not(test))] use crate::a::A; #[cfg(any(test, feature = \"x\"))] fn f() {}";
    assert!(cycle(&[files[0], files[1], ("b.rs", counted)]).is_some());
}

#[test]
fn a_glob_is_a_use_of_its_module_and_leads_to_what_it_brings_in() {
    let files = [
        ("lib.rs", "mod a;"),
        ("a.rs", "mod c; mod d; pub use d::*;"),
        ("a/c.rs", "use super::*; fn f(_: D) {}"),
        ("a/d.rs", "pub struct D;"),
    ];
    assert_eq!(pairs(&files), ["a/c -> a", "a/c -> a/d"]);
}

#[test]
fn modules_are_found_where_path_says() {
    let files = [
        ("lib.rs", "#[path = \"elsewhere/x.rs\"] mod a; mod b; mod folder;"),
        ("elsewhere/x.rs", "mod y; pub struct A;"),
        ("elsewhere/y.rs", "use super::A;"),
        ("b.rs", "fn f(_: crate::a::A) {}"),
        ("folder/mod.rs", "mod z;"),
        ("folder/z.rs", "use crate::a::A;"),
    ];
    assert_eq!(pairs(&files), ["elsewhere/y -> elsewhere/x", "b -> elsewhere/x", "folder/z -> elsewhere/x"]);
}

#[test]
fn a_binary_knows_the_library_by_its_name() {
    let files =
        [("lib.rs", "pub mod a;"), ("a.rs", "pub fn f() {}"), ("bin/tool.rs", "fn main() { made_up::a::f(); }")];
    assert_eq!(pairs(&files), ["bin/tool -> a"]);
}

#[test]
fn names_of_variables_fields_and_other_crates_are_nobodys() {
    let b = "pub use crate::a::f as other;\nfn g(f: u8) { let a = f; let x = s.f; format!(\"{}\", f); std::a::f(); ::a::f(); \
        vec![s.a, &'a x]; }";
    let files = [("lib.rs", TWO), ("a.rs", "pub fn f() {} pub use crate::b::other;"), ("b.rs", b)];
    let (krate, edges) = read(&files);
    let places: Vec<_> =
        edges.iter().map(|(pair, place)| (krate.files[pair.0].path.as_str(), place.path.as_str())).collect();
    assert_eq!(places, [("b.rs", "crate::a::f")]);
}

#[test]
fn re_exports_that_go_in_circles_end() {
    let files = [
        ("lib.rs", "mod a; mod b; pub use a::*;"),
        ("a.rs", "pub use crate::b::*;"),
        ("b.rs", "pub use crate::*; fn f(_: X) {}"),
    ];
    assert!(!pairs(&files).is_empty());
}

#[test]
fn an_edge_that_goes_up_and_a_file_without_a_room_are_told() {
    let (krate, edges) = read(&[
        ("lib.rs", "mod high; mod low; mod stray;"),
        ("high.rs", "pub struct H; use crate::low::L;"),
        ("low.rs", "mod deep; pub struct L;"),
        ("low/deep.rs", "fn f(_: crate::high::H) {}"),
        ("stray.rs", ""),
    ]);
    let rooms: &[&[&str]] = &[&["lib.rs"], &["high"], &["low", "gone"]];
    assert_eq!(room_of(rooms, "low/deep.rs"), Some(2));
    let found = faults(rooms, &paths(&krate), &edges);
    assert_eq!(
        found,
        ["stray.rs is in no room", "up: low/deep.rs -> high.rs (1: crate::high::H)", "room gone is empty"]
    );
}
