//! NVIDIA's contract: `nvidia.com/gpu`, time-slicing, MIG instances and the ways to tell the container runtime.

use std::time::Duration;

use crate::device::backend::{BackendFactory, Vendor};
use crate::device::ids::IdStyle;
use crate::device::roots::Roots;
use crate::offer::contract::{Contract, Filter, Naming};
use crate::offer::hand_over::{Cdi, Files, HandOver, Item};
use crate::offer::order::Order;
use crate::vendor::auto;
use crate::vendor::flags::{Common, FlagError, Flags};
use crate::vendor::nvidia::files::FilesOptions;
use crate::vendor::nvidia::flags::{IdStrategy, ListStrategy, MigStrategy, NvidiaArgs};
use crate::vendor::nvidia::nvml::Nvidia;
use crate::vendor::scanner::Files as _;

const KIND: &str = "nvidia.com/gpu";

/// Names the GPUs to NVIDIA's container runtime, and gives device files where configured.
///
/// # Errors
/// [`FlagError`].
pub fn contract(flags: &Flags, common: &Common) -> Result<Contract, FlagError> {
    let args: NvidiaArgs = flags.read()?;
    let roots = &common.backend.roots;
    let shared = args.nvidia_replicas > 1;
    let whole = if shared && args.rename_by_default { "nvidia.com/gpu.shared" } else { KIND };
    let told = |strategy| args.device_list_strategy.contains(&strategy);
    if told(ListStrategy::Envvar) && told(ListStrategy::VolumeMounts) {
        return Err(FlagError(
            "--device-list-strategy: envvar and volume-mounts cannot be used together".to_owned(),
        ));
    }
    let files = FilesOptions {
        roots: roots.clone(),
        instance_profile: args.mig_profile.clone(),
        memory: common.backend.nvidia.memory,
    };
    let library = BackendFactory::new(common.backend.nvidia.clone(), Nvidia::new);
    Ok(Contract {
        name: "nvidia",
        backend: auto::first_of([library, files.backend()]),
        naming: match args.mig_strategy {
            MigStrategy::None | MigStrategy::Mixed => {
                Naming::Instance { whole: whole.to_owned(), prefix: "nvidia.com/mig-".to_owned() }
            }
            MigStrategy::Single => Naming::Single(whole.to_owned()),
        },
        placed: common.placed,
        ids: IdStyle::shared_by(args.nvidia_replicas),
        replicas: common.shares("nvidia-replicas", args.nvidia_replicas)?,
        filter: Filter { whole_only: args.mig_strategy == MigStrategy::None, ..Filter::default() },
        order: if shared { common.policy } else { Order::Connected },
        hand_over: hand_over(&args, roots),
        one_share: args.fail_requests_greater_than_one,
        monitoring: None,
        numa: true,
        period: Duration::from_secs(5),
    })
}

fn hand_over(args: &NvidiaArgs, roots: &Roots) -> HandOver {
    let told = |strategy| args.device_list_strategy.contains(&strategy);
    let mut items = Vec::new();
    if args.pass_device_specs {
        let files = [Files::Driver, Files::Gpus, Files::IfThere(roots.clone(), "nvidia-modeset")];
        items.extend(files.map(|files| Item::Files(files, "rw")));
    }
    if told(ListStrategy::Envvar) {
        items.push(Item::VisibleDevices([Vendor::Nvidia].into()));
    }
    if told(ListStrategy::VolumeMounts) {
        items.push(Item::VisibleDevicesMounts);
    }
    if told(ListStrategy::CdiAnnotations) || told(ListStrategy::CdiCri) {
        let annotation = (!told(ListStrategy::CdiCri)).then(|| args.cdi_annotation_prefix.clone());
        items.push(Item::Cdi(Cdi { kind: KIND.to_owned(), directory: None, annotation }));
    }
    HandOver { names_by_index: args.device_id_strategy == IdStrategy::Index, items }
}
