//! The log of a run: one line for each pod, in order of arrival.

use std::fmt::Write;

use super::run::Outcome;
use super::workload::Workload;
use crate::placement::shape::Cards;

/// `seq,pod,node,gpu_indexes,gpu_milli_each,cpu_milli,mem_mib`; a pod without a place has no node and no cards.
pub fn write_log(workload: &Workload, outcome: &Outcome) -> String {
    let mut text = String::from("seq,pod,node,gpu_indexes,gpu_milli_each,cpu_milli,mem_mib\n");
    for (sequence, placed) in outcome.placed.iter().enumerate() {
        let Some(pod) = workload.arrivals.pods.get(placed.pod) else { continue };
        let each = match pod.shape.cards {
            Cards::None => 0,
            Cards::Share(share) => share.compute.0,
            Cards::Whole(_) => 1000,
        };
        let node = placed.choice.as_ref().and_then(|choice| workload.machines.get(choice.host));
        let node = node.map(|machine| &*machine.name).unwrap_or_default();
        let slots = placed.choice.as_ref().map(|choice| choice.slots.as_slice()).unwrap_or_default();
        let slots: Vec<String> = slots.iter().map(usize::to_string).collect();
        let (name, cpu, memory) = (&pod.name, pod.shape.cpu, pod.shape.memory.0);
        // writing to a String cannot fail
        let _ = writeln!(text, "{sequence},{name},{node},{},{each},{cpu},{memory}", slots.join(";"));
    }
    text
}
