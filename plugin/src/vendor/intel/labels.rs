//! Intel's labels: those of Intel's rules for Node Feature Discovery, and those of its labeller for shares of GPUs.
//!
//! The rules label by PCI ids: `gpu.intel.com/device-id.<class>-<id>.present` and `.count`, `product`, `family`,
//! `device.count`. `product` and `family` are set where any GPU is of one, whatever is beside it; of several the rule
//! that comes last decides, and the number of its GPUs is `device.count`. Here that is also set where no rule names a
//! product, and each id has its own count, where the rules count all of a class under the first. The labeller's are `millicores`, `memory.max` (bytes), `tiles`, `cards`, `gpu-numbers` and
//! `numa-gpu-map`; a value that is too long continues, after a `Z`, in labels whose keys end with 2, 3 and so on.
//! Left out on purpose: `pci-groups`, whose level would have to be configured.

use std::collections::BTreeSet;

use crate::device::backend::HostDevice;
use crate::device::facts::{Facts, IntelFacts};
use crate::device::label::{Labels, MAX_LENGTH, counted};

/// The labeller's thousandths of each GPU.
const MILLICORES: usize = 1000;
/// The beginning of each continued part of a long value: a value may not begin with a dot.
const GOES_ON: char = 'Z';

pub fn labels(hosts: &[&HostDevice]) -> Labels {
    let mut labels = Labels::default();
    let mut cards: Vec<(&HostDevice, &IntelFacts)> = hosts
        .iter()
        .filter_map(|host| match &host.facts {
            Facts::Intel(facts) => Some((*host, &**facts)),
            _ => None,
        })
        .collect();
    // in the order of their names, as a directory lists them
    cards.sort_by_key(|(host, _)| &host.origin.name);
    by_id(&mut labels, &cards);
    // the numbers of those GPUs that are on the NUMA node, where one is named
    let numbers = |node: Option<u32>| {
        let on_it = cards.iter().filter(|(host, _)| node.is_none() || host.device.numa == node);
        on_it.map(|(host, _)| host.device.index.to_string()).collect::<Vec<_>>().join(".")
    };
    labels.set("gpu.intel.com/millicores", cards.len() * MILLICORES);
    let memory: Option<u64> = cards.iter().map(|(_, facts)| facts.memory).sum();
    if let Some(bytes) = memory {
        labels.set("gpu.intel.com/memory.max", bytes);
    }
    labels.set("gpu.intel.com/tiles", cards.iter().map(|(_, facts)| facts.tiles).sum::<u64>());
    let names: Vec<&str> = cards.iter().map(|(host, _)| &*host.origin.name).collect();
    if let Some(first) = chunks(&names.join(".")).first() {
        labels.set("gpu.intel.com/cards", first);
    }
    long(&mut labels, "gpu.intel.com/gpu-numbers", &numbers(None));
    let nodes: BTreeSet<u32> = cards.iter().filter_map(|(host, _)| host.device.numa).collect();
    let map = nodes.into_iter().map(|node| format!("{node}-{}", numbers(Some(node))));
    long(&mut labels, "gpu.intel.com/numa-gpu-map", &map.collect::<Vec<_>>().join("_"));
    labels
}

/// The labels of the rules.
fn by_id<'a>(labels: &mut Labels, cards: &[(&'a HostDevice, &'a IntelFacts)]) {
    let id = |host: &'a HostDevice| host.origin.model_id.trim_start_matches("0x");
    let counts = counted(cards.iter().map(|(host, facts)| (&*facts.class, id(host))));
    for ((class, id), count) in &counts {
        if !class.is_empty() && !id.is_empty() {
            labels.set(&format!("gpu.intel.com/device-id.{class}-{id}.present"), true);
            labels.set(&format!("gpu.intel.com/device-id.{class}-{id}.count"), count);
        }
    }
    let of_product = counts.iter().filter_map(|((class, id), count)| Some((product(class, id)?, *count)));
    let last = of_product.max_by_key(|((place, _), _)| *place);
    if let Some(((_, name), _)) = last {
        labels.set("gpu.intel.com/product", name);
    }
    labels.set("gpu.intel.com/device.count", last.map_or(cards.len() as u64, |(_, count)| count));
    if let Some((_, name)) = counts.keys().filter_map(|(class, id)| family(class, id)).max() {
        labels.set("gpu.intel.com/family", name);
    }
}

