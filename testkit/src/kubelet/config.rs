//! How a kubelet is set up, and which behaviour of the real one a test wants.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;

/// The longest path that fits into `sockaddr_un` with its final zero.
const MAX_SOCKET_PATH: usize = 107;

/// One node's kubelet.
#[derive(Clone, Debug)]
pub struct KubeletConfig {
    /// The node's name.
    pub node: String,
    /// Base URL of the API server.
    pub api_url: String,
    /// Where `kubelet.sock` for registrations and the plugins' sockets are.
    pub device_plugins_dir: PathBuf,
    /// Where `kubelet.sock` of the pod resources API is.
    pub pod_resources_dir: PathBuf,
    /// Labels of the Node object.
    pub labels: BTreeMap<String, String>,
    /// Its version, as shown in its Node.
    pub version: String,
    /// Seeds all random orders.
    pub seed: u64,
    /// Whether orders that the real kubelet leaves open are random: device ids, resources of a container,
    /// start of containers between allocations of other pods, merging of answers. Else they are sorted.
    pub shuffle: bool,
    /// Whether pods that need a resource without a plugin are handled at once, as the real one does: refused if
    /// the resource is known from before a restart, run without devices if not. Otherwise they wait.
    pub reject_unregistered: bool,
    /// Whether a preference is asked for even if all free devices are needed, as the real one does for devices
    /// without topology.
    pub ask_without_choice: bool,
    /// Whether the late end of a replaced plugin's stream disconnects its successor: kubelet's bug before
    /// Kubernetes pull request 135437.
    pub stale_disconnect: bool,
    /// Pause before a failed container start is tried again.
    pub start_retry: Duration,
}

impl KubeletConfig {
    /// A kubelet whose directories are below `dir`, with the real one's behaviour.
    pub fn new(node: &str, api_url: impl Into<String>, dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        Self {
            node: node.to_owned(),
            api_url: api_url.into(),
            device_plugins_dir: dir.join("device-plugins"),
            pod_resources_dir: dir.join("pod-resources"),
            labels: BTreeMap::new(),
            version: "v1.36.0-testkit".to_owned(),
            seed: 0,
            shuffle: true,
            reject_unregistered: false,
            ask_without_choice: true,
            stale_disconnect: false,
            start_retry: Duration::from_millis(100),
        }
    }

    /// The socket at which plugins register.
    pub fn registration_socket(&self) -> PathBuf {
        self.device_plugins_dir.join(kerf_proto::deviceplugin::KUBELET_SOCKET)
    }

    /// The socket of the pod resources API.
    pub fn pod_resources_socket(&self) -> PathBuf {
        self.pod_resources_dir.join(kerf_proto::deviceplugin::KUBELET_SOCKET)
    }

    pub(crate) fn check(&self) -> anyhow::Result<()> {
        for socket in [self.registration_socket(), self.pod_resources_socket()] {
            let length = socket.as_os_str().len();
            ensure!(
                length <= MAX_SOCKET_PATH,
                "socket path {} has {length} bytes, at most {MAX_SOCKET_PATH} are possible",
                socket.display()
            );
        }
        Ok(())
    }
}
