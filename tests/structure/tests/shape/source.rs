//! The source of one crate: its files, and the modules in them with their declarations, imports and paths. Code that is
//! compiled for tests only is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Block, Item, ItemMod, ItemUse, Meta, Signature, UseTree};

/// Reads a file; `None` where there is no such file.
pub type Text<'a> = &'a dyn Fn(&str) -> Option<String>;

#[derive(Default)]
pub struct Source {
    pub files: Vec<File>,
    /// The modules; the first is the crate's root.
    pub modules: Vec<Module>,
    /// Files of modules that are compiled for tests only; they are not read.
    pub tests: Vec<String>,
}

pub struct File {
    /// Relative to the repository's root.
    pub path: String,
    /// Lines outside of tests.
    pub lines: usize,
    pub functions: Vec<Function>,
    /// Contains more than declarations and re-exports of modules.
    pub code: bool,
    /// Written by a program, which its first line says.
    pub generated: bool,
}

pub struct Function {
    pub name: String,
    /// From its signature to its closing brace.
    pub lines: usize,
}

pub struct Module {
    /// Position in [`Source::files`].
    pub file: usize,
    pub parent: Option<usize>,
    pub children: BTreeMap<String, usize>,
    pub items: BTreeSet<String>,
    pub imports: Vec<Import>,
    pub mentions: Vec<Mention>,
}

pub struct Import {
    /// The imported name; `None` for a glob.
    pub name: Option<String>,
    pub path: Vec<String>,
}

/// A path of several segments, or one that is imported.
pub struct Mention {
    pub path: Vec<String>,
    pub line: usize,
}

impl Source {
    /// Reads a crate from its root, `src/lib.rs` or another.
    pub fn read(root: &str, text: Text<'_>) -> Self {
        let mut source = Self::default();
        source.file(root, &folder(root), None, text);
        source
    }

    /// Reads a file as a module; `children` is the folder of its own modules' files.
    fn file(&mut self, path: &str, children: &str, parent: Option<usize>, text: Text<'_>) -> usize {
        let content = text(path).unwrap_or_else(|| panic!("there is no {path}, which a `mod` declares"));
        let parsed = syn::parse_file(&content).unwrap_or_else(|error| panic!("{path}: {error}"));
        let generated = content.lines().next().is_some_and(|line| line.contains("@generated"));
        let file = self.files.len();
        let lines = content.lines().count();
        self.files.push(File { path: path.to_owned(), lines, functions: Vec::new(), code: false, generated });
        let module = self.module(file, parent);
        let mut reader = Reader { source: self, module, children: children.to_owned(), text };
        reader.visit_file(&parsed);
        module
    }

    fn module(&mut self, file: usize, parent: Option<usize>) -> usize {
        self.modules.push(Module {
            file,
            parent,
            children: BTreeMap::new(),
            items: BTreeSet::new(),
            imports: Vec::new(),
            mentions: Vec::new(),
        });
        self.modules.len() - 1
    }
}

/// Reads one module.
struct Reader<'a> {
    source: &'a mut Source,
    module: usize,
    /// The folder of its own modules' files.
    children: String,
    text: Text<'a>,
}

