//! Pods with GPU requests that come with their node's name: no GPUs were chosen for them, and they get none of other
//! pods. As in a cluster without the policy that refuses to create them.

use anyhow::ensure;
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kerf_cluster::wait::until;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use rustix::process::Signal;

use crate::policies::tenant;
use crate::support::draft::{Draft, pod};
use crate::support::policy::{leave_out, noted_only};
use crate::support::stage::{SOON, Stage, phase, why};

/// The plugin's refusal of such a pod, or kubelet's own where nothing is left to give.
const REFUSALS: [&str; 4] =
    ["without a placement by kerf", "no pod bound to this node has a placement", "has no room", "Insufficient"];

/// kubelet is stopped until placed pods and strangers with the same amounts wait for it, in any order.
pub async fn get_no_card_of_a_pod_that_waits(stage: &Stage<'_>) -> anyhow::Result<()> {
    leave_out(stage).await?;
    let tenant: Api<Pod> = Api::namespaced(tenant(stage).await?, stage.namespace());
    noted_only(stage, async || {
        // so small that the strangers, which may be on any GPU, leave room for the placed pods
        let (core, memory) = (5, 3);
        let placed = drafts("placed", 6, core, memory).map(|draft| draft.on("node-1")).collect();
        serves(stage, &tenant, placed, strangers("stranger", 8, core, memory), true).await?;
        let whole = drafts("whole", 2, 100, 0).map(|draft| draft.on("node-1")).collect();
        serves(stage, &tenant, whole, strangers("greedy", 3, 100, 0), false).await?;
        let audit = stage.agreed().await?;
        ensure!(audit.placed.len() == 8, "{:?} are placed", audit.placed.keys());
        Ok(())
    })
    .await
}

fn drafts(name: &str, count: usize, core: u32, memory: u32) -> impl Iterator<Item = Draft> {
    (0..count).map(move |number| pod(format!("{name}-{number}")).app("main", core, memory))
}

/// Every other one has an annotation for which a new pod would be refused.
fn strangers(name: &str, count: usize, core: u32, memory: u32) -> Vec<Draft> {
    let named = drafts(name, count, core, memory).map(|draft| draft.with("nodeName", "node-1")).enumerate();
    named
        .map(|(at, draft)| if at % 2 == 0 { draft } else { draft.annotation("inspur.com/gpu-policy", "x") })
        .collect()
}

/// The placed ones run, and every stranger fails and is removed. `mixed`: all are created at once, instead of the
/// strangers last.
async fn serves(
    stage: &Stage<'_>,
    tenant: &Api<Pod>,
    placed: Vec<Draft>,
    strangers: Vec<Draft>,
    mixed: bool,
) -> anyhow::Result<()> {
    let kubelet = &stage.cluster.node("node-1")?.kubelet;
    kubelet.signal(Signal::STOP)?;
    let waiting = async {
        let create = async || try_join_all(strangers.iter().map(|draft| created(tenant, draft))).await;
        if mixed {
            tokio::try_join!(stage.create_all(&placed), create())?;
            bound(stage, &placed).await?;
        } else {
            stage.create_all(&placed).await?;
            bound(stage, &placed).await?;
            create().await?;
        }
        anyhow::Ok(())
    }
    .await;
    kubelet.signal(Signal::CONT)?;
    waiting?;
    for draft in &strangers {
        let failed = stage.phase(&draft.name, &["Failed"]).await?;
        let message = why(&failed);
        ensure!(REFUSALS.iter().any(|text| message.contains(text)), "{message}");
    }
    for draft in &placed {
        stage.phase(&draft.name, &["Running"]).await?;
    }
    for draft in &strangers {
        tenant.delete(&draft.name, &DeleteParams::default().grace_period(0)).await?;
    }
    Ok(())
}

async fn created(pods: &Api<Pod>, draft: &Draft) -> anyhow::Result<()> {
    pods.create(&PostParams::default(), &serde_json::from_value(draft.value().clone())?).await?;
    Ok(())
}

async fn bound(stage: &Stage<'_>, drafts: &[Draft]) -> anyhow::Result<()> {
    until(SOON, "the placed ones are bound", async || {
        for draft in drafts {
            let pod = stage.pods().get(&draft.name).await?;
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
            ensure!(node.is_some(), "{} {}", phase(&pod), why(&pod));
        }
        Ok(())
    })
    .await
}
