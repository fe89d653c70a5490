//! The demo's machines: GPUs that differ in number, size and links, and the load that its pods put on them.

use std::fmt::Write as _;

use kerf_system::audit::Audit;
use kerf_system::stack::{MachineSpec, Stack};

/// Three machines, as different as in a cluster that has grown for a few years.
pub fn machines() -> Vec<MachineSpec> {
    let machine = |name: &str, count: usize, model: &str, gib: u64, link: fn(usize, usize) -> &'static str| {
        let mut cards = String::new();
        for index in 0..count {
            let links: Vec<String> = (0..count)
                .filter(|peer| *peer != index)
                .map(|peer| format!("\"{peer}\" = \"{}\"", link(index, peer)))
                .collect();
            let _ = write!(
                cards,
                "[[gpu]]\nuuid = \"GPU-{name}-{index}\"\nindex = {index}\nmodel = \"{model}\"\nmemory_mib = {}\n\
                 numa = {}\ndevice_nodes = [\"/dev/null\"]\nlinks = {{ {} }}\n\n",
                gib << 10,
                index * 2 / count,
                links.join(", ")
            );
        }
        MachineSpec { name: name.to_owned(), cards, limiter: true, placed: None }
    };
    vec![
        machine("node-a", 4, "Simulated A10", 24, |a, b| if a / 2 == b / 2 { "PHB" } else { "SYS" }),
        machine("node-b", 2, "Simulated A100", 80, |_, _| "NV12"),
        machine("node-c", 8, "Simulated V100", 16, |a, b| if a / 4 == b / 4 { "NV2" } else { "SYS" }),
    ]
}

/// Writes into each machine's file the load of its containers: three fifths of what each was given.
pub fn show_load(stack: &Stack, audit: &Audit) -> anyhow::Result<()> {
    for (node, machine) in &stack.machines {
        let mut text = std::fs::read_to_string(&machine.cards)?;
        let mut pid = 10_000;
        let placed = audit.placed.iter().filter(|(_, placement)| placement.node.as_str() == node);
        for (pod, placement) in placed {
            for grant in &placement.plan.grants {
                for (device, share) in grant.gpus.amounts() {
                    pid += 1;
                    let (used, busy) = (share.memory.0 * 3 / 5, share.compute.0 * 3 / 50);
                    let _ = write!(
                        text,
                        "[[process]]\npid = {pid}\ngpu = \"{}\"\nmemory_mib = {used}\nutilization = {busy}\n\
                         pod = \"{pod}\"\ncontainer = \"{}\"\n\n",
                        device.id, grant.container
                    );
                }
            }
        }
        std::fs::write(&machine.cards, text)?;
    }
    Ok(())
}
