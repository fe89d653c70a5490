//! How much of its GPU a container can take, through the files that kubelet itself mounted into it; and what the host
//! sees.

use anyhow::{Context, ensure};
use kerf_cluster::cards::MEMORY_MIB;
use kerf_cluster::wait::until;
use serde_json::json;

use crate::support::draft::pod;
use crate::support::stage::{SOON, Stage, annotation, uid};

/// Half a GPU's compute and 7.5 GiB of its 24, as in gpu-manager's example.
const SHARE_MIB: u64 = 30 * 256;
/// The default of `--context-mib`, which the stand-in's contexts take.
const CONTEXT_MIB: u64 = 400;

/// The program sees its share as the whole GPU, gets all of it but for its context and then CUDA's out-of-memory error, and
/// a second one in the same container gets nothing. It is an ordinary program, without any reference to a library of kerf.
pub async fn a_share_is_all_the_memory_that_a_program_finds(stage: &Stage<'_>) -> anyhow::Result<()> {
    let card = json!([
        { "name": "STANDIN_CARD", "value": "/tmp/card" }, { "name": "STANDIN_CARD_MIB", "value": MEMORY_MIB.to_string() },
    ]);
    stage.create(&pod("half").runs("main", 50, 30, "exec kerf-cuda hold").env(&card)).await?;
    stage.create(&pod("whole").runs("main", 100, 0, "exec kerf-cuda hold").env(&card)).await?;
    stage.all_run(2, SOON).await?;
    stage.agreed().await?;
    for (name, mib) in [("half", SHARE_MIB), ("whole", MEMORY_MIB)] {
        let object = stage.pods().get(name).await?;
        let node = object.spec.as_ref().and_then(|spec| spec.node_name.clone()).context("no node")?;
        let node = stage.cluster.node(&node)?;
        let uid = uid(&object)?;
        let log = until(SOON, &format!("{name} has taken all"), async || {
            let log = node.container_log(stage.namespace(), name, uid, "main")?;
            ensure!(log.contains("then error"), "{log}");
            Ok(log)
        })
        .await?;
        ensure!(log.starts_with(&format!("total {mib} MiB\nshown {mib} MiB\n")), "{name}: {log}");
        ensure!(log.ends_with("then error 2"), "{name}: {log}");
        let taken = log.lines().find_map(|line| line.strip_prefix("taken ")?.strip_suffix(" MiB")?.parse().ok());
        let taken: u64 = taken.context("nothing taken")?;
        if name == "half" {
            // it takes pieces of 64 MiB, beside its context
            let left = (SHARE_MIB - CONTEXT_MIB) / 64 * 64;
            ensure!(taken == left, "{taken} MiB of {left}");
            ensure!(annotation(&object, "inspur.com/gpu-isolation") == Some(r#"{"main":"limiter"}"#), "{object:?}");
        } else {
            ensure!(taken > SHARE_MIB, "a whole card is limited to {taken} MiB");
        }
    }
    let namespace = format!("--namespace={}", stage.namespace());
    // a program without environment, except for the stand-in driver's, is in the same container
    let bare = "env -i STANDIN_CARD=$STANDIN_CARD NVIDIA_VISIBLE_DEVICES=$NVIDIA_VISIBLE_DEVICES kerf-cuda || true";
    let second = stage.cluster.control.kubectl(&["exec", &namespace, "half", "--", "sh", "-c", bare])?;
    ensure!(second.contains("cuCtxCreate: error 2"), "{second}");
    // the container cannot change the files that limit it
    for file in ["/etc/kerf/limits", "/etc/ld.so.preload", "/usr/lib/kerf/libkerf_limiter.so"] {
        let script = format!("echo x >{file} || rm -f {file} || echo refused");
        let tried = stage.cluster.control.kubectl(&["exec", &namespace, "half", "--", "sh", "-c", &script])?;
        ensure!(tried.contains("refused"), "{file}: {tried}");
    }
    Ok(())
}

/// Makes the host see a process of a container that holds more than its share and that no limiter knows; waits until
/// the pod has an event for both.
pub async fn breach(stage: &Stage<'_>, pod: &str, container: &str) -> anyhow::Result<()> {
    let object = stage.pods().get(pod).await?;
    let node = object.spec.as_ref().and_then(|spec| spec.node_name.clone()).context("no node")?;
    let node = stage.cluster.node(&node)?;
    let placed = stage.agreed().await?.placed;
    let reference = format!("{}/{pod}", stage.namespace());
    let placement = placed.get(&reference).context("not placed")?;
    let grant = placement.plan.grants.iter().find(|grant| grant.container.as_str() == container);
    let (device, share) = grant.and_then(|grant| grant.gpus.amounts().next()).context("no card")?;
    let used = share.memory.0 + 1000;
    node.cards.set_process(Some((std::process::id(), device.id.as_str(), &reference, container, used)))?;
    let heard = async {
        stage.event(pod, &format!("uses {used} MiB of GPU {}", device.id)).await?;
        stage.event(pod, "run without kerf's limiter").await
    };
    let heard = heard.await;
    node.cards.set_process(None)?;
    heard.map(drop)
}

/// With the rights of the manifests.
pub async fn a_breach_is_told_in_an_event(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.create(&pod("greedy").app("main", 20, 8)).await?;
    stage.all_run(1, SOON).await?;
    breach(stage, "greedy", "main").await
}