impl Reader<'_> {
    fn here(&mut self) -> &mut Module {
        &mut self.source.modules[self.module]
    }

    fn this_file(&mut self) -> &mut File {
        let file = self.here().file;
        &mut self.source.files[file]
    }

    fn mention(&mut self, path: Vec<String>, line: usize) {
        self.here().mentions.push(Mention { path, line });
    }

    fn leave_out(&mut self, lines: RangeInclusive<usize>) {
        self.this_file().lines -= lines.count();
    }

    fn child(&mut self, item: &ItemMod) {
        let name = item.ident.to_string();
        let inside = format!("{}/{name}", self.children);
        let module = match &item.content {
            Some((_, items)) => {
                let (file, parent) = (self.here().file, self.module);
                let module = self.source.module(file, Some(parent));
                let mut reader = Reader { source: self.source, module, children: inside, text: self.text };
                items.iter().for_each(|item| reader.visit_item(item));
                module
            }
            None => {
                let (path, inside) = self.file_of(item, inside);
                self.source.file(&path, &inside, Some(self.module), self.text)
            }
        };
        self.here().children.insert(name, module);
    }

    /// A module's file, and the folder of its own modules.
    fn file_of(&mut self, item: &ItemMod, inside: String) -> (String, String) {
        if let Some(other) = path_attribute(&item.attrs) {
            let path = format!("{}/{other}", folder(&self.this_file().path));
            return (path.clone(), folder(&path));
        }
        let plain = format!("{inside}.rs");
        if (self.text)(&plain).is_some() { (plain, inside) } else { (format!("{inside}/mod.rs"), inside) }
    }

    fn import(&mut self, tree: &UseTree, before: &[String]) {
        let with = |name: String| [before, &[name]].concat();
        let line = tree.span().start().line;
        let (name, path) = match tree {
            UseTree::Path(part) => return self.import(&part.tree, &with(part.ident.to_string())),
            UseTree::Group(group) => return group.items.iter().for_each(|tree| self.import(tree, before)),
            UseTree::Glob(_) => (None, before.to_vec()),
            UseTree::Name(name) if name.ident == "self" => (before.last().cloned(), before.to_vec()),
            UseTree::Name(name) => (Some(name.ident.to_string()), with(name.ident.to_string())),
            UseTree::Rename(name) if name.ident == "self" => (Some(name.rename.to_string()), before.to_vec()),
            UseTree::Rename(name) => (Some(name.rename.to_string()), with(name.ident.to_string())),
        };
        self.mention(path.clone(), line);
        self.here().imports.push(Import { name, path });
    }

    /// The paths in unparsed tokens: the arguments of macros and attributes, and the bodies of `macro_rules!`.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut line = 0;
        // two colons after a name: a path continues with the next name
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Ident(ident) => {
                    if colons != 2 || path.is_empty() {
                        self.end_of_path(&mut path, line);
                        line = ident.span().start().line;
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Group(group) => {
                    self.end_of_path(&mut path, line);
                    colons = 0;
                    self.tokens(group.stream());
                }
                _ => {
                    self.end_of_path(&mut path, line);
                    colons = 0;
                }
            }
        }
        self.end_of_path(&mut path, line);
    }

    fn end_of_path(&mut self, path: &mut Vec<String>, line: usize) {
        let path = std::mem::take(path);
        if path.len() > 1 {
            self.mention(path, line);
        }
    }

    fn function(&mut self, signature: &Signature, block: &Block) {
        let lines = block.span().end().line + 1 - signature.span().start().line;
        self.this_file().functions.push(Function { name: signature.ident.to_string(), lines });
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if let Some(attributes) = attributes(item)
            && for_tests_alone(attributes)
        {
            if let Item::Mod(module) = item
                && module.content.is_none()
            {
                let inside = format!("{}/{}", self.children, module.ident);
                let (path, _) = self.file_of(module, inside);
                self.source.tests.push(path);
            }
            return self.leave_out(lines(item));
        }
        match item {
            Item::Mod(module) => return self.child(module),
            Item::Use(ItemUse { leading_colon: None, tree, .. }) => return self.import(tree, &[]),
            Item::Use(_) | Item::ExternCrate(_) => return,
            _ => self.this_file().code = true,
        }
        if let Some(name) = name(item) {
            self.here().items.insert(name);
        }
        visit::visit_item(self, item);
    }

    fn visit_impl_item(&mut self, item: &'ast syn::ImplItem) {
        if let syn::ImplItem::Fn(function) = item
            && for_tests_alone(&function.attrs)
        {
            return self.leave_out(lines(item));
        }
        visit::visit_impl_item(self, item);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 && path.leading_colon.is_none() {
            let line = path.span().start().line;
            self.mention(path.segments.iter().map(|segment| segment.ident.to_string()).collect(), line);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.visit_path(&item.path);
        self.tokens(item.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let Meta::List(list) = &attribute.meta {
            self.tokens(list.tokens.clone());
        }
    }

    /// The path in `pub(in crate::…)` is not a use.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}
}

fn folder(path: &str) -> String {
    Path::new(path).parent().map(|parent| parent.display().to_string()).unwrap_or_default()
}

fn lines(item: &impl Spanned) -> RangeInclusive<usize> {
    let span = item.span();
    span.start().line..=span.end().line
}

fn for_tests_alone(attributes: &[Attribute]) -> bool {
    attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).any(|attribute| {
        let Meta::List(list) = &attribute.meta else { return false };
        let condition: String = list.tokens.to_string().split_whitespace().collect();
        condition == "test" || condition.starts_with("all(test,")
    })
}

fn path_attribute(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().filter(|attribute| attribute.path().is_ident("path")).find_map(|attribute| {
        let Meta::NameValue(pair) = &attribute.meta else { return None };
        let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(path), .. }) = &pair.value else { return None };
        Some(path.value())
    })
}

fn attributes(item: &Item) -> Option<&[Attribute]> {
    Some(match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => return None,
    })
}

fn name(item: &Item) -> Option<String> {
    Some(match item {
        Item::Const(item) => item.ident.to_string(),
        Item::Enum(item) => item.ident.to_string(),
        Item::Fn(item) => item.sig.ident.to_string(),
        Item::Macro(item) => item.ident.as_ref()?.to_string(),
        Item::Static(item) => item.ident.to_string(),
        Item::Struct(item) => item.ident.to_string(),
        Item::Trait(item) => item.ident.to_string(),
        Item::Type(item) => item.ident.to_string(),
        Item::Union(item) => item.ident.to_string(),
        _ => return None,
    })
}
