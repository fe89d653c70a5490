//! What the library needs of an image, and which names it puts before those of others.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::Endianness;
use object::elf::{DT_NEEDED, FileHeader64, SHN_UNDEF, SHT_DYNSYM, STB_WEAK};
use object::read::elf::{Dyn, FileHeader, Rela, SectionHeader, Sym};

use crate::shipped::{self, Shipped};
use crate::support::Built;

/// The oldest glibc that an image may have: RHEL 7's. Rust's standard library needs it as well.
const GLIBC: [u32; 2] = [2, 17];

/// A library as the loader sees it.
#[derive(Debug, Default)]
struct Linkage {
    /// Other libraries; where one is missing, the loader starts no program.
    needed: BTreeSet<String>,
    /// Versions of symbols in those; the same.
    versions: BTreeSet<String>,
    /// Symbols that must be found, without a version; the same.
    unversioned: BTreeSet<String>,
    exported: BTreeSet<String>,
    /// Exported symbols that the library itself uses by way of the loader, which may find another library's.
    preemptible: BTreeSet<String>,
}

fn linkage(library: &Path) -> Linkage {
    let data = &*fs::read(library).unwrap();
    let header = FileHeader64::<Endianness>::parse(data).unwrap();
    let endian = header.endian().unwrap();
    let sections = header.sections(endian, data).unwrap();
    let symbols = sections.symbols(endian, data, SHT_DYNSYM).unwrap();
    let versions = sections.versions(endian, data).unwrap().unwrap();
    let mut found = Linkage::default();
    for (index, symbol) in symbols.enumerate() {
        let name = String::from_utf8(symbol.name(endian, symbols.strings()).unwrap().to_vec()).unwrap();
        let version = versions.version(versions.version_index(endian, index)).unwrap();
        match (symbol.st_shndx(endian), version) {
            _ if name.is_empty() => {}
            (SHN_UNDEF, Some(version)) => {
                found.versions.insert(String::from_utf8(version.name().to_vec()).unwrap());
            }
            (SHN_UNDEF, None) if symbol.st_bind() != STB_WEAK => drop(found.unversioned.insert(name)),
            (SHN_UNDEF, None) => {}
            _ => drop(found.exported.insert(name)),
        }
    }
    let (entries, strings) = sections.dynamic(endian, data).unwrap().unwrap();
    let strings = sections.strings(endian, data, strings).unwrap();
    for entry in entries.iter().filter(|entry| entry.tag(endian) == DT_NEEDED) {
        found.needed.insert(String::from_utf8(entry.string(endian, strings).unwrap().to_vec()).unwrap());
    }
    for section in sections.iter() {
        let Some((relocations, _)) = section.rela(endian, data).unwrap() else { continue };
        for symbol in relocations.iter().filter_map(|relocation| relocation.symbol(endian, false)) {
            let symbol = symbols.symbol(symbol).unwrap();
            if symbol.st_shndx(endian) != SHN_UNDEF {
                let name = symbol.name(endian, symbols.strings()).unwrap();
                found.preemptible.insert(String::from_utf8(name.to_vec()).unwrap());
            }
        }
    }
    found
}

/// The library in each form that this machine can build.
fn shipped() -> Vec<PathBuf> {
    let Some(own) = Shipped::get() else { return Vec::new() };
    let other = if cfg!(target_arch = "aarch64") { "x86_64" } else { "aarch64" };
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", &format!("{other}-unknown-linux-gnu")]);
    let directory = String::from_utf8(rustc.output().unwrap().stdout).unwrap();
    if !Path::new(directory.trim_end()).is_dir() {
        println!("NOT RUN for {other}: Rust's standard library for it is not installed");
        return vec![own.limiter.clone()];
    }
    vec![own.limiter.clone(), shipped::build(other, &["kerf-limiter"])]
}

#[test]
fn the_shipped_library_needs_nothing_that_an_old_image_lacks() {
    for library in shipped() {
        let found = linkage(&library);
        let loader = ["ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"];
        let allowed = |name: &str| {
            loader.contains(&name) || ["libc.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1"].contains(&name)
        };
        assert!(found.needed.iter().all(|name| allowed(name)), "{library:?} needs {:?}", found.needed);
        // before glibc 2.34, dlsym and dlopen are in a library of their own
        assert!(found.needed.contains("libdl.so.2"), "{:?}", found.needed);
        let newer = |version: &&String| {
            let numbers = version.strip_prefix("GLIBC_").unwrap_or("999").split('.');
            numbers.map(|number| number.parse().unwrap_or(999)).collect::<Vec<u32>>()[..] > GLIBC[..]
        };
        let newer: Vec<_> = found.versions.iter().filter(newer).collect();
        assert!(newer.is_empty() && !found.versions.is_empty(), "{library:?} needs {newer:?}");
        assert!(found.unversioned.is_empty(), "{library:?} needs {:?}", found.unversioned);
    }
}

#[test]
fn the_library_exports_the_drivers_names_and_calls_its_own_functions_directly() {
    let linked_here = linkage(&Built::get().limiter);
    assert!(linked_here.exported.contains("cuMemAlloc_v2") && linked_here.exported.contains("dlsym"));
    for found in shipped().iter().map(|library| linkage(library)).chain([linked_here]) {
        // above all nothing of the unwinder, which programs in C++ would find
        let other = |name: &&String| {
            !name.starts_with("cu")
                && !name.starts_with("nvml")
                && !["dlsym", "__asan_default_options"].contains(&name.as_str())
        };
        assert_eq!(found.exported.iter().filter(other).collect::<Vec<_>>(), Vec::<&String>::new());
        assert_eq!(found.preemptible, BTreeSet::new());
    }
}
