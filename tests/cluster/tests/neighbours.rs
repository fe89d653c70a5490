//! Several plugins on one node: a failure of one, or of kubelet, does not affect the others.

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kerf_cluster::paper::Paper;
use kerf_cluster::wait::until;
use kerf_testkit::tree::Tree;
use serde_json::json;

use crate::support::draft::pod;
use crate::support::offer::{Offer, asks};
use crate::support::seen::Seen;
use crate::support::stage::{SOON, Stage, runs, why};

/// The container `main` of a pod: its id, and its number of restarts.
fn life(pod: &Pod) -> anyhow::Result<(String, i32)> {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let status = statuses.and_then(|statuses| statuses.first()).context("no container")?;
    Ok((status.container_id.clone().context("no container id")?, status.restart_count))
}

/// A pod that must keep running with the same devices.
#[derive(Debug)]
struct Resident {
    name: String,
    life: (String, i32),
    seen: Seen,
}

impl Resident {
    async fn of(stage: &Stage<'_>, name: &str) -> anyhow::Result<Self> {
        let pod = stage.phase(name, &["Running"]).await?;
        until(SOON, &format!("{name} runs"), async || {
            let pod = stage.pods().get(name).await?;
            ensure!(runs(&pod), "{}", why(&pod));
            Ok(Self { name: name.to_owned(), life: life(&pod)?, seen: stage.seen(&pod).await? })
        })
        .await
        .with_context(|| why(&pod))
    }

    /// Checks that it is the same container with the same devices.
    async fn stayed(&self, stage: &Stage<'_>) -> anyhow::Result<()> {
        let pod = stage.pods().get(&self.name).await?;
        ensure!(runs(&pod), "{}", why(&pod));
        let now = life(&pod)?;
        ensure!(now == self.life, "{}: {now:?}, not {:?}", self.name, self.life);
        let seen = Seen::of(&stage.exec(&self.name, "kerf-probe")?)?;
        ensure!(
            (&seen.devices, &seen.mounts) == (&self.seen.devices, &self.seen.mounts),
            "{}: {seen:?}, not {:?}",
            self.name,
            self.seen
        );
        Ok(())
    }
}

/// Ends a pod's container; the next one has the same devices.
async fn restarted(stage: &Stage<'_>, resident: &mut Resident) -> anyhow::Result<()> {
    stage.kill_container(&stage.pods().get(&resident.name).await?)?;
    resident.life = until(SOON, &format!("{} was started again", resident.name), async || {
        let pod = stage.pods().get(&resident.name).await?;
        let now = life(&pod)?;
        ensure!(runs(&pod) && now.1 > resident.life.1, "{}", why(&pod));
        Ok(now)
    })
    .await?;
    resident.stayed(stage).await
}

/// AMD's and Intel's GPUs, two of each, offered by a process each, beside `vcuda`.
pub async fn a_process_that_dies_costs_the_other_nothing(stage: &Stage<'_>) -> anyhow::Result<()> {
    let [node, ..] = stage.cluster.nodes.as_slice() else { anyhow::bail!("no node") };
    let tree = Tree::new(json!({ "cards": [
        { "vendor": "intel", "address": "0000:00:02.0", "card": 0, "render": 128, "driver": "i915" },
        { "vendor": "amd", "address": "0000:63:00.0", "card": 1, "render": 129 },
        { "vendor": "intel", "address": "0000:04:00.0", "card": 2, "render": 130, "driver": "i915" },
        { "vendor": "amd", "address": "0000:43:00.0", "card": 3, "render": 131 },
    ] }))?;
    let paper = Paper::lay(node, &tree)?;
    let (amd, intel) = ("amd.com/gpu", "gpu.intel.com/i915");
    let first = Offer::start(stage, node, &paper, &["--profile=amd"], &[(amd, 2)])?;
    let second = Offer::start(stage, node, &paper, &["--profile=intel"], &[(intel, 2)])?;
    first.ready().await?;
    second.ready().await?;
    stage.create(&asks("amd", node, &[(amd, 1)])).await?;
    stage.create(&asks("intel", node, &[(intel, 1)])).await?;
    stage.create(&pod("vcuda").app("main", 50, 30).on(&node.name)).await?;
    let mut residents = Vec::new();
    for name in ["amd", "intel", "vcuda"] {
        residents.push(Resident::of(stage, name).await?);
    }
    let registrations = second.registrations().await?;

    first.plugin.kill()?;
    until(SOON, "kubelet has noticed", async || {
        let offered = stage.cluster.offered(&node.name, amd).await?;
        ensure!(offered == 0, "the node offers {offered} of {amd}");
        Ok(())
    })
    .await?;
    let offered = stage.cluster.offered(&node.name, intel).await?;
    ensure!(offered == 2, "the node offers {offered} of {intel}");
    let told = first.doctor(1).await?;
    ensure!(told.contains("problem: ") && told.contains(amd), "doctor: {told}");
    second.doctor(0).await?;
    // the other one goes on serving, and a container that restarts needs no plugin
    stage.create(&asks("intel-meanwhile", node, &[(intel, 1)])).await?;
    residents.push(Resident::of(stage, "intel-meanwhile").await?);
    restarted(stage, residents.first_mut().context("nobody")?).await?;
    first.plugin.start_again()?;
    first.ready().await?;
    first.doctor(0).await?;
    stage.create(&asks("amd-after", node, &[(amd, 1)])).await?;
    residents.push(Resident::of(stage, "amd-after").await?);

    let now = second.registrations().await?;
    ensure!(now == registrations, "{intel} was registered {now:?} times, not {registrations:?}");
    for resident in &residents {
        resident.stayed(stage).await?;
    }
    // no GPU was given twice
    for (one, other) in [("amd", "amd-after"), ("intel", "intel-meanwhile")] {
        let cards = |name: &str| -> Vec<String> {
            let own = residents.iter().filter(|resident| resident.name == name);
            own.flat_map(|resident| resident.seen.devices.keys())
                .filter(|path| path.starts_with("/dev/dri/card"))
                .cloned()
                .collect()
        };
        ensure!(cards(one).len() == 1 && cards(other).len() == 1 && cards(one) != cards(other), "{residents:?}");
    }
    stage.agreed().await.map(drop)
}

