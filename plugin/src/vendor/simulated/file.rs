//! GPUs from a file: for trying kerf without a GPU, for tests and the demo.
//!
//! The file is TOML. It is read again on every call if its content has changed, so editing it makes GPUs unhealthy
//! or healthy and changes their load. Invalid new content is logged once and counted; the last valid content stays
//! in force.
//!
#![doc = concat!("```toml\n", include_str!("simulated.toml"), "```")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{anyhow, bail, ensure};
use kerf::device::{Device, Health};
use kerf::ids::{DeviceId, PodRef};
use kerf::units::Mib;
use parking_lot::Mutex;
use serde::Deserialize;

use crate::base::files;
use crate::device::backend::{Backend, BackendError, GpuUsage, HostDevice, Origin, Part, ProcessUsage, Usage};

const NAME: &str = "simulated";
/// More than any machine has, and a bound on the cost of a typing error.
const MAX_CARDS: usize = 64;
/// The longest file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// GPUs that a file describes.
pub struct Simulated {
    options: SimulatedOptions,
    state: Mutex<State>,
}

#[derive(Clone, Debug, Default)]
pub struct SimulatedOptions {
    pub path: PathBuf,
    /// How often its content was found unusable.
    pub errors: Arc<AtomicU64>,
}

#[derive(Default)]
struct State {
    /// The content that was read last, valid or not.
    text: Option<String>,
    good: Option<File>,
    /// Why the present content is not used.
    fault: Option<String>,
}