/// A product, with the place of its rule among the rules.
fn product(class: &str, id: &str) -> Option<(u8, &'static str)> {
    match (class, id) {
        ("0380", "0bda") => Some((1, "Max_1100")),
        ("0380", "0bd5") => Some((2, "Max_1550")),
        ("0380", "56c0") => Some((3, "Flex_170")),
        ("0380", "56c1") => Some((4, "Flex_140")),
        _ => None,
    }
}

/// A family, with the place of its rule among the rules.
fn family(class: &str, id: &str) -> Option<(u8, &'static str)> {
    match (class, id) {
        ("0380", "0bda" | "0bd5" | "0bd9" | "0bdb" | "0bd7" | "0bd6" | "0bd0") => Some((1, "Max_Series")),
        ("0380", "56c0" | "56c1") => Some((2, "Flex_Series")),
        ("0300", "5690" | "5691" | "5692" | "5693" | "5694" | "5695" | "5696" | "5697") => Some((3, "A_Series")),
        ("0300", "56a0" | "56a1" | "56a3" | "56a4" | "56a5" | "56a6") => Some((3, "A_Series")),
        ("0300", "56b0" | "56b1" | "56b2" | "56b3") => Some((3, "A_Series")),
        _ => None,
    }
}

fn long(labels: &mut Labels, key: &str, value: &str) {
    for (at, chunk) in (1usize..).zip(chunks(value)) {
        let key = if at == 1 { key.to_owned() } else { format!("{key}{at}") };
        labels.set(&key, chunk);
    }
}

/// Parts of at most 63 characters that each end with a letter or digit; all but the first begin with `Z`. Empty
/// where the value cannot be divided so.
fn chunks(value: &str) -> Vec<String> {
    let (mut rest, mut chunks) = (value, Vec::new());
    while !rest.is_empty() {
        let room = if chunks.is_empty() { MAX_LENGTH } else { MAX_LENGTH - 1 };
        let mut end = rest.len();
        if end > room {
            let last = rest.get(..room).and_then(|within| within.rfind(|c: char| c.is_ascii_alphanumeric()));
            let Some(last) = last else { return Vec::new() };
            end = last + 1;
        }
        let (chunk, later) = rest.split_at(end);
        chunks.push(if chunks.is_empty() { chunk.to_owned() } else { format!("{GOES_ON}{chunk}") });
        rest = later;
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_go_on_in_the_next_label() {
        let pairs = "0.0-1.0_0.1-1.1_0.1-1.1_0.0-1.0_0.1-1.1_0.0-1.0_0.1-1.1_0.0-1.0_0.1-1.1_0.0-1.0_0.1-1.1_0.0-1.0_\
                     0.1-1.1_0.1-1.1_1.0-0.0_1.1-0.1_1.0-0.0_1.1-0.1";
        let expected = [
            "0.0-1.0_0.1-1.1_0.1-1.1_0.0-1.0_0.1-1.1_0.0-1.0_0.1-1.1_0.0-1.0",
            "Z_0.1-1.1_0.0-1.0_0.1-1.1_0.0-1.0_0.1-1.1_0.1-1.1_1.0-0.0_1.1-0",
            "Z.1_1.0-0.0_1.1-0.1",
        ];
        assert_eq!(chunks(pairs), expected);
        assert_eq!(chunks(""), Vec::<String>::new());
        assert_eq!(chunks(&format!("{}a", ".".repeat(70))), Vec::<String>::new());
    }
}
