//! The helm chart on a real API server.

use anyhow::{Context, ensure};
use kerf_cluster::release::components;
use serde_json::Value;

use crate::support::foreign::Types;
use crate::support::helm::{Helm, chart};
use crate::support::stage::Stage;

/// What the chart can render, under other names than the manifests', is accepted by the API server: every field, and every
/// expression of the policies.
pub async fn every_value_is_accepted(stage: &Stage<'_>) -> anyhow::Result<()> {
    let control = &stage.cluster.control;
    let server: Value = serde_json::from_str(&control.kubectl(&["version", "--output=json"])?)?;
    let version = server["serverVersion"]["gitVersion"].as_str().context("no version")?;
    let ways = [
        "simulated.enabled=true,priorityQuota=true",
        "domain=example.org,routing.reservedNodes=true,routing.runtimeClassName=nvidia,nodeLabels=node,plugin.driverLimits=true",
        "routing.mutate=never,requests=warn,scheduler.serviceAccount.name=own,placedResources={nvidia.com/gpu}",
        "placement=remote,remote.legacy=true,nodeLabels=nfd,remote.from[0].ipBlock.cidr=192.0.2.0/24",
        "placement=controlPlane,requests=allow",
        "placement=none,profiles.account.enabled=true,profiles.amd.enabled=true,profiles.intel.enabled=true,\
         profiles.intel.nodeFeatureDiscovery=true,profiles.nvidia.enabled=true,profiles.deepomatic.enabled=true",
        "profiles.deepomatic.enabled=true,profiles.deepomatic.placed=true",
        "openshift=true,nvidiaHardened=true,startupTaint=true,viewer=true,podMonitor.enabled=true,podMonitor.interval=30s,rules.enabled=true,\
         profiles.nvidia.enabled=true,profiles.account.enabled=true,nodeLabels=nfd,nfdFeaturesDir=/var/lib/features,\
         kubeletDir=/var/lib/k0s/kubelet,plugin.seLinuxType=,prune.nodeSelector.pool=any",
        "placement=none,openshift=true,profiles.account.enabled=true,profiles.amd.enabled=true,prune.enabled=false",
    ];
    let types = Types::new(stage)?;
    // without a MutatingAdmissionPolicy the chart refuses what needs one
    let routed = components(&stage.cluster.client).await?.is_empty();
    let ways: Vec<&str> = ways.into_iter().filter(|way| routed || !way.contains("reservedNodes")).collect();
    for helm in Helm::find(stage).into_iter().flatten() {
        for (number, values) in ways.iter().enumerate() {
            // the hook asks for what this cluster's own kerf has, under another scheduler
            let args = ["template", "cards", &chart(), "--skip-tests", "--kube-version", version, "--set", values];
            let rendered = helm.run(stage.namespace(), &args).context(*values)?;
            let file = stage.cluster.place().write(&format!("helm/way-{number}.yaml"), rendered)?;
            let file = file.display().to_string();
            let apply = ["apply", "--dry-run=server", "--output=name", "--filename", &file];
            let accepted =
                control.kubectl(&apply).with_context(|| format!("{}: {values}", helm.program.display()))?;
            ensure!(
                accepted.lines().all(|name| name.contains("/cards-kerf")
                    || name.contains("/own")
                    || name.ends_with("/kerf-extender")),
                "{values}: {accepted}"
            );
        }
    }
    drop(types);
    Ok(())
}

/// Two that offer the same resources would each give away the same GPUs; kerf is here already, by its manifests.
pub async fn a_second_kerf_is_refused(stage: &Stage<'_>) -> anyhow::Result<()> {
    for helm in Helm::find(stage).into_iter().flatten() {
        let asked = |values: &str| {
            let args = ["install", "cards", &chart(), "--dry-run=server", "--set", values];
            helm.run(stage.namespace(), &args)
        };
        let refused = asked("simulated.enabled=true").err().context("a second kerf is not refused")?;
        let said = format!("{refused:#}");
        for part in ["domain: this cluster has kerf for inspur.com already", "without helm", "kerf-pods"] {
            ensure!(said.contains(part), "{}: no {part:?} in {said}", helm.program.display());
        }
        // for other resources there may be one
        asked("domain=example.org,routing.mutate=never")?;
        asked("placement=none,profiles.amd.enabled=true")?;
    }
    Ok(())
}