/// A file's content, checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct File {
    /// Why the driver is to look unavailable; `None`: it is available.
    pub unavailable: Option<String>,
    pub devices: Vec<HostDevice>,
    /// The usage of the GPUs and their processes.
    pub usage: Usage,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    unavailable: Option<String>,
    #[serde(default)]
    gpu: Vec<WireGpu>,
    #[serde(default)]
    process: Vec<WireProcess>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireGpu {
    count: Option<u32>,
    uuid: Option<String>,
    index: Option<u32>,
    model: Option<String>,
    memory_mib: u64,
    numa: Option<u32>,
    healthy: Option<bool>,
    #[serde(default)]
    partition: bool,
    #[serde(default)]
    device_nodes: Vec<PathBuf>,
    #[serde(default)]
    links: BTreeMap<String, String>,
    utilization: Option<u32>,
    memory_used_mib: Option<u64>,
    temperature_celsius: Option<u32>,
    power_milliwatts: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireProcess {
    pid: u32,
    gpu: DeviceId,
    memory_mib: Option<u64>,
    utilization: Option<u32>,
    pod: Option<String>,
    container: Option<String>,
}

/// Reads a file's content.
///
/// # Errors
/// Where it cannot be used, for people to read; no part of an invalid file is used.
pub fn parse(text: &str) -> anyhow::Result<File> {
    let wire: Wire = toml::from_str(text)?;
    let mut file = File { unavailable: wire.unavailable, ..File::default() };
    let mut next = 0;
    for gpu in &wire.gpu {
        let first = gpu.index.unwrap_or(next);
        let end = first.checked_add(gpu.count.unwrap_or(1));
        for index in first..end.ok_or_else(|| anyhow!("index {first} or count is too large"))? {
            ensure!(file.devices.len() < MAX_CARDS, "more than {MAX_CARDS} GPUs");
            let (device, usage) = card(gpu, index)?;
            let twice = |known: &HostDevice| known.device.id == device.device.id || known.device.index == index;
            let id = &device.device.id;
            ensure!(!file.devices.iter().any(twice), "uuid {:?} or its index is used twice", id.as_str());
            file.usage.gpus.insert(id.clone(), usage);
            file.devices.push(device);
            next = index + 1;
        }
    }
    for wire in wire.process {
        ensure!(file.usage.gpus.contains_key(&wire.gpu), "process {}: no GPU {:?}", wire.pid, wire.gpu);
        let pod = wire.pod.as_ref().map(|pod| pod.split_once('/'));
        let owner = match (pod, &wire.container) {
            (None, None) => None,
            (Some(Some((namespace, name))), Some(container)) => {
                Some((PodRef::new(namespace, name), container.as_str().into()))
            }
            _ => bail!("process {}: pod must be \"namespace/name\" and go with container", wire.pid),
        };
        file.usage.processes.push(ProcessUsage {
            pid: wire.pid,
            device: wire.gpu,
            memory: wire.memory_mib.map(|mib| Mib(mib).bytes()),
            utilization: wire.utilization,
            owner,
        });
    }
    Ok(file)
}

fn card(wire: &WireGpu, index: u32) -> anyhow::Result<(HostDevice, GpuUsage)> {
    let uuid = match (&wire.uuid, wire.count) {
        (Some(uuid), None) => uuid.clone(),
        (uuid, _) => format!("{}-{index}", uuid.as_deref().unwrap_or("GPU-simulated")),
    };
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    ensure!(
        (1..=50).contains(&uuid.len()) && uuid.chars().all(legal),
        "uuid {uuid:?}: expected 1 to 50 letters, digits, '-', '_' or '.'"
    );
    let mut device = Device::new(uuid.as_str(), index, Mib(wire.memory_mib));
    device.model = wire.model.as_deref().unwrap_or("Simulated GPU").into();
    device.numa = wire.numa;
    device.health = if wire.healthy.unwrap_or(true) { Health::Healthy } else { Health::Unhealthy };
    for (peer, link) in &wire.links {
        let peer: u32 = peer.parse().map_err(|_| anyhow!("links: {peer:?} is not a GPU index"))?;
        if peer != index {
            device.links.insert(peer, link.parse()?);
        }
    }
    let usage = GpuUsage {
        utilization: wire.utilization,
        memory_used: wire.memory_used_mib.map(|mib| Mib(mib).bytes()),
        memory_total: Some(Mib(wire.memory_mib).bytes()),
        temperature: wire.temperature_celsius,
        power: wire.power_milliwatts,
    };
    let instance = Part::Instance { gi: 0, ci: 0, profile: "".into() };
    let origin = Origin { part: if wire.partition { instance } else { Part::Whole }, ..Origin::default() };
    let host = HostDevice { nodes: wire.device_nodes.clone(), ..HostDevice::new(device, origin) };
    Ok((host, usage))
}

impl Simulated {
    /// The file need not exist yet.
    pub fn new(options: SimulatedOptions) -> Self {
        Self { options, state: Mutex::default() }
    }

    fn read(&self) -> anyhow::Result<String> {
        files::read_some(&self.options.path, MAX_BYTES).map_err(|error| anyhow!("cannot be read: {error}"))
    }

    fn current(&self) -> Result<File, BackendError> {
        let read = self.read();
        let mut state = self.state.lock();
        let verdict = match read {
            Ok(text) if state.text.as_ref() == Some(&text) => None,
            Ok(text) => Some(parse(state.text.insert(text))),
            // a file that is being replaced may be missing for a moment; that is reported only once
            Err(error) => {
                state.fault = Some(error.to_string());
                state.text.take().map(|_| Err(error))
            }
        };
        match verdict {
            Some(Ok(file)) => (state.good, state.fault) = (Some(file), None),
            Some(Err(error)) => {
                self.options.errors.fetch_add(1, Ordering::Relaxed);
                tracing::error!(path = %self.options.path.display(), %error, "simulated GPUs: file not used");
                state.fault = Some(error.to_string());
            }
            None => {}
        }
        let unavailable = |reason: String| BackendError::Unavailable { backend: NAME, reason };
        let file = state.good.clone().ok_or_else(|| {
            let (path, fault) = (self.options.path.display(), state.fault.as_deref().unwrap_or_default());
            unavailable(format!("no usable content in {path} so far: {}", fault.trim_end()))
        })?;
        match file.unavailable {
            Some(reason) => Err(unavailable(reason)),
            None => Ok(file),
        }
    }
}

impl Backend for Simulated {
    fn name(&self) -> &'static str {
        NAME
    }

    fn discover(&self) -> Result<Vec<HostDevice>, BackendError> {
        Ok(self.current()?.devices)
    }

    fn usage(&self) -> Result<Usage, BackendError> {
        Ok(self.current()?.usage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_example_is_right() {
        let file = parse(include_str!("simulated.toml")).unwrap();
        let ids: Vec<_> = file.devices.iter().map(|host| host.device.id.to_string()).collect();
        assert_eq!(ids, ["GPU-simulated-0", "GPU-simulated-1"]);
        assert_eq!(file.usage.processes.len(), 1);
    }

    #[test]
    fn each_error_of_a_file_has_its_name() {
        let error = |text: &str| parse(text).unwrap_err().to_string();
        let gpu = "[[gpu]]\nmemory_mib = 256\n";
        assert!(error("x").contains("TOML parse error"));
        assert!(error("[[gpu]]").contains("memory_mib"));
        assert!(error("[[gpu]]\nmemory_mib = -1").contains("memory_mib"));
        assert!(error(&format!("{gpu}typo = 1")).contains("typo"));
        assert!(error(&format!("{gpu}count = 65")).contains("more than 64"));
        assert!(error(&format!("{gpu}index = 0\n{gpu}index = 0")).contains("twice"));
        assert!(error(&format!("{gpu}uuid = \"a::b\"")).contains("uuid"));
        assert!(error(&format!("{gpu}index = 4294967295")).contains("index 4294967295"));
        assert!(error(&format!("{gpu}index = 4294967290\ncount = 9")).contains("index 4294967290"));
        assert!(error(&format!("{gpu}links = {{ 1 = \"XYZ\" }}")).contains("XYZ"));
        assert!(error(&format!("{gpu}links = {{ x = \"PIX\" }}")).contains("index"));
        assert!(error(&format!("{gpu}[[process]]\npid = 1\ngpu = \"no\"")).contains("no GPU"));
        let process = "[[process]]\npid = 1\ngpu = \"GPU-simulated-0\"\n";
        assert!(error(&format!("{gpu}{process}pod = \"a/b\"")).contains("container"));
        assert!(error(&format!("{gpu}{process}pod = \"b\"\ncontainer = \"c\"")).contains("namespace/name"));
    }

    #[test]
    fn bad_content_is_counted_once_and_the_last_good_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gpus.toml");
        let options = SimulatedOptions { path: path.clone(), ..SimulatedOptions::default() };
        let errors = || options.errors.load(Ordering::Relaxed);
        let backend = Simulated::new(options.clone());
        let why = || backend.discover().unwrap_err().to_string();
        assert!(why().contains("No such file"), "{}", why());
        std::fs::write(&path, "[[gpu]]\nmemory = 256\n").unwrap();
        assert!(why().contains("unknown field `memory`"), "{}", why());
        assert_eq!(options.errors.swap(0, Ordering::Relaxed), 1);
        std::fs::write(&path, "[[gpu]]\nmemory_mib = 256\n").unwrap();
        assert_eq!(backend.discover().unwrap().len(), 1);
        std::fs::write(&path, "[[gpu]]\nmemory_mib = \"much\"\n").unwrap();
        assert_eq!(backend.discover().unwrap().len(), 1);
        assert_eq!(backend.discover().unwrap().len(), 1);
        assert_eq!(errors(), 1);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(backend.discover().unwrap().len(), 1);
        assert_eq!(errors(), 2);
        std::fs::write(&path, "[[gpu]]\nmemory_mib = 256\nhealthy = false\n").unwrap();
        assert_eq!(backend.health().unwrap().into_values().collect::<Vec<_>>(), [Health::Unhealthy]);
        std::fs::write(&path, "unavailable = \"unloaded\"").unwrap();
        assert!(backend.usage().unwrap_err().to_string().contains("unloaded"));
    }

    /// Opening a pipe that nobody writes would never end.
    #[test]
    fn a_pipe_is_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gpus.toml");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let error =
            Simulated::new(SimulatedOptions { path, ..SimulatedOptions::default() }).discover().unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");
    }
}
