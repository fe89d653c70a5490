//! Flags and environment, read once and checked once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, atomic::AtomicU64};
use std::time::Duration;

use clap::ValueEnum as _;
use k8s_openapi::jiff::SignedDuration;
use kerf::annotation::{Domain, Keys};
use kerf::ids::{NodeName, syntax::is_subdomain};
use kerf::isolation::Isolation;
use kerf::units::Mib;
use kerf_runtime::admin;
use kerf_runtime::feed::Patience;
use kerf_runtime::telemetry::LogArgs;

use crate::device::backend::BackendFactory;
use crate::device::roots::Roots;
use crate::isolation::{enforcers, limiter};
use crate::offer::{Offer, contract::Contract, vcuda};
use crate::publish::failing;
use crate::publish::labels::flags::{LabelArgs, LabelMode};
use crate::publish::labels::{wanted::Style, write};
use crate::vendor;
use crate::vendor::args::{AUTO, ProfileArgs, ProfileName};
use crate::vendor::chosen::chosen;
use crate::vendor::flags::{BackendOptions, Common, FlagError};
use crate::vendor::nvidia::flags::DriverArgs;
use crate::vendor::nvidia::nvml::NvidiaOptions;
use crate::vendor::simulated::file::SimulatedOptions;
use crate::vendor::support::BackendKind;

