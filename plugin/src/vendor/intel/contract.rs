//! Intel's contract: `gpu.intel.com/i915`, `gpu.intel.com/xe`, `gpu.intel.com/dxg` (WSL) and resources that show all cards.

use std::path::Path;
use std::time::Duration;

use crate::config::BackendChoice;
use crate::device::roots::Roots;
use crate::offer::contract::{Base, Filter, Gift, IdStyle, Monitoring, Naming, Order, Profile};
use crate::offer::hand_over::Cdi;
use crate::vendor::flags::{AllocationPolicy, BadPciId, IntelArgs, MonitoringMode, pci_ids};
use crate::vendor::intel::scan::IntelOptions;
use crate::vendor::intel::wsl::WslOptions;
use crate::vendor::reporter::{Reporter, Temperatures};

const DOMAIN: &str = "gpu.intel.com";

/// The profile of these flags.
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
    let source = if args.wsl {
        BackendChoice::IntelWsl(WslOptions { roots: roots.clone(), socket: args.levelzero_socket.clone() })
    } else {
        BackendChoice::Intel(IntelOptions { roots: roots.clone(), reporter, ..IntelOptions::default() })
    };
    Ok(Profile {
        name: "intel",
        source,
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
        gift: if args.wsl { windows() } else { linux(args) },
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

/// Device files of the cards, with their links by path and CDI names that say the same.
fn linux(args: &IntelArgs) -> Gift {
    Gift {
        nodes: Some("rw"),
        by_path: args.bypath,
        cdi: Some(Cdi {
            kind: "intel.cdi.k8s.io/gpu".to_owned(),
            directory: Some(args.cdi_dir.clone()),
            annotation: None,
        }),
        engines: true,
        ..Gift::default()
    }
}

/// The one device file of all cards, the libraries of the Windows host, and which of the cards are meant.
fn windows() -> Gift {
    let libraries = Path::new("/usr/lib/wsl");
    Gift {
        nodes: Some("rw"),
        libraries: vec![(libraries.to_owned(), libraries.to_owned())],
        affinity: true,
        ..Gift::default()
    }
}
