//! The containerd of a node.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::image::PAUSE;
use crate::place::Place;
use crate::process::{Process, Spec};
use crate::tools::{NETWORK_PLUGINS, Tools, output};
use crate::wait::until;

/// Its socket, in the node's mount namespace.
pub(crate) const SOCKET: &str = "/run/containerd/containerd.sock";

/// A running containerd.
#[derive(Debug)]
pub struct Containerd {
    /// The process of containerd.
    pub process: Process,
    inside: u32,
    client: PathBuf,
}

impl Containerd {
    /// Starts it in the mount namespace of `inside`, with its files in `directory`, and waits until it answers.
    ///
    /// # Errors
    /// Where it does not start or answer.
    pub async fn start(
        place: &Arc<Place>,
        tools: &Tools,
        node: &str,
        directory: &Path,
        inside: u32,
    ) -> anyhow::Result<Self> {
        let config = place.write(&format!("nodes/{node}/containerd.toml"), config(directory))?;
        let args = ["--config", &config.display().to_string(), "--address", SOCKET].map(str::to_owned);
        let spec = Spec {
            inside: Some(inside),
            env: vec![("PATH".into(), tools.path())],
            ..Spec::new(format!("containerd-{node}"), tools.program("containerd"), &args)
        };
        let started = Self { process: Process::start(place, spec)?, inside, client: tools.program("ctr") };
        until(Duration::from_secs(30), "containerd answers", async || {
            started.process.check()?;
            started.ctr(&["version"]).map(drop)
        })
        .await?;
        Ok(started)
    }

    /// Imports an image archive.
    ///
    /// # Errors
    /// Those of `ctr`.
    pub fn import(&self, archive: &Path) -> anyhow::Result<()> {
        let archive = archive.display().to_string();
        self.ctr(&["images", "import", "--local", "--snapshotter", "native", &archive]).map(drop)
    }

    /// Gives an image one more name.
    ///
    /// # Errors
    /// Those of `ctr`.
    pub fn tag(&self, image: &str, name: &str) -> anyhow::Result<()> {
        self.ctr(&["images", "tag", "--force", image, name]).map(drop)
    }

    fn ctr(&self, args: &[&str]) -> anyhow::Result<String> {
        let all = [&["--address", SOCKET, "--namespace", "k8s.io"], args].concat();
        let args: Vec<String> = all.into_iter().map(str::to_owned).collect();
        output(&mut Spec { inside: Some(self.inside), ..Spec::new("ctr", &self.client, &args) }.command())
    }
}

fn config(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri"]
# nobody who has not its rights may raise an OOM score, and containerd may not have them
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
disable_apparmor = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{NETWORK_PLUGINS}"]
conf_dir = "{directory}/net.d"
# copies instead of overlays: works on every file system, and the image is small
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
snapshotter = "native"
[plugins."io.containerd.cri.v1.images"]
snapshotter = "native"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE}"
"#
    )
}
