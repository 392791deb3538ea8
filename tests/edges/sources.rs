//! A crate as its module tree: which file each module stands in, and what each name in it is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use syn::spanned::Spanned as _;

/// A crate: the library of a package and its binaries, which know the library by name.
#[derive(Default)]
pub(crate) struct Krate {
    pub(crate) files: Vec<SourceFile>,
    pub(crate) modules: Vec<Module>,
    /// `macro_rules!` without `#[macro_export]` are known by the order of the text: here, by their names.
    pub(crate) macros: BTreeMap<String, Vec<ModuleId>>,
    /// The library's name, as its binaries write it, and its root.
    pub(crate) library: Option<(String, ModuleId)>,
    /// Files that tests alone are built from.
    pub(crate) test_files: Vec<String>,
}

pub(crate) struct SourceFile {
    /// Relative to the source folder: `state/apply.rs`.
    pub(crate) path: String,
    pub(crate) syntax: syn::File,
    pub(crate) module: ModuleId,
}

pub(crate) type ModuleId = usize;

pub(crate) struct Module {
    pub(crate) file: usize,
    pub(crate) parent: Option<ModuleId>,
    pub(crate) root: ModuleId,
    pub(crate) names: BTreeMap<String, Vec<Binding>>,
    pub(crate) globs: Vec<Vec<String>>,
}

/// What a name in a module stands for.
pub(crate) enum Binding {
    Module(ModuleId),
    /// Defined in this module: as an edge, that of `0`, which for an exported macro is not the one that knows the name.
    Item(ModuleId),
    /// Brought in by `use`.
    Use(Vec<String>),
}

/// A leaf of a `use` tree.
pub(crate) struct Leaf {
    pub(crate) path: Vec<String>,
    /// The name that it brings in; none for a glob.
    pub(crate) name: Option<String>,
    pub(crate) line: usize,
}

/// Reads a file by its path.
pub(crate) type Read<'a> = &'a dyn Fn(&Path) -> Option<String>;

impl Krate {
    /// Reads the tree that begins at each of `roots`, of which the first is the library's where `library` names one.
    pub(crate) fn read(source: &Path, roots: &[PathBuf], library: Option<&str>, read: Read<'_>) -> Self {
        let mut krate = Self::default();
        for (index, root) in roots.iter().enumerate() {
            let folder = root.parent().expect("invariant: a file is in a folder").to_owned();
            let id = krate.read_file(source, root, &folder, None, read);
            if let (0, Some(name)) = (index, library) {
                krate.library = Some((name.to_owned(), id));
            }
        }
        krate
    }

    fn add_module(&mut self, file: usize, parent: Option<ModuleId>) -> ModuleId {
        let id = self.modules.len();
        let root = parent.map_or(id, |parent| self.modules[parent].root);
        self.modules.push(Module { file, parent, root, names: BTreeMap::new(), globs: Vec::new() });
        id
    }

    /// `folder` is where the children of the file's module stand.
    fn read_file(
        &mut self,
        source: &Path,
        path: &Path,
        folder: &Path,
        parent: Option<ModuleId>,
        read: Read<'_>,
    ) -> ModuleId {
        let text = read(path).unwrap_or_else(|| panic!("{} is declared and not there", path.display()));
        let syntax = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let shown = path.strip_prefix(source).unwrap_or(path).display().to_string();
        let module = self.add_module(self.files.len(), parent);
        let items = syntax.items.clone();
        self.files.push(SourceFile { path: shown, syntax, module });
        let near = path.parent().expect("invariant: a file is in a folder");
        self.read_items(source, &items, module, (near, folder), read);
        module
    }

    /// `near` is what `#[path]` is relative to, `folder` where children stand.
    fn read_items(
        &mut self,
        source: &Path,
        items: &[syn::Item],
        module: ModuleId,
        (near, folder): (&Path, &Path),
        read: Read<'_>,
    ) {
        for item in items {
            if let syn::Item::Mod(child) = item {
                self.read_child(source, child, module, (near, folder), read);
            } else if !is_for_tests(attributes(item)) {
                self.read_names(item, module);
            }
        }
    }

