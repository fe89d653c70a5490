//! The demo's report of the result.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use kerf::ids::PodRef;
use kerf::plan::{ContainerGrant, Grant};
use kerf::request::ContainerKind;
use kerf_testkit::kubelet::Container;
use serde_json::Value;

use kerf_system::audit::Audit;
use kerf_system::stack::Stack;

pub fn flush() {
    // a terminal that has gone away is no reason to stop
    let _ = std::io::stdout().flush();
}

/// Prints how many pods run, until all do.
pub async fn progress(stack: &Stack, count: usize) -> anyhow::Result<()> {
    let all = stack.until_running(count);
    tokio::pin!(all);
    let mut ticks = tokio::time::interval(Duration::from_millis(500));
    let live = std::io::stdout().is_terminal();
    loop {
        tokio::select! {
            done = &mut all => {
                if live {
                    print!("\r\x1b[K");
                }
                return done;
            }
            _ = ticks.tick() => {
                let running = |pod: &&Arc<Value>| pod["status"]["phase"] == "Running";
                let running = stack.api.list("pods")?.iter().filter(running).count();
                if live {
                    print!("\r{running} of {count} pods run");
                    flush();
                }
            }
        }
    }
}

/// Prints where every pod landed and why, and what its containers were given.
pub fn pods(stack: &Stack, audit: &Audit) -> anyhow::Result<()> {
    println!("\nPods");
    for object in stack.api.list("pods")? {
        let text = |at: &str| object.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
        let pod = PodRef::new(text("/metadata/namespace"), text("/metadata/name"));
        let Some(placement) = audit.placed.get(&pod.to_string()) else {
            println!("  {:<16} not placed", pod.name);
            if let Some(attempt) = stack.scheduler.attempts_of(&pod.namespace, &pod.name).last() {
                println!("    {attempt}");
            }
            continue;
        };
        println!("  {:<16} on {}: {}", pod.name, placement.node, why(stack, &pod));
        for grant in &placement.plan.grants {
            println!("    {:<14} {}", container_name(grant), asked(&grant.gpus));
            let machine = stack.machines.get(placement.node.as_str());
            let given =
                machine.and_then(|m| m.kubelet.container(&pod.namespace, &pod.name, grant.container.as_str()));
            match given {
                Some(container) => println!("    {:<14} {}", "", given_text(&container)),
                None => println!("    {:<14} kubelet has not started it", ""),
            }
        }
    }
    Ok(())
}

fn container_name(grant: &ContainerGrant) -> String {
    match grant.kind {
        ContainerKind::App => grant.container.to_string(),
        kind => format!("{} ({})", grant.container, kind.as_str()),
    }
}

fn asked(gpus: &Grant) -> String {
    let cards: Vec<&str> = gpus.ids().map(|id| id.as_str()).collect();
    match gpus {
        Grant::Share { share, .. } => {
            let (core, gib) = (share.compute.to_core_units(), share.memory.0 as f64 / 1024.0);
            format!("{core} % and {gib:.2} GiB of {}", cards.join(", "))
        }
        _ => format!("all of {}", cards.join(", ")),
    }
}

/// What the container was given, as text.
fn given_text(container: &Container) -> String {
    let visible = container.env.get("NVIDIA_VISIBLE_DEVICES").map_or("nothing", String::as_str);
    let amounts: Vec<String> = container
        .resources
        .iter()
        .map(|(resource, ids)| format!("{} x {}", ids.len(), resource.rsplit('/').next().unwrap_or(resource)))
        .collect();
    format!("sees NVIDIA_VISIBLE_DEVICES={visible}; kubelet booked {}", amounts.join(", "))
}

fn why(stack: &Stack, pod: &PodRef) -> String {
    let attempts = stack.scheduler.attempts_of(&pod.namespace, &pod.name);
    let Some(attempt) = attempts.last() else { return "bound before this scheduler started".into() };
    let mut reasons = Vec::new();
    let mut scores: Vec<(&String, &i64)> = attempt.scores.iter().collect();
    scores.sort_by_key(|(node, score)| (-**score, *node));
    if scores.is_empty() {
        reasons.push("the only node that fits".to_owned());
    } else {
        // the scheduler multiplies the extender's 0..=10 by ten
        let list: Vec<String> = scores.iter().map(|(node, score)| format!("{node} {}", **score / 10)).collect();
        reasons.push(format!("scores {}", list.join(", ")));
    }
    for (node, all) in &attempt.in_tree {
        reasons.push(format!("{node}: {}", all.join(", ")));
    }
    for (node, reason) in attempt.failed.iter().chain(&attempt.unresolvable) {
        reasons.push(format!("{node}: {reason}"));
    }
    if attempts.len() > 1 {
        reasons.push(format!("at attempt {}", attempts.len()));
    }
    reasons.join("; ")
}

