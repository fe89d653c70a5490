//! Structured logs on standard error.

use anyhow::{Context as _, anyhow};
use tracing_subscriber::EnvFilter;

/// Flags of every daemon that say what is logged and how.
#[derive(Clone, Debug, clap::Args)]
pub struct LogArgs {
    /// What to log: a level, or `target=level` directives joined by commas
    #[arg(long = "log", env = "KERF_LOG", default_value = "info", value_name = "FILTER")]
    pub filter: String,
    /// How to write logs
    #[arg(long = "log-format", env = "KERF_LOG_FORMAT", default_value_t = LogFormat::Text, value_enum)]
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Targets of kube, unless the filter names it. It logs the whole of an answer that it cannot parse, which may have data of all
/// tenants' pods, and that a request failed, without its address: who made the request says so in full.
const QUIET: &str = ",kube_client=error,kube_client::client::builder=off";

impl LogArgs {
    /// Starts logging for the whole process.
    ///
    /// # Errors
    /// Where the filter does not parse or logging runs already.
    pub fn init(&self) -> anyhow::Result<()> {
        let quiet = if self.filter.contains("kube_client") { "" } else { QUIET };
        let filter = EnvFilter::try_new(format!("{}{quiet}", self.filter))
            .with_context(|| format!("--log {:?} is not a valid log filter", self.filter))?;
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        match self.format {
            LogFormat::Text => builder.try_init(),
            LogFormat::Json => builder.json().try_init(),
        }
        .map_err(|_| anyhow!("logging was already started"))
    }
}