    fn read_child(
        &mut self,
        source: &Path,
        child: &syn::ItemMod,
        module: ModuleId,
        (near, folder): (&Path, &Path),
        read: Read<'_>,
    ) {
        let name = child.ident.to_string();
        let below = folder.join(&name);
        let named = child.attrs.iter().find_map(path_attribute);
        if is_for_tests(&child.attrs) {
            if child.content.is_none() {
                let file = named.map_or_else(|| file_of(folder, &name, read).0, |path| near.join(path));
                self.note_test_files(source, &file, &below, read);
            }
            return;
        }
        let id = match &child.content {
            Some((_, items)) => {
                let id = self.add_module(self.modules[module].file, Some(module));
                self.read_items(source, items, id, (&below, &below), read);
                id
            }
            None => {
                let (file, children) = match named {
                    // Its children stand beside it, as if it were a `mod.rs`.
                    Some(path) => {
                        let file = near.join(path);
                        let children = file.parent().expect("invariant: a file is in a folder").to_owned();
                        (file, children)
                    }
                    None => file_of(folder, &name, read),
                };
                self.read_file(source, &file, &children, Some(module), read)
            }
        };
        self.bind(module, name, Binding::Module(id));
    }

    /// Files below a module of tests, so that nobody takes them for forgotten ones.
    fn note_test_files(&mut self, source: &Path, file: &Path, folder: &Path, read: Read<'_>) {
        let Some(text) = read(file) else { return };
        self.test_files.push(file.strip_prefix(source).unwrap_or(file).display().to_string());
        let syntax = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        for item in &syntax.items {
            if let syn::Item::Mod(child) = item
                && child.content.is_none()
                && !child.attrs.iter().any(|attribute| attribute.path().is_ident("path"))
            {
                let name = child.ident.to_string();
                let (file, children) = file_of(folder, &name, read);
                self.note_test_files(source, &file, &children, read);
            }
        }
    }

    fn bind(&mut self, module: ModuleId, name: String, binding: Binding) {
        self.modules[module].names.entry(name).or_default().push(binding);
    }

    fn read_names(&mut self, item: &syn::Item, module: ModuleId) {
        let name = match item {
            syn::Item::Const(item) => &item.ident,
            syn::Item::Enum(item) => &item.ident,
            syn::Item::Fn(item) => &item.sig.ident,
            syn::Item::Static(item) => &item.ident,
            syn::Item::Struct(item) => &item.ident,
            syn::Item::Trait(item) => &item.ident,
            syn::Item::TraitAlias(item) => &item.ident,
            syn::Item::Type(item) => &item.ident,
            syn::Item::Union(item) => &item.ident,
            syn::Item::Use(item) => {
                for leaf in leaves(item) {
                    match leaf.name {
                        Some(name) => self.bind(module, name, Binding::Use(leaf.path)),
                        None => self.modules[module].globs.push(leaf.path),
                    }
                }
                return;
            }
            syn::Item::Macro(item) => return self.read_macro(item, module),
            _ => return,
        };
        self.bind(module, name.to_string(), Binding::Item(module));
    }

    fn read_macro(&mut self, item: &syn::ItemMacro, module: ModuleId) {
        let Some(name) = &item.ident else {
            // What an invocation defines, as far as it says so in its own text.
            for name in defined_in(item.mac.tokens.clone()) {
                self.bind(module, name, Binding::Item(module));
            }
            return;
        };
        if item.attrs.iter().any(|attribute| attribute.path().is_ident("macro_export")) {
            let root = self.modules[module].root;
            self.bind(root, name.to_string(), Binding::Item(module));
        }
        self.bind(module, name.to_string(), Binding::Item(module));
        self.macros.entry(name.to_string()).or_default().push(module);
    }
}

/// Where `mod name;` is, and where the children of that are.
fn file_of(folder: &Path, name: &str, read: Read<'_>) -> (PathBuf, PathBuf) {
    let (flat, children) = (folder.join(format!("{name}.rs")), folder.join(name));
    let nested = children.join("mod.rs");
    let file = if read(&flat).is_none() && read(&nested).is_some() { nested } else { flat };
    (file, children)
}

