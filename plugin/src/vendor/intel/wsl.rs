//! Intel GPUs of a Windows host, from inside its Linux subsystem (WSL): all of them behind one device file,
//! `/dev/dxg`.
//!
//! sysfs shows none of them. Intel's Level-Zero sidecar tells how many there are, and by which index programs know
//! them. Its last answer counts while it does not answer; without the device file there is no GPU.

use std::collections::BTreeSet;
use std::path::PathBuf;

use kerf::device::Device;
use kerf::units::Mib;
use parking_lot::Mutex;

use crate::device::backend::{Backend, BackendError, HostDevice, Origin, Vendor};
use crate::device::roots::Roots;
use crate::vendor::intel::level_zero;

const NAME: &str = "intel-wsl";
/// The device file, and the name of the kernel's driver behind it.
pub(super) const DXG: &str = "dxg";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WslOptions {
    /// Where the host's files are mounted.
    pub roots: Roots,
    /// The Level-Zero sidecar's socket.
    pub socket: PathBuf,
}

/// The GPUs behind `/dev/dxg`.
#[derive(Debug)]
pub struct Wsl {
    options: WslOptions,
    /// The sidecar's last answer.
    indices: Mutex<Option<BTreeSet<u32>>>,
}

impl Wsl {
    /// Asks nothing yet.
    pub fn new(options: WslOptions) -> Self {
        Self { options, indices: Mutex::new(None) }
    }

    fn indices(&self) -> Result<BTreeSet<u32>, BackendError> {
        let mut known = self.indices.lock();
        match level_zero::indices(&self.options.socket) {
            Ok(indices) => Ok(known.insert(indices).clone()),
            Err(reason) => {
                let socket = self.options.socket.display();
                let reason =
                    format!("the Level-Zero sidecar at {socket} does not tell which cards there are: {reason}");
                known.clone().ok_or(BackendError::Unavailable { backend: NAME, reason })
            }
        }
    }
}

impl Backend for Wsl {
    fn name(&self) -> &'static str {
        NAME
    }

    fn discover(&self) -> Result<Vec<HostDevice>, BackendError> {
        let Some(node) = self.options.roots.node(DXG) else {
            let reason = "the host has no /dev/dxg: is it WSL?".to_owned();
            return Err(BackendError::Unavailable { backend: NAME, reason });
        };
        let card = |index: u32| {
            let name = format!("card{index}");
            let device = Device::new(name.as_str(), index, Mib(0));
            let origin = Origin::whole(Vendor::Intel, DXG, &name, "");
            HostDevice { nodes: vec![node.clone()], ..HostDevice::new(device, origin) }
        };
        Ok(self.indices()?.into_iter().map(card).collect())
    }
}