/// Gives containers exactly the GPU that kerf's extender chose for them, and reports what they do with it.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "kerf-plugin", version)]
#[command(
    after_help = "kerf-plugin doctor [OPTIONS]: look at this machine with the same options, say what is there, what is \
    left out and why, and what kubelet knows (--json: as JSON); exit status 0: all is well, 1: a problem, 2: wrong usage, 3: no GPU\n\
    kerf-plugin prune [OPTIONS]: after kerf was uninstalled, take away what it left on Nodes (--help: its options)"
)]
pub struct Args {
    /// Name of the Node object of this machine; needed for the profile vcuda, with --placed, for labels on the Node, and to
    /// show on the Node which GPUs are unhealthy
    #[arg(long, env = "KERF_NODE_NAME", default_value = "", hide_default_value = true)]
    pub node_name: String,
    /// Prefix of resources and annotations
    #[arg(long, env = "KERF_DOMAIN", default_value = "inspur.com")]
    pub domain: Domain,
    /// Where vcuda finds GPUs
    #[arg(long, env = "KERF_BACKEND", value_enum, default_value_t = &AUTO)]
    pub backend: &'static BackendKind,
    /// File that describes simulated GPUs; read again when it changes
    #[arg(long, env = "KERF_SIMULATED_FILE", value_name = "PATH")]
    pub simulated_file: Option<PathBuf>,
    /// kubelet's directory
    #[arg(long, env = "KERF_KUBELET_DIR", default_value = "/var/lib/kubelet", value_name = "DIR")]
    pub kubelet_dir: PathBuf,
    /// Where kubelet listens for device plugins [default: device-plugins below --kubelet-dir]
    #[arg(long, alias = "plugin-directory", env = "KERF_DEVICE_PLUGINS_DIR", value_name = "DIR")]
    pub device_plugins_dir: Option<PathBuf>,
    /// Where kubelet serves the pod resources API [default: pod-resources below --kubelet-dir]
    #[arg(long, env = "KERF_POD_RESOURCES_DIR", value_name = "DIR")]
    pub pod_resources_dir: Option<PathBuf>,
    /// Address of /metrics, /livez, /healthz, /readyz and /version
    #[arg(long, env = "KERF_METRICS_LISTEN", default_value = "0.0.0.0:9394", value_name = "ADDRESS")]
    pub metrics_listen: SocketAddr,
    /// Address of /debug/state, which names all pods with GPUs: one of loopback (kubectl port-forward reaches it)
    #[arg(
        long,
        env = "KERF_DEBUG_LISTEN",
        value_parser = admin::loopback,
        default_value = "127.0.0.1:9395",
        value_name = "ADDRESS"
    )]
    pub debug_listen: SocketAddr,
    /// How to reach the API server [default: as a pod of the cluster, or as kubectl does]
    #[arg(long, env = "KERF_KUBECONFIG", value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
    /// Where the host's /proc is seen
    #[arg(long, env = "KERF_PROC_ROOT", default_value = "/proc", value_name = "DIR")]
    pub proc_root: PathBuf,
    /// Where the host's /sys is seen
    #[arg(long, env = "KERF_SYS_ROOT", default_value = "/sys", value_name = "DIR")]
    pub sys_root: PathBuf,
    /// Where the host's /dev is seen
    #[arg(long, env = "KERF_DEV_ROOT", default_value = "/dev", value_name = "DIR")]
    pub dev_root: PathBuf,
    /// NVIDIA's management library [default: libnvidia-ml.so.1 as the loader finds it]
    #[arg(long, env = "KERF_NVML_LIBRARY", value_name = "PATH")]
    pub nvml_library: Option<PathBuf>,
    /// Name GPUs to the container runtime (CDI) as `<KIND>=<uuid>`, not by device files; such as nvidia.com/gpu
    #[arg(long, env = "KERF_CDI_KIND", value_name = "KIND")]
    pub cdi_kind: Option<String>,
    /// Device file for every container that has a GPU; may be repeated
    #[arg(long = "extra-device", env = "KERF_EXTRA_DEVICES", value_delimiter = ',', value_name = "PATH")]
    pub extra_devices: Vec<PathBuf>,
    /// Kinds of isolation that may be used for shares, of mig, driver, mps and limiter: the strongest of them that works
    /// is. `none` alone uses none
    #[arg(
        long,
        env = "KERF_ISOLATION",
        value_delimiter = ',',
        default_value = "mig,driver,mps,limiter",
        value_name = "KINDS"
    )]
    pub isolation: Vec<Isolation>,
    /// Where the limiter and the limits of containers are kept; the same directory on the host
    #[arg(long, env = "KERF_STATE_DIR", default_value = "/var/lib/kerf", value_name = "DIR")]
    pub state_dir: PathBuf,
    /// Where containers keep what their processes use; the same directory on the host, gone when the machine restarts
    #[arg(long, env = "KERF_RUN_DIR", default_value = "/run/kerf", value_name = "DIR")]
    pub run_dir: PathBuf,
    /// The limiter; without the file there is no such isolation
    #[arg(
        long,
        env = "KERF_LIMITER_LIBRARY",
        default_value = "/usr/local/lib/kerf/libkerf_limiter.so",
        value_name = "PATH"
    )]
    pub limiter_library: PathBuf,
    /// NVIDIA's nvidia-cuda-mps-control; without it there is no such isolation
    #[arg(long, env = "KERF_MPS_CONTROL", value_name = "PATH")]
    pub mps_control: Option<PathBuf>,
    /// Where the host's control groups are seen, for the limits of drivers from 615 on
    #[arg(long, env = "KERF_CGROUP_ROOT", default_value = "/sys/fs/cgroup", value_name = "DIR")]
    pub cgroup_root: PathBuf,
    /// MiB that each process, of at most four, may use beyond its container's share before that counts as a breach: what
    /// the driver takes for itself
    #[arg(long, env = "KERF_BREACH_MARGIN_MIB", default_value_t = 640, value_name = "MIB")]
    pub breach_margin_mib: u64,
    /// MiB of a share that count for each context of a process, for what the driver takes for itself, until that was
    /// measured. 0: neither estimates nor measurements count
    #[arg(long, env = "KERF_CONTEXT_MIB", default_value_t = limiter::CONTEXT.0, value_name = "MIB")]
    pub context_mib: u64,
    /// Serve tkestack's vcuda-controller in containers: its limits, its list of processes and the socket that it asks at
    #[arg(long, env = "KERF_TKESTACK", value_parser = clap::builder::BoolishValueParser::new())]
    pub tkestack: bool,
    /// How often to check the GPUs' health
    #[arg(long, env = "KERF_HEALTH_PERIOD", value_parser = time, default_value = "1s", value_name = "TIME")]
    pub health_period: Duration,
    /// How often to measure what GPUs and processes do, look for breaches, and decide bursts; above 2s there are no bursts
    #[arg(long, env = "KERF_SAMPLE_PERIOD", value_parser = time, default_value = "1s", value_name = "TIME")]
    pub sample_period: Duration,
    /// How long an NVIDIA GPU must be free of critical errors to be healthy again
    #[arg(long, env = "KERF_QUIET_PERIOD", value_parser = time, default_value = "5m", value_name = "TIME")]
    pub quiet_period: Duration,
    /// Least time between two changes of what is published on the Node: condition, events, labels
    #[arg(long, env = "KERF_REPORT_PERIOD", value_parser = time, default_value = "10s", value_name = "TIME")]
    pub report_period: Duration,
    /// How long the API server may refuse this plugin, or not be reached, before its devices are announced as unhealthy, so
    /// that pods wait for it instead of failing
    #[arg(long, env = "KERF_WITHDRAW_AFTER", value_parser = time, default_value = "10s", value_name = "TIME")]
    pub withdraw_after: Duration,
    /// Of doctor: print JSON
    #[arg(long, hide = true)]
    pub json: bool,
    /// NVIDIA's GPUs.
    #[command(flatten)]
    pub nvidia: DriverArgs,
    /// Node labels.
    #[command(flatten)]
    pub labels: LabelArgs,
    /// What the node offers.
    #[command(flatten)]
    pub profiles: ProfileArgs,
    /// What to log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// A length of time above zero.
