//! Mistakes in the tree and in the arguments.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kerf_manifests::root;

use crate::output;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const PINNED: &str = "example.org/base@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A committed copy of what the recipe reads before it builds, with a date for its release.
struct Tree(PathBuf);

impl Tree {
    fn new(test: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("release-{test}"));
        drop(fs::remove_dir_all(&folder));
        fs::create_dir_all(&folder).unwrap();
        let parts = ["Cargo.toml", "CHANGELOG.md", "README.md", "charts", "docs", "images", "manifests", "release"];
        output(Command::new("cp").arg("-a").args(parts).arg(&folder).current_dir(root()));
        let tree = Self(folder);
        let notes = tree.read("CHANGELOG.md");
        let heading = notes.lines().find(|line| line.starts_with(&format!("## [{VERSION}]"))).unwrap();
        tree.write("CHANGELOG.md", &notes.replacen(heading, &format!("## [{VERSION}] - 2030-01-31"), 1));
        tree.git(&["init", "--quiet"]);
        tree.commit();
        tree
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.0.join(file)).unwrap()
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.0.join(file), text).unwrap();
    }

    fn change(&self, file: &str, from: &str, to: &str) {
        let text = self.read(file);
        assert!(text.contains(from), "{file} has no {from}");
        self.write(file, &text.replacen(from, to, 1));
    }

    fn git(&self, args: &[&str]) {
        let who = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"];
        output(Command::new("git").args(who).args(args).current_dir(&self.0));
    }

    fn commit(&self) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message=all"]);
    }

    /// What the recipe says of this tree before it builds.
    fn checked(&self, base: &str, stand_in: &str, profile: &str) -> Output {
        let script = r#"set -euo pipefail; source release/checks.sh; base=$1 stand_in=$2 profile=$3
            check_release; printf '%s\n' "${refused[@]}""#;
        let mut command = Command::new("bash");
        command.args(["-c", script, "check", base, stand_in, profile]).current_dir(&self.0);
        command.output().unwrap()
    }

    /// The reasons why it would be no release.
    fn refused(&self, base: &str, stand_in: &str, profile: &str) -> Vec<String> {
        let said = self.checked(base, stand_in, profile);
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8(said.stdout).unwrap().lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

#[test]
fn a_clean_tree_of_one_version_can_be_released() {
    let tree = Tree::new("clean");
    assert_eq!(tree.refused(PINNED, "", "dist"), Vec::<String>::new());
}

#[test]
fn what_is_no_release_is_named() {
    let tree = Tree::new("named");
    let reasons = tree.refused("example.org:5000/base:1", "", "dev");
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert!(reasons[0].contains("--base example.org:5000/base@sha256:DIGEST"), "{reasons:?}");
    assert!(reasons[1].contains("profile dev"), "{reasons:?}");
    let reasons = tree.refused("example.org:5000/base:1", "folder", "dist");
    assert!(reasons.len() == 1 && reasons[0].contains("stand-in"), "{reasons:?}");
    // a digest that was cut off
    assert_eq!(tree.refused(&PINNED[..PINNED.len() - 1], "", "dist").len(), 1);
    tree.write("new.txt", "not committed");
    let reasons = tree.refused(PINNED, "", "dist");
    assert!(reasons.len() == 1 && reasons[0].contains("git status"), "{reasons:?}");
    fs::remove_file(tree.0.join("new.txt")).unwrap();
    for undated in ["unreleased", "31.1.2030", ""] {
        tree.change("CHANGELOG.md", "- 2030-01-31", &format!("- {undated}"));
        tree.commit();
        let reasons = tree.refused(PINNED, "", "dist");
        assert!(reasons.len() == 1 && reasons[0].contains("YYYY-MM-DD"), "{undated}: {reasons:?}");
        tree.change(
            "CHANGELOG.md",
            &format!("## [{VERSION}] - {undated}"),
            &format!("## [{VERSION}] - 2030-01-31"),
        );
    }
}

/// Also in a dry run.
#[test]
fn another_version_is_refused_wherever_it_is() {
    let tree = Tree::new("version");
    let changes = [
        ("charts/kerf/Chart.yaml", format!("\nversion: {VERSION}"), "\nversion: 9.9.9".to_owned()),
        ("charts/kerf/Chart.yaml", format!("appVersion: {VERSION}"), "appVersion: 9.9.9".to_owned()),
        ("manifests/base/plugin.yaml", format!("kerf-plugin:{VERSION}"), "kerf-plugin:9.9.9".to_owned()),
        (
            "manifests/base/scheduler.yaml",
            format!("kerf-extender:{VERSION}"),
            format!("kerf-extender:{VERSION}-rc.1"),
        ),
        (
            "manifests/scheduler-config/static-pod.yaml",
            format!("kerf-extender:{VERSION}"),
            "kerf-extender:0".to_owned(),
        ),
        ("images/plugin.Dockerfile", format!("kerf-plugin:{VERSION}"), "kerf-plugin:9.9.9".to_owned()),
        ("docs/install.md", format!("kerf-plugin:{VERSION}"), "kerf-plugin:9.9.9".to_owned()),
        ("docs/install.md", format!("kerf-plugin-{VERSION}.oci.tar"), "kerf-plugin-9.9.9.oci.tar".to_owned()),
        ("docs/install.md", format!("kerf-{VERSION}.tgz"), "kerf-9.9.9.tgz".to_owned()),
        (
            "docs/install.md",
            format!("kerf-manifests-{VERSION}.tar.gz"),
            format!("kerf-manifests-{VERSION}-rc.1.tar.gz"),
        ),
        ("CHANGELOG.md", format!("## [{VERSION}]"), format!("## [9.9.9] - 2030-02-01\n\n## [{VERSION}]")),
    ];
    for (file, from, to) in changes {
        tree.change(file, &from, &to);
        let said = tree.checked(PINNED, "", "dist");
        let error = String::from_utf8_lossy(&said.stderr);
        assert_eq!(said.status.code(), Some(1), "{file}: {error}");
        assert!(error.contains(&format!("version {VERSION}")) && error.contains(file), "{file}: {error}");
        tree.change(file, &to, &from);
        assert!(tree.checked(PINNED, "", "dist").status.success(), "{file}");
    }
}

#[test]
fn wrong_arguments_are_named_before_anything_is_built() {
    let script = root().join("release.sh");
    let cases: [(&[&str], i32, &str); 9] = [
        (&["--dryrun"], 2, "unknown argument --dryrun"),
        (&["--base"], 2, "--base needs a value"),
        (&["--architectures", "amd64,riscv64"], 2, "riscv64 is neither amd64 nor arm64"),
        (&["--architectures", ","], 2, "neither amd64 nor arm64"),
        (&["--stand-in-base", "/nowhere"], 1, "/nowhere/amd64.tar is missing: release/base.sh /nowhere amd64"),
        (&["--architectures", "amd64,arm64,amd64"], 2, "one is named twice"),
        (&["--to", "docs"], 1, "docs has other files than those of a release"),
        (&["--to", "Cargo.toml"], 1, "Cargo.toml is no folder"),
        (&["--profile", "nosuch"], 1, "no profile nosuch"),
    ];
    for (args, code, wanted) in cases {
        let said = Command::new(&script).args(args).current_dir(root()).output().unwrap();
        let error = String::from_utf8_lossy(&said.stderr);
        assert_eq!(said.status.code(), Some(code), "{args:?}: {error}");
        assert!(error.contains(wanted), "{args:?}: {error}");
        assert_eq!(error.contains("usage: ./release.sh"), code == 2, "{args:?}: {error}");
    }
    assert!(output(Command::new(&script).arg("--help")).starts_with("usage: ./release.sh"));
}

/// What is replaced is removed: nothing else than the files of an earlier release.
#[test]
fn only_a_folder_of_release_files_is_replaced() {
    let script = root().join("release.sh");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("release-to");
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(folder.join("out")).unwrap();
    // a folder is named from where the recipe is called; an unknown profile ends it after that check
    let said = || {
        let mut command = Command::new(&script);
        let output = command.args(["--to", "out", "--profile", "nosuch"]).current_dir(&folder).output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    let accepted = |said: &str| said.contains("no profile nosuch");
    assert!(accepted(&said()), "an empty one: {}", said());
    for file in ["SHA256SUMS", "RELEASE-NOTES.md", "kerf-0.1.0.tgz"] {
        fs::write(folder.join("out").join(file), "").unwrap();
    }
    assert!(accepted(&said()), "an earlier release: {}", said());
    for other in ["notes.txt", ".hidden", "kerf-folder/file", "a b"] {
        let path = folder.join("out").join(other);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "precious").unwrap();
        let refused = said();
        assert!(refused.contains("out has other files than those of a release"), "{other}: {refused}");
        assert!(refused.contains(folder.join("out").to_str().unwrap()), "{refused}");
        fs::remove_file(&path).unwrap();
        drop(fs::remove_dir(folder.join("out/kerf-folder")));
    }
    drop(fs::remove_dir_all(&folder));
}

/// cargo-auditable is installed in three places.
#[test]
fn one_version_of_each_tool() {
    let read = |file: &str| fs::read_to_string(root().join(file)).unwrap();
    let tools = read("release/tools.sh");
    let auditable = tools.lines().find_map(|line| line.strip_prefix("auditable=")).unwrap();
    for file in ["images/extender.Dockerfile", "images/plugin.Dockerfile"] {
        let text = read(file);
        assert!(text.contains(&format!("cargo install --locked cargo-auditable@{auditable}\n")), "{file}");
        assert!(text.contains("cargo auditable build --profile dist --locked "), "{file}");
    }
}