/// Prints every GPU as two bars: compute and memory that pods hold.
pub fn cards(stack: &Stack, audit: &Audit) {
    println!("\nGPUs (held by pods)");
    let mut on_card: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (pod, placement) in &audit.placed {
        for hold in placement.plan.holds() {
            let name = pod.rsplit('/').next().unwrap_or(pod).to_owned();
            on_card.entry(format!("{}/{}", placement.node, hold.device.id)).or_default().push(name);
        }
    }
    let nodes = stack.extender().cluster().snapshot();
    for node in &nodes {
        let cards = node.ledger.cards();
        let Some(first) = cards.first() else { continue };
        println!(
            "  {}: {} x {}, {} GiB",
            node.name,
            cards.len(),
            first.device().model,
            first.device().memory.0 >> 10
        );
        for card in cards {
            let device = card.device();
            let (used, all) = (card.used(), device.capacity());
            let core = used.compute.ratio();
            let memory = used.memory.0 as f64 / all.memory.0.max(1) as f64;
            let pods = on_card.get(&format!("{}/{}", node.name, device.id)).map(|pods| pods.join(", "));
            println!(
                "    {:>2}  compute {} {:>3.0} %   memory {} {:>3.0} %   {}",
                device.index,
                bar(core),
                core * 100.0,
                bar(memory),
                memory * 100.0,
                shortened(&pods.unwrap_or_default())
            );
        }
    }
}

fn bar(part: f64) -> String {
    const WIDTH: usize = 16;
    let full = ((part * WIDTH as f64).round() as usize).min(WIDTH);
    format!("{}{}", "█".repeat(full), "░".repeat(WIDTH - full))
}

fn shortened(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{} ...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Prints the addresses of the programs.
pub fn addresses(stack: &Stack) {
    println!("\nMetrics, health and state");
    let extender = stack.extender().listening();
    println!("  extender  http://{}/metrics  http://{}/debug/state", extender.metrics, extender.debug);
    for (node, machine) in stack.machines.iter().take(4) {
        let plugin = machine.listening;
        println!("  {node:<9} http://{}/metrics  http://{}/debug/state", plugin.metrics, plugin.debug);
    }
    if stack.machines.len() > 4 {
        println!("  and {} more nodes", stack.machines.len() - 4);
    }
}

fn in_use(line: &str) -> bool {
    line.starts_with("kerf_plugin_container_memory_used_bytes") && !line.ends_with(" 0")
}

/// Prints a few lines of what Prometheus would read, once the plugins have sampled the load.
pub async fn metrics(stack: &Stack) -> anyhow::Result<()> {
    let Some((node, machine)) = stack.machines.iter().find(|(_, m)| !m.kubelet.containers().is_empty()) else {
        return Ok(());
    };
    let url = format!("http://{}/metrics", machine.listening.metrics);
    let mut lines: Vec<String> = Vec::new();
    // the plugin samples every few seconds
    for _ in 0..80 {
        let text = reqwest::get(&url).await?.text().await?;
        lines = text.lines().filter(|line| line.starts_with("kerf_plugin_container_")).map(str::to_owned).collect();
        if lines.iter().any(|line| in_use(line)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // all lines of the first container with load
    let labels = |line: &str| line.split_once('{').and_then(|(_, rest)| Some(rest.split_once('}')?.0.to_owned()));
    let first = lines.iter().find(|line| in_use(line)).and_then(|line| labels(line));
    println!(
        "\nA few of the metrics of {node}, those of one container (simulated load: each container uses three fifths of its share)"
    );
    lines.iter().filter(|line| labels(line) == first).for_each(|line| println!("  {line}"));
    Ok(())
}

/// Prints the verdict; returns whether all is as it should be.
pub fn verdict(audit: &Audit, count: usize, running: bool) -> bool {
    println!();
    for text in &audit.disagreements {
        println!("DISAGREEMENT {text}");
    }
    for pod in &audit.waiting {
        println!("NOT PLACED {pod}");
    }
    let good = running && audit.disagreements.is_empty() && audit.placed.len() == count;
    if good {
        println!(
            "{count} pods placed. Pod annotations, compatibility records, kubelet's device ids, the containers' \
             environment and the extender's ledgers name the same GPUs, and no GPU is over-committed."
        );
    } else {
        println!("{} of {count} pods placed, {} disagreements", audit.placed.len(), audit.disagreements.len());
    }
    good
}