fn time(text: &str) -> Result<Duration, &'static str> {
    let time = text.parse::<SignedDuration>().ok().and_then(|time| Duration::try_from(time).ok());
    time.filter(|time| !time.is_zero()).ok_or("expected a time above zero with its unit, such as 500ms, 1s or 5m")
}

/// The configuration, checked. The fields have the meaning of the flags of the same names.
#[derive(Clone, Debug)]
pub struct Config {
    /// The Node object of this machine.
    pub node: NodeName,
    /// The names of resources and annotations.
    pub keys: Keys,
    /// Finds the GPUs of `vcuda`.
    pub backend: BackendFactory,
    /// How often the file of simulated GPUs was found unusable.
    pub simulated_file_errors: Arc<AtomicU64>,
    /// Holds `kubelet.sock` and the plugins' own sockets.
    pub device_plugins_dir: PathBuf,
    /// Holds the `kubelet.sock` of the pod resources API.
    pub pod_resources_dir: PathBuf,
    /// Metrics and health; port 0 picks a free one.
    pub metrics_listen: SocketAddr,
    /// The whole state; port 0 picks a free one.
    pub debug_listen: SocketAddr,
    /// `None`: as a pod of the cluster, or as kubectl does.
    pub kubeconfig: Option<PathBuf>,
    /// The host's `/proc`.
    pub proc_root: PathBuf,
    /// How containers are held to their shares.
    pub isolation: enforcers::Options,
    /// What each of some processes may use beyond its container's share.
    pub breach_margin: Mib,
    /// Whether tkestack's vcuda-controller is served.
    pub tkestack: bool,
    /// Time between two checks of the GPUs' health.
    pub health_period: Duration,
    /// Time between two measurements.
    pub sample_period: Duration,
    /// Least time between two changes of what is published on the Node.
    pub report_period: Duration,
    /// How long the API server may be unavailable before the devices are withdrawn.
    pub withdraw_after: Duration,
    /// How long the watches may be silent.
    pub patience: Patience,
    /// How long after a failure of its own the node asks the extender to try it last.
    pub failure_memory: Duration,
    pub labels: write::Options,
    /// kerf's own resources, where they are offered.
    pub vcuda: Option<[Offer; 2]>,
    /// The other profiles.
    pub contracts: Vec<Contract>,
    /// Whether the extender chooses the GPUs of the pods of `contracts`.
    pub placed: bool,
}

