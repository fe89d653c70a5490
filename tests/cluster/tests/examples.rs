//! The pods of `examples/pods` behave on real Kubernetes as their comments say.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use kerf_cluster::cards::{Cards, DEVICES};
use kerf_cluster::tools::workspace;
use kerf_limiter_contract::path;

use crate::support::stage::{SOON, Stage, annotation, uid};

/// gpu-manager's two examples, a share with a limit and two whole GPUs, are among them.
pub async fn all_run_with_what_they_were_promised(stage: &Stage<'_>) -> anyhow::Result<()> {
    let control = &stage.cluster.control;
    let directory = workspace().join("examples/pods");
    let namespace = format!("--namespace={}", stage.namespace());
    control.kubectl(&["apply", &namespace, "-f", &directory.display().to_string()])?;
    let count = std::fs::read_dir(&directory)?.count();
    stage.all_run(count, SOON).await?;
    let audit = stage.agreed().await?;
    ensure!(audit.placed.len() == count, "{} of {count} are placed", audit.placed.len());

    let share = stage.pods().get("share").await?;
    ensure!(annotation(&share, "inspur.com/gpu-assigned") == Some("true"), "{:?}", share.metadata.annotations);
    ensure!(annotation(&share, "inspur.com/vcuda-core-limit") == Some("50"), "{:?}", share.metadata.annotations);
    for (name, container, cards) in [("share", "main", 1), ("two-cards", "main", 2), ("whole-card", "main", 1)] {
        let placement = audit.placed.get(&format!("{}/{name}", stage.namespace())).context("not placed")?;
        let grant = placement.plan.grants.first().context("no grant")?;
        let uuids: Vec<&str> = grant.gpus.ids().map(|id| id.as_str()).collect();
        ensure!(uuids.len() == cards, "{name} has {} cards", uuids.len());
        let node = stage.cluster.node(placement.node.as_str())?;
        // what the container itself sees
        let found = control.kubectl(&["exec", &namespace, name, "--", "kerf-probe"])?;
        let lines: BTreeSet<&str> = found.lines().collect();
        let visible = format!("env NVIDIA_VISIBLE_DEVICES={}", uuids.join(","));
        ensure!(lines.contains(visible.as_str()), "{name}: no {visible} in\n{found}");
        let devices: BTreeSet<String> = lines
            .iter()
            .filter_map(|line| line.strip_prefix("device "))
            .filter(|line| line.starts_with(DEVICES))
            .map(str::to_owned)
            .collect();
        let index = |uuid: &&str| node.cards.uuids().iter().position(|known| known == uuid);
        let wanted: BTreeSet<String> = uuids
            .iter()
            .filter_map(index)
            .map(|index| format!("{} character 1:3 666 ok", Cards::device(index).display()))
            .collect();
        ensure!(devices == wanted, "{name}: {devices:?}, not {wanted:?}");
        // a share has its limits files, of which only the state is writable; whole GPUs have none
        let mounts = lines.iter().filter_map(|line| line.strip_prefix("mount ")?.split_once(' '));
        let mounted: BTreeSet<(&str, bool)> = mounts
            .filter(|(target, _)| target.contains("kerf") || target.contains("preload"))
            .map(|(target, rest)| (target, rest.split([' ', ',']).any(|option| option == "ro")))
            .collect();
        let limits = [("/etc/kerf", true), (path::STATE, false), (path::LIBRARY, true), (path::PRELOAD, true)];
        let wanted = if name == "share" { limits.into_iter().collect() } else { BTreeSet::new() };
        ensure!(mounted == wanted, "{name}: {mounted:?}, not {wanted:?}");
        ensure!(!found.contains("LD_LIBRARY_PATH"), "{name}: the library path is replaced");
        // the output from its start
        let pod = stage.pods().get(name).await?;
        let log = node.container_log(stage.namespace(), name, uid(&pod)?, container)?;
        ensure!(log == format!("GPUs: {}", uuids.join(",")), "{name} printed {log:?}");
    }
    Ok(())
}
