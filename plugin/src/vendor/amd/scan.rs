//! AMD GPUs, from sysfs: the `amdgpu` driver's PCI devices and partitions, joined with the compute driver's
//! topology.
//!
//! ```text
//!   /sys/module/amdgpu/drivers/pci:amdgpu/<address>/drm/renderD<M>   a GPU (partition 0 of a partitioned one)
//!   /sys/devices/platform/amdgpu_xcp_<n>/drm/renderD<M>              any further partition; on some kernels amdgpu_xcp.<n>
//!   /sys/class/kfd/kfd/topology/nodes/<k>: drm_render_minor M, location_id, mem_banks, io_links
//! ```
//!
//! The render minor joins the two, and the PCI address in the topology must be the GPU's: nothing is matched by
//! position. A device's id is its PCI address, that of a further partition its platform name, as in AMD's own
//! plugin and its metrics exporter. Facts about the files follow `drivers/gpu/drm/amd/amdkfd` of the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kerf::device::Device;
use kerf_proto::amd::Nothing;
use kerf_proto::amd::metrics_service_client::MetricsServiceClient;

use crate::device::backend::{BackendError, HostDevice, Origin, Part, Usage, Vendor};
use crate::device::facts::{AmdFacts, Facts};
use crate::device::pci;
use crate::device::roots::{self, Fault, Roots};
use crate::device::scan::{self, Remark, Scan, ScanIssue};
use crate::vendor::amd::topology::{self, Node, Topology};
use crate::vendor::reporter::{blocking, connect};
use crate::vendor::scanner::{Files, Scanner};

const DRIVER: &str = "amdgpu";
const VENDOR: u32 = 0x1002;
/// The driver's PCI devices and the compute driver's topology, below `/sys`.
const CARDS: &str = "module/amdgpu/drivers/pci:amdgpu";
const TOPOLOGY: &str = "class/kfd/kfd/topology";
/// What the names of further partitions begin with. Since April 2024 the driver writes the number itself
/// (`amdgpu_xcp_7`); before that the platform bus did, after a dot (`amdgpu_xcp.7`).
const PARTITION: &str = "amdgpu_xcp";

#[derive(Clone, Debug, Default, PartialEq)]
pub struct AmdOptions {
    /// Where the host's files are mounted.
    pub roots: Roots,
    /// Socket of AMD's metrics exporter; `None`: it is not asked about the GPUs' health.
    pub exporter: Option<PathBuf>,
}

/// What a GPU's partitions inherit.
#[derive(Clone, Debug)]
struct Parent {
    numa: Option<u32>,
    model: Arc<str>,
    origin: Origin,
    /// The same for all partitions.
    facts: AmdFacts,
}

/// A scan in progress.
struct Host<'a> {
    roots: &'a Roots,
    topology: Topology,
    kfd: PathBuf,
    scan: Scan,
    /// The devices found so far, by their topology nodes. Until all are found, their links name nodes.
    indices: BTreeMap<u32, u32>,
    /// The render minors that the directories of devices name, offered or left out.
    named: BTreeSet<u32>,
    /// By PCI address without the function.
    parents: BTreeMap<String, Parent>,
}

