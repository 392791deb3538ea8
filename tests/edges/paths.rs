//! Every path that a file writes down, and so which file uses which.
//!
//! A declaration (`mod child;`) is no use, nor is a re-export of what is below: both say where something is. Whoever uses a
//! re-exported name uses the file that defines it.

use crate::resolve::Target;
use crate::sources::{Krate, Leaf, ModuleId, attributes, is_for_tests, leaves, leaves_of};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use syn::visit::{self, Visit};

/// Who uses whom, by file, with the first place where it does.
pub(crate) type Edges = BTreeMap<(usize, usize), Place>;

#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) path: String,
}

/// The edges between the files of a crate.
pub(crate) fn edges(krate: &Krate) -> Edges {
    let mut edges = Edges::new();
    for (index, file) in krate.files.iter().enumerate() {
        let mut walk = Walk { krate, file: index, module: file.module, locals: Vec::new(), edges: &mut edges };
        walk.visit_file(&file.syntax);
    }
    edges
}

struct Walk<'a> {
    krate: &'a Krate,
    file: usize,
    module: ModuleId,
    /// Names of parameters and variables of the functions around: they hide items.
    locals: Vec<BTreeSet<String>>,
    edges: &'a mut Edges,
}

impl Walk<'_> {
    fn note(&mut self, module: ModuleId, line: usize, path: &[String]) {
        let to = self.krate.modules[module].file;
        if to != self.file {
            let place = || Place { line, path: path.join("::") };
            self.edges.entry((self.file, to)).or_insert_with(place);
        }
    }

    /// A path in code. A module alone is only a name on the way to something.
    fn path(&mut self, path: &[String], line: usize) {
        for target in self.krate.resolve(self.module, path) {
            if let Target::Item(module) = target {
                self.note(module, line, path);
            }
        }
    }

    fn leaf(&mut self, leaf: &Leaf, exported: bool) {
        let targets = self.krate.resolve(self.module, &leaf.path);
        // A module's name, even if a function has the same: which of its items are used, only their uses tell. A glob is
        // one of them all.
        let is_name = leaf.name.is_some() && targets.iter().any(|target| matches!(target, Target::Module(_)));
        for Target::Module(module) | Target::Item(module) in targets.into_iter().filter(|_| !is_name) {
            if !(exported && self.krate.is_below(module, self.module)) {
                self.note(module, leaf.line, &leaf.path);
            }
        }
    }

    fn macro_name(&mut self, path: &[String], line: usize) {
        if !self.krate.resolve(self.module, path).is_empty() {
            return self.path(path, line);
        }
        if let [name] = path {
            for module in self.krate.macros.get(name).into_iter().flatten() {
                self.note(*module, line, path);
            }
        }
    }

    /// Paths in the tokens of a macro: what it makes of them is not known, that it names them is.
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => {
                    self.tokens(group.stream());
                    at += 1;
                }
                TokenTree::Ident(_) => at = self.chain(&tokens, at),
                _ => at += 1,
            }
        }
    }

    /// `a::b::c` from `at` on; says what comes after it.
    fn chain(&mut self, tokens: &[TokenTree], at: usize) -> usize {
        let is_punct =
            |at: usize, what: char| matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == what);
        let is_colons = |at: usize| is_punct(at, ':') && is_punct(at + 1, ':');
        let mut path = Vec::new();
        let mut next = at;
        while let Some(TokenTree::Ident(ident)) = tokens.get(next) {
            path.push(ident.to_string());
            next += 1;
            if !is_colons(next) {
                break;
            }
            next += 2;
        }
        let line = tokens[at].span().start().line;
        // `.field`, `'lifetime`, `other_crate` in `::other_crate`.
        let before = |what: char| at > 0 && is_punct(at - 1, what);
        if before('.') || before('\'') || (before(':') && at > 1 && is_punct(at - 2, ':')) {
            return next;
        }
        // `use crate::{a, b};`
        if let Some(TokenTree::Group(group)) = tokens.get(next)
            && group.delimiter() == Delimiter::Brace
            && next >= 2
            && is_colons(next - 2)
        {
            let tree = TokenTree::Group(group.clone());
            if let Ok(tree) = syn::parse2::<syn::UseTree>(tree.into()) {
                let mut found = Vec::new();
                leaves_of(&tree, &mut path, &mut found);
                found.iter().for_each(|leaf| self.leaf(leaf, false));
            }
            return next + 1;
        }
        // `use crate::a::*;`
        if is_punct(next, '*') && next >= 2 && is_colons(next - 2) {
            self.leaf(&Leaf { path, name: None, line }, false);
            return next + 1;
        }
        if is_punct(next, '!') && !is_punct(next + 1, '=') {
            self.macro_name(&path, line);
        }
        let is_variable = path.len() == 1 && path[0].starts_with(|c: char| c.is_ascii_lowercase());
        let is_called =
            matches!(tokens.get(next), Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis);
        if !(is_variable && (!is_called || self.is_local(&path[0]))) {
            self.path(&path, line);
        }
        next
    }

    fn is_local(&self, name: &str) -> bool {
        self.locals.iter().any(|names| names.contains(name))
    }

    fn in_function(&mut self, walk: impl FnOnce(&mut Self)) {
        self.locals.push(BTreeSet::new());
        walk(self);
        self.locals.pop();
    }
}

