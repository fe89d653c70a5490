//! The manifest by which krew installs the command.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::output;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Checks a manifest against the archives of a folder; the architectures that it has.
pub fn checked(manifest: &str, folder: &Path) -> Vec<String> {
    let manifest: Value = serde_saphyr::from_str(manifest).unwrap();
    assert_eq!(manifest["apiVersion"], "krew.googlecontainertools.github.com/v1alpha2");
    // the name of the plugin is that of the command, and of the manifest in krew's index
    assert_eq!((&manifest["kind"], &manifest["metadata"]), (&json!("Plugin"), &json!({ "name": "kerf" })));
    let spec = &manifest["spec"];
    assert_eq!(spec["version"], format!("v{VERSION}"), "a semantic version with a v");
    // krew's index refuses longer ones
    assert!(spec["shortDescription"].as_str().unwrap().len() <= 50, "{spec}");
    let platform = |platform: &Value| {
        let labels = &platform["selector"]["matchLabels"];
        let architecture = labels["arch"].as_str().unwrap();
        assert_eq!(labels["os"], "linux");
        let name = format!("kerf-{VERSION}-linux-{architecture}");
        let uri = platform["uri"].as_str().unwrap();
        assert!(uri.starts_with("https://") && uri.ends_with(&format!("/v{VERSION}/{name}.tar.gz")), "{uri}");
        let sum = output(Command::new("sha256sum").arg(folder.join(format!("{name}.tar.gz"))));
        assert_eq!(platform["sha256"], sum.split_whitespace().next().unwrap());
        let files = json!([{ "from": format!("{name}/kerf"), "to": "." }, { "from": format!("{name}/LICENSE"), "to": "." }]);
        assert_eq!((&platform["files"], &platform["bin"]), (&files, &json!("kerf")));
        architecture.to_owned()
    };
    spec["platforms"].as_array().unwrap().iter().map(platform).collect()
}

/// Of any archives.
#[test]
fn the_manifest_is_made_of_the_archives() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("krew");
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder).unwrap();
    for architecture in ["amd64", "arm64"] {
        let name = format!("kerf-{VERSION}-linux-{architecture}.tar.gz");
        fs::write(folder.join(name), architecture).unwrap();
    }
    let mut script = Command::new(kerf_manifests::root().join("release/krew.sh"));
    let made = output(script.arg(VERSION).arg(&folder).args(["amd64", "arm64"]));
    assert_eq!(checked(&made, &folder), ["amd64", "arm64"]);
    fs::remove_dir_all(&folder).unwrap();
}
