//! Deepomatic's contract, in both its forms: the fork of Google's plugin and that of NVIDIA's.

use std::time::Duration;

use crate::config::{BackendChoice, NvidiaOptions};
use crate::device::roots::Roots;
use crate::offer::contract::{Base, Filter, Gift, IdStyle, Naming, Order, Profile};
use crate::vendor::flags::{DeepomaticArgs, SharePolicy};
use crate::vendor::nvidia::files::FilesOptions;

/// Shares of each card as `deepomatic.com/shared-gpu`. The fork of Google's plugin needs no NVIDIA library, gives device
/// files and mounts the driver's directory; that of NVIDIA's gives the names of cards to NVIDIA's runtime.
pub fn profile(args: &DeepomaticArgs, policy: SharePolicy, nvidia: NvidiaOptions, roots: Roots) -> Profile {
    let files = FilesOptions { roots: roots.clone(), ..FilesOptions::default() };
    let (replicas, source, ids, gift) = match args.containers_per_gpu {
        None => (
            args.gpu_duplication_factor,
            BackendChoice::NvidiaFiles(files),
            IdStyle { base: Base::Name, separator: "-_-", first: 1, always: true },
            Gift {
                nodes: Some("mrw"),
                libraries: vec![(args.host_path.clone(), args.container_path.clone())],
                ..Gift::default()
            },
        ),
        Some(replicas) => (
            replicas,
            BackendChoice::NvidiaAny(nvidia, files),
            IdStyle { base: Base::Id, separator: "-_-", first: 0, always: true },
            Gift { visible: true, ..Gift::default() },
        ),
    };
    Profile {
        name: "deepomatic",
        source,
        naming: Naming::Single("deepomatic.com/shared-gpu".to_owned()),
        placed: false,
        ids,
        replicas,
        filter: Filter::default(),
        order: match policy {
            SharePolicy::Distributed => Order::Distributed,
            SharePolicy::Packed => Order::Packed,
        },
        gift,
        one_share: false,
        monitoring: None,
        numa: false,
        period: Duration::from_secs(5),
        roots,
    }
}
