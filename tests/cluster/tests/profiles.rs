//! Other systems' pods run unchanged, and find in their containers exactly what their systems' plugins would have given
//! them: everything that a container has beyond one without resources is compared.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kerf_cluster::books;
use kerf_cluster::node::Node;
use kerf_cluster::paper::{MAJOR, Paper};
use kerf_cluster::wait::until;
use kerf_testkit::tree::Tree;
use serde_json::{Value, json};

use crate::support::offer::{Offer, asks};
use crate::support::overlay::{self, Overlays};
use crate::support::stage::{SOON, Stage, runs};

/// The one NVIDIA GPU of the tree `mixed`.
const NVIDIA: &str = "GPU-5c0d6a2e-94a5-4e4b-9d2f-0a1b2c3d4e5f";

/// The overlays and the examples, applied as an administrator does: three vendors' plugins on one node, on which two of
/// AMD's three GPUs are linked and Intel's have a driver each; on the other node, shares of two GPUs.
pub async fn the_examples_find_their_cards(stage: &Stage<'_>) -> anyhow::Result<()> {
    let (first, second) = stage.two_nodes()?;
    let (mixed, pair) = (Paper::lay(first, &Tree::named("mixed")?)?, Paper::lay(second, &Tree::named("g")?)?);
    overlay::import(stage, &[first, second])?;
    let mut overlays = Overlays::new(stage);
    for (overlay, node, paper) in [
        ("amd", first, &mixed),
        ("nfd_labeled_nodes", first, &mixed),
        ("nvidia", first, &mixed),
        ("deepomatic", second, &pair),
    ] {
        overlays.apply(overlay, node, paper)?;
    }
    let amounts = [
        (first, "amd.com/gpu", 3),
        (first, "gpu.intel.com/i915", 1),
        (first, "gpu.intel.com/xe", 1),
        (first, "gpu.intel.com/monitoring", 1),
        (first, "nvidia.com/gpu", 1),
        (second, "deepomatic.com/shared-gpu", 200),
    ];
    overlays.ready(&amounts).await?;

    for example in ["amd.yaml", "intelgpu-job.yaml", "nvidia.yaml", "deepomatic.yaml"] {
        stage.create_example(example)?;
    }
    stage.create(&asks("monitor", first, &[("gpu.intel.com/monitoring", 1)])).await?;

    let amd = stage.given(&stage.phase("amd", &["Succeeded"]).await?).await?;
    amd.has_devices(&mixed, &["kfd", "dri/card3", "dri/card4", "dri/renderD131", "dri/renderD132"])?;
    amd.has_mounts(&[])?.has_env(&[])?;
    ensure!(amd.rest.contains("/dev/kfd"), "its own command: {}", amd.rest);

    // by the label that Intel's documentation uses
    let job = stage.labelled("jobgroup=intelgpu-demo", 1, &["Succeeded"]).await?;
    let intel = stage.given(job.first().context("no pod")?).await?;
    let links = ["dri/by-path/pci-0000:00:02.0-card", "dri/by-path/pci-0000:00:02.0-render"];
    intel.has_devices(&mixed, &["dri/card0", "dri/renderD128", links[0], links[1]])?;
    intel.has_mounts(&links.map(|link| format!("/dev/{link}")).each_ref().map(String::as_str))?.has_env(&[])?;

    let monitor = stage.given(&stage.phase("monitor", &["Running"]).await?).await?;
    let more = ["dri/by-path/pci-0000:04:00.0-card", "dri/by-path/pci-0000:04:00.0-render"];
    let own = ["dri/card0", "dri/card1", "dri/renderD128", "dri/renderD129", "mei0"];
    monitor.has_devices(&mixed, &[&own[..], &links, &more].concat())?;

    let job = stage.labelled("job-name=nvidia", 1, &["Succeeded"]).await?;
    let nvidia = stage.given(job.first().context("no pod")?).await?;
    let own = ["nvidia0", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"];
    nvidia.has_devices(&mixed, &own)?;
    nvidia.has_mounts(&[])?.has_env(&[("NVIDIA_VISIBLE_DEVICES", NVIDIA)])?;
    ensure!(nvidia.rest.starts_with(&format!("GPUs: {NVIDIA}\n")), "its own command: {}", nvidia.rest);

    shares_of(stage, second, &pair).await?;
    cdi_files_are_read(stage, first, &mixed, &more).await
}

/// Two pods with a share of a GPU each get different GPUs.
async fn shares_of(stage: &Stage<'_>, node: &Node, pair: &Paper) -> anyhow::Result<()> {
    let mut cards = BTreeSet::new();
    for pod in stage.labelled("app=deepomatic", 2, &["Running"]).await? {
        let deepomatic = stage.given(&pod).await?;
        let card = *deepomatic.nvidia().first().context("no card")?;
        let card_file = format!("nvidia{card}");
        deepomatic.has_devices(pair, &[&card_file, "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools"])?;
        deepomatic.has_mounts(&["/usr/local/nvidia"])?;
        deepomatic.has_env(&[("LD_LIBRARY_PATH", "/usr/local/nvidia/lib64")])?;
        cards.insert(card);
        let name = pod.metadata.name.context("no name")?;
        let library = stage.exec(&name, "cat /usr/local/nvidia/lib64/libcuda.so.1")?;
        ensure!(library == node.name, "the driver's library says {library:?}");
        // the other GPU's file can be made, but not opened
        let other = pair.minor(&format!("nvidia{}", 1 - card))?;
        let script = format!("mknod /tmp/other c {MAJOR} {other}; (: <>/tmp/other) 2>&1 || true");
        let refused = stage.exec(&name, &script)?;
        ensure!(refused.contains("Operation not permitted"), "another card: {refused:?}");
    }
    ensure!(cards.len() == 2, "two pods are on {cards:?}");
    Ok(())
}

/// A CDI name is defined in a file, and the runtime reads it.
async fn cdi_files_are_read(stage: &Stage<'_>, node: &Node, paper: &Paper, links: &[&str]) -> anyhow::Result<()> {
    let file = node.directory().join("cdi/intel.cdi.k8s.io-gpu-card1.yaml");
    let mut spec: Value = serde_json::from_slice(&std::fs::read(&file).context("no CDI file")?)?;
    spec["devices"][0]["containerEdits"]["env"] = json!(["FROM_CDI=card1"]);
    std::fs::write(&file, spec.to_string())?;
    stage.create(&asks("cdi", node, &[("gpu.intel.com/xe", 1)])).await?;
    let cdi = stage.given(&stage.phase("cdi", &["Running"]).await?).await?;
    cdi.has_env(&[("FROM_CDI", "card1")])?;
    cdi.has_devices(paper, &[&["dri/card1", "dri/renderD129"], links].concat()).map(drop)
}

/// Partitions of one GPU where they suffice; instances by the names of their profile.
pub async fn partitions_and_instances_are_devices(stage: &Stage<'_>) -> anyhow::Result<()> {
    let (first, second) = stage.two_nodes()?;
    let (parts, instances) = (Paper::lay(first, &Tree::named("b")?)?, Paper::lay(second, &Tree::named("f")?)?);
    let flags = ["--profile=amd", "-resource_naming_strategy=mixed"];
    let amd = Offer::start(stage, first, &parts, &flags, &[("amd.com/cpx_nps1", 32)])?;
    let flags = ["--profile=nvidia", "--mig-strategy=mixed", "--mig-profile=3g.20gb", "--pass-device-specs=true"];
    let nvidia = Offer::start(stage, second, &instances, &flags, &[("nvidia.com/mig-3g.20gb", 2)])?;
    amd.ready().await?;
    nvidia.ready().await?;
    stage.create(&asks("parts", first, &[("amd.com/cpx_nps1", 4)])).await?;
    stage.create(&asks("instance", second, &[("nvidia.com/mig-3g.20gb", 1)])).await?;
    stage.all_run(2, SOON).await?;

    let seen = stage.given(&stage.pods().get("parts").await?).await?;
    let minors = |prefix: &str| -> Vec<u32> {
        seen.devices.keys().filter_map(|path| path.strip_prefix(prefix)?.parse().ok()).collect()
    };
    let (cards, renders) = (minors("/dev/dri/card"), minors("/dev/dri/renderD"));
    let first_of = renders.iter().min().copied().context("no render file")?;
    // eight GPUs of four partitions, whose numbers are eight apart
    ensure!(first_of % 8 == 0 && renders.iter().all(|minor| minor - first_of < 4), "of several cards: {renders:?}");
    let names: Vec<String> = (0..4)
        .flat_map(|part| [format!("dri/renderD{}", first_of + part), format!("dri/card{}", first_of - 127 + part)])
        .chain(["kfd".to_owned()])
        .collect();
    ensure!(cards.len() == 4, "{cards:?}");
    seen.has_devices(&parts, &names.iter().map(String::as_str).collect::<Vec<_>>())?;

    let seen = stage.given(&stage.pods().get("instance").await?).await?;
    let (name, caps) = match seen.devices.contains_key("/dev/nvidia-caps/nvidia-cap12") {
        true => ("nvidia0/gi1", ["nvidia-caps/nvidia-cap12", "nvidia-caps/nvidia-cap13"]),
        false => ("nvidia0/gi2", ["nvidia-caps/nvidia-cap21", "nvidia-caps/nvidia-cap22"]),
    };
    let own = ["nvidia0", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset", caps[0], caps[1]];
    seen.has_devices(&instances, &own)?;
    seen.has_mounts(&[])?.has_env(&[("NVIDIA_VISIBLE_DEVICES", name)]).map(drop)
}

/// Two GPUs a node with four shares each, and four pods of two shares: on one GPU each, or on both.
pub async fn shares_of_two_cards_are_spread_or_packed(stage: &Stage<'_>) -> anyhow::Result<()> {
    const SHARES: &str = "deepomatic.com/shared-gpu";
    let (first, second) = stage.two_nodes()?;
    let papers = (Paper::lay(first, &Tree::named("g")?)?, Paper::lay(second, &Tree::named("g")?)?);
    let mut offers = Vec::new();
    for (node, paper, policy) in [(first, &papers.0, "distributed"), (second, &papers.1, "packed")] {
        let policy = format!("--share-policy={policy}");
        let flags = ["--profile=deepomatic", "-gpu-duplication-factor=4", &policy];
        offers.push(Offer::start(stage, node, paper, &flags, &[(SHARES, 8)])?);
    }
    for offer in &offers {
        offer.ready().await?;
    }
    let pods: Vec<_> = [first, second]
        .into_iter()
        .flat_map(|node| (0..4).map(|number| asks(&format!("{}-{number}", node.name), node, &[(SHARES, 2)])))
        .collect();
    stage.create_all(&pods).await?;
    stage.all_run(8, SOON).await?;
    for (node, each) in [(first, 2), (second, 1)] {
        let mut pods_of: BTreeMap<u32, usize> = BTreeMap::new();
        let books = books::pod_resources(node).await?;
        for number in 0..4 {
            let name = format!("{}-{number}", node.name);
            let cards = stage.seen(&stage.pods().get(&name).await?).await?.nvidia();
            ensure!(cards.len() == each, "{name} has {cards:?}, not {each}");
            let held = books.get(&format!("{}/{name}", stage.namespace())).context("kubelet does not know it")?;
            let ids = held.values().filter_map(|resources| resources.get(SHARES)).flatten();
            let named: BTreeSet<u32> =
                ids.filter_map(|id| id.strip_prefix("nvidia")?.split_once("-_-")?.0.parse().ok()).collect();
            ensure!(named == cards, "{name}: kubelet counts {named:?}, the container has {cards:?}");
            cards.into_iter().for_each(|card| *pods_of.entry(card).or_default() += 1);
        }
        let wanted = if each == 2 { 4 } else { 2 };
        ensure!(pods_of == BTreeMap::from([(0, wanted), (1, wanted)]), "{}: pods of cards {pods_of:?}", node.name);
    }
    Ok(())
}

/// The devices of the first container in a pod's status: resource, id and health.
fn told(pod: &Pod) -> Vec<(String, String, String)> {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let resources = statuses.flat_map(|status| status.allocated_resources_status.iter().flatten());
    resources
        .flat_map(|resource| resource.resources.iter().flatten().map(|device| (resource.name.clone(), device)))
        .map(|(name, device)| (name, device.resource_id.clone(), device.health.clone().unwrap_or_default()))
        .collect()
}

/// A GPU whose device file is gone is unhealthy in the node's totals and, by its PCI address, in its pod's status,
/// until the file is back. The pod keeps running.
pub async fn an_ill_card_shows_in_its_pods_status(stage: &Stage<'_>) -> anyhow::Result<()> {
    const AMD: &str = "amd.com/gpu";
    let [node, ..] = stage.cluster.nodes.as_slice() else { anyhow::bail!("no node") };
    let paper = Paper::lay(node, &Tree::named("mixed")?)?;
    let offer = Offer::start(stage, node, &paper, &["--profile=amd", "-pulse=1"], &[(AMD, 3)])?;
    offer.ready().await?;
    stage.create(&asks("holder", node, &[(AMD, 1)])).await?;
    stage.all_run(1, SOON).await?;
    let pod = stage.pods().get("holder").await?;
    let seen = stage.seen(&pod).await?;
    let own =
        seen.devices.keys().find_map(|path| path.strip_prefix("/dev/").filter(|name| name.contains("render")));
    let own = own.context("no render file")?;
    let address = match own {
        "dri/renderD130" => "0000:63:00.0",
        "dri/renderD131" => "0000:43:00.0",
        _ => "0000:03:00.0",
    };
    for (gone, offered, health) in [(true, 2, "Unhealthy"), (false, 3, "Healthy")] {
        paper.set_gone(own, gone)?;
        until(SOON, &format!("{address} is {health}"), async || {
            let now = stage.cluster.offered(&node.name, AMD).await?;
            ensure!(now == offered, "the node offers {now}");
            let pod = stage.pods().get("holder").await?;
            let wanted = (AMD.to_owned(), address.to_owned(), health.to_owned());
            ensure!(told(&pod) == [wanted], "the pod's status says {:?}", told(&pod));
            ensure!(runs(&pod), "it does not run");
            Ok(())
        })
        .await?;
    }
    Ok(())
}