/// The names of a path, without its generic arguments.
fn names(path: &syn::Path) -> Vec<String> {
    if path.leading_colon.is_some() {
        return Vec::new();
    }
    path.segments.iter().map(|segment| segment.ident.to_string()).collect()
}

fn line_of(path: &syn::Path) -> usize {
    path.segments.first().map_or(0, |segment| segment.ident.span().start().line)
}

macro_rules! unless_for_tests {
    ($($visit:ident: $node:ident),* $(,)?) => {
        $(fn $visit(&mut self, node: &'ast syn::$node) {
            if !is_for_tests(&node.attrs) {
                visit::$visit(self, node);
            }
        })*
    };
}

impl<'ast> Visit<'ast> for Walk<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !is_for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    unless_for_tests! {
        visit_local: Local,
        visit_field: Field,
        visit_variant: Variant,
        visit_arm: Arm,
        visit_field_value: FieldValue,
        visit_impl_item_const: ImplItemConst,
        visit_impl_item_type: ImplItemType,
        visit_expr_block: ExprBlock,
        visit_stmt_macro: StmtMacro,
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_for_tests(&item.attrs) {
            self.in_function(|walk| visit::visit_impl_item_fn(walk, item));
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if !is_for_tests(&item.attrs) {
            self.in_function(|walk| visit::visit_trait_item_fn(walk, item));
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.in_function(|walk| visit::visit_item_fn(walk, item));
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let Some((_, items)) = &item.content else { return };
        let name = [item.ident.to_string()];
        let inside = self.krate.resolve(self.module, &name).into_iter().find_map(|target| match target {
            Target::Module(module) => Some(module),
            Target::Item(_) => None,
        });
        let before = std::mem::replace(&mut self.module, inside.expect("invariant: every module was read"));
        items.iter().for_each(|item| self.visit_item(item));
        self.module = before;
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let exported = !matches!(item.vis, syn::Visibility::Inherited);
        leaves(item).iter().for_each(|leaf| self.leaf(leaf, exported));
    }

    fn visit_pat_ident(&mut self, pattern: &'ast syn::PatIdent) {
        let name = pattern.ident.to_string();
        if name.starts_with(|c: char| c.is_ascii_uppercase()) {
            // A constant or a variant.
            self.path(&[name], pattern.ident.span().start().line);
        } else if let Some(names) = self.locals.last_mut() {
            names.insert(name);
        }
        visit::visit_pat_ident(self, pattern);
    }

    fn visit_expr_path(&mut self, expression: &'ast syn::ExprPath) {
        let local = expression.path.get_ident().is_some_and(|name| self.is_local(&name.to_string()));
        if !local {
            visit::visit_expr_path(self, expression);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.path(&names(path), line_of(path));
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, invocation: &'ast syn::Macro) {
        if !invocation.path.is_ident("macro_rules") {
            self.macro_name(&names(&invocation.path), line_of(&invocation.path));
        }
        self.tokens(invocation.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        let syn::Meta::List(list) = &attribute.meta else { return };
        if list.path.is_ident("cfg") || list.path.is_ident("allow") || list.path.is_ident("expect") {
            return;
        }
        self.path(&names(&list.path), line_of(&list.path));
        self.tokens(list.tokens.clone());
        // `#[serde(with = "a::b")]`
        for token in list.tokens.clone() {
            if let TokenTree::Literal(literal) = token
                && let Ok(text) = syn::parse2::<syn::LitStr>(TokenTree::Literal(literal).into())
                && let Ok(path) = text.parse::<syn::Path>()
            {
                self.path(&names(&path), text.span().start().line);
            }
        }
    }

    // Who may see something is no use of whom.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}
}
