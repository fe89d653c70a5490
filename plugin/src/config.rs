//! Flags and environment, read once and checked once.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use kerf::annotation::{Domain, Keys};
use kerf::ids::NodeName;
use kerf::ids::syntax::is_subdomain;
use kerf::isolation::Isolation;
use kerf::shares::{BadPerCard, PerCard};
use kerf::units::Mib;
use kerf_runtime::feed::Patience;
use kerf_runtime::telemetry::LogArgs;

use crate::device::roots::Roots;
use crate::isolation::enforcers;
use crate::offer::binding::Strategy;
use crate::offer::contract::Profile;
use crate::publish::failing;
use crate::publish::labels::feature_file::FeatureFile;
use crate::publish::labels::flags::{LabelArgs, LabelMode};
use crate::publish::labels::wanted::{self, Style};
use crate::vendor::amd::scan::AmdOptions;
use crate::vendor::flags::{BadPciId, ProfileArgs, ProfileName};
use crate::vendor::intel::scan::IntelOptions;
use crate::vendor::intel::wsl::WslOptions;
use crate::vendor::nvidia::files::FilesOptions;

/// Gives containers exactly the GPU that kerf's extender chose for them, and reports what they do with it.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "kerf-plugin", version)]
#[command(
    after_help = "kerf-plugin doctor [OPTIONS]: look at this machine with the same options, say what is there, what is \
    left out and why, and what kubelet knows (--json: as JSON); exit status 0: all is well, 1: trouble, 2: wrong usage, 3: no GPU"
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
    #[arg(long, env = "KERF_BACKEND", value_enum, default_value_t = BackendKind::Auto)]
    pub backend: BackendKind,
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
    /// Address of /metrics, /livez, /readyz, /version and /debug/state; port 0 takes a free one
    #[arg(long, env = "KERF_LISTEN", default_value = "0.0.0.0:9394", value_name = "ADDRESS")]
    pub listen: SocketAddr,
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
    /// MiB that each process may use beyond its container's share before that counts as a breach: what the driver takes
    /// for itself
    #[arg(long, env = "KERF_BREACH_MARGIN_MIB", default_value_t = 640, value_name = "MIB")]
    pub breach_margin_mib: u64,
    /// Serve tkestack's vcuda-controller in containers: its limits, its list of processes and the socket that it asks at
    #[arg(long, env = "KERF_TKESTACK")]
    pub tkestack: bool,
    /// How often to check the GPUs' health
    #[arg(long, env = "KERF_HEALTH_PERIOD", default_value = "1s", value_name = "TIME")]
    pub health_period: Span,
    /// How often to measure what GPUs and processes do, look for breaches, and decide bursts; above 2s there are no bursts
    #[arg(long, env = "KERF_SAMPLE_PERIOD", default_value = "1s", value_name = "TIME")]
    pub sample_period: Span,
    /// How long an NVIDIA GPU must be free of critical errors to be healthy again
    #[arg(long, env = "KERF_QUIET_PERIOD", default_value = "5m", value_name = "TIME")]
    pub quiet_period: Span,
    /// Least time between two changes of what is published on the Node: condition, events, labels
    #[arg(long, env = "KERF_REPORT_PERIOD", default_value = "10s", value_name = "TIME")]
    pub report_period: Span,
    /// How long the API server may refuse this plugin, or not be reached, before its devices are announced as unhealthy, so
    /// that pods wait for it instead of failing
    #[arg(long, env = "KERF_WITHDRAW_AFTER", default_value = "10s", value_name = "TIME")]
    pub withdraw_after: Span,
    /// Of doctor: print JSON
    #[arg(long, hide = true)]
    pub json: bool,
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

/// Which driver to ask about cards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum BackendKind {
    /// NVIDIA, AMD, Intel, then simulated GPUs if a file is given: the first that has GPUs.
    Auto,
    /// NVIDIA's management library.
    Nvidia,
    /// NVIDIA's files in /proc and /dev.
    NvidiaFiles,
    /// AMD's driver.
    Amd,
    /// Intel's drivers.
    Intel,
    /// A file.
    Simulated,
}

/// A length of time on the command line: a whole number and `ms`, `s`, `m` or `h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

/// A length of time that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a whole number above zero and ms, s, m or h, such as 500ms")]
pub struct BadSpan;

impl FromStr for Span {
    type Err = BadSpan;

    fn from_str(text: &str) -> Result<Self, BadSpan> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or(BadSpan)?;
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| BadSpan)?;
        let millis = match unit {
            "ms" => Some(1),
            "s" => Some(1_000),
            "m" => Some(60_000),
            "h" => Some(3_600_000),
            _ => None,
        };
        let millis = millis.and_then(|unit| number.checked_mul(unit)).filter(|millis| *millis > 0);
        Ok(Self(Duration::from_millis(millis.ok_or(BadSpan)?)))
    }
}

