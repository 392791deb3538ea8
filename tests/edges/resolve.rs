//! From a path to what it stands for: through `use`, renames, globs and re-exports, to the module that defines it.

use crate::sources::{Binding, Krate, ModuleId};

/// What a path stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    Module(ModuleId),
    /// An item, by the module that defines it.
    Item(ModuleId),
}

impl Krate {
    /// What `path`, written in `module`, stands for in this crate: nothing if it is of another, or the language's own; several
    /// things where a name has several meanings.
    pub(crate) fn resolve(&self, module: ModuleId, path: &[String]) -> Vec<Target> {
        self.follow(module, path, &mut Vec::new())
    }

    fn follow(&self, module: ModuleId, path: &[String], under_way: &mut Vec<(ModuleId, String)>) -> Vec<Target> {
        let Some((first, mut rest)) = path.split_first() else { return Vec::new() };
        let mut here = match first.as_str() {
            "crate" | "$crate" => vec![Target::Module(self.modules[module].root)],
            "self" => vec![Target::Module(module)],
            "super" => self.modules[module].parent.map(Target::Module).into_iter().collect(),
            name => {
                let mut found = self.look_up(module, name, under_way);
                if found.is_empty()
                    && let Some((library, root)) = &self.library
                    && library == name
                {
                    found.push(Target::Module(*root));
                }
                found
            }
        };
        while let Some((name, after)) = rest.split_first() {
            // What comes after an item is its own: a variant, a method.
            let modules: Vec<ModuleId> = here
                .iter()
                .filter_map(|target| match target {
                    Target::Module(module) => Some(*module),
                    Target::Item(_) => None,
                })
                .collect();
            if modules.is_empty() {
                return here;
            }
            let mut next = Vec::new();
            for module in modules {
                if name == "super" {
                    next.extend(self.modules[module].parent.map(Target::Module));
                } else {
                    next.extend(self.look_up(module, name, under_way));
                }
            }
            // The name of an item and a module may be one: `register::register`.
            if next.is_empty() {
                here.retain(|target| matches!(target, Target::Item(_)));
                return here;
            }
            (here, rest) = (next, after);
        }
        here.sort_unstable();
        here.dedup();
        here
    }

    /// What a name in a module stands for.
    fn look_up(&self, module: ModuleId, name: &str, under_way: &mut Vec<(ModuleId, String)>) -> Vec<Target> {
        let step = (module, name.to_owned());
        if under_way.contains(&step) {
            return Vec::new();
        }
        under_way.push(step);
        let mut found = Vec::new();
        for binding in self.modules[module].names.get(name).into_iter().flatten() {
            match binding {
                Binding::Module(child) => found.push(Target::Module(*child)),
                Binding::Item(definer) => found.push(Target::Item(*definer)),
                Binding::Use(path) => found.extend(self.follow(module, path, under_way)),
            }
        }
        if found.is_empty() {
            for glob in &self.modules[module].globs {
                for target in self.follow(module, glob, under_way) {
                    if let Target::Module(other) = target {
                        found.extend(self.look_up(other, name, under_way));
                    }
                }
            }
        }
        under_way.pop();
        found
    }

    /// Whether `module` is below `above`.
    pub(crate) fn is_below(&self, module: ModuleId, above: ModuleId) -> bool {
        let mut at = self.modules[module].parent;
        while let Some(parent) = at {
            if parent == above {
                return true;
            }
            at = self.modules[parent].parent;
        }
        false
    }
}
