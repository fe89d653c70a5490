//! Tests of the checks themselves, on small made-up crates: they find exactly what they should.

use std::collections::BTreeMap;

use crate::imports::Imports;
use crate::layers;
use crate::source::Source;

fn read(files: &[(&str, &str)]) -> Source {
    let files: BTreeMap<&str, &str> = files.iter().copied().collect();
    Source::read("src/lib.rs", &|path| files.get(path).map(|text| (*text).to_owned()))
}

/// The imports, as `from:line to`.
fn imports(files: &[(&str, &str)]) -> Vec<String> {
    let imports = Imports::of(&read(files));
    let short = |path: &str| path.trim_start_matches("src/").trim_end_matches(".rs").to_owned();
    let mut all: Vec<String> =
        imports.all().map(|(from, to, import)| format!("{}:{} {}", short(from), import.line, short(to))).collect();
    all.sort();
    all
}

fn in_cycles(files: &[(&str, &str)]) -> Vec<String> {
    Imports::of(&read(files)).cycles().into_keys().map(str::to_owned).collect()
}

#[test]
fn imports_are_found_however_they_are_written() {
    let with = |text: &str| {
        imports(&[
            ("src/lib.rs", "mod a;\nmod b;"),
            ("src/b.rs", "pub mod c;\npub struct B;"),
            ("src/b/c.rs", "pub struct C;\npub fn c() {}"),
            ("src/a.rs", text),
        ])
    };
    assert_eq!(with("use crate::b::B;"), ["a:1 b"]);
    assert_eq!(with("use super::b::{c::C, B};"), ["a:1 b", "a:1 b/c"]);
    assert_eq!(with("\nfn f() { crate::b::c::c() }"), ["a:2 b/c"]);
    assert_eq!(with("use crate::b;\nfn f() -> b::c::C { todo!() }"), ["a:1 b", "a:2 b/c"]);
    assert_eq!(with("use crate::b::c as other;\nfn f() { other::c() }"), ["a:1 b/c"]);
    assert_eq!(with("use crate::b::*;\nfn f() { c::c() }"), ["a:1 b", "a:2 b/c"]);
    assert_eq!(with("fn f() { println!(\"{:?}\", (1, crate::b::c::c())) }"), ["a:1 b/c"]);
    assert_eq!(with("macro_rules! m { ($x:ident) => { $crate::b::c::$x } }"), ["a:1 b/c"]);
    assert_eq!(with("#[arg(value_parser = crate::b::c::c)]\nstruct A;"), ["a:1 b/c"]);
    assert_eq!(with("impl From<u8> for crate::b::B { fn from(_: u8) -> Self { todo!() } }"), ["a:1 b"]);
    assert_eq!(with("fn f() {\n    use crate::b::c::c;\n    c()\n}"), ["a:2 b/c"]);
}

#[test]
fn what_is_not_an_import_is_not_taken_for_one() {
    let with = |text: &str| {
        imports(&[("src/lib.rs", "mod a;\nmod b;"), ("src/b.rs", "pub fn b() {}"), ("src/a.rs", text)])
    };
    let none: [String; 0] = [];
    assert_eq!(with("use std::fmt;\nfn f() { ::b::b(); fmt::b(); String::new(); }"), none);
    assert_eq!(with("/// [`crate::b::b`]\npub(in crate::a) fn f() { let b = \"crate::b\"; }"), none);
    assert_eq!(with("#[cfg(test)]\nuse crate::b;\n#[cfg(test)]\nmod tests { use crate::b::b; }"), none);
    assert_eq!(with("struct A;\nimpl A { #[cfg(test)] fn f() { crate::b::b() } }"), none);
    assert_eq!(with("mod own { pub fn f() {} }\nfn g() { own::f(); self::own::f() }"), none);
    // compiled in other builds, but not in tests alone
    assert_eq!(with("#[cfg(not(test))]\nuse crate::b;"), ["a:2 b"]);
    assert_eq!(with("#[cfg(any(test, feature = \"testing\"))]\nuse crate::b;"), ["a:2 b"]);
}

#[test]
fn a_re_export_is_followed_to_the_file_where_the_thing_stands() {
    let files = [
        ("src/lib.rs", "pub mod facade;\nmod user;"),
        ("src/facade.rs", "mod inner;\npub mod other;\npub use inner::Thing;\npub use other::*;"),
        ("src/facade/inner.rs", "pub struct Thing;"),
        ("src/facade/other.rs", "pub fn function() {}"),
        ("src/user.rs", "use crate::facade::Thing;\nfn f() { crate::facade::function() }"),
    ];
    assert_eq!(
        imports(&files),
        ["facade:3 facade/inner", "facade:4 facade/other", "user:1 facade/inner", "user:2 facade/other"]
    );
}

#[test]
fn a_re_export_by_its_full_path_and_globs_in_a_circle_are_followed() {
    let files = [
        ("src/lib.rs", "pub mod parent;\nmod user;"),
        ("src/parent.rs", "pub mod child;\npub use crate::parent::child::Thing;\nuse super::*;\nfn f() {}"),
        ("src/parent/child.rs", "use crate::parent::*;\npub struct Thing;"),
        ("src/user.rs", "use crate::parent::{Nothing, Thing};\nuse crate::*;"),
    ];
    let expected = [
        "parent/child:1 parent",
        "parent:2 parent/child",
        "parent:3 lib",
        "user:1 parent",
        "user:1 parent/child",
        "user:2 lib",
    ];
    assert_eq!(imports(&files), expected);
}

