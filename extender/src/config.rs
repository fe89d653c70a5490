//! Flags and environment, checked once.

mod ports;

use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use clap::builder::BoolishValueParser;
use kerf::annotation::{Domain, Keys};
use kerf::ids::syntax::is_label;
use kerf::policy::Policy;
use kerf::shares::{SHARE_RESOURCES, ShareResources};
use kerf_runtime::feed::Patience;
use kerf_runtime::lease_name::LeaseName;
use kerf_runtime::telemetry::LogArgs;

use crate::beside::Livez;
use crate::lease;
pub use ports::{PortArgs, Ports};

/// kube-scheduler's side of kerf: chooses the physical GPU of each pod and records it in the write that binds it.
#[derive(Clone, Debug, Parser)]
#[command(name = "kerf-extender", version)]
pub struct Args {
    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment here would become the program's help text")]
    pub ports: PortArgs,
    /// Prefix of the resources and annotations, such as inspur.com or tencent.com
    #[arg(long, env = "KERF_DOMAIN", default_value_t)]
    pub domain: Domain,
    /// Namespace of the object that is changed to have kube-scheduler try waiting pods again (the CSIStorageCapacity
    /// kerf-extender)
    #[arg(long, env = "KERF_NAMESPACE", value_parser = namespace, default_value = "kerf-system", value_name = "NAME")]
    pub namespace: String,
    /// Resources that are shares by count, joined by commas; a name may end in *. A node is asked about those that its
    /// plugin announces
    #[arg(long, env = "KERF_SHARE_RESOURCES", default_value = SHARE_RESOURCES, value_name = "NAMES")]
    pub share_resources: ShareResources,
    /// How to choose among nodes and GPUs that fit: binpack, spread, best-fit, fgd or fragmentation
    #[arg(long, env = "KERF_POLICY", default_value_t)]
    pub policy: Policy,
    /// How many nodes filter leaves to the scheduler, the best by the policy; 0 leaves all that fit. With other
    /// extenders after kerf in the scheduler's list give 0, or have kerf last
    #[arg(long, env = "KERF_CANDIDATES", default_value_t = 64, value_name = "NODES")]
    pub candidates: u16,
    /// Path of a kubeconfig; without it the pod's service account, or the user's own
    #[arg(long, env = "KERF_KUBECONFIG", value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
    /// Longest time for one read from the API server, in milliseconds. A write may take half of --scheduler-timeout-ms
    #[arg(long, env = "KERF_API_TIMEOUT_MS", default_value_t = 900, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub api_timeout_ms: u64,
    /// The scheduler's own time-out for the extender (`httpTimeout`), in milliseconds: answers come earlier
    #[arg(long, env = "KERF_SCHEDULER_TIMEOUT_MS", default_value_t = 5000, value_parser = clap::value_parser!(u64).range(100..=120_000))]
    pub scheduler_timeout_ms: u64,
    /// Serve gpu-admission's `/scheduler/predicates` as well, for schedulers that bind by themselves
    #[arg(long, env = "KERF_LEGACY", value_parser = BoolishValueParser::new())]
    pub legacy: bool,
    /// Largest request accepted, in MiB. Names of 5,000 nodes take less than one, whole Node objects
    /// (`nodeCacheCapable: false`) tens
    #[arg(long, env = "KERF_MAX_BODY_MIB", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub max_body_mib: u16,
    /// Lease, as NAMESPACE/NAME, by which the kube-scheduler in the same pod is elected (its leaderElection.resourceName).
    /// /readyz and metrics then say whether this extender is the one in use
    #[arg(long, env = "KERF_SCHEDULER_LEASE", value_name = "NAMESPACE/NAME")]
    pub scheduler_lease: Option<LeaseName>,
    /// Where the kube-scheduler in the same pod says that it is alive, such as https://127.0.0.1:10259/livez. For the liveness
    /// probe of its container: /livez/scheduler among the metrics answers as it does, and not at all where the extender is gone
    #[arg(long, env = "KERF_SCHEDULER_LIVEZ", value_name = "URL")]
    pub scheduler_livez: Option<Livez>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment here would become the program's help text")]
    pub log: LogArgs,
}

