//! What a container gets for its ids. Reads the host's directories and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use kerf_proto::deviceplugin::{CdiDevice, ContainerAllocateResponse, DeviceSpec, Mount};

use crate::device::backend::{HostDevice, Part};
use crate::device::roots::Roots;
use crate::offer::pool::{self, Pool};
use crate::vendor::intel::scan;

/// How cards are handed to containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gift {
    /// Permissions of device files; `None`: no device files.
    pub nodes: Option<&'static str>,
    /// Device files beside those of the cards and of their driver, by name below `/dev`; only those that exist.
    pub extra_nodes: Vec<&'static str>,
    /// Whether `NVIDIA_VISIBLE_DEVICES` names the cards to NVIDIA's container runtime.
    pub visible: bool,
    /// Whether the runtime is told by mounts below `/var/run/nvidia-container-devices`.
    pub visible_mounts: bool,
    /// Whether cards are called by index and not by UUID in what the runtime is told.
    pub by_index: bool,
    /// Whether `ZE_AFFINITY_MASK` tells Level Zero the indices of the cards.
    pub affinity: bool,
    /// Directories for every container: on the host, and inside, read-only.
    pub libraries: Vec<(PathBuf, PathBuf)>,
    /// Which links below `/dev/dri/by-path` are mounted.
    pub by_path: ByPath,
    /// Name cards to the runtime as `<kind>=<name>` (CDI).
    pub cdi: Option<Cdi>,
    /// Whether the monitoring engines of the cards come with [`pool::ALL`].
    pub engines: bool,
}

/// Which links below `/dev/dri/by-path` a container gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ByPath {
    /// None.
    #[default]
    None,
    /// Those of its GPUs.
    Single,
    /// The directory.
    All,
}

/// CDI names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cdi {
    /// `vendor.com/class`
    pub kind: String,
    /// Where the names are written: `None` if somebody else describes the cards.
    pub directory: Option<PathBuf>,
    /// The prefix of an annotation that names them; `None`: the field of the answer.
    pub annotation: Option<String>,
}

/// Why ids are not given out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such id.
    #[error("there is no device {0:?}")]
    Unknown(String),
    /// The card is gone or ill.
    #[error("device {0:?} is unhealthy")]
    Unhealthy(String),
    /// The profile gives one share to a container.
    #[error("{0} shares are asked for, and a container may have one")]
    Several(usize),
}

impl Refusal {
    /// The word used in metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "unknown-id",
            Self::Unhealthy(_) => "unhealthy",
            Self::Several(_) => "several-shares",
        }
    }
}

/// What the container of these ids gets.
///
/// # Errors
/// [`Refusal`]; kubelet fails the pod.
pub fn answer(
    gift: &Gift,
    one_share: bool,
    roots: &Roots,
    pool: &Pool,
    ids: &[String],
) -> Result<ContainerAllocateResponse, Refusal> {
    let ids: BTreeSet<&String> = ids.iter().collect();
    if one_share && ids.len() > 1 {
        return Err(Refusal::Several(ids.len()));
    }
    let mut hosts: BTreeMap<&str, &HostDevice> = BTreeMap::new();
    let mut all = false;
    for id in ids {
        let unit = pool.get(id).ok_or_else(|| Refusal::Unknown(id.clone()))?;
        if pool::ill(unit) {
            return Err(Refusal::Unhealthy(id.clone()));
        }
        all |= id == pool::ALL;
        let well = unit.hosts.iter().filter(|host| host.device.usable());
        hosts.extend(well.map(|host| (host.device.id.as_str(), host.as_ref())));
    }
    let mut hosts: Vec<&HostDevice> = hosts.into_values().collect();
    hosts.sort_by_key(|host| host.device.index);
    let mut response = ContainerAllocateResponse::default();
    if let Some(permissions) = gift.nodes {
        response.devices = nodes(gift, roots, &hosts, all, permissions);
    }
    let names: Vec<String> = hosts.iter().map(|host| runtime_name(gift, host)).collect();
    if gift.visible {
        response.envs.insert("NVIDIA_VISIBLE_DEVICES".to_owned(), names.join(","));
    }
    if gift.affinity {
        let indices: Vec<String> = hosts.iter().map(|host| host.device.index.to_string()).collect();
        response.envs.insert("ZE_AFFINITY_MASK".to_owned(), indices.join(","));
    }
    if gift.visible_mounts {
        response.envs.insert("NVIDIA_VISIBLE_DEVICES".to_owned(), "/var/run/nvidia-container-devices".to_owned());
        let mount = |name: &String| mount("/dev/null", &format!("/var/run/nvidia-container-devices/{name}"));
        response.mounts.extend(names.iter().map(mount));
    }
    let libraries = gift.libraries.iter();
    response
        .mounts
        .extend(libraries.map(|(host, inside)| mount(&host.to_string_lossy(), &inside.to_string_lossy())));
    let paths: Vec<PathBuf> = match gift.by_path {
        ByPath::None => Vec::new(),
        ByPath::All => vec!["/dev/dri/by-path".into()],
        ByPath::Single => hosts.iter().flat_map(|host| scan::by_path(roots, &host.pci)).collect(),
    };
    response.mounts.extend(paths.iter().map(|path| mount(&path.to_string_lossy(), &path.to_string_lossy())));
    if let Some(cdi) = &gift.cdi {
        let names = hosts.iter().map(|host| match &cdi.directory {
            Some(_) => format!("{}={}", cdi.kind, host.origin.name),
            None => format!("{}={}", cdi.kind, runtime_name(gift, host)),
        });
        match &cdi.annotation {
            Some(prefix) => {
                let value = names.collect::<Vec<_>>().join(",");
                response.annotations.insert(format!("{prefix}kerf-plugin_cards"), value);
            }
            None => response.cdi_devices = names.map(|name| CdiDevice { name }).collect(),
        }
    }
    Ok(response)
}

/// The name by which NVIDIA's runtime knows a device.
fn runtime_name(gift: &Gift, host: &HostDevice) -> String {
    match (&host.origin.part, gift.by_index) {
        (Part::Instance { .. }, _) | (_, false) => host.device.id.to_string(),
        (_, true) => host.device.index.to_string(),
    }
}

fn nodes(gift: &Gift, roots: &Roots, hosts: &[&HostDevice], all: bool, permissions: &str) -> Vec<DeviceSpec> {
    let mut paths: Vec<PathBuf> = Vec::new();
    let control = hosts.iter().flat_map(|host| host.control_nodes.clone());
    let own = hosts.iter().flat_map(|host| host.nodes.clone());
    let extra = gift.extra_nodes.iter().filter(|_| !hosts.is_empty()).filter_map(|name| roots.node(name));
    let engines = hosts.iter().filter(|_| all && gift.engines);
    let engines = engines.flat_map(|host| scan::monitoring_nodes(roots, &host.origin.name));
    for path in control.chain(own).chain(extra).chain(engines) {
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    paths.iter().map(|path| spec(path, permissions)).collect()
}

/// A device file, inside as on the host.
pub(super) fn spec(path: &std::path::Path, permissions: &str) -> DeviceSpec {
    let path = path.display().to_string();
    DeviceSpec { container_path: path.clone(), host_path: path, permissions: permissions.to_owned() }
}

fn mount(host: &str, inside: &str) -> Mount {
    Mount { container_path: inside.to_owned(), host_path: host.to_owned(), read_only: true }
}