/// Everything the plugin is told. The fields are what the flags of the same names say.
#[derive(Clone, Debug)]
pub struct Config {
    /// The Node object of this machine.
    pub node: NodeName,
    /// Resources and annotations.
    pub keys: Keys,
    /// The driver.
    pub backend: BackendChoice,
    /// Holds `kubelet.sock` and the plugins' own sockets.
    pub device_plugins_dir: PathBuf,
    /// Holds the `kubelet.sock` of the pod resources API.
    pub pod_resources_dir: PathBuf,
    /// Administrative HTTP.
    pub listen: SocketAddr,
    /// How to reach the API server, where not by the usual ways.
    pub kubeconfig: Option<PathBuf>,
    /// The host's `/proc`.
    pub proc_root: PathBuf,
    /// How cards are handed to containers.
    pub strategy: Strategy,
    /// How containers are held to their shares.
    pub isolation: enforcers::Options,
    /// What each process may use beyond its container's share.
    pub breach_margin: Mib,
    /// Whether tkestack's vcuda-controller is served.
    pub tkestack: bool,
    /// Between looks at the cards' health.
    pub health_period: Duration,
    /// Between measurements.
    pub sample_period: Duration,
    /// Least time between two changes of what the Node is told.
    pub report_period: Duration,
    /// How long the API server may be away before the devices are withdrawn.
    pub withdraw_after: Duration,
    /// How long the watches may be silent.
    pub patience: Patience,
    /// How long after a failure of its own the node asks to be tried last.
    pub failure_memory: Duration,
    /// Node labels.
    pub labels: wanted::Options,
    /// Whether `vcuda` is offered.
    pub vcuda: bool,
    /// What else is.
    pub profiles: Vec<Profile>,
    /// Whether the extender chooses the cards of the pods of `profiles`.
    pub placed: bool,
}

/// A driver and what it needs to know.
#[derive(Clone, Debug, PartialEq)]
pub enum BackendChoice {
    /// NVIDIA only.
    Nvidia(NvidiaOptions),
    /// NVIDIA's files in `/proc` and `/dev`.
    NvidiaFiles(FilesOptions),
    /// NVIDIA's library, or where it is not there the files.
    NvidiaAny(NvidiaOptions, FilesOptions),
    /// AMD only.
    Amd(AmdOptions),
    /// Intel only.
    Intel(IntelOptions),
    /// Intel's cards of a Windows host.
    IntelWsl(WslOptions),
    /// A file only.
    Simulated(PathBuf),
    /// The first of NVIDIA, AMD, Intel and a file that has cards.
    Auto(NvidiaOptions, IntelOptions, Option<PathBuf>),
}

/// What the NVIDIA backend needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NvidiaOptions {
    /// The management library, where not as the loader finds it.
    pub library: Option<PathBuf>,
    /// The host's `/sys`.
    pub sys_root: PathBuf,
    /// The host's `/dev`; device files that are not there are not handed out.
    pub dev_root: PathBuf,
    /// The host's `/proc`.
    pub proc_root: PathBuf,
    /// Whether cards in MIG mode are listed as their instances.
    pub mig: bool,
    /// Without critical errors for so long, a card is healthy again.
    pub quiet_period: Duration,
}

