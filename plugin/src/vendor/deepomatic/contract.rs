//! Deepomatic's contract, in both its forms: the fork of Google's plugin and that of NVIDIA's.

use std::time::Duration;

use crate::device::backend::{BackendFactory, Vendor};
use crate::device::ids::{Base, IdStyle, Numbers};
use crate::offer::contract::{Contract, Filter, Naming};
use crate::offer::hand_over::{Files, HandOver, Item};
use crate::offer::order::Order;
use crate::vendor::auto;
use crate::vendor::deepomatic::flags::DeepomaticArgs;
use crate::vendor::flags::{Common, FlagError, Flags, SharePolicy};
use crate::vendor::nvidia::files::{FilesOptions, NvidiaFiles};
use crate::vendor::nvidia::nvml::Nvidia;

/// Shares of each GPU as `deepomatic.com/shared-gpu`. The fork of Google's plugin needs no NVIDIA library, gives
/// device files and mounts the driver's directory; that of NVIDIA's plugin names the GPUs to NVIDIA's runtime.
///
/// # Errors
/// [`FlagError`].
pub fn contract(flags: &Flags, common: &Common) -> Result<Contract, FlagError> {
    let args: DeepomaticArgs = flags.read()?;
    let files = FilesOptions { roots: common.backend.roots.clone(), ..FilesOptions::default() };
    let files = BackendFactory::new(files, NvidiaFiles::new);
    let (replicas, backend, ids, hand_over) = match args.containers_per_gpu {
        None => (
            common.shares("gpu-duplication-factor", args.gpu_duplication_factor)?,
            files,
            IdStyle { base: Base::Name, numbers: Some(Numbers { separator: "-_-", first: 1 }) },
            HandOver::new([
                Item::Files(Files::Driver, "mrw"),
                Item::Files(Files::Gpus, "mrw"),
                Item::Directory { host: args.host_path.clone(), container: args.container_path.clone() },
            ]),
        ),
        Some(replicas) => (
            common.shares("containers-per-gpu", replicas)?,
            auto::first_of([BackendFactory::new(common.backend.nvidia.clone(), Nvidia::new), files]),
            IdStyle { base: Base::Id, numbers: Some(Numbers { separator: "-_-", first: 0 }) },
            HandOver::new([Item::VisibleDevices([Vendor::Nvidia].into())]),
        ),
    };
    Ok(Contract {
        name: "deepomatic",
        backend,
        naming: Naming::Single("deepomatic.com/shared-gpu".to_owned()),
        placed: common.placed,
        ids,
        replicas,
        filter: Filter::default(),
        order: match common.policy {
            SharePolicy::Distributed => Order::Distributed,
            SharePolicy::Packed => Order::Packed,
        },
        hand_over,
        one_share: false,
        monitoring: None,
        numa: false,
        period: Duration::from_secs(5),
    })
}