/// Flags with wrong values or that do not go together. Each message names the flag.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not a valid name of a Node.
    #[error(
        "--node-name {0:?} is not the name of a Node: set it, or KERF_NODE_NAME, to spec.nodeName of the plugin's pod"
    )]
    NodeName(String),
    /// CDI kinds have the form `vendor.com/class`.
    #[error("--cdi-kind {0:?}: expected vendor/class, such as nvidia.com/gpu")]
    CdiKind(String),
    /// An error in a vendor's flags.
    #[error(transparent)]
    Vendor(#[from] FlagError),
    /// A profile twice would offer one resource twice.
    #[error("--profile {0} is given twice")]
    ProfileTwice(&'static str),
    /// There is no profile whose pods could be placed.
    #[error("--placed applies to profiles other than vcuda: name one in --profile")]
    NothingPlaced,
    /// `none` combined with other kinds.
    #[error("--isolation: none cannot be combined with other levels")]
    IsolationAndNone,
    /// kubelet refuses relative paths of devices and mounts.
    #[error("--{0} {1:?} is not an absolute path")]
    Relative(&'static str, PathBuf),
    /// The system limits the length of socket paths.
    #[error("--device-plugins-dir {0:?} is too long for a socket in it")]
    LongDirectory(PathBuf),
}

impl Args {
    /// Checks that do not depend on a vendor.
    fn check(&self) -> Result<(), ConfigError> {
        let node = &self.node_name;
        let needs_node = self.vcuda() || self.profiles.placed || self.labels.labels == LabelMode::Node;
        if (node.is_empty() && needs_node) || !(node.is_empty() || is_subdomain(node)) {
            return Err(ConfigError::NodeName(node.clone()));
        }
        let legal = |part: &str| !part.is_empty() && !part.contains(['=', ' ', ',', '/']);
        if let Some(kind) = &self.cdi_kind
            && !kind.split_once('/').is_some_and(|(vendor, class)| legal(vendor) && legal(class))
        {
            return Err(ConfigError::CdiKind(kind.clone()));
        }
        if self.isolation.contains(&Isolation::None) && self.isolation.iter().any(|kind| *kind != Isolation::None) {
            return Err(ConfigError::IsolationAndNone);
        }
        let directories = [
            ("state-dir", &self.state_dir),
            ("run-dir", &self.run_dir),
            ("features-dir", &self.labels.features_dir),
        ];
        let devices = self.extra_devices.iter().map(|path| ("extra-device", path));
        let relative = devices.chain(directories).find(|(_, path)| !path.is_absolute());
        relative.map_or(Ok(()), |(flag, path)| Err(ConfigError::Relative(flag, path.clone())))
    }

    fn vcuda(&self) -> bool {
        self.profiles.profile.iter().any(|name| matches!(name, ProfileName::Vcuda))
    }

    fn label_options(&self) -> Result<write::Options, ConfigError> {
        let given = &self.profiles.profile;
        let offered = ProfileName::value_variants().iter().map(|name| name.as_str());
        let offered: Vec<&str> = offered.filter(|name| given.iter().any(|given| given.as_str() == *name)).collect();
        let name = offered.join("-");
        let mut labellers = BTreeMap::new();
        for vendor in vendor::ALL {
            if let Some(labels) = &vendor::support(*vendor).labels {
                labellers.insert(*vendor, (labels.labeller)(&self.profiles.vendors, &offered)?);
            }
        }
        Ok(write::Options {
            mode: self.labels.labels,
            file: self.labels.features_dir.join(format!("kerf-{name}")),
            name,
            style: Style { labellers, vcuda: self.vcuda() },
        })
    }

    fn contracts(&self, backend: &BackendOptions) -> Result<Vec<Contract>, ConfigError> {
        let ProfileArgs { share_policy, placed, .. } = self.profiles;
        let common = Common { policy: share_policy.into(), placed, backend: backend.clone() };
        let mut made = Vec::new();
        let mut seen = BTreeSet::new();
        for name in &self.profiles.profile {
            if !seen.insert(name.as_str()) {
                return Err(ConfigError::ProfileTwice(name.as_str()));
            }
            if let ProfileName::Of(system) = name {
                let contract = (system.contract)(&self.profiles.vendors, &common)?;
                made.push(Contract { backend: chosen(contract.backend, &self.profiles.choice), ..contract });
            }
        }
        if self.profiles.placed && made.is_empty() {
            return Err(ConfigError::NothingPlaced);
        }
        Ok(made)
    }
}

impl TryFrom<Args> for Config {
    type Error = ConfigError;

    fn try_from(args: Args) -> Result<Self, ConfigError> {
        args.check()?;
        let device_plugins_dir =
            args.device_plugins_dir.clone().unwrap_or_else(|| args.kubelet_dir.join("device-plugins"));
        // 107 bytes for a path, of which a socket's name takes at most 40
        if device_plugins_dir.as_os_str().len() > 66 {
            return Err(ConfigError::LongDirectory(device_plugins_dir));
        }
        let roots = Roots { sys: args.sys_root.clone(), dev: args.dev_root.clone(), proc: args.proc_root.clone() };
        let nvidia = NvidiaOptions {
            library: args.nvml_library.clone(),
            roots: roots.clone(),
            mig: args.isolation.contains(&Isolation::Mig),
            quiet_period: args.quiet_period,
            errors: args.nvidia.errors(),
            memory: args.nvidia.memory(),
        };
        let simulated =
            args.simulated_file.clone().map(|path| SimulatedOptions { path, ..SimulatedOptions::default() });
        let options = BackendOptions { roots, nvidia, simulated, flags: args.profiles.vendors.clone() };
        let contracts = args.contracts(&options)?;
        let (placed, mut keys) = (args.profiles.placed, Keys::new(args.domain.clone()));
        if placed {
            let names = contracts.iter().flat_map(|contract| contract.naming.names());
            keys = keys.with_shares(names.collect::<Vec<_>>().join(",").parse().unwrap_or_default());
        }
        let labels = args.label_options()?;
        let by_env = vendor::ALL.iter().copied().filter(|vendor| vendor::support(*vendor).visible_by_env);
        let vcuda = args.vcuda().then(|| vcuda::offers(&keys, args.cdi_kind, args.extra_devices, by_env.collect()));
        Ok(Self {
            node: args.node_name.into(),
            backend: chosen((args.backend.make)(&options)?, &args.profiles.choice),
            simulated_file_errors: options.simulated.map(|simulated| simulated.errors).unwrap_or_default(),
            device_plugins_dir,
            pod_resources_dir: args.pod_resources_dir.unwrap_or_else(|| args.kubelet_dir.join("pod-resources")),
            metrics_listen: args.metrics_listen,
            debug_listen: args.debug_listen,
            kubeconfig: args.kubeconfig,
            proc_root: args.proc_root,
            vcuda,
            keys,
            isolation: enforcers::Options {
                kinds: args.isolation.into_iter().collect(),
                state_dir: args.state_dir,
                run_dir: args.run_dir,
                library: args.limiter_library,
                mps_control: args.mps_control,
                nvml: args.nvml_library,
                cgroup_root: args.cgroup_root,
                context: Mib(args.context_mib),
            },
            breach_margin: Mib(args.breach_margin_mib),
            tkestack: args.tkestack,
            health_period: args.health_period,
            sample_period: args.sample_period,
            report_period: args.report_period,
            withdraw_after: args.withdraw_after,
            patience: Patience::default(),
            failure_memory: failing::MEMORY,
            labels,
            contracts,
            placed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn config(flags: &[&str]) -> Result<Config, String> {
        let all = ["kerf-plugin", "--node-name", "gpu-7"].iter().chain(flags);
        let args = Args::try_parse_from(all).map_err(|error| error.to_string())?;
        Config::try_from(args).map_err(|error| error.to_string())
    }

    #[test]
    fn directories_follow_kubelets_unless_named() {
        let defaults = config(&[]).unwrap();
        assert_eq!(defaults.device_plugins_dir, PathBuf::from("/var/lib/kubelet/device-plugins"));
        assert_eq!(defaults.keys.core, "inspur.com/vcuda-core");
        let named =
            config(&["--kubelet-dir", "/k", "--device-plugins-dir", "/p", "--domain", "tencent.com"]).unwrap();
        assert_eq!(named.device_plugins_dir, PathBuf::from("/p"));
        assert_eq!(named.pod_resources_dir, PathBuf::from("/k/pod-resources"));
        assert_eq!(named.keys.core, "tencent.com/vcuda-core");
    }

    #[test]
    fn flags_that_do_not_go_together_are_named() {
        for (flags, word) in [
            (vec!["--backend", "simulated"], "--simulated-file"),
            (vec!["--node-name", "a b"], "--node-name"),
            (vec!["--node-name", ".."], "--node-name"),
            (vec!["--node-name=-."], "--node-name"),
            (vec!["--cdi-kind", "gpu"], "--cdi-kind"),
            (vec!["--extra-device", "x"], "--extra-device"),
            (vec!["--domain", "kubernetes.io"], "--domain"),
            (vec!["--profile", "amd,amd"], "--profile"),
            (vec!["--profile", "intel", "--allow-ids", "0x12"], "--allow-ids"),
            (vec!["--profile", "intel", "--allow-ids", "0x1234", "--deny-ids", "0x1234"], "--deny-ids"),
            (vec!["--shared-dev-num", "0"], "--shared-dev-num"),
            (vec!["--allocation-policy", "some"], "--allocation-policy"),
            (vec!["--gpu-duplication-factor", "0"], "--gpu-duplication-factor"),
            (vec!["--placed"], "--placed"),
            (vec!["--placed", "--profile", "vcuda,deepomatic", "--gpu-duplication-factor", "48"], "is 47"),
            (vec!["--placed", "--profile", "deepomatic", "--containers-per-gpu=48"], "--containers-per-gpu"),
            (vec!["--isolation", "hard"], "--isolation"),
            (vec!["--isolation", "none,limiter"], "--isolation"),
            (vec!["--state-dir", "x"], "--state-dir"),
            (vec!["--health-period", "0s"], "--health-period"),
            (vec!["--sample-period", "5"], "--sample-period"),
            (vec!["--ignore-xids", "79,fatal"], "--ignore-xids"),
            (vec!["--nvidia-memory-mib", "0"], "--nvidia-memory-mib"),
            (vec!["--report-period", "0s"], "--report-period"),
            (vec!["--labels", "all"], "--labels"),
            (vec!["--include-gpus", "0,pci=zz"], "--include-gpus"),
            (vec!["--exclude-gpus", "colour=red"], "unknown kind"),
            (vec!["--profile", "intel", "--xpumd-endpoint=/x", "--health-management"], "--xpumd-endpoint"),
            (vec!["--profile", "intel", "--xpumd-endpoint=/x", "--temp-limit=90"], "--temp-limit"),
            (vec!["--profile", "intel", "--xpumd-endpoint=/x", "--wsl"], "--wsl"),
            (vec!["--xpumd-endpoint=/x", "--health-management"], "--health-management"),
            (vec!["--features-dir", "x"], "--features-dir"),
            (vec!["--amd-labels", "vram,colour"], "--amd-labels"),
            (vec!["--debug-listen", "0.0.0.0:9395"], "--debug-listen"),
            (vec!["--debug-listen", "[::]:9395"], "on loopback alone"),
        ] {
            let given = if flags[0] == "--node-name" {
                let args = Args::try_parse_from(["kerf-plugin"].iter().chain(&flags)).unwrap();
                Config::try_from(args).map_err(|error| error.to_string())
            } else {
                config(&flags)
            };
            assert!(given.unwrap_err().contains(word), "{flags:?}");
        }
    }

    #[test]
    fn times_have_units() {
        for (text, millis) in
            [("500ms", 500), ("1s", 1_000), ("2m", 120_000), ("1h", 3_600_000), ("1m 30s", 90_000)]
        {
            assert_eq!(time(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "s", "1", "0s", "-1s", "99999999999999999h"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}
