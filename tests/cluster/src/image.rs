//! The container images, built here: no registry is used.
//!
//! `busybox` has Debian's static busybox, the probe and a CUDA program, and replaces the image in the examples.
//! `pause` holds the namespaces of a pod. `kerf-plugin`, `kerf-extender` and `kube-scheduler` are those of the manifests.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::place::Place;
use crate::tools::output;

/// The image of the examples.
pub const BUSYBOX: &str = "docker.io/library/busybox:1.37";
/// The plugin's image in the manifests.
pub const PLUGIN: &str = concat!("docker.io/library/kerf-plugin:", env!("CARGO_PKG_VERSION"));
/// The extender's image in the manifests.
pub const EXTENDER: &str = concat!("docker.io/library/kerf-extender:", env!("CARGO_PKG_VERSION"));
/// The image that holds a pod's namespaces.
pub const PAUSE: &str = "kerf.invalid/pause:1";

/// Builds `busybox` and `pause` and returns their archives.
///
/// # Errors
/// Where a program fails.
pub fn make(place: &Place, libcuda: &Path) -> anyhow::Result<Vec<PathBuf>> {
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
    cuda(place, &tree, libcuda)?;
    let layer = place.path("images/layer.tar");
    output(Command::new("tar").arg("-cf").arg(&layer).arg("-C").arg(&tree).arg("."))?;
    // the entry point only sleeps; arguments of a pod would be added to its own
    let pause = json!({ "Entrypoint": ["/bin/sleep", "2147483647"] });
    let shell = json!({ "Cmd": ["/bin/sh"], "Env": ["PATH=/bin"] });
    Ok(vec![archive(place, "pause", PAUSE, &layer, &pause)?, archive(place, "busybox", BUSYBOX, &layer, &shell)?])
}

/// Adds a CUDA program, the stand-in for the driver's library, and the parts of this machine's C library that they
/// need: the limiter is loaded by glibc's loader, and busybox is static.
fn cuda(place: &Place, tree: &Path, libcuda: &Path) -> anyhow::Result<()> {
    let source = place.path("images/cuda.c");
    fs::write(&source, include_str!("../cuda.c"))?;
    fs::create_dir_all(tree.join("lib"))?;
    let (program, library) = (tree.join("bin/kerf-cuda"), tree.join("lib/libcuda.so.1"));
    fs::copy(libcuda, &library)?;
    output(Command::new("cc").arg("-O1").arg("-o").arg(&program).arg(&source).arg(&library))?;
    libraries(&program, tree)?;
    libraries(&library, tree)
}

/// Copies the libraries of this machine that a program or library needs.
fn libraries(file: &Path, tree: &Path) -> anyhow::Result<()> {
    let said = Command::new("ldd").arg(file).output().context("ldd")?;
    let text = String::from_utf8_lossy(&said.stdout);
    let text = match said.status.success() {
        true => text,
        // a static program needs none
        false if String::from_utf8_lossy(&said.stderr).contains("not a dynamic executable") => return Ok(()),
        false => bail!("ldd {}: {}", file.display(), String::from_utf8_lossy(&said.stderr)),
    };
    for needed in text.lines().filter_map(path_in) {
        let target = tree.join(needed.trim_start_matches('/'));
        fs::create_dir_all(target.parent().context("no directory")?)?;
        fs::copy(needed, &target).with_context(|| needed.to_owned())?;
    }
    Ok(())
}

/// Builds an image of kerf's plugin, like `images/plugin.Dockerfile` but on another system's base, and returns its
/// archive.
///
/// # Errors
/// Where a program fails.
pub fn plugin(place: &Place, program: &Path, limiter: &Path) -> anyhow::Result<PathBuf> {
    let files = [(program, "usr/local/bin/kerf-plugin"), (limiter, "usr/local/lib/kerf/libkerf_limiter.so")];
    let run = json!({ "Entrypoint": ["/usr/local/bin/kerf-plugin"], "User": "0:0" });
    with_files(place, "plugin", PLUGIN, &files, &run)
}

/// Builds an image of kerf's extender, like `images/extender.Dockerfile` except that the program is not static, and
/// returns its archive.
///
/// # Errors
/// Where a program fails.
pub fn extender(place: &Place, program: &Path) -> anyhow::Result<PathBuf> {
    let run = json!({ "Entrypoint": ["/kerf-extender"], "User": "65532:65532" });
    with_files(place, "extender", EXTENDER, &[(program, "kerf-extender")], &run)
}

/// The images of extender and plugin that `release.sh` made, where `KERF_RELEASE` names the folder of its files.
///
/// # Errors
/// Where one is not there.
pub fn released() -> anyhow::Result<Option<[PathBuf; 2]>> {
    let Some(folder) = std::env::var_os("KERF_RELEASE").map(PathBuf::from) else { return Ok(None) };
    let archive = |name: &str| {
        let archive = folder.join(format!("{name}-{}.oci.tar", env!("CARGO_PKG_VERSION")));
        // the nodes have file systems of their own
        fs::canonicalize(&archive).with_context(|| format!("KERF_RELEASE: {}", archive.display()))
    };
    Ok(Some([archive("kerf-extender")?, archive("kerf-plugin")?]))
}

/// Name of the image of kube-scheduler.
pub const SCHEDULER: &str = "registry.k8s.io/kube-scheduler";

/// The version of a program of Kubernetes, such as `v1.36.3`.
///
/// # Errors
/// Where it does not say.
pub fn version(program: &Path) -> anyhow::Result<String> {
    // Kubernetes v1.36.3
    let said = output(Command::new(program).arg("--version"))?;
    Ok(said.trim().rsplit(' ').next().context("no version")?.to_owned())
}

/// Builds an image of kube-scheduler under the name that Kubernetes gives it, of the program's own version, and returns
/// its archive.
///
/// # Errors
/// Where a program fails.
pub fn scheduler(place: &Place, program: &Path) -> anyhow::Result<PathBuf> {
    let tag = format!("{SCHEDULER}:{}", version(program)?);
    let run = json!({ "Entrypoint": ["kube-scheduler"], "Env": ["PATH=/usr/local/bin"] });
    with_files(place, "scheduler", &tag, &[(program, "usr/local/bin/kube-scheduler")], &run)
}

/// An image of programs and libraries at these paths in it, with what they are linked against.
fn with_files(
    place: &Place,
    name: &str,
    tag: &str,
    files: &[(&Path, &str)],
    run: &Value,
) -> anyhow::Result<PathBuf> {
    let tree = place.dir(&format!("images/{name}-tree"))?;
    for (from, to) in files {
        let inside = tree.join(to);
        fs::create_dir_all(inside.parent().context("no directory")?)?;
        fs::copy(from, &inside).with_context(|| from.display().to_string())?;
        libraries(&inside, &tree)?;
    }
    let layer = place.path(&format!("images/{name}-layer.tar"));
    output(Command::new("tar").arg("-cf").arg(&layer).arg("-C").arg(&tree).arg("."))?;
    archive(place, name, tag, &layer, run)
}

/// The file in a line of `ldd`: `name => path (address)`, or `path (address)`, also for the program's own library.
fn path_in(line: &str) -> Option<&str> {
    let (found, _) = line.trim().rsplit_once(" (")?;
    let path = found.rsplit_once(" => ").map_or(found, |(_, path)| path);
    (path.starts_with('/') && !path.ends_with("libcuda.so.1")).then_some(path)
}

/// Writes an archive in the form of `docker save`.
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
