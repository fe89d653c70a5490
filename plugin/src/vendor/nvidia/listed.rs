//! GPUs and instances (MIG) that the driver is asked about.

use kerf::ids::DeviceId;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device as NvmlDevice, Nvml};

/// A GPU, or an instance of one.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    /// NVML's own index of the GPU.
    pub(super) index: u32,
    /// The index of the instance on its GPU; `None` for a whole GPU.
    pub(super) instance: Option<u32>,
    pub(super) id: DeviceId,
    /// The GPU itself, or that of the instance.
    pub(super) parent: DeviceId,
}

impl Listed {
    pub(super) fn handle<'a>(&self, nvml: &'a Nvml) -> Result<NvmlDevice<'a>, NvmlError> {
        let card = nvml.device_by_index(self.index)?;
        match self.instance {
            Some(place) => card.mig_device_by_index(place),
            None => Ok(card),
        }
    }
}

/// The GPU at NVML's `index`, or with `mig` its instances where it is partitioned.
pub(super) fn found(index: u32, card: &NvmlDevice<'_>, mig: bool) -> Result<Vec<Listed>, NvmlError> {
    let parent = DeviceId::from(card.uuid()?.as_str());
    // older drivers and GPUs that cannot be partitioned have no mode
    let cut = mig && card.mig_mode().is_ok_and(|mode| mode.current == 1);
    if !cut {
        return Ok(vec![Listed { index, instance: None, id: parent.clone(), parent }]);
    }
    let mut instances = Vec::new();
    for place in 0..card.mig_device_count()? {
        // some places may be empty
        let Ok(uuid) = card.mig_device_by_index(place).and_then(|instance| instance.uuid()) else { continue };
        let id = DeviceId::from(uuid.as_str());
        instances.push(Listed { index, instance: Some(place), id, parent: parent.clone() });
    }
    Ok(instances)
}
