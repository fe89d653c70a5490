//! Intel's contract: `gpu.intel.com/i915`, `gpu.intel.com/xe`, `gpu.intel.com/dxg` (WSL) and resources that show
//! all GPUs.

use std::path::Path;
use std::time::Duration;

use crate::device::backend::BackendFactory;
use crate::device::ids::{Base, IdStyle};
use crate::device::roots::Roots;
use crate::offer::contract::{Contract, Filter, Monitoring, Naming};
use crate::offer::hand_over::{Cdi, Files, HandOver, Item};
use crate::offer::order::Order;
use crate::vendor::flags::{Common, FlagError, Flags};
use crate::vendor::intel::flags::{AllocationPolicy, ByPath, IntelArgs, MonitoringMode, pci_ids};
use crate::vendor::intel::health::Reporter;
use crate::vendor::intel::scan::{DRIVERS, IntelOptions};
use crate::vendor::intel::wsl::{self, Wsl, WslOptions};
use crate::vendor::scanner::Files as _;

const DOMAIN: &str = "gpu.intel.com";

/// The contract for these flags.
///
/// # Errors
/// [`FlagError`].
pub fn contract(flags: &Flags, common: &Common) -> Result<Contract, FlagError> {
    let args: IntelArgs = flags.read()?;
    if !args.allow_ids.is_empty() && !args.deny_ids.is_empty() {
        return Err(FlagError("--allow-ids and --deny-ids cannot be used together".to_owned()));
    }
    if args.wsl && (args.enable_monitoring || args.health_management || args.xpumd_endpoint.is_some()) {
        let wrong = "--wsl cannot be used with --enable-monitoring, --health-management or --xpumd-endpoint";
        return Err(FlagError(wrong.to_owned()));
    }
    let roots = if args.prefix.is_empty() {
        common.backend.roots.clone()
    } else {
        let below = |name: &str| Path::new(&args.prefix).join(name);
        Roots { sys: below("sys"), dev: below("dev"), proc: below("proc") }
    };
    Ok(Contract {
        name: "intel",
        backend: backend(&args, roots)?,
        naming: Naming::Driver {
            domain: DOMAIN.to_owned(),
            drivers: if args.wsl { &[wsl::DXG] } else { &DRIVERS },
        },
        placed: common.placed,
        ids: IdStyle { base: Base::Name, numbers: Some(("-", 0)) },
        replicas: common.shares("shared-dev-num", args.shared_dev_num)?,
        filter: Filter { allow: pci_ids(&args.allow_ids)?, deny: pci_ids(&args.deny_ids)?, ..Filter::default() },
        order: match args.allocation_policy {
            AllocationPolicy::None => Order::EachFirst,
            AllocationPolicy::Balanced => Order::Balanced,
            AllocationPolicy::Packed => Order::Sorted,
        },
        hand_over: if args.wsl { windows() } else { linux(&args) },
        one_share: false,
        monitoring: args.enable_monitoring.then(|| match args.monitoring_mode {
            MonitoringMode::Single => Monitoring::Single(format!("{DOMAIN}/monitoring")),
            MonitoringMode::Split => Monitoring::Split(DOMAIN.to_owned()),
        }),
        numa: true,
        period: Duration::from_secs(5),
    })
}

fn backend(args: &IntelArgs, roots: Roots) -> Result<BackendFactory, FlagError> {
    if args.wsl {
        let socket = args.levelzero_socket.clone();
        return Ok(BackendFactory::new(WslOptions { roots, socket }, Wsl::new));
    }
    Ok(IntelOptions { roots, sidecar: Reporter::of(args)? }.backend())
}

/// Device files of the GPUs, with their links by path and CDI names for the same.
fn linux(args: &IntelArgs) -> HandOver {
    let by_path = Path::new("/dev/dri/by-path");
    let links = match args.bypath {
        ByPath::None => None,
        ByPath::Single => Some(Item::DriLinks),
        ByPath::All => Some(Item::Directory { host: by_path.to_owned(), container: by_path.to_owned() }),
    };
    let cdi = Item::Cdi(Cdi {
        kind: "intel.cdi.k8s.io/gpu".to_owned(),
        directory: Some(args.cdi_dir.clone()),
        annotation: None,
    });
    let files = [Item::Files(Files::Driver, "rw"), Item::Files(Files::Gpus, "rw")];
    HandOver::new(files.into_iter().chain(links).chain([cdi]))
}

/// The one device file of all GPUs, the libraries of the Windows host, and the indices of the container's GPUs.
fn windows() -> HandOver {
    let libraries = Path::new("/usr/lib/wsl");
    HandOver::new([
        Item::Files(Files::Driver, "rw"),
        Item::Files(Files::Gpus, "rw"),
        Item::AffinityMask,
        Item::Directory { host: libraries.to_owned(), container: libraries.to_owned() },
    ])
}