impl Host<'_> {
    fn card(&mut self, address: &str, dir: &Path) -> Result<(), ScanIssue> {
        let vendor = dir.join("vendor");
        if let Some(other) = roots::if_there(roots::hex(&vendor))?.filter(|vendor| *vendor != VENDOR) {
            return Err(Fault::malformed(&vendor, &format!("0x{other:04x}"), "0x1002").into());
        }
        let numa = self.scan.noted(address, roots::numa(dir));
        // one that cannot be read now is not one that is missing: the GPU has not lost its layout
        let mode = |file: &str| {
            let text = roots::if_there(roots::text(&dir.join(file)))?;
            Ok::<_, Fault>(text.unwrap_or_default().to_ascii_lowercase())
        };
        let (compute, memory) = (mode("current_compute_partition")?, mode("current_memory_partition")?);
        let partitioned = !compute.is_empty() && !memory.is_empty();
        let layout = if partitioned { format!("{compute}_{memory}") } else { String::new() };
        let (card, minor) = self.numbers(dir)?;
        // the card's number must lead back to this address where sysfs has the path
        let class = self.roots.sys.join("class/drm").join(format!("card{card}")).join("device");
        let other = roots::target_name(&class).filter(|owner| owner != address).or_else(|| {
            let vendor = roots::hex(&class.join("vendor")).ok().filter(|vendor| *vendor != VENDOR)?;
            Some(format!("vendor 0x{vendor:04x}"))
        });
        if let Some(owner) = other {
            return Err(ScanIssue::Foreign { name: format!("card{card}"), owner });
        }
        let model_id = roots::text(&class.join("device")).unwrap_or_default();
        let named = roots::text(&class.join("product_name")).unwrap_or_default();
        let facts = facts(self.roots, dir, &named);
        let model = if named.is_empty() { format!("AMD {model_id}").trim_end().to_owned() } else { named };
        let (number, node) = self.topology.get(&minor).cloned().ok_or(ScanIssue::NotInTopology(minor))?;
        let bare = bare(address);
        if node.card != bare {
            return Err(ScanIssue::OtherInTopology { minor, owner: node.card });
        }
        let origin = Origin {
            vendor: Vendor::Amd,
            driver: DRIVER.into(),
            card: bare.into(),
            layout: layout.into(),
            model_id: model_id.into(),
            ..Origin::default()
        };
        let parent = Parent { numa, model: model.into(), origin, facts };
        self.parents.insert(bare.to_owned(), parent.clone());
        self.found(address, Part::Whole, (card, minor), (number, &node), parent)
    }

    /// The numbers of a device's files in `/dev/dri`, `card<N>` and `renderD<M>`.
    fn numbers(&mut self, dir: &Path) -> Result<(u32, u32), ScanIssue> {
        let drm = dir.join("drm");
        let minor = one(&drm, "renderD")?;
        self.named.insert(minor);
        Ok((one(&drm, "card")?, minor))
    }

    fn partition(&mut self, name: &str, dir: &Path) -> Result<(), ScanIssue> {
        let (card, minor) = self.numbers(dir)?;
        let (number, node) = self.topology.get(&minor).cloned().ok_or(ScanIssue::NotInTopology(minor))?;
        let Some(parent) = self.parents.get(&node.card).cloned() else {
            // a partition of a GPU that was left out, or of no GPU
            return Err(ScanIssue::Foreign { name: format!("renderD{minor}"), owner: node.card });
        };
        self.found(name, Part::Partition, (card, minor), (number, &node), parent)
    }

    fn found(
        &mut self,
        id: &str,
        part: Part,
        (card, minor): (u32, u32),
        (number, node): (u32, &Node),
        Parent { numa, model, origin, mut facts }: Parent,
    ) -> Result<(), ScanIssue> {
        let render = scan::node(self.roots, &format!("dri/renderD{minor}"))?;
        // compute needs the render node alone
        let own = scan::node(self.roots, &format!("dri/card{card}")).map(Some);
        let nodes = self.scan.noted(id, own).into_iter().chain([render]).collect();
        if node.memory.0 == 0 {
            self.scan.note(id, ScanIssue::NoMemory);
        }
        let (mut pci, control_nodes) = (id.to_owned(), vec![self.kfd.clone()]);
        if part != Part::Whole {
            pci.clear();
            facts.firmware.clear();
        }
        (facts.gfx, facts.simds, facts.simds_per_cu) = (node.gfx, node.simds, node.simds_per_cu);
        let facts = Facts::Amd(Arc::new(facts));
        let device = Device { model, numa, links: node.links.clone(), ..Device::new(id, card, node.memory) };
        self.indices.insert(number, card);
        let host = HostDevice::new(device, Origin { name: id.into(), part, ..origin });
        self.scan.devices.push(HostDevice { pci, nodes, control_nodes, facts, ..host });
        Ok(())
    }

    /// Leaves out the topology's GPUs whose render minor no device has. Nodes of a GPU that is left out itself are
    /// not told again.
    fn unclaimed(&mut self) {
        let out = self.scan.remarks.iter().filter(|remark| remark.left_out);
        let known: BTreeSet<String> = out.map(|remark| bare(&remark.subject).to_owned()).collect();
        for (minor, (number, node)) in &self.topology {
            if !self.named.contains(minor) && !known.contains(&node.card) {
                let why = ScanIssue::Unclaimed { minor: *minor, card: node.card.clone() };
                self.scan.leave_out(&format!("KFD node {number}"), why);
            }
        }
    }

    /// Links between topology nodes become links between the devices that were found.
    fn linked(mut self) -> Scan {
        for Device { index, links, .. } in self.scan.devices.iter_mut().map(|host| &mut host.device) {
            let of_nodes = std::mem::take(links).into_iter();
            let of_devices = of_nodes.filter_map(|(to, link)| Some((*self.indices.get(&to)?, link)));
            *links = of_devices.filter(|(to, _)| to != index).collect();
        }
        self.scan
    }
}

