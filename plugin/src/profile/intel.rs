//! Intel's contract: `gpu.intel.com/i915`, `gpu.intel.com/xe` and resources that show all cards.

use std::path::Path;
use std::time::Duration;

use super::flags::{AllocationPolicy, BadPciId, IntelArgs, MonitoringMode, pci_ids};
use super::gift::Cdi;
use super::{Base, Filter, Gift, IdStyle, Monitoring, Naming, Order, Profile};
use crate::backend::intel::IntelOptions;
use crate::backend::reporter::{Reporter, Temperatures};
use crate::backend::roots::Roots;
use crate::config::BackendChoice;

const DOMAIN: &str = "gpu.intel.com";

/// With the graphics nodes of each card, its links by path, and a CDI name that says the same.
///
/// # Errors
/// [`BadPciId`].
pub fn profile(args: &IntelArgs, roots: Roots) -> Result<Profile, BadPciId> {
    let roots = if args.prefix.is_empty() {
        roots
    } else {
        let below = |name: &str| Path::new(&args.prefix).join(name);
        Roots { sys: below("sys"), dev: below("dev"), proc: below("proc") }
    };
    let celsius = |limit: u32| f64::from(limit);
    let reporter = args.health_management.then(|| Reporter::LevelZero {
        socket: args.levelzero_socket.clone(),
        limits: Temperatures {
            card: celsius(args.temp_limit),
            gpu: celsius(args.gpu_temp_limit),
            memory: celsius(args.memory_temp_limit),
        },
    });
    Ok(Profile {
        name: "intel",
        source: BackendChoice::Intel(IntelOptions { roots: roots.clone(), reporter, ..IntelOptions::default() }),
        naming: Naming::Driver(DOMAIN.to_owned()),
        placed: false,
        ids: IdStyle { base: Base::Name, separator: "-", first: 0, always: true },
        replicas: args.shared_dev_num,
        filter: Filter { allow: pci_ids(&args.allow_ids)?, deny: pci_ids(&args.deny_ids)?, ..Filter::default() },
        order: match args.allocation_policy {
            AllocationPolicy::None => Order::EachFirst,
            AllocationPolicy::Balanced => Order::Balanced,
            AllocationPolicy::Packed => Order::Sorted,
        },
        gift: Gift {
            nodes: Some("rw"),
            by_path: args.bypath,
            cdi: Some(Cdi {
                kind: "intel.cdi.k8s.io/gpu".to_owned(),
                directory: Some(args.cdi_dir.clone()),
                annotation: None,
            }),
            engines: true,
            ..Gift::default()
        },
        one_share: false,
        monitoring: args.enable_monitoring.then(|| match args.monitoring_mode {
            MonitoringMode::Single => Monitoring::Single(format!("{DOMAIN}/monitoring")),
            MonitoringMode::Split => Monitoring::Split(DOMAIN.to_owned()),
        }),
        numa: true,
        period: Duration::from_secs(5),
        roots,
    })
}
