//! The simulated GPUs of one node: a file that the plugin reads again whenever it changes.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::Context;

use crate::devices;

/// Memory of each GPU, in MiB: 96 units.
pub const MEMORY_MIB: u64 = 24 * 1024;

/// The directory of the device files on a node.
pub const DEVICES: &str = "/dev/kerf";
/// The name of that directory below the node's `/dev`.
const BELOW: &str = "kerf";

/// The simulated GPUs of one node.
#[derive(Debug)]
pub struct Cards {
    file: PathBuf,
    uuids: Vec<String>,
    ill: Mutex<Vec<bool>>,
    processes: Mutex<String>,
}

/// In the form of NVIDIA's driver: programs ask it for the sixteen bytes.
fn uuid(node: &str, index: usize) -> String {
    let number = node.bytes().fold(0u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    format!("GPU-{number:08x}-0000-4000-8000-{index:012x}")
}

impl Cards {
    /// Makes `count` healthy GPUs. Each has a device file of its own, of the kind of `/dev/null`, in `dev`, which is
    /// the node's `/dev`.
    ///
    /// # Errors
    /// Where files cannot be made.
    pub fn new(file: PathBuf, dev: &Path, node: &str, count: usize) -> anyhow::Result<Self> {
        let uuids: Vec<String> = (0..count).map(|index| uuid(node, index)).collect();
        for index in 0..count {
            // the numbers of /dev/null: harmless, and open to every container
            devices::file(&dev.join(BELOW).join(format!("gpu{index}")), (1, 3), 0o666)?;
        }
        let cards = Self { file, uuids, ill: Mutex::new(vec![false; count]), processes: Mutex::default() };
        cards.write()?;
        Ok(cards)
    }

    /// The file that describes them.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The GPUs' uuids, by index.
    pub fn uuids(&self) -> &[String] {
        &self.uuids
    }

    /// Path of a GPU's device file, on the node and in a container.
    pub fn device(index: usize) -> PathBuf {
        Path::new(DEVICES).join(format!("gpu{index}"))
    }

    /// Makes a GPU unhealthy or healthy.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn set_ill(&self, index: usize, ill: bool) -> anyhow::Result<()> {
        let mut state = self.ill.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *state.get_mut(index).context("no such card")? = ill;
        drop(state);
        self.write()
    }

    /// Has one process of a container use memory of a GPU, as the host sees it; `None` removes that process.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn set_process(&self, process: Option<(u32, &str, &str, &str, u64)>) -> anyhow::Result<()> {
        let text = process.map(|(pid, card, pod, container, mib)| {
            format!(
                "[[process]]\npid = {pid}\ngpu = \"{card}\"\npod = \"{pod}\"\ncontainer = \"{container}\"\n\
                 memory_mib = {mib}\n"
            )
        });
        *self.processes.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = text.unwrap_or_default();
        self.write()
    }

    fn write(&self) -> anyhow::Result<()> {
        let ill = self.ill.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let cards = self.uuids.iter().zip(&ill).enumerate().map(|(index, (uuid, ill))| {
            // linked in pairs
            let peer = index ^ 1;
            let links = if peer < self.uuids.len() { format!("links = {{ \"{peer}\" = \"NV4\" }}\n") } else { String::new() };
            format!(
                "[[gpu]]\nuuid = \"{uuid}\"\nindex = {index}\nmodel = \"Simulated 24G\"\nmemory_mib = {MEMORY_MIB}\n\
                 healthy = {}\ndevice_nodes = [\"{}\"]\n{links}",
                !ill,
                Self::device(index).display(),
            )
        });
        // replaced as a whole: the plugin never reads half a file
        let processes = self.processes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let text = cards.chain([processes]).collect::<Vec<_>>().join("\n");
        let aside = self.file.with_extension("new");
        std::fs::write(&aside, text)?;
        Ok(std::fs::rename(aside, &self.file)?)
    }
}
