//! From a kubeconfig to a client.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use tokio::runtime::{Builder, Runtime};

/// The time limit for opening a connection.
const CONNECT: Duration = Duration::from_secs(5);

const OTHER_WAYS: &str = "name one with --kubeconfig or $KUBECONFIG, or read a snapshot with --file";

/// What the options say.
pub struct Wanted<'a> {
    pub kubeconfig: Option<&'a Path>,
    pub context: Option<&'a str>,
    /// For one request.
    pub limit: Duration,
}

/// A client, and what runs it.
pub struct Connection {
    pub runtime: Runtime,
    pub client: Client,
    /// For messages: the address of the API server.
    pub server: String,
    /// For one request.
    pub limit: Duration,
}

impl Wanted<'_> {
    /// Asks the API server nothing yet.
    ///
    /// # Errors
    /// Where no cluster is configured, or not so that it can be used; the text says what to do.
    pub fn connect(&self) -> anyhow::Result<Connection> {
        let runtime = Builder::new_current_thread().enable_all().build().context("no runtime")?;
        let client = runtime.block_on(async {
            let mut config = self.config().await?;
            config.connect_timeout = Some(CONNECT);
            // the limit of each request is the caller's
            config.default_retry = false;
            let server = config.cluster_url.to_string();
            let server = server.trim_end_matches('/').to_owned();
            Ok::<_, anyhow::Error>((Client::try_from(config).with_context(|| server.clone())?, server))
        });
        let (client, server) = client?;
        Ok(Connection { runtime, client, server, limit: self.limit })
    }

    async fn config(&self) -> anyhow::Result<Config> {
        let read = match self.kubeconfig {
            Some(path) => Kubeconfig::read_from(path),
            None => Kubeconfig::read(),
        };
        let file = match read {
            Ok(file) => file,
            // in a pod
            Err(_) if self.kubeconfig.is_none() && std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() => {
                return Config::incluster().context("the account of this pod");
            }
            Err(KubeconfigError::ReadConfig(error, path)) => {
                return Err(anyhow!("no kubeconfig: {}: {error}; {OTHER_WAYS}", path.display()));
            }
            Err(KubeconfigError::FindPath) => return Err(anyhow!("no kubeconfig: $HOME is not set; {OTHER_WAYS}")),
            Err(error) => return Err(anyhow!("the kubeconfig cannot be used: {error}; {OTHER_WAYS}")),
        };
        let options =
            KubeConfigOptions { context: self.context.map(str::to_owned), ..KubeConfigOptions::default() };
        let contexts: Vec<String> = file.contexts.iter().map(|context| context.name.clone()).collect();
        let known =
            if contexts.is_empty() { "it has none".to_owned() } else { format!("it has {}", contexts.join(", ")) };
        Config::from_custom_kubeconfig(file, &options).await.map_err(|error| match error {
            KubeconfigError::CurrentContextNotSet => {
                anyhow!("the kubeconfig has no current context: choose one with --context ({known})")
            }
            KubeconfigError::LoadContext(name) => {
                anyhow!("the kubeconfig has no context {name:?}: choose one with --context ({known})")
            }
            other => anyhow!("the kubeconfig cannot be used: {other}"),
        })
    }
}
