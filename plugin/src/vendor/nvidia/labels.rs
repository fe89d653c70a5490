//! NVIDIA's labels: those of GPU Feature Discovery (GFD) that the library and the driver's files can tell.
//!
//! GFD labels one model: of several, here, the one with most GPUs. `replicas`, `sharing-strategy` and
//! `mig.strategy` are about `nvidia.com/gpu`, and are written where that is offered. Left out on purpose: the time
//! of labelling, which would change the Node each minute, and `clique`, `vgpu.*` and `mps.capable`, which the
//! plugin does not know.

use std::collections::BTreeMap;

use crate::device::backend::{HostDevice, Part};
use crate::device::facts::{Facts, NvidiaFacts};
use crate::device::label::{Labeller, Labels, MAX_LENGTH, legal};
use crate::vendor::flags::{FlagError, Flags};
use crate::vendor::nvidia::flags::{MigStrategy, NvidiaArgs};

/// A physical GPU.
struct Card<'a> {
    facts: &'a NvidiaFacts,
    /// Empty where it is not partitioned.
    instances: Vec<Instance<'a>>,
}

#[derive(Clone, Copy)]
struct Instance<'a> {
    host: &'a HostDevice,
    facts: &'a NvidiaFacts,
    profile: &'a str,
}

pub(super) fn labeller(flags: &Flags, offered: &[&str]) -> Result<Labeller, FlagError> {
    let offer = if offered.contains(&"nvidia") { Some(flags.read()?) } else { None };
    Ok(Labeller::new(move |hosts| labels(hosts, offer.as_ref())))
}

/// `offer`: how `nvidia.com/gpu` is offered, if it is.
pub fn labels(hosts: &[&HostDevice], offer: Option<&NvidiaArgs>) -> Labels {
    let mut labels = Labels::default();
    let cards = cards(hosts);
    node(&mut labels, &cards);
    let Some((model, of_model)) = model(&cards) else { return labels };
    // whole GPUs speak for their model before partitioned ones
    let whole = of_model.iter().find(|card| card.instances.is_empty());
    let Some(card) = whole.or(of_model.first()) else { return labels };
    gpu(&mut labels, card.facts, of_model.len());
    describe(&mut labels, "nvidia.com/gpu", &[model], offer.filter(|_| whole.is_some()));
    if offer.is_some() && whole.is_none() {
        labels.set("nvidia.com/gpu.replicas", 0);
    }
    match offer.map(|offer| offer.mig_strategy) {
        None | Some(MigStrategy::None) => {}
        Some(MigStrategy::Single) => {
            labels.set("nvidia.com/mig.strategy", "single");
            single(&mut labels, &cards, model, offer);
        }
        Some(MigStrategy::Mixed) => {
            labels.set("nvidia.com/mig.strategy", "mixed");
            for (profile, instances) in by_profile(&cards) {
                let resource = format!("nvidia.com/mig-{}", profile.replace('+', "."));
                instance(&mut labels, &resource, &instances, offer);
            }
        }
    }
    labels
}

fn cards<'a>(hosts: &[&'a HostDevice]) -> Vec<Card<'a>> {
    let mut cards: BTreeMap<&str, Card<'a>> = BTreeMap::new();
    for host in hosts {
        let Facts::Nvidia(facts) = &host.facts else { continue };
        let card = cards.entry(&host.origin.card).or_insert_with(|| Card { facts, instances: Vec::new() });
        if let Part::Instance { profile, .. } = &host.origin.part {
            card.instances.push(Instance { host, facts, profile });
        }
    }
    cards.into_values().collect()
}

/// The model of most GPUs, the first by name of several, and its GPUs.
fn model<'a, 'b>(cards: &'b [Card<'a>]) -> Option<(&'a str, Vec<&'b Card<'a>>)> {
    let mut models: BTreeMap<&str, Vec<&Card<'a>>> = BTreeMap::new();
    for card in cards {
        models.entry(&card.facts.model).or_default().push(card);
    }
    models.into_iter().max_by(|(a, of_a), (b, of_b)| of_a.len().cmp(&of_b.len()).then_with(|| b.cmp(a)))
}

