//! NVIDIA's contract: `nvidia.com/gpu`, time-slicing, MIG instances and the ways to tell the container runtime.

use std::time::Duration;

use crate::config::{BackendChoice, NvidiaOptions};
use crate::device::roots::Roots;
use crate::offer::contract::{Filter, Gift, IdStyle, Naming, Order, Profile};
use crate::offer::hand_over::Cdi;
use crate::vendor::flags::{IdStrategy, ListStrategy, MigStrategy, NvidiaArgs, SharePolicy};
use crate::vendor::nvidia::files::FilesOptions;

const KIND: &str = "nvidia.com/gpu";

/// With the names of the cards for NVIDIA's container runtime, and device files where they are asked for.
pub fn profile(args: &NvidiaArgs, policy: SharePolicy, nvidia: NvidiaOptions, roots: Roots) -> Profile {
    let shared = args.nvidia_replicas > 1;
    let whole = if shared && args.rename_by_default { "nvidia.com/gpu.shared" } else { KIND };
    let told = |strategy| args.device_list_strategy.contains(&strategy);
    let cdi = (told(ListStrategy::CdiAnnotations) || told(ListStrategy::CdiCri)).then(|| Cdi {
        kind: KIND.to_owned(),
        directory: None,
        annotation: (!told(ListStrategy::CdiCri)).then(|| args.cdi_annotation_prefix.clone()),
    });
    let files = FilesOptions {
        roots: roots.clone(),
        instance_profile: args.mig_profile.clone(),
        ..FilesOptions::default()
    };
    Profile {
        name: "nvidia",
        source: BackendChoice::NvidiaAny(nvidia, files),
        naming: match args.mig_strategy {
            MigStrategy::None | MigStrategy::Mixed => {
                Naming::Instance { whole: whole.to_owned(), prefix: "nvidia.com/mig-".to_owned() }
            }
            MigStrategy::Single => Naming::Single(whole.to_owned()),
        },
        placed: false,
        ids: IdStyle::COLONS,
        replicas: args.nvidia_replicas,
        filter: Filter { instances: args.mig_strategy != MigStrategy::None, ..Filter::default() },
        order: match (shared, policy) {
            (false, _) => Order::Connected,
            (true, SharePolicy::Distributed) => Order::Distributed,
            (true, SharePolicy::Packed) => Order::Packed,
        },
        gift: Gift {
            nodes: args.pass_device_specs.then_some("rw"),
            extra_nodes: vec!["nvidia-modeset"],
            visible: told(ListStrategy::Envvar),
            visible_mounts: told(ListStrategy::VolumeMounts),
            by_index: args.device_id_strategy == IdStrategy::Index,
            cdi,
            ..Gift::default()
        },
        one_share: args.fail_requests_greater_than_one,
        monitoring: None,
        numa: true,
        period: Duration::from_secs(5),
        roots,
    }
}