/// The facts in the directories of a GPU and of the module. `product` is the GPU's name, if it has one.
fn facts(roots: &Roots, dir: &Path, product: &str) -> AmdFacts {
    let module = |file: &str| roots::text(&roots.sys.join("module/amdgpu").join(file)).unwrap_or_default().into();
    let versions = dir.join("fw_version");
    // GPUs have different ones, and a driver without the directory tells none
    let firmware = roots::names(&versions).unwrap_or_default().into_iter().filter_map(|file| {
        let version = roots::hex(&versions.join(&file)).ok()?;
        Some((file.strip_suffix("_fw_version")?.to_owned(), version))
    });
    AmdFacts {
        product: product.into(),
        driver_version: module("version"),
        driver_source: module("srcversion"),
        compute_partitions: dir.join("available_compute_partition").exists(),
        memory_partitions: dir.join("available_memory_partition").exists(),
        firmware: firmware.collect(),
        ..AmdFacts::default()
    }
}

/// What may bring GPUs although the driver's files show none that can be used: one on the bus whose driver is not
/// bound or not ready yet, or the compute driver's own list.
pub(super) fn awaited(roots: &Roots) -> Option<String> {
    let mut gpus = pci::gpus(roots, VENDOR).into_iter().filter(|gpu| !gpu.function && !gpu.ready);
    if let Some(gpu) = gpus.find(|gpu| gpu.driver.as_deref().is_none_or(|driver| driver == DRIVER)) {
        return Some(format!("{} is on the PCI bus", gpu.address));
    }
    let topology = topology::read(&roots.sys.join(TOPOLOGY), &mut Scan::default()).ok()?;
    (!topology.is_empty()).then(|| "the KFD topology has GPUs".to_owned())
}

/// A PCI address without its function.
fn bare(address: &str) -> &str {
    address.rsplit_once('.').map_or(address, |(bare, _)| bare)
}

/// The number of a further partition, by the name of its platform device.
fn partition_number(name: &str) -> Option<u32> {
    roots::suffix(name.strip_prefix(PARTITION)?.strip_prefix(['_', '.'])?, "")
}

/// The name of a device with an underscore before the number of a partition, however it is spelled.
fn underscored(name: &str) -> String {
    partition_number(name).map_or_else(|| name.to_owned(), |number| format!("{PARTITION}_{number}"))
}

/// The number of the only entry with this prefix.
fn one(dir: &Path, prefix: &'static str) -> Result<u32, ScanIssue> {
    match roots::numbered(dir, prefix)?.as_slice() {
        [number] => Ok(*number),
        several => Err(ScanIssue::Nodes { path: dir.to_owned(), kind: prefix, found: several.len() }),
    }
}

impl Files for AmdOptions {
    const NAME: &'static str = "amd";

