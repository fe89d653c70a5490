//! AMD's contract: `amd.com/gpu`, or a resource for each way in which cards are partitioned.

use std::time::Duration;

use crate::config::BackendChoice;
use crate::device::roots::Roots;
use crate::offer::contract::{Filter, Gift, IdStyle, Naming, Order, Profile};
use crate::vendor::amd::scan::AmdOptions;
use crate::vendor::flags::{AmdArgs, NamingStrategy, SharePolicy};
use crate::vendor::reporter::Reporter;

/// Between looks where `-pulse` says nothing.
const PERIOD: Duration = Duration::from_secs(5);

/// With `/dev/kfd` and the graphics nodes of each card, and nothing else.
pub fn profile(args: &AmdArgs, policy: SharePolicy, roots: Roots) -> Profile {
    Profile {
        name: "amd",
        source: BackendChoice::Amd(AmdOptions {
            roots: roots.clone(),
            reporter: (args.pulse > 0).then(|| Reporter::Exporter(args.amd_exporter_socket.clone())),
        }),
        naming: match args.resource_naming_strategy {
            NamingStrategy::Single => Naming::Single("amd.com/gpu".to_owned()),
            NamingStrategy::Mixed => Naming::Layout { domain: "amd.com".to_owned(), plain: "gpu".to_owned() },
        },
        placed: false,
        ids: IdStyle::COLONS,
        replicas: args.amd_replicas,
        filter: Filter::default(),
        order: match (args.amd_replicas, policy) {
            (1, _) => Order::Connected,
            (_, SharePolicy::Distributed) => Order::Distributed,
            (_, SharePolicy::Packed) => Order::Packed,
        },
        gift: Gift { nodes: Some("rw"), ..Gift::default() },
        one_share: false,
        monitoring: None,
        numa: true,
        period: if args.pulse == 0 { PERIOD } else { Duration::from_secs(args.pulse) },
        roots,
    }
}
