//! The two container images, made on the spot: no registry is asked.
//!
//! `busybox` has Debian's static busybox and the probe, and stands in for the image that the examples name. `pause`
//! holds the namespaces of a pod.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde_json::{Value, json};

use crate::place::Place;
use crate::tools::output;

/// What the examples use.
pub const BUSYBOX: &str = "docker.io/library/busybox:1.37";
/// What holds a pod's namespaces.
pub const PAUSE: &str = "kerf.invalid/pause:1";

/// Makes both and returns their archives.
///
/// # Errors
/// Where a program fails.
pub fn make(place: &Place) -> anyhow::Result<Vec<PathBuf>> {
    let busybox = fs::canonicalize(output(Command::new("sh").args(["-c", "command -v busybox"]))?)?;
    let tree = place.dir("images/tree")?;
    for directory in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
        fs::create_dir_all(tree.join(directory))?;
    }
    fs::copy(&busybox, tree.join("bin/busybox"))?;
    for applet in output(Command::new(&busybox).arg("--list"))?.lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", tree.join("bin").join(applet)).with_context(|| applet.to_owned())?;
    }
    let probe = tree.join("bin/kerf-probe");
    fs::write(&probe, include_str!("../probe.sh"))?;
    fs::set_permissions(&probe, fs::Permissions::from_mode(0o755))?;
    let layer = place.path("images/layer.tar");
    output(Command::new("tar").arg("-cf").arg(&layer).arg("-C").arg(&tree).arg("."))?;
    // the entry point does nothing and has no arguments: with any, a pod's own would be added to them
    let pause = json!({ "Entrypoint": ["/bin/sleep", "2147483647"] });
    let shell = json!({ "Cmd": ["/bin/sh"], "Env": ["PATH=/bin"] });
    Ok(vec![archive(place, "pause", PAUSE, &layer, &pause)?, archive(place, "busybox", BUSYBOX, &layer, &shell)?])
}

/// An archive as `docker save` writes it.
fn archive(place: &Place, name: &str, tag: &str, layer: &Path, run: &Value) -> anyhow::Result<PathBuf> {
    let directory = place.dir(&format!("images/{name}"))?;
    let sum = output(Command::new("sha256sum").arg(layer))?;
    let digest = sum.split_whitespace().next().context("no checksum")?;
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({
        "architecture": architecture, "os": "linux", "config": run,
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
    });
    let manifest = json!([{ "Config": "config.json", "RepoTags": [tag], "Layers": ["layer.tar"] }]);
    fs::write(directory.join("config.json"), config.to_string())?;
    fs::write(directory.join("manifest.json"), manifest.to_string())?;
    fs::hard_link(layer, directory.join("layer.tar"))?;
    let target = place.path(&format!("images/{name}.tar"));
    let files = ["manifest.json", "config.json", "layer.tar"];
    output(Command::new("tar").arg("-cf").arg(&target).arg("-C").arg(&directory).args(files))?;
    Ok(target)
}
