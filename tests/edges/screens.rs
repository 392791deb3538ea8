//! Functions fit a screen, and a file tells one story: what does not is named here, each with its reason.

use crate::sources::{attributes, is_for_tests};
use std::collections::BTreeSet;
use syn::spanned::Spanned as _;
use syn::visit::Visit;

/// Lines of a function, from its signature to its last brace.
const LINES_MAX: usize = 60;
/// Functions that may have more.
const LONG_MAX: usize = 10;
/// File, function, and why it is one. It only gets shorter.
const LONG: &[(&str, &str, &str)] = &[
    ("control/src/api/openapi/schemas/fleet.rs", "members", "one value, written out"),
    ("control/src/api/openapi/schemas/fleet.rs", "proxies", "one value, written out"),
    ("control/src/api/openapi/schemas/fleet.rs", "rollouts", "one value, written out"),
    ("control/src/api/openapi/schemas/fleet.rs", "status", "one value, written out"),
    ("control/src/api/openapi/schemas/fleet.rs", "stream", "one value, written out"),
    ("control/src/api/openapi/schemas/objects.rs", "changes", "one value, written out"),
    ("control/src/api/openapi/schemas/objects.rs", "holding", "one value, written out"),
    ("control/src/api/openapi/schemas/objects.rs", "objects", "one value, written out"),
    ("config/src/check/service.rs", "service_model", "each field of a service once, in the order of the schema"),
    ("proxy/src/exchange/request/prepare.rs", "prepare", "each field of a request once"),
];

/// Lines of a file, without what tests alone are built from.
const FILE_LINES_MAX: usize = 400;
/// Files that have more, and why. It only gets shorter.
const LONG_FILES: &[(&str, &str)] = &[];

/// Functions of a file that tests alone are not built from, with their lines.
#[derive(Default)]
struct Functions(Vec<(String, usize)>);

impl Functions {
    fn note(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let lines = block.span().end().line + 1 - signature.span().start().line;
        self.0.push((signature.ident.to_string(), lines));
    }
}

impl<'a> Visit<'a> for Functions {
    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        if !is_for_tests(&item.attrs) {
            self.note(&item.sig, &item.block);
            syn::visit::visit_item_fn(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        if !is_for_tests(&item.attrs) {
            self.note(&item.sig, &item.block);
            syn::visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'a syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.note(&item.sig, block);
        }
        syn::visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        if !is_for_tests(&item.attrs) {
            syn::visit::visit_item_mod(self, item);
        }
    }
}

pub(crate) fn longer_than(lines_max: usize, file: &syn::File) -> Vec<(String, usize)> {
    let mut functions = Functions::default();
    functions.visit_file(file);
    functions.0.into_iter().filter(|(_, lines)| *lines > lines_max).collect()
}

/// Lines of a file, without items that tests alone are built from.
fn product_lines(text: &str, file: &syn::File) -> usize {
    let of_tests = file.items.iter().filter(|item| is_for_tests(attributes(item)));
    let lines = |item: &syn::Item| item.span().end().line + 1 - item.span().start().line;
    text.lines().count() - of_tests.map(lines).sum::<usize>()
}

fn read(path: &str) -> (String, syn::File) {
    let text = std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let file = syn::parse_file(&text).unwrap();
    (text, file)
}

/// Files of the crates, but for benchmarks: those are told as they run, from top to bottom.
fn files() -> impl Iterator<Item = String> {
    let packages = crate::rooms::packages().iter().filter(|package| package.folder != "benches/src");
    packages.flat_map(|package| package.files.iter().map(|file| format!("{}/{file}", package.folder)))
}

#[test]
fn files_tell_one_story_in_400_lines_but_for_a_few_with_a_reason() {
    let (mut found, mut needed) = (Vec::new(), BTreeSet::new());
    for path in files() {
        let (text, file) = read(&path);
        let lines = product_lines(&text, &file);
        if lines > FILE_LINES_MAX {
            match LONG_FILES.iter().position(|(file, _)| *file == path) {
                Some(index) => drop(needed.insert(index)),
                None => found.push(format!("{path} has {lines} lines")),
            }
        }
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
    let idle: Vec<_> = LONG_FILES.iter().enumerate().filter(|(index, _)| !needed.contains(index)).collect();
    assert!(idle.is_empty(), "short enough, and still allowed to be long: {idle:?}");
}

#[test]
fn lines_of_a_file_are_those_that_it_is_built_from_outside_of_tests() {
    let product = "//! One.\nuse a::B;\n\n/// Two.\n#[inline]\nfn c() {\n}\n";
    let tests = "#[cfg(test)]\nuse d::E;\n\n/// Three.\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n    fn f() {}\n}\n";
    let text = format!("{product}{tests}");
    // An empty line between.
    assert_eq!(product_lines(&text, &syn::parse_file(&text).unwrap()), product.lines().count() + 1);
}

#[test]
fn functions_fit_a_screen_but_for_a_few_with_a_reason() {
    assert!(LONG.len() <= LONG_MAX);
    let (mut found, mut needed) = (Vec::new(), BTreeSet::new());
    for path in files() {
        for (function, lines) in longer_than(LINES_MAX, &read(&path).1) {
            match LONG.iter().position(|(file, name, _)| *file == path && *name == function) {
                Some(index) => drop(needed.insert(index)),
                None => found.push(format!("{path}: {function} has {lines} lines")),
            }
        }
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
    let idle: Vec<_> = LONG.iter().enumerate().filter(|(index, _)| !needed.contains(index)).collect();
    assert!(idle.is_empty(), "short enough, and still allowed to be long: {idle:?}");
}

#[test]
fn lines_are_counted_from_the_signature_to_the_last_brace_and_tests_do_not_count() {
    let long = "    let _ = 1;\n".repeat(9);
    let text = format!(
        "/// Ten\n/// lines\n#[inline]\nfn ten() {{\n{}}}\nstruct A;\nimpl A {{\n    fn eleven() {{\n{long}    }}\n}}\n\
         #[cfg(test)]\nmod tests {{\n    fn twenty() {{\n{long}{long}    }}\n}}\n#[test]\nfn also() {{\n{long}}}\n",
        "    let _ = 1;\n".repeat(8)
    );
    let file = syn::parse_file(&text).unwrap();
    assert_eq!(longer_than(10, &file), [("eleven".to_owned(), 11)]);
    assert_eq!(longer_than(9, &file), [("ten".to_owned(), 10), ("eleven".to_owned(), 11)]);
}
