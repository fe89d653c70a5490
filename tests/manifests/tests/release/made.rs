//! What the recipe made, where `KERF_RELEASE` names its folder: a dry run of `test.sh`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::output;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const PROGRAMS: [&str; 2] = ["kerf-extender", "kerf-plugin"];

fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("KERF_RELEASE").map(PathBuf::from);
    if folder.is_none() {
        println!("not tested: KERF_RELEASE names no folder that release.sh made");
    }
    // as an administrator has it: relative to the root of the repository
    folder.map(|folder| kerf_manifests::root().join(folder))
}

fn names(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn architectures(folder: &Path) -> Vec<String> {
    let own = |name: &String| {
        Some(name.strip_prefix(&format!("kerf-{VERSION}-linux-"))?.strip_suffix(".tar.gz")?.to_owned())
    };
    let found: Vec<String> = names(folder).iter().filter_map(own).collect();
    assert!(!found.is_empty(), "{:?}", names(folder));
    found
}

/// A member of an archive.
fn member(archive: &Path, name: &str) -> String {
    output(Command::new("tar").arg("-xOf").arg(archive).arg(name))
}

fn json(archive: &Path, name: &str) -> Value {
    serde_json::from_str(&member(archive, name)).unwrap()
}

fn blob(archive: &Path, descriptor: &Value) -> Value {
    let digest = descriptor["digest"].as_str().unwrap();
    json(archive, &format!("blobs/{}", digest.replace(':', "/")))
}

#[test]
fn every_file_has_its_checksum() {
    let Some(folder) = folder() else { return };
    output(Command::new("sha256sum").args(["--check", "--strict", "--quiet", "SHA256SUMS"]).current_dir(&folder));
    let sums = fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
    let summed: BTreeSet<String> = sums.lines().map(|line| line.split_once("  ").unwrap().1.to_owned()).collect();
    let mut there = names(&folder);
    assert!(there.remove("SHA256SUMS"));
    assert_eq!(summed, there);
    let mut wanted = BTreeSet::from(["RELEASE-NOTES.md".to_owned(), format!("kerf-{VERSION}.tgz")]);
    wanted.insert(format!("kerf-manifests-{VERSION}.tar.gz"));
    wanted.insert("kerf-krew.yaml".to_owned());
    wanted.extend(PROGRAMS.map(|name| format!("{name}-{VERSION}.oci.tar")));
    for architecture in architectures(&folder) {
        wanted.insert(format!("kerf-{VERSION}-linux-{architecture}.tar.gz"));
        let listed = PROGRAMS.into_iter().chain(["kerf"]);
        wanted.extend(listed.map(|name| format!("{name}-{VERSION}-linux-{architecture}.cdx.json")));
    }
    assert_eq!(there, wanted);
}

/// Under the name that the manifests have, for each architecture, with the program that was built for it.
#[test]
fn an_image_runs_its_program_on_each_architecture() {
    let Some(folder) = folder() else { return };
    for name in PROGRAMS {
        let archive = folder.join(format!("{name}-{VERSION}.oci.tar"));
        let index = json(&archive, "index.json");
        let list = &index["manifests"][0];
        let tag = &list["annotations"]["org.opencontainers.image.ref.name"];
        assert_eq!(tag, &format!("docker.io/library/{name}:{VERSION}"), "{index}");
        let mut found = Vec::new();
        for manifest in blob(&archive, list)["manifests"].as_array().unwrap() {
            let config = blob(&archive, &blob(&archive, manifest)["config"]);
            assert_eq!(config["architecture"], manifest["platform"]["architecture"]);
            found.push(config["architecture"].as_str().unwrap().to_owned());
            let run = &config["config"];
            assert_eq!(run["Labels"]["org.opencontainers.image.version"], VERSION, "{run}");
            assert_eq!(run["Labels"]["org.opencontainers.image.revision"].as_str().unwrap().len(), 40, "{run}");
            let user = if name == "kerf-extender" { "65532:65532" } else { "0:0" };
            assert_eq!(run["User"], user, "{run}");
            assert!(run["Entrypoint"][0].as_str().unwrap().ends_with(name), "{run}");
        }
        found.sort();
        assert_eq!(found, architectures(&folder), "{name}");
    }
}

#[test]
fn an_sbom_lists_crates_and_what_the_base_has() {
    let Some(folder) = folder() else { return };
    for architecture in architectures(&folder) {
        let wanted: [(&str, &[&str]); 3] = [
            ("kerf", &["pkg:cargo/clap@", "pkg:cargo/k8s-openapi@"]),
            ("kerf-extender", &["pkg:cargo/axum@", "pkg:cargo/rustls@"]),
            (
                "kerf-plugin",
                &[
                    "pkg:cargo/tonic@",
                    "pkg:cargo/nvml-wrapper@",
                    "pkg:cargo/kerf-limiter@",
                    "pkg:deb/debian/libc6@",
                ],
            ),
        ];
        for (name, wanted) in wanted {
            let file = folder.join(format!("{name}-{VERSION}-linux-{architecture}.cdx.json"));
            let bom: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
            assert_eq!(bom["bomFormat"], "CycloneDX");
            let about = &bom["metadata"]["component"];
            assert_eq!((&about["name"], &about["version"]), (&name.into(), &VERSION.into()), "{about}");
            let parts = bom["components"].as_array().unwrap();
            let urls: Vec<&str> = parts.iter().filter_map(|part| part["purl"].as_str()).collect();
            for wanted in wanted {
                assert!(urls.iter().any(|url| url.starts_with(wanted)), "{}: no {wanted}", file.display());
            }
        }
    }
}

#[test]
fn the_command_starts() {
    let Some(folder) = folder() else { return };
    let own = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    if !architectures(&folder).contains(&own.to_owned()) {
        println!("not tested: it was not built for {own}");
        return;
    }
    let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join("release-command");
    drop(fs::remove_dir_all(&to));
    fs::create_dir_all(&to).unwrap();
    let name = format!("kerf-{VERSION}-linux-{own}");
    output(Command::new("tar").arg("-xzf").arg(folder.join(format!("{name}.tar.gz"))).arg("-C").arg(&to));
    let said = output(Command::new(to.join(&name).join("kerf")).arg("--version"));
    assert_eq!(said.trim(), format!("kerf {VERSION}"));
    assert!(to.join(&name).join("LICENSE").is_file());
    fs::remove_dir_all(&to).unwrap();
}

/// What krew is told to take is in the archives.
#[test]
fn krew_finds_the_command_in_its_archive() {
    let Some(folder) = folder() else { return };
    let manifest = fs::read_to_string(folder.join("kerf-krew.yaml")).unwrap();
    let taken = crate::krew::checked(&manifest, &folder);
    assert_eq!(taken, architectures(&folder));
    for architecture in taken {
        let name = format!("kerf-{VERSION}-linux-{architecture}");
        let archive = folder.join(format!("{name}.tar.gz"));
        let members = output(Command::new("tar").arg("-tzf").arg(&archive));
        for member in ["kerf", "LICENSE"] {
            assert!(members.lines().any(|line| line == format!("{name}/{member}")), "{members}");
        }
    }
}

/// The section of this version, and the digests that the archives have.
#[test]
fn the_notes_are_those_of_the_changelog() {
    let Some(folder) = folder() else { return };
    let notes = fs::read_to_string(folder.join("RELEASE-NOTES.md")).unwrap();
    let changes = fs::read_to_string(kerf_manifests::root().join("CHANGELOG.md")).unwrap();
    let own = changes.split("\n## [").find(|section| section.starts_with(&format!("{VERSION}]"))).unwrap();
    // links lead elsewhere
    for line in own.lines().filter_map(|line| line.strip_prefix('*')?.split("](").next()) {
        assert!(notes.contains(line), "{line}");
    }
    for name in PROGRAMS {
        let index = json(&folder.join(format!("{name}-{VERSION}.oci.tar")), "index.json");
        let digest = index["manifests"][0]["digest"].as_str().unwrap();
        assert!(notes.contains(digest), "{name} has {digest}: {notes}");
    }
}

/// Links lead to the pages of this version, since there are no such files beside what is released; the licence is there.
#[test]
fn texts_lead_to_the_pages_of_the_version() {
    let Some(folder) = folder() else { return };
    let notes = fs::read_to_string(folder.join("RELEASE-NOTES.md")).unwrap();
    let chart = folder.join(format!("kerf-{VERSION}.tgz"));
    assert!(member(&chart, "kerf/LICENSE").contains("Apache License"));
    let readme = member(&chart, "kerf/README.md");
    for text in [notes, readme] {
        let targets: Vec<&str> = text.split("](").skip(1).map(|rest| rest.split_once(')').unwrap().0).collect();
        assert!(targets.iter().all(|target| target.starts_with("https://")), "{targets:?}");
        let page = format!("/blob/v{VERSION}/docs/");
        let own = targets.iter().filter_map(|target| Some(target.split_once(&page)?.1.split('#').next().unwrap()));
        let own: BTreeSet<&str> = own.collect();
        assert!(!own.is_empty(), "{targets:?}");
        for page in own {
            assert!(kerf_manifests::root().join("docs").join(page).is_file(), "{page}");
        }
    }
}

/// Whoever unpacks them can apply them, and nobody else of the group changes them.
#[test]
fn manifests_and_examples_are_in_an_archive() {
    let Some(folder) = folder() else { return };
    let archive = folder.join(format!("kerf-manifests-{VERSION}.tar.gz"));
    let list = output(Command::new("tar").arg("-tvzf").arg(&archive));
    assert!(list.lines().all(|line| matches!(line.get(..10), Some("drwxr-xr-x" | "-rw-r--r--"))), "{list}");
    for wanted in
        ["manifests/base/kustomization.yaml", "examples/pods/share.yaml", "examples/profiles/amd.yaml", "LICENSE"]
    {
        assert!(list.contains(&format!(" kerf-manifests-{VERSION}/{wanted}\n")), "{wanted}: {list}");
    }
    assert!(!list.contains(".rs"), "{list}");
}

/// As a package as well as in the repository, where its manifests are a link.
#[test]
fn the_chart_renders() {
    let Some(folder) = folder() else { return };
    let Some(tools) = std::env::var_os("KERF_MANIFEST_TOOLS").map(PathBuf::from) else {
        println!("not tested: KERF_MANIFEST_TOOLS names no folder of helm and kustomize");
        return;
    };
    for helm in ["helm3", "helm4"] {
        let chart = folder.join(format!("kerf-{VERSION}.tgz"));
        let text =
            output(Command::new(tools.join(helm)).args(["template", "kerf", "--kube-version=1.37.0"]).arg(&chart));
        for image in PROGRAMS.map(|name| format!("{name}:{VERSION}")) {
            assert!(text.contains(&image), "{helm}: no {image}");
        }
    }
}
