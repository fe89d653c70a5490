//! AMD's labels, as ROCm's `k8s-node-labeller` writes them.
//!
//! A fact that all devices share is `amd.com/gpu.<fact>=<value>`, one that they do not share
//! `amd.com/gpu.<fact>.<value>=<count>`. The labeller's older keys are written as well:
//! `beta.amd.com/gpu.<fact>.<value>=<count>` always and `beta.amd.com/gpu.<fact>=<value>` where it is shared. Facts
//! of GPUs (device id, product) are counted by GPU, those of the compute topology by partition.
//!
//! The labeller asks the driver's library for the family and the firmware. Here the family follows from the
//! topology's `gfx_target_version`, by the kernel's own two tables (`amdgpu_discovery.c`, `kfd_device.c`), where
//! only one family has it. Firmware is what the driver shows in `fw_version`, which lacks the versions of its
//! features.

use std::collections::BTreeSet;

use clap::ValueEnum as _;
use clap::builder::PossibleValue;

use crate::device::backend::{HostDevice, Part};
use crate::device::facts::{AmdFacts, Facts};
use crate::device::label::{Labeller, Labels, MAX_LENGTH, counted, legal};
use crate::vendor::amd::flags::{AmdLabel, AmdLabelArgs};
use crate::vendor::flags::{FlagError, Flags};

/// The labeller's names of firmware, by the names of the driver's files.
const FIRMWARE: [(&str, &str); 10] = [
    ("vce", "VCE"),
    ("uvd", "UVD"),
    ("mc", "MC"),
    ("me", "ME"),
    ("pfp", "PFP"),
    ("ce", "CE"),
    ("rlc", "RLC"),
    ("mec", "MEC"),
    ("smc", "SMC"),
    ("sdma", "SDMA0"),
];

/// Makes the labels that the flags name.
pub(super) fn labeller(flags: &Flags, _: &[&str]) -> Result<Labeller, FlagError> {
    let chosen: BTreeSet<AmdLabel> = flags.read::<AmdLabelArgs>()?.amd_labels.into_iter().collect();
    Ok(Labeller::new(move |hosts| labels(hosts, &chosen)))
}

pub fn labels(hosts: &[&HostDevice], chosen: &BTreeSet<AmdLabel>) -> Labels {
    let mut labels = Labels::default();
    let devices: Vec<(&HostDevice, &AmdFacts)> = hosts
        .iter()
        .filter_map(|host| match &host.facts {
            Facts::Amd(facts) => Some((*host, &**facts)),
            _ => None,
        })
        .collect();
    let all = || devices.iter().copied();
    let cards = || all().filter(|(host, _)| host.origin.part == Part::Whole);
    for kind in chosen {
        let name = kind.to_possible_value();
        let key = format!("amd.com/gpu.{}", name.as_ref().map(PossibleValue::get_name).unwrap_or_default());
        match kind {
            AmdLabel::Firmware => firmware(&mut labels, cards().map(|(_, facts)| facts)),
            AmdLabel::Family => tally(&mut labels, &key, all().filter_map(|(_, facts)| family(facts.gfx?))),
            AmdLabel::DriverVersion => one(&mut labels, &key, all().map(|(_, facts)| &*facts.driver_version)),
            AmdLabel::DriverSrcVersion => one(&mut labels, &key, all().map(|(_, facts)| &*facts.driver_source)),
            AmdLabel::DeviceId => {
                tally(&mut labels, &key, cards().map(|(host, _)| host.origin.model_id.trim_start_matches("0x")));
            }
            AmdLabel::ProductName => {
                let most = MAX_LENGTH - "gpu.product-name.".len();
                let blank = |c: char| (!matches!(c, '(' | ')')).then_some('_');
                tally(&mut labels, &key, cards().map(|(_, facts)| legal(&facts.product, most, blank)));
            }
            AmdLabel::Vram => {
                let known = all().map(|(host, _)| host.device.memory.0).filter(|mib| *mib > 0);
                tally(&mut labels, &key, known.map(|mib| format!("{}G", mib.saturating_add(512) / 1024)));
            }
            AmdLabel::SimdCount => tally(&mut labels, &key, all().filter_map(|(_, facts)| facts.simds)),
            AmdLabel::CuCount => {
                let units = all().filter_map(|(_, facts)| facts.simds?.checked_div(facts.simds_per_cu?));
                tally(&mut labels, &key, units);
            }
            AmdLabel::ComputeMemoryPartition => {
                let layouts: BTreeSet<&str> = all().map(|(host, _)| &*host.origin.layout).collect();
                one(&mut labels, &key, layouts.first().copied().filter(|_| layouts.len() == 1).into_iter());
            }
            AmdLabel::ComputePartitioningSupported => {
                labels.set(&key, cards().any(|(_, facts)| facts.compute_partitions));
            }
            AmdLabel::MemoryPartitioningSupported => {
                labels.set(&key, cards().any(|(_, facts)| facts.memory_partitions));
            }
        }
    }
    labels
}

/// The first known value, under the new key alone.
fn one<'a>(labels: &mut Labels, key: &str, mut values: impl Iterator<Item = &'a str>) {
    if let Some(value) = values.find(|value| !value.is_empty()) {
        labels.set(key, value);
    }
}

fn tally(labels: &mut Labels, key: &str, values: impl Iterator<Item = impl ToString>) {
    let counts = counted(values.map(|value| value.to_string()).filter(|value| !value.is_empty()));
    let shared = counts.len() == 1;
    for (value, count) in counts {
        labels.set(&format!("beta.{key}.{value}"), count);
        if shared {
            labels.set(&format!("beta.{key}"), &value);
            labels.set(key, &value);
        } else {
            labels.set(&format!("{key}.{value}"), count);
        }
    }
}

/// Counts under the older keys alone, as the labeller has them.
fn firmware<'a>(labels: &mut Labels, cards: impl Iterator<Item = &'a AmdFacts>) {
    let versions = cards
        .flat_map(|facts| FIRMWARE.iter().filter_map(|(file, name)| Some((*name, *facts.firmware.get(*file)?))));
    for ((name, version), count) in counted(versions) {
        labels.set(&format!("beta.amd.com/gpu.firmware.{name}.fw.{version}"), count);
    }
}

/// The driver's family of a `gfx_target_version`; `None` where several have it, or it is unknown.
fn family(gfx: u64) -> Option<&'static str> {
    Some(match gfx {
        90000 | 90004 | 90006 | 90008 | 90010 | 90400..=90499 | 90500 => "AI",
        90002 | 90012 => "RV",
        100_100..=100_199 | 100_300..=100_302 | 100_304 => "NV",
        100_303 => "VGH",
        100_305 => "YC",
        110_000..=110_002 => "GC_11_0_0",
        110_003 => "GC_11_0_1",
        110_500..=110_502 => "GC_11_5_0",
        120_000 | 120_001 => "GC_12_0_0",
        _ => return None,
    })
}
