//! Functions fit a screen: those that do not are named here, each with its reason.

use crate::sources::is_for_tests;
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

#[test]
fn functions_fit_a_screen_but_for_a_few_with_a_reason() {
    assert!(LONG.len() <= LONG_MAX);
    let (mut found, mut needed) = (Vec::new(), BTreeSet::new());
    // Benchmarks are told as they run, from top to bottom.
    for package in crate::rooms::packages().iter().filter(|package| package.folder != "benches/src") {
        for file in &package.files {
            let path = format!("{}/{file}", package.folder);
            let text = std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
            for (function, lines) in longer_than(LINES_MAX, &syn::parse_file(&text).unwrap()) {
                match LONG.iter().position(|(file, name, _)| *file == path && *name == function) {
                    Some(index) => drop(needed.insert(index)),
                    None => found.push(format!("{path}: {function} has {lines} lines")),
                }
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