/// What the extender runs with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it listens.
    pub ports: Ports,
    /// Prefix of resources and annotations.
    pub domain: Domain,
    /// Namespace of the object that is changed to make kube-scheduler try waiting pods again.
    pub namespace: String,
    /// Resources that are shares by count.
    pub share_resources: ShareResources,
    /// Default policy.
    pub policy: Policy,
    /// How many nodes filter leaves to the scheduler; `None`: all that fit.
    pub candidates: Option<NonZeroU16>,
    /// Bounds each read from the API server.
    pub api_timeout: Duration,
    /// Bounds each write. Longer than reads: the outcome of an abandoned write is unknown, and its cards stay held.
    pub write_timeout: Duration,
    /// Whether `/scheduler/predicates` is served.
    pub legacy: bool,
    /// Bounds request bodies, in bytes.
    pub max_body: usize,
    /// How long a call of the scheduler may take at most.
    pub scheduler_timeout: Duration,
    /// By which the scheduler beside it is elected.
    pub scheduler_lease: Option<LeaseName>,
    /// Where that scheduler says that it is alive.
    pub scheduler_livez: Option<Livez>,
    /// The name of its pod's host: that of the pod, unless it is on the node's network.
    pub host: String,
    /// Time limits of the watches.
    pub patience: Patience,
}

fn namespace(text: &str) -> anyhow::Result<String> {
    anyhow::ensure!(is_label(text), "{text:?} is not the name of a namespace");
    Ok(text.to_owned())
}

impl TryFrom<&Args> for Config {
    type Error = anyhow::Error;

    fn try_from(args: &Args) -> anyhow::Result<Self> {
        // the slowest bind: read the pod, write, read what became of it
        let write = args.scheduler_timeout_ms / 2;
        let sum = 2 * args.api_timeout_ms + write;
        let limit = args.scheduler_timeout_ms;
        // flags that contradict each other: bind could take longer than the scheduler waits
        anyhow::ensure!(
            sum < limit,
            "a bind could take {sum} ms, two reads of --api-timeout-ms and a write of half of --scheduler-timeout-ms, \
             which must be below --scheduler-timeout-ms, {limit} ms"
        );
        let keys = Keys::new(args.domain.clone());
        for own in [&keys.core, &keys.memory] {
            anyhow::ensure!(
                !args.share_resources.contains(own),
                "--share-resources has {own}, which is kerf's own: it is asked for in hundredths of a GPU, and not by count"
            );
        }
        Ok(Self {
            ports: Ports::try_from(&args.ports)?,
            domain: args.domain.clone(),
            namespace: args.namespace.clone(),
            share_resources: args.share_resources.clone(),
            policy: args.policy,
            candidates: NonZeroU16::new(args.candidates),
            api_timeout: Duration::from_millis(args.api_timeout_ms),
            write_timeout: Duration::from_millis(write),
            legacy: args.legacy,
            max_body: usize::from(args.max_body_mib) << 20,
            scheduler_timeout: Duration::from_millis(limit),
            scheduler_lease: args.scheduler_lease.clone(),
            scheduler_livez: args.scheduler_livez.clone(),
            host: lease::host(),
            patience: Patience::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn config(flags: &[&str]) -> anyhow::Result<Config> {
        Config::try_from(&Args::parse_from(["kerf-extender"].iter().chain(flags)))
    }

    #[test]
    fn names_that_cannot_be_meant_are_refused() {
        for name in ["", "A/../b", "a.b", "-"] {
            let flag = format!("--namespace={name}");
            let error = Args::try_parse_from(["kerf-extender", &flag]).unwrap_err().to_string();
            assert!(error.contains("--namespace"), "{error}");
        }
        for own in ["inspur.com/vcuda-core", "a.b/c,inspur.com/vcuda-memory", "inspur.com/v*"] {
            let error = config(&[&format!("--share-resources={own}")]).unwrap_err().to_string();
            assert!(error.contains("kerf's own"), "{error}");
        }
        assert!(config(&["--share-resources=inspur.com/vcuda-core", "--domain=a.b"]).is_ok());
    }

    #[test]
    fn a_bind_is_over_before_the_scheduler_gives_up() {
        for flags in [&[][..], &["--scheduler-timeout-ms=30000", "--api-timeout-ms=7000"]] {
            let args = Args::parse_from(["kerf-extender"].iter().chain(flags));
            let Config { api_timeout, write_timeout, .. } = config(flags).unwrap();
            let limit = Duration::from_millis(args.scheduler_timeout_ms);
            assert!(api_timeout * 2 + write_timeout < limit, "{flags:?}");
            assert_eq!(write_timeout, limit / 2);
        }
        let error = config(&["--api-timeout-ms=1250"]).unwrap_err().to_string();
        assert!(error.starts_with("a bind could take 5000 ms"), "{error}");
        assert!(config(&["--api-timeout-ms=1249"]).is_ok());
    }
}
