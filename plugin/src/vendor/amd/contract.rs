//! AMD's contract: `amd.com/gpu`, or a resource for each way in which GPUs are partitioned.

use std::time::Duration;

use crate::device::ids::IdStyle;
use crate::offer::contract::{Contract, Filter, Naming};
use crate::offer::hand_over::{Files, HandOver, Item};
use crate::offer::order::Order;
use crate::vendor::amd::flags::{AmdArgs, NamingStrategy};
use crate::vendor::amd::scan::AmdOptions;
use crate::vendor::flags::{Common, FlagError, Flags};
use crate::vendor::scanner::Files as _;

/// Time between two checks where `-pulse` is 0.
const PERIOD: Duration = Duration::from_secs(5);

/// A container gets `/dev/kfd` and the graphics nodes of each GPU, and nothing else.
///
/// # Errors
/// [`FlagError`].
pub fn contract(flags: &Flags, common: &Common) -> Result<Contract, FlagError> {
    let args: AmdArgs = flags.read()?;
    let options = AmdOptions { roots: common.backend.roots.clone(), exporter: args.exporter() };
    Ok(Contract {
        name: "amd",
        backend: options.backend(),
        naming: match args.resource_naming_strategy {
            NamingStrategy::Single => Naming::Single("amd.com/gpu".to_owned()),
            NamingStrategy::Mixed => Naming::Layout { domain: "amd.com".to_owned(), plain: "gpu".to_owned() },
        },
        placed: common.placed,
        ids: IdStyle::shared_by(args.amd_replicas),
        replicas: common.shares("amd-replicas", args.amd_replicas)?,
        filter: Filter::default(),
        order: if args.amd_replicas > 1 { common.policy } else { Order::Connected },
        hand_over: HandOver::new([Item::Files(Files::Driver, "rw"), Item::Files(Files::Gpus, "rw")]),
        one_share: false,
        monitoring: None,
        numa: true,
        period: if args.pulse == 0 { PERIOD } else { Duration::from_secs(args.pulse) },
    })
}