#[test]
fn cycles_are_found_and_described() {
    let files = [
        ("src/lib.rs", "mod a;\nmod b;\nmod c;\nmod d;"),
        ("src/a.rs", "use crate::b::B;\npub struct A;"),
        ("src/b.rs", "use crate::c::C;\npub struct B;"),
        ("src/c.rs", "\nuse crate::a::A;\npub struct C;"),
        ("src/d.rs", "use crate::a::A;\npub struct D;"),
    ];
    assert_eq!(in_cycles(&files), ["src/a.rs", "src/b.rs", "src/c.rs"]);
    let imports = Imports::of(&read(&files));
    assert_eq!(
        imports.cycles()["src/c.rs"],
        "  src/c.rs:2 imports src/a.rs (crate::a::A)\n  src/a.rs:1 imports src/b.rs (crate::b::B)\n  \
         src/b.rs:1 imports src/c.rs (crate::c::C)\n"
    );
}

#[test]
fn a_parent_that_only_re_exports_is_in_no_cycle_and_one_with_code_is() {
    let with = |parent: &str| {
        in_cycles(&[
            ("src/lib.rs", "mod p;"),
            ("src/p.rs", parent),
            ("src/p/child.rs", "use super::*;\npub struct Child;"),
            ("src/p/types.rs", "pub struct Type;"),
        ])
    };
    let none: [String; 0] = [];
    assert_eq!(with("mod child;\nmod types;\npub use child::Child;\npub use types::Type;"), none);
    // code, but it does not use the child
    assert_eq!(with("mod child;\nmod types;\npub struct Parent;"), none);
    assert_eq!(
        with("mod child;\nmod types;\nuse child::Child;\nstruct Parent(Child);"),
        ["src/p.rs", "src/p/child.rs"]
    );
    assert_eq!(with("mod child;\nmod types;\nstruct Parent(child::Child);"), ["src/p.rs", "src/p/child.rs"]);
}

#[test]
fn files_are_found_where_the_compiler_finds_them() {
    let source = read(&[
        (
            "src/lib.rs",
            "mod a;\nmod b;\nmod inline { mod deep; }\n#[path = \"elsewhere/c.rs\"]\nmod c;\n#[cfg(test)]\nmod tests;",
        ),
        ("src/a.rs", "mod of_a;"),
        ("src/a/of_a.rs", ""),
        ("src/b/mod.rs", "mod of_b;"),
        ("src/b/of_b.rs", ""),
        ("src/inline/deep.rs", ""),
        ("src/elsewhere/c.rs", ""),
        ("src/tests.rs", "this is never read"),
    ]);
    let mut paths: Vec<&str> = source.files.iter().map(|file| file.path.as_str()).collect();
    paths.sort_unstable();
    let expected = [
        "src/a.rs",
        "src/a/of_a.rs",
        "src/b/mod.rs",
        "src/b/of_b.rs",
        "src/elsewhere/c.rs",
        "src/inline/deep.rs",
        "src/lib.rs",
    ];
    assert_eq!(paths, expected);
    assert_eq!(source.tests, ["src/tests.rs"]);
}

#[test]
fn lines_of_tests_are_not_counted() {
    let text = "//! Doc.\n\nfn f() {\n}\n\n#[cfg(test)]\nmod tests {\n    fn long() {\n    }\n}\n";
    let source = read(&[("src/lib.rs", text)]);
    assert_eq!(source.files[0].lines, 5);
    let functions: Vec<(&str, usize)> =
        source.files[0].functions.iter().map(|function| (function.name.as_str(), function.lines)).collect();
    assert_eq!(functions, [("f", 2)]);
}

#[test]
fn every_kind_of_function_is_measured_from_its_signature_to_its_brace() {
    let text = "/// Doc.\n#[inline]\nasync fn a(\n    x: u8,\n) {\n    fn inner() {}\n}\nstruct S;\nimpl S {\n    pub fn b() {\n    }\n}\n\
                trait T {\n    fn c() {\n\n    }\n    fn d();\n}\n";
    let source = read(&[("src/lib.rs", text)]);
    let functions: Vec<(&str, usize)> =
        source.files[0].functions.iter().map(|function| (function.name.as_str(), function.lines)).collect();
    assert_eq!(functions, [("a", 5), ("inner", 1), ("b", 2), ("c", 3)]);
}

#[test]
fn generated_files_are_known_by_their_first_line() {
    assert!(read(&[("src/lib.rs", "// This file is @generated by prost-build.\n")]).files[0].generated);
    assert!(!read(&[("src/lib.rs", "// Written by hand.\n")]).files[0].generated);
}

#[test]
fn layers_allow_what_is_below_and_the_own_folder() {
    let wrong = |from: &str, to: &str| layers::wrong(&format!("plugin/src/{from}"), &format!("plugin/src/{to}"));
    assert_eq!(wrong("front/placed.rs", "offer/units.rs"), None);
    assert_eq!(wrong("vendor/amd/scan.rs", "vendor/flags.rs"), None);
    assert_eq!(wrong("vendor.rs", "vendor/flags.rs"), None);
    assert_eq!(wrong("lib.rs", "config.rs"), None);
    assert_eq!(layers::wrong("extender/src/base.rs", "extender/src/front.rs"), None);
    assert!(wrong("offer/units.rs", "front/placed.rs").is_some_and(|why| why.contains("layer 3, below `front`")));
    assert!(wrong("offer/units.rs", "allocation/pod.rs").is_some_and(|why| why.contains("both of layer 3")));
    assert!(wrong("misc.rs", "base/files.rs").is_some_and(|why| why.contains("`misc` has no layer")));
    assert!(wrong("config.rs", "misc/a.rs").is_some_and(|why| why.contains("`misc` has no layer")));
}