fn path_attribute(attribute: &syn::Attribute) -> Option<String> {
    let syn::Meta::NameValue(pair) = &attribute.meta else { return None };
    let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(path), .. }) = &pair.value else { return None };
    pair.path.is_ident("path").then(|| path.value())
}

/// Names after `struct`, `enum`, `fn` and the like.
fn defined_in(tokens: proc_macro2::TokenStream) -> Vec<String> {
    use proc_macro2::TokenTree;
    const DEFINING: [&str; 7] = ["struct", "enum", "fn", "static", "const", "type", "trait"];
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut found = Vec::new();
    for pair in tokens.windows(2) {
        if let [TokenTree::Ident(word), TokenTree::Ident(name)] = pair
            && DEFINING.contains(&word.to_string().as_str())
        {
            found.push(name.to_string());
        }
    }
    found
}

/// What a `use` brings in.
pub(crate) fn leaves(item: &syn::ItemUse) -> Vec<Leaf> {
    let mut found = Vec::new();
    if item.leading_colon.is_none() {
        leaves_of(&item.tree, &mut Vec::new(), &mut found);
    }
    found
}

pub(crate) fn leaves_of(tree: &syn::UseTree, before: &mut Vec<String>, found: &mut Vec<Leaf>) {
    match tree {
        syn::UseTree::Path(path) => {
            before.push(path.ident.to_string());
            leaves_of(&path.tree, before, found);
            before.pop();
        }
        syn::UseTree::Group(group) => group.items.iter().for_each(|tree| leaves_of(tree, before, found)),
        syn::UseTree::Glob(glob) => {
            found.push(Leaf { path: before.clone(), name: None, line: glob.span().start().line });
        }
        syn::UseTree::Name(syn::UseName { ident }) => found.push(leaf(before, ident, ident)),
        syn::UseTree::Rename(rename) => found.push(leaf(before, &rename.ident, &rename.rename)),
    }
}

/// `use a::{self}` brings in `a`.
fn leaf(before: &[String], ident: &syn::Ident, name: &syn::Ident) -> Leaf {
    let line = ident.span().start().line;
    let mut path = before.to_vec();
    if ident != "self" || path.is_empty() {
        path.push(ident.to_string());
    }
    let name = if name == "self" { path.last().cloned().unwrap_or_default() } else { name.to_string() };
    Leaf { path, name: Some(name), line }
}

/// Whether tests alone are built with it.
pub(crate) fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) if list.path.is_ident("cfg") => {
            list.parse_args::<syn::Meta>().is_ok_and(|condition| holds(&condition) == Some(false))
        }
        syn::Meta::Path(path) => path.segments.last().is_some_and(|last| last.ident == "test"),
        syn::Meta::List(list) => list.path.segments.last().is_some_and(|last| last.ident == "test"),
        syn::Meta::NameValue(_) => false,
    })
}

/// A condition outside of tests, where that can be told.
fn holds(condition: &syn::Meta) -> Option<bool> {
    match condition {
        // Tests, and what fuzzing alone is built with.
        syn::Meta::Path(path) if path.is_ident("test") || path.is_ident("fuzzing") => Some(false),
        syn::Meta::List(list) => {
            let parts =
                list.parse_args_with(syn::punctuated::Punctuated::<syn::Meta, syn::Token![,]>::parse_terminated);
            let parts: Vec<Option<bool>> = parts.ok()?.iter().map(holds).collect();
            if list.path.is_ident("not") {
                parts.first().copied().flatten().map(|inner| !inner)
            } else if list.path.is_ident("all") {
                let all = parts.iter().all(|part| *part == Some(true)).then_some(true);
                if parts.contains(&Some(false)) { Some(false) } else { all }
            } else if list.path.is_ident("any") {
                let none = parts.iter().all(|part| *part == Some(false)).then_some(false);
                if parts.contains(&Some(true)) { Some(true) } else { none }
            } else {
                None
            }
        }
        _ => None,
    }
}

pub(crate) fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::ExternCrate(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::ForeignMod(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::TraitAlias(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Union(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}