/// Every profile registers again with a restarted kubelet, running pods keep their devices, and new pods are served.
pub async fn all_profiles_survive_a_kubelet_restart(stage: &Stage<'_>) -> anyhow::Result<()> {
    let (first, second) = stage.two_nodes()?;
    let tree = Tree::new(json!({ "cards": [
        { "vendor": "intel", "address": "0000:00:02.0", "card": 0, "render": 128, "driver": "i915" },
        { "vendor": "amd", "address": "0000:63:00.0", "card": 1, "render": 129 },
        { "vendor": "nvidia", "address": "0000:3b:00.0", "minor": 0, "uuid": "GPU-5c0d" },
    ] }))?;
    let (mixed, pair) = (Paper::lay(first, &tree)?, Paper::lay(second, &Tree::named("g")?)?);
    let shares = [("amd.com/gpu", 2), ("gpu.intel.com/i915", 2), ("nvidia.com/gpu", 2)];
    let flags = [
        "--profile=amd,intel,nvidia",
        "--amd-replicas=2",
        "-shared-dev-num=2",
        "--nvidia-replicas=2",
        "--pass-device-specs=true",
    ];
    let vendors = Offer::start(stage, first, &mixed, &flags, &shares)?;
    let flags = ["--profile=deepomatic", "-gpu-duplication-factor=2"];
    let counted = Offer::start(stage, second, &pair, &flags, &[("deepomatic.com/shared-gpu", 4)])?;
    vendors.ready().await?;
    counted.ready().await?;
    let resources = [
        ("amd", first, "amd.com/gpu"),
        ("intel", first, "gpu.intel.com/i915"),
        ("nvidia", first, "nvidia.com/gpu"),
        ("deepomatic", second, "deepomatic.com/shared-gpu"),
        ("vcuda", first, "inspur.com/vcuda-core"),
    ];
    let draft = |when: &str, name: &str, node, resource| match name {
        "vcuda" => pod(format!("vcuda-{when}")).app("main", 50, 30).on(&first.name),
        _ => asks(&format!("{name}-{when}"), node, &[(resource, 1)]),
    };
    let before: Vec<_> =
        resources.iter().map(|(name, node, resource)| draft("before", name, node, resource)).collect();
    stage.create_all(&before).await?;
    let mut residents = Vec::new();
    for draft in &before {
        residents.push(Resident::of(stage, &draft.name).await?);
    }

    let registrations = [vendors.registrations().await?, counted.registrations().await?];
    for node in [first, second] {
        node.kubelet.kill()?;
        node.kubelet.start_again()?;
    }
    for (offer, before) in [&vendors, &counted].into_iter().zip(&registrations) {
        until(SOON, "every resource is registered again", async || {
            let now = offer.registrations().await?;
            ensure!(now.iter().zip(before).all(|(now, before)| now > before), "{now:?} times, before {before:?}");
            Ok(())
        })
        .await?;
        offer.ready().await?;
    }
    stage.cluster.ready(SOON).await?;
    let after: Vec<_> =
        resources.iter().map(|(name, node, resource)| draft("after", name, node, resource)).collect();
    stage.create_all(&after).await?;
    for (draft, before) in after.iter().zip(&residents) {
        let new = Resident::of(stage, &draft.name).await?;
        before.stayed(stage).await?;
        // there is one GPU of each vendor, of which both have a share
        if ["amd", "intel", "nvidia"].iter().any(|name| draft.name.starts_with(name)) {
            ensure!(new.seen.devices == before.seen.devices, "{}: {:?}", new.name, new.seen.devices);
        }
    }
    stage.agreed().await.map(drop)
}
