//! Another plugin instead of a node's own.

use kerf_cluster::node::Node;
use kerf_cluster::paper::Paper;
use kerf_cluster::process::Process;

use super::stage::Stage;

/// A node whose plugin offers other GPUs than its own; the node's plugin returns when this is dropped.
pub struct Instead<'a> {
    node: &'a Node,
    pub plugin: Process,
    /// The plugin's GPUs.
    pub paper: Paper,
}

impl<'a> Instead<'a> {
    /// Ends the node's own plugin and starts one with these flags, under the same account.
    pub async fn start(
        stage: &Stage<'_>,
        node: &'a Node,
        paper: Paper,
        word: &str,
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        let kubeconfig = stage.cluster.plugin_token(&node.name).await?;
        node.plugin()?.terminate().await?;
        let own = flags.iter().map(|flag| (*flag).to_owned());
        let flags: Vec<String> = own.chain(paper.flags()).collect();
        let plugin = node.start_vcuda(&stage.cluster.programs, word, &kubeconfig, &flags, "info")?;
        Ok(Self { node, plugin, paper })
    }
}

impl Drop for Instead<'_> {
    fn drop(&mut self) {
        drop(self.plugin.kill());
        if let Ok(own) = self.node.plugin() {
            drop(own.start_again());
        }
    }
}