    fn scan(&self) -> Result<Scan, BackendError> {
        let roots = &self.roots;
        let unavailable = |reason: String| BackendError::Unavailable { backend: Self::NAME, reason };
        let drivers = roots.sys.join(CARDS);
        let cards = roots::names(&drivers).map_err(|fault| unavailable(format!("driver amdgpu: {fault}")))?;
        let mut scan = Scan::default();
        let topology = topology::read(&roots.sys.join(TOPOLOGY), &mut scan)
            .map_err(|fault| unavailable(format!("compute driver KFD: {fault}")))?;
        let kfd =
            roots.node("kfd").ok_or_else(|| unavailable("the host has no device file /dev/kfd".to_owned()))?;
        let (indices, named, parents) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        let mut host = Host { roots, topology, kfd, scan, indices, named, parents };
        for address in cards.iter().filter(|name| roots::is_address(name)) {
            if let Err(why) = host.card(address, &drivers.join(address)) {
                host.scan.leave_out(address, why);
            }
        }
        let platform = roots.sys.join("devices/platform");
        let mut partitions = roots::names(&platform).unwrap_or_default();
        partitions.retain(|name| partition_number(name).is_some());
        partitions.sort_by_key(|name| partition_number(name));
        for name in &partitions {
            if let Err(why) = host.partition(name, &platform.join(name)) {
                host.scan.leave_out(name, why);
            }
        }
        host.unclaimed();
        Ok(host.linked().settle())
    }

    fn missing(&self, scan: Result<&Scan, &BackendError>) -> Vec<Remark> {
        let devices = scan.iter().flat_map(|scan| scan.devices.iter().map(|host| host.pci.clone()));
        let told = scan.iter().flat_map(|scan| scan.remarks.iter().filter(|remark| remark.left_out));
        let known = devices.chain(told.map(|remark| remark.subject.clone())).collect();
        pci::left_out(&self.roots, VENDOR, &[DRIVER], &known, |_| match scan {
            Ok(_) => ScanIssue::NotListed(DRIVER.to_owned()),
            Err(error) => ScanIssue::Unavailable(error.to_string()),
        })
    }

    /// AMD's metrics exporter knows it. Blocks; not to be called from an async task.
    fn unhealthy(&self, hosts: &[HostDevice]) -> Result<Vec<String>, Remark> {
        // it need not be there: it is looked for where it usually is
        let Some(socket) = &self.exporter else { return Ok(Vec::new()) };
        let told: BTreeSet<String> = blocking(async {
            let mut client = MetricsServiceClient::new(connect(socket).await?);
            let states = client.list(Nothing {}).await.ok()?.into_inner().gpu_state.into_iter();
            let unhealthy = states.filter(|state| state.health == "unhealthy");
            // the exporter need not spell a partition as this kernel does
            Some(unhealthy.map(|state| underscored(&state.device)).collect())
        });
        let ids = hosts.iter().map(|host| host.device.id.to_string());
        Ok(ids.filter(|id| told.contains(&underscored(id))).collect())
    }

    fn usage(scanner: &Scanner<Self>) -> Result<Usage, BackendError> {
        let sys = &scanner.files.roots.sys;
        let topology = topology::read(&sys.join(TOPOLOGY), &mut Scan::default()).map_err(|fault| {
            BackendError::Failed { backend: Self::NAME, question: "usage", reason: fault.to_string() }
        })?;
        let devices = scanner.files.scan()?.devices;
        let mut usage = Usage::sizes(&devices);
        for host in &devices {
            let Some(gpu) = usage.gpus.get_mut(&host.device.id) else { continue };
            let minor = host.nodes.iter().find_map(|node| roots::suffix(node.file_name()?.to_str()?, "renderD"));
            gpu.memory_used = minor.and_then(|minor| topology.get(&minor)).and_then(|(_, node)| node.used);
            let busy = roots::number::<u32>(&sys.join(CARDS).join(&host.pci).join("gpu_busy_percent"));
            gpu.utilization = busy.ok().filter(|percent| *percent <= 100 && !host.pci.is_empty());
        }
        Ok(usage)
    }
}
