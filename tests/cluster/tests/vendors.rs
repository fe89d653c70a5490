//! `vcuda` on other vendors' GPUs.

use anyhow::ensure;
use kerf_cluster::paper::Paper;
use kerf_cluster::wait::until;
use kerf_testkit::tree::Tree;
use kube::api::DeleteParams;

use crate::support::draft::pod;
use crate::support::instead::Instead;
use crate::support::stage::{SOON, Stage, annotation};

/// The extender places shares by core and memory on AMD's and Intel's GPUs; the node's own plugin is stopped for it.
pub async fn vcuda_is_served_from_amd_and_intel_cards(stage: &Stage<'_>) -> anyhow::Result<()> {
    let (first, second) = stage.two_nodes()?;
    let mut others = Vec::new();
    for (node, tree, backend) in [(first, "a", "amd"), (second, "e", "intel")] {
        let (paper, flag) = (Paper::lay(node, &Tree::named(tree)?)?, format!("--backend={backend}"));
        others.push(Instead::start(stage, node, paper, backend, &[&flag]).await?);
    }
    for (node, cards) in [(first, ["0000:19:00.0"].as_slice()), (second, &["0042:01:02.0", "0042:01:05.0"])] {
        until(SOON, &format!("{} offers its cards of paper", node.name), async || {
            let state = stage.cluster.extender_state().await?;
            let known = state["nodes"][&node.name]["gpus"].as_array().cloned().unwrap_or_default();
            let known: Vec<&str> = known.iter().filter_map(|card| card["gpu"].as_str()).collect();
            ensure!(known == cards, "the extender knows {known:?}");
            let offered = stage.cluster.allocatable(&node.name).await?;
            ensure!(offered == 100 * cards.len() as u64, "it offers {offered}");
            Ok(())
        })
        .await?;
    }
    stage.create(&pod("on-amd").app("main", 50, 30).on(&first.name)).await?;
    stage.create(&pod("on-intel").app("main", 50, 30).on(&second.name)).await?;
    stage.all_run(2, SOON).await?;
    let wanted: [(&str, &[&str]); 2] =
        [("on-amd", &["kfd", "dri/card0", "dri/renderD128"]), ("on-intel", &["dri/card1", "dri/renderD129"])];
    for ((name, files), other) in wanted.into_iter().zip(&others) {
        let seen = stage.given(&stage.phase(name, &["Running"]).await?).await?;
        seen.has_devices(&other.paper, files)?;
        // nothing that only NVIDIA's runtime would read, and no limiter
        seen.has_mounts(&[])?.has_env(&[])?;
        until(SOON, &format!("{name} is confirmed"), async || {
            let pod = stage.pods().get(name).await?;
            let told = ["gpu-assigned", "gpu-isolation"].map(|key| annotation(&pod, &format!("inspur.com/{key}")));
            ensure!(told == [Some("true"), Some(r#"{"main":"none"}"#)], "{:?}", pod.metadata.annotations);
            Ok(())
        })
        .await?;
    }
    // before their GPUs go
    for name in ["on-amd", "on-intel"] {
        stage.pods().delete(name, &DeleteParams::default()).await?;
    }
    until(SOON, "they are gone", async || {
        for name in ["on-amd", "on-intel"] {
            ensure!(stage.pods().get_opt(name).await?.is_none(), "{name} is there");
        }
        Ok(())
    })
    .await
}