/// Labels about the whole node.
fn node(labels: &mut Labels, cards: &[Card<'_>]) {
    let facts = || cards.iter().map(|card| card.facts);
    if let Some(machine) = facts().map(|facts| &facts.machine).find(|machine| !machine.is_empty()) {
        labels.set("nvidia.com/gpu.machine", plain(machine));
    }
    if let Some(driver) = facts().map(|facts| &facts.driver).find(|driver| !driver.is_empty()) {
        labels.set("nvidia.com/cuda.driver-version.full", driver);
        let names = [("major", "major"), ("minor", "minor"), ("rev", "revision")];
        for (part, (old, new)) in driver.split('.').zip(names) {
            labels.set(&format!("nvidia.com/cuda.driver.{old}"), part);
            labels.set(&format!("nvidia.com/cuda.driver-version.{new}"), part);
        }
    }
    if let Some((major, minor)) = facts().find_map(|facts| facts.cuda) {
        labels.set("nvidia.com/cuda.runtime-version.full", format!("{major}.{minor}"));
        for (name, part) in [("major", major), ("minor", minor)] {
            labels.set(&format!("nvidia.com/cuda.runtime.{name}"), part);
            labels.set(&format!("nvidia.com/cuda.runtime-version.{name}"), part);
        }
    }
    if facts().any(|facts| facts.mig_capable == Some(true)) {
        labels.set("nvidia.com/mig.capable", true);
    } else if facts().all(|facts| facts.mig_capable == Some(false)) {
        labels.set("nvidia.com/mig.capable", false);
    }
    let class = facts().next().and_then(|facts| facts.class);
    if let Some(class) = class.filter(|class| facts().all(|facts| facts.class == Some(*class))) {
        let mode = match class {
            0x03_0000 => "graphics",
            0x03_0200 => "compute",
            _ => "unknown",
        };
        labels.set("nvidia.com/gpu.mode", mode);
    }
}

/// Labels about a GPU of the labelled model.
fn gpu(labels: &mut Labels, facts: &NvidiaFacts, count: usize) {
    labels.set("nvidia.com/gpu.count", count);
    if facts.memory.0 > 0 {
        labels.set("nvidia.com/gpu.memory", facts.memory.0);
    }
    if let Some((major, minor)) = facts.compute {
        labels.set("nvidia.com/gpu.compute.major", major);
        labels.set("nvidia.com/gpu.compute.minor", minor);
        if let Some(family) = family(major, minor) {
            labels.set("nvidia.com/gpu.family", family);
        }
    }
}

/// Product and sharing of a resource.
fn describe(labels: &mut Labels, resource: &str, product: &[&str], offer: Option<&NvidiaArgs>) {
    let mut words: Vec<String> = product.iter().map(|word| plain(word)).filter(|word| !word.is_empty()).collect();
    let shared = offer.is_some_and(|offer| offer.nvidia_replicas > 1);
    if !words.is_empty() && shared && !offer.is_some_and(|offer| offer.rename_by_default) {
        words.push("SHARED".to_owned());
    }
    labels.set(&format!("{resource}.product"), legal(&words.join("-"), MAX_LENGTH, |_| None));
    if let Some(offer) = offer {
        labels.set(&format!("{resource}.replicas"), offer.nvidia_replicas);
        labels.set(&format!("{resource}.sharing-strategy"), if shared { "time-slicing" } else { "none" });
    }
}

fn by_profile<'a>(cards: &[Card<'a>]) -> BTreeMap<&'a str, Vec<Instance<'a>>> {
    let mut profiles: BTreeMap<&str, Vec<Instance<'a>>> = BTreeMap::new();
    for instance in cards.iter().flat_map(|card| &card.instances).filter(|instance| !instance.profile.is_empty()) {
        profiles.entry(instance.profile).or_default().push(*instance);
    }
    profiles
}

/// All instances are offered as `nvidia.com/gpu`: they must be alike, and no GPU whole.
fn single(labels: &mut Labels, cards: &[Card<'_>], model: &str, offer: Option<&NvidiaArgs>) {
    let whole = cards.iter().filter(|card| card.instances.is_empty()).count();
    match by_profile(cards).into_values().collect::<Vec<_>>().as_slice() {
        _ if whole == cards.len() => {}
        [instances] if whole == 0 => instance(labels, "nvidia.com/gpu", instances, offer),
        _ => {
            describe(labels, "nvidia.com/gpu", &[model, "MIG", "INVALID"], None);
            for fact in ["count", "replicas", "memory"] {
                labels.set(&format!("nvidia.com/gpu.{fact}"), 0);
            }
        }
    }
}

fn instance(labels: &mut Labels, resource: &str, instances: &[Instance<'_>], offer: Option<&NvidiaArgs>) {
    let Some(Instance { host, facts, profile }) = instances.first() else { return };
    describe(labels, resource, &[&facts.model, "MIG", profile], offer);
    labels.set(&format!("{resource}.count"), instances.len());
    if host.device.memory.0 > 0 {
        labels.set(&format!("{resource}.memory"), host.device.memory.0);
    }
    let Some(told) = facts.instance else { return };
    labels.set(&format!("{resource}.multiprocessors"), told.multiprocessors);
    for (name, count) in ["slices.gi", "slices.ci"].iter().zip(told.slices) {
        labels.set(&format!("{resource}.{name}"), count);
    }
    for (name, count) in ["copy", "decoder", "encoder", "jpeg", "ofa"].iter().zip(told.engines) {
        labels.set(&format!("{resource}.engines.{name}"), count);
    }
}

/// Words joined by `-`, without characters that are illegal in values.
fn plain(text: &str) -> String {
    let words = text.split_whitespace().map(|word| legal(word, MAX_LENGTH, |_| None));
    let words: Vec<String> = words.filter(|word| !word.is_empty()).collect();
    legal(&words.join("-"), MAX_LENGTH, |_| None)
}

/// The architecture's name by compute capability, as NVIDIA's documentation pairs them.
fn family(major: u32, minor: u32) -> Option<&'static str> {
    Some(match (major, minor) {
        (3, _) => "kepler",
        (5, _) => "maxwell",
        (6, _) => "pascal",
        (7, 0..=4) => "volta",
        (7, _) => "turing",
        (8, 0..=8) => "ampere",
        (8, _) => "ada-lovelace",
        (9, _) => "hopper",
        (10 | 12, _) => "blackwell",
        _ => return None,
    })
}
