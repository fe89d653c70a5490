//! Trees that were damaged at random: never a crash, never a wrong device, and a remark for all that is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use kerf_plugin::testing::backend::Vendor;
use kerf_plugin::testing::scan::Scan;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::forest::{Forest, nodes};

/// A change of one entry of the tree.
#[derive(Clone, Debug)]
enum Damage {
    /// Removed, with all below it.
    Remove(Index),
    /// Other text; a link becomes a file.
    Text(Index, String),
    /// A directory in its place.
    Directory(Index),
    /// The content of another file of the same name.
    Copy(Index, Index),
    /// The target of another link.
    Lead(Index, Index),
}

fn text() -> impl Strategy<Value = String> {
    const ODD: &[&str] =
        &["", "x", "-1", "-7", "0x", "0xzz", "99999999999999999999", "18446744073709551615", "1 2", "\u{0}", "key"];
    prop_oneof![
        proptest::sample::select(ODD).prop_map(str::to_owned),
        "[a-z_ ]{0,40}",
        Just("drm_render_minor\n".repeat(5000)),
    ]
}

/// Damage that is visible by itself.
fn loss() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    prop_oneof![
        at().prop_map(Damage::Remove),
        (at(), text()).prop_map(|(at, text)| Damage::Text(at, text)),
        at().prop_map(Damage::Directory),
    ]
}

/// Damage that tells of one GPU what is true of another.
fn lie() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    prop_oneof![
        (at(), at()).prop_map(|(at, from)| Damage::Copy(at, from)),
        (at(), at()).prop_map(|(at, from)| Damage::Lead(at, from)),
    ]
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![3 => loss(), 2 => lie()]
}

/// Losses, or one lie: it contradicts what it was copied from, as long as that exists.
fn losses_or_a_lie(losses: usize) -> impl Strategy<Value = Vec<Damage>> {
    prop_oneof![3 => proptest::collection::vec(loss(), 1..losses), 1 => proptest::collection::vec(lie(), 1)]
}

/// Everything below a directory, without following links, sorted.
fn entries(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                open.push(path.clone());
            }
            all.push(path);
        }
    }
    all.sort();
    all
}

fn remove(path: &Path) {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

impl Damage {
    fn strike(&self, root: &Path) {
        // the kernel creates device files: they vanish, but a wrong one has no wrong content
        let (dev, rest): (Vec<_>, Vec<_>) =
            entries(root).into_iter().partition(|path| path.starts_with(root.join("dev")));
        let of_kind = |link: bool| {
            let is_link = |path: &&PathBuf| fs::symlink_metadata(path).is_ok_and(|m| m.is_symlink());
            let kind: Vec<_> =
                rest.iter().filter(|p| is_link(p) == link && (link || p.is_file())).cloned().collect();
            kind
        };
        match self {
            Self::Remove(at) => {
                let all: Vec<PathBuf> = dev.iter().chain(&rest).cloned().collect();
                if !all.is_empty() {
                    let path: &PathBuf = at.get(&all);
                    remove(path);
                }
            }
            Self::Text(at, text) if !rest.is_empty() => {
                let path = at.get(&rest);
                remove(path);
                fs::write(path, text).unwrap();
            }
            Self::Directory(at) if !rest.is_empty() => {
                let path = at.get(&rest);
                remove(path);
                fs::create_dir(path).unwrap();
            }
            Self::Copy(at, from) => {
                let files = of_kind(false);
                let Some(to) = (!files.is_empty()).then(|| at.get(&files)) else { return };
                let kin: Vec<_> = files.iter().filter(|path| path.file_name() == to.file_name()).collect();
                let content = fs::read(from.get(&kin)).unwrap();
                fs::write(to, content).unwrap();
            }
            Self::Lead(at, from) => {
                let links = of_kind(true);
                let Some(to) = (!links.is_empty()).then(|| at.get(&links)) else { return };
                let kin: Vec<_> = links.iter().filter(|path| path.parent() == to.parent()).collect();
                let target = fs::read_link(from.get(&kin)).unwrap();
                remove(to);
                std::os::unix::fs::symlink(target, to).unwrap();
            }
            Self::Text(..) | Self::Directory(_) => {}
        }
    }
}

/// What belongs to each device.
fn holdings(scan: &Scan) -> BTreeMap<String, BTreeSet<String>> {
    scan.devices.iter().map(|host| (host.origin.name.to_string(), nodes(host).into_iter().collect())).collect()
}

fn check(tree: &str, vendor: Vendor, damage: &[Damage]) -> Result<(), TestCaseError> {
    let forest = Forest::named(tree);
    let mut sound = holdings(&forest.scan(vendor));
    if tree == "f" {
        // a GPU whose instances are gone is a GPU
        sound.insert("nvidia0".to_owned(), BTreeSet::from(["/dev/nvidia0".to_owned()]));
    }
    for damage in damage {
        damage.strike(forest.path());
    }
    let Ok(scan) = forest.look(vendor) else { return Ok(()) };
    for (name, nodes) in holdings(&scan) {
        // under a name that the sound tree does not have, a GPU is seen without its address or UUID: never as
        // another GPU
        let own = sound.get(&name);
        prop_assert!(own.is_some_and(|own| nodes.is_subset(own)), "{name} has {nodes:?}, not {own:?}");
        prop_assert!(!nodes.is_empty());
    }
    prop_assert_eq!(&scan, &forest.look(vendor).unwrap(), "a second look sees the same");
    let told: BTreeSet<_> = scan.remarks.iter().collect();
    prop_assert_eq!(told.len(), scan.remarks.len());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn amd(tree in proptest::sample::select(&["a", "c"][..]), damage in proptest::collection::vec(damage(), 1..6)) {
        check(tree, Vendor::Amd, &damage)?;
    }

    #[test]
    fn intel(damage in losses_or_a_lie(6)) {
        check("e", Vendor::Intel, &damage)?;
    }

    #[test]
    fn nvidia(tree in proptest::sample::select(&["f", "g"][..]), damage in losses_or_a_lie(4)) {
        check(tree, Vendor::Nvidia, &damage)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn amd_partitions(damage in proptest::collection::vec(damage(), 1..8)) {
        check("b", Vendor::Amd, &damage)?;
    }
}

/// One thing went wrong with one GPU: the others are all there, and it is either there or explained.
#[test]
fn what_is_missing_is_explained() {
    for (tree, vendor) in [("a", Vendor::Amd), ("e", Vendor::Intel), ("g", Vendor::Nvidia)] {
        let whole = Forest::named(tree);
        let sound = holdings(&whole.scan(vendor));
        for path in entries(whole.path()).into_iter().filter(|path| path.is_file()) {
            let forest = Forest::named(tree);
            let path = forest.path().join(path.strip_prefix(whole.path()).unwrap());
            if fs::symlink_metadata(&path).unwrap().is_symlink() {
                continue;
            }
            fs::remove_file(&path).unwrap();
            let Ok(scan) = forest.look(vendor) else { continue };
            let found = holdings(&scan);
            // a GPU is left out under whatever name its files still give it
            let explained = scan.remarks.iter().any(|remark| remark.left_out);
            for name in sound.keys().filter(|name| !found.contains_key(*name)) {
                assert!(explained, "without {} {name} is missing and nothing says so", path.display());
            }
        }
    }
}