/// Flags that do not go together. Each message names the flag.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No Node has such a name.
    #[error(
        "--node-name {0:?} is not the name of a Node: set it, or KERF_NODE_NAME, to spec.nodeName of the plugin's pod"
    )]
    NodeName(String),
    /// The simulated backend has nothing to read.
    #[error("--backend simulated needs --simulated-file")]
    NoSimulatedFile,
    /// CDI kinds have the form `vendor.com/class`.
    #[error("--cdi-kind {0:?}: expected vendor/class, such as nvidia.com/gpu")]
    CdiKind(String),
    /// kubelet refuses relative paths of devices.
    #[error("--extra-device {0:?} is not an absolute path")]
    ExtraDevice(PathBuf),
    /// No list of PCI ids.
    #[error("--allow-ids or --deny-ids: {0}")]
    PciId(#[from] BadPciId),
    /// Only one of both can be meant.
    #[error("--allow-ids and --deny-ids exclude each other")]
    AllowAndDeny,
    /// There is nothing to be seen of the single cards.
    #[error("--wsl excludes --enable-monitoring and --health-management")]
    WslAlone,
    /// A profile twice, which cannot have one name of a resource twice.
    #[error("--profile {0} is given twice")]
    ProfileTwice(&'static str),
    /// Its ways to ask for cards exclude each other.
    #[error("--device-list-strategy: envvar and volume-mounts exclude each other")]
    ListStrategies,
    /// No profile whose pods could be placed.
    #[error("--placed is for the profiles beside vcuda: name one in --profile")]
    NothingPlaced,
    /// A number of shares that the extender cannot count.
    #[error("--{flag} with --placed: {error}")]
    Shares {
        /// The flag of the number.
        flag: &'static str,
        /// What is wrong, and the next smaller number that is right.
        error: BadPerCard,
    },
    /// `none` beside other kinds.
    #[error("--isolation: none goes alone")]
    IsolationAndNone,
    /// kubelet refuses relative paths of mounts.
    #[error("--{0} {1:?} is not an absolute path")]
    Relative(&'static str, PathBuf),
    /// Socket paths are limited by the system.
    #[error("--device-plugins-dir {0:?} is too long for a socket in it")]
    LongDirectory(PathBuf),
}

impl TryFrom<Args> for Config {
    type Error = ConfigError;

    fn try_from(args: Args) -> Result<Self, ConfigError> {
        let node = args.node_name;
        let vcuda = args.profiles.profile.contains(&ProfileName::Vcuda);
        let labelled = args.labels.labels == LabelMode::Node;
        let placed = args.profiles.placed;
        if (node.is_empty() && (vcuda || placed || labelled)) || !(node.is_empty() || is_subdomain(&node)) {
            return Err(ConfigError::NodeName(node));
        }
        if let Some(kind) = &args.cdi_kind {
            let parts: Vec<&str> = kind.split('/').collect();
            let legal = |part: &&str| !part.is_empty() && !part.contains(['=', ' ', ',']);
            if parts.len() != 2 || !parts.iter().all(legal) {
                return Err(ConfigError::CdiKind(kind.clone()));
            }
        }
        if let Some(relative) = args.extra_devices.iter().find(|path| !path.is_absolute()) {
            return Err(ConfigError::ExtraDevice(relative.clone()));
        }
        let device_plugins_dir = args.device_plugins_dir.unwrap_or_else(|| args.kubelet_dir.join("device-plugins"));
        // 107 bytes for a path, of which a socket's name takes at most 40
        if device_plugins_dir.as_os_str().len() > 66 {
            return Err(ConfigError::LongDirectory(device_plugins_dir));
        }
        let roots = Roots { sys: args.sys_root.clone(), dev: args.dev_root.clone(), proc: args.proc_root.clone() };
        let kinds: BTreeSet<Isolation> = args.isolation.into_iter().collect();
        if kinds.contains(&Isolation::None) && kinds.len() > 1 {
            return Err(ConfigError::IsolationAndNone);
        }
        let directories = [
            ("state-dir", &args.state_dir),
            ("run-dir", &args.run_dir),
            ("features-dir", &args.labels.features_dir),
        ];
        for (flag, path) in directories {
            if !path.is_absolute() {
                return Err(ConfigError::Relative(flag, path.clone()));
            }
        }
        let mig = kinds.contains(&Isolation::Mig);
        let isolation = enforcers::Options {
            kinds,
            state_dir: args.state_dir,
            run_dir: args.run_dir,
            library: args.limiter_library,
            mps_control: args.mps_control,
            nvml: args.nvml_library.clone(),
            cgroup_root: args.cgroup_root,
        };
        let nvidia = NvidiaOptions {
            library: args.nvml_library,
            proc_root: args.proc_root.clone(),
            mig,
            sys_root: args.sys_root,
            dev_root: args.dev_root,
            quiet_period: args.quiet_period.0,
        };
        let labels = labels(&args.labels, &args.profiles);
        let profiles = profiles(&args.profiles, &nvidia, &roots)?;
        let intel = IntelOptions { roots: roots.clone(), ..IntelOptions::default() };
        let backend = match args.backend {
            BackendKind::Nvidia => BackendChoice::Nvidia(nvidia),
            BackendKind::NvidiaFiles => {
                BackendChoice::NvidiaFiles(FilesOptions { roots, ..FilesOptions::default() })
            }
            BackendKind::Amd => BackendChoice::Amd(AmdOptions { roots, reporter: None }),
            BackendKind::Intel => BackendChoice::Intel(intel),
            BackendKind::Auto => BackendChoice::Auto(nvidia, intel, args.simulated_file),
            BackendKind::Simulated => {
                BackendChoice::Simulated(args.simulated_file.ok_or(ConfigError::NoSimulatedFile)?)
            }
        };
        if placed && profiles.is_empty() {
            return Err(ConfigError::NothingPlaced);
        }
        let mut keys = Keys::new(args.domain);
        if placed {
            let names = profiles.iter().flat_map(|profile| profile.naming.names());
            keys = keys.with_shares(names.collect::<Vec<_>>().join(",").parse().unwrap_or_default());
        }
        Ok(Self {
            node: node.into(),
            backend,
            device_plugins_dir,
            pod_resources_dir: args.pod_resources_dir.unwrap_or_else(|| args.kubelet_dir.join("pod-resources")),
            listen: args.listen,
            kubeconfig: args.kubeconfig,
            proc_root: args.proc_root,
            strategy: Strategy { keys: keys.clone(), cdi_kind: args.cdi_kind, extra_devices: args.extra_devices },
            keys,
            isolation,
            breach_margin: Mib(args.breach_margin_mib),
            tkestack: args.tkestack,
            health_period: args.health_period.0,
            sample_period: args.sample_period.0,
            report_period: args.report_period.0,
            withdraw_after: args.withdraw_after.0,
            patience: Patience::default(),
            failure_memory: failing::MEMORY,
            labels,
            vcuda,
            profiles,
            placed,
        })
    }
}

fn labels(args: &LabelArgs, profiles: &ProfileArgs) -> wanted::Options {
    let offered: BTreeSet<ProfileName> = profiles.profile.iter().copied().collect();
    let words: Vec<&str> = offered.iter().map(|name| name.as_str()).collect();
    let nvidia = &profiles.nvidia;
    let name = words.join("-");
    wanted::Options {
        mode: args.labels,
        file: FeatureFile::new(&args.features_dir, &format!("kerf-{name}")),
        name,
        style: Style {
            amd: args.amd_labels.iter().copied().collect(),
            nvidia: offered.contains(&ProfileName::Nvidia).then_some(crate::vendor::nvidia::labels::Offer {
                replicas: nvidia.nvidia_replicas,
                renamed: nvidia.rename_by_default,
                mig: nvidia.mig_strategy,
            }),
            vcuda: offered.contains(&ProfileName::Vcuda),
        },
    }
}

fn profiles(args: &ProfileArgs, nvidia: &NvidiaOptions, roots: &Roots) -> Result<Vec<Profile>, ConfigError> {
    use crate::vendor::flags::ListStrategy;
    let mut made = Vec::new();
    let mut seen = BTreeSet::new();
    for name in &args.profile {
        if !seen.insert(*name) {
            return Err(ConfigError::ProfileTwice(name.as_str()));
        }
        let (policy, nvidia, roots) = (args.share_policy, nvidia.clone(), roots.clone());
        let mut profile = match name {
            ProfileName::Vcuda => continue,
            ProfileName::Amd => crate::vendor::amd::contract::profile(&args.amd, policy, roots),
            ProfileName::Intel => {
                if !args.intel.allow_ids.is_empty() && !args.intel.deny_ids.is_empty() {
                    return Err(ConfigError::AllowAndDeny);
                }
                if args.intel.wsl && (args.intel.enable_monitoring || args.intel.health_management) {
                    return Err(ConfigError::WslAlone);
                }
                crate::vendor::intel::contract::profile(&args.intel, roots)?
            }
            ProfileName::Deepomatic => {
                crate::vendor::deepomatic::contract::profile(&args.deepomatic, policy, nvidia, roots)
            }
            ProfileName::Nvidia => {
                let told = |strategy| args.nvidia.device_list_strategy.contains(&strategy);
                if told(ListStrategy::Envvar) && told(ListStrategy::VolumeMounts) {
                    return Err(ConfigError::ListStrategies);
                }
                crate::vendor::nvidia::contract::profile(&args.nvidia, policy, nvidia, roots)
            }
        };
        profile.placed = args.placed;
        if let (true, Err(error)) = (args.placed, PerCard::new(profile.replicas)) {
            return Err(ConfigError::Shares { flag: args.shares_flag(*name), error });
        }
        made.push(profile);
    }
    Ok(made)
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
        assert_eq!(named.strategy.keys.core, "tencent.com/vcuda-core");
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
            (vec!["--report-period", "0s"], "--report-period"),
            (vec!["--labels", "all"], "--labels"),
            (vec!["--features-dir", "x"], "--features-dir"),
            (vec!["--amd-labels", "vram,colour"], "--amd-labels"),
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
        assert_eq!("500ms".parse(), Ok(Span(Duration::from_millis(500))));
        assert_eq!("2m".parse(), Ok(Span(Duration::from_secs(120))));
        for bad in ["", "s", "1", "1.5s", "-1s", "99999999999999999h"] {
            assert_eq!(bad.parse::<Span>(), Err(BadSpan), "{bad}");
        }
    }
}
