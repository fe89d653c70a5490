//! One picture of the cluster, as lines.

use console::{Style, measure_text_width, truncate_str};
use kerf::terminal;

use crate::amounts::{UNKNOWN, count, gpus, memory, percent};
use crate::view::{Amount, Gpu, GpuState, Node, Pod, PodState, View};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    #[value(alias = "node")]
    Nodes,
    #[default]
    #[value(alias = "gpu")]
    Gpus,
    #[value(alias = "pod")]
    Pods,
}

/// How it may look.
#[derive(Clone, Copy)]
pub struct Look {
    /// Rows and columns; `None` where there is no terminal, and nothing is cut.
    pub size: Option<(usize, usize)>,
    pub colours: bool,
}

/// Narrower bars say nothing.
const NARROWEST: usize = 5;
const WIDEST: usize = 24;
/// What names are cut to at most.
const SHORTEST: usize = 16;

/// A row before it is laid out.
struct Row {
    name: String,
    compute: Gauge,
    memory: Gauge,
    /// Its state and its pods.
    rest: String,
    style: Style,
}

/// What is granted and used of something.
#[derive(Clone, Copy)]
struct Gauge {
    capacity: u64,
    granted: u64,
    used: Option<u64>,
    text: fn(u64) -> String,
}

/// The lines of the picture: the sums, a line of titles, and as many rows as there is room for, what is used most first.
pub fn lines(view: &View, what: What, look: Look) -> Vec<String> {
    let mut rows = match what {
        What::Nodes => view.nodes.iter().map(|node| row_of_node(node, look)).collect::<Vec<_>>(),
        What::Gpus => {
            let all = view.nodes.iter().flat_map(|node| node.gpus.iter().map(move |gpu| (node, gpu)));
            all.map(|(node, gpu)| row_of_gpu(node, gpu, look)).collect()
        }
        What::Pods => view.pods.iter().filter_map(|pod| row_of_pod(pod, look)).collect(),
    };
    rows.sort_by_key(|row| {
        let ratio = |gauge: Gauge| gauge.used.map(|used| used * 1000 / gauge.capacity.max(1));
        (std::cmp::Reverse((ratio(row.compute), row.compute.granted)), row.name.clone())
    });
    let mut lines = vec![sums(view), legend(look)];
    let (all, shown) = (rows.len(), look.size.map_or(usize::MAX, |(height, _)| height.saturating_sub(4)));
    rows.truncate(shown);
    lines.extend(laid_out(&rows, what, look));
    if all > rows.len() {
        lines.push(format!("{} more", all - rows.len()));
    }
    match look.size {
        Some((_, width)) => lines.iter().map(|line| truncate_str(line, width, "…").into_owned()).collect(),
        None => lines.iter().map(|line| line.trim_end().to_owned()).collect(),
    }
}

fn sums(view: &View) -> String {
    let totals = &view.totals;
    let used = totals.used.map_or_else(|| UNKNOWN.to_owned(), |used| gpus(used.compute));
    let mut text = format!(
        "{} on {}: {} granted, {used} used, {} empty; {} with GPUs, {} waiting",
        count(totals.gpus, "GPU"),
        count(totals.nodes, "node"),
        gpus(totals.granted.compute),
        totals.empty_gpus,
        count(totals.holding_pods, "pod"),
        totals.waiting_pods,
    );
    for (number, word) in [(totals.unhealthy_gpus, "unhealthy"), (totals.cordoned_gpus, "cordoned")] {
        if number > 0 {
            text += &format!("; {number} {word}");
        }
    }
    text
}

fn legend(look: Look) -> String {
    let style = |style: Style| style.force_styling(look.colours);
    format!(
        "{} used   {} granted   {} free",
        style(Style::new().green()).apply_to("█"),
        style(Style::new().cyan()).apply_to("▒"),
        style(Style::new().dim()).apply_to("·"),
    )
}

fn row_of_node(node: &Node, look: Look) -> Row {
    let totals = &node.totals;
    let used = |of: fn(Amount) -> u64| totals.used.map(of);
    let pods = format!("{}, {}", count(totals.gpus, "GPU"), count(totals.holding_pods, "pod"));
    let trouble = node.trouble.as_ref().map(|trouble| format!("! {}; ", trouble.text)).unwrap_or_default();
    Row {
        name: node.name.clone(),
        compute: Gauge {
            capacity: totals.capacity.compute,
            granted: totals.granted.compute,
            used: used(|own| own.compute),
            text: gpus,
        },
        memory: Gauge {
            capacity: totals.capacity.memory_mib,
            granted: totals.granted.memory_mib,
            used: used(|own| own.memory_mib),
            text: memory,
        },
        rest: format!("{trouble}{pods}"),
        style: if node.trouble.is_some() { look.red() } else { Style::new() },
    }
}

fn row_of_gpu(node: &Node, gpu: &Gpu, look: Look) -> Row {
    let used = gpu.used.unwrap_or_default();
    let mut pods: Vec<String> = gpu.holders.iter().map(|own| format!("{}/{}", own.namespace, own.pod)).collect();
    pods.dedup();
    let (state, style) = match gpu.state {
        _ if gpu.overcommitted => ("OVERCOMMITTED ", look.red()),
        GpuState::Unhealthy => ("UNHEALTHY ", look.red()),
        GpuState::Cordoned => ("CORDONED ", look.yellow()),
        GpuState::Closed => ("CLOSED ", look.yellow()),
        GpuState::Ready => ("", Style::new()),
    };
    Row {
        name: format!("{}/{}", node.name, gpu.index),
        compute: Gauge { capacity: 1000, granted: gpu.granted.compute, used: used.compute, text: percent },
        memory: Gauge {
            capacity: gpu.memory_mib,
            granted: gpu.granted.memory_mib,
            used: used.memory_mib,
            text: memory,
        },
        rest: format!("{state}{}", pods.join(" ")),
        style,
    }
}

/// Of a pod that holds GPUs, what it uses of what it was granted.
fn row_of_pod(pod: &Pod, look: Look) -> Option<Row> {
    if !matches!(pod.state, PodState::Placed | PodState::Running) {
        return None;
    }
    let used = pod.used.unwrap_or_default();
    let over = |used: Option<u64>, granted: u64| granted > 0 && used.is_some_and(|used| used > granted);
    let is_over = over(used.compute, pod.granted.compute) || over(used.memory_mib, pod.granted.memory_mib);
    let gauge = |granted: u64, used: Option<u64>, text| Gauge {
        capacity: granted.max(used.unwrap_or_default()),
        granted,
        used,
        text,
    };
    Some(Row {
        name: format!("{}/{}", pod.namespace, pod.name),
        compute: gauge(pod.granted.compute, used.compute, percent),
        memory: gauge(pod.granted.memory_mib, used.memory_mib, memory),
        rest: format!("{} {}", pod.node.as_deref().unwrap_or_default(), pod.status),
        style: if is_over { look.red() } else { Style::new() },
    })
}

impl Look {
    fn red(self) -> Style {
        Style::new().red().force_styling(self.colours)
    }

    fn yellow(self) -> Style {
        Style::new().yellow().force_styling(self.colours)
    }
}

impl Gauge {
    /// `30%/50%`: used of granted; for what has a capacity of its own, also that.
    fn words(self) -> String {
        let used = self.used.map_or_else(|| UNKNOWN.to_owned(), self.text);
        format!("{used}/{}", (self.text)(self.granted))
    }

    /// Used, then granted, then free.
    fn bar(self, width: usize, look: Look) -> String {
        let cells = |amount: u64| {
            let width = u64::try_from(width).unwrap_or_default();
            let cells = (amount.min(self.capacity) * width).div_ceil(self.capacity.max(1));
            usize::try_from(cells).unwrap_or_default()
        };
        let used = cells(self.used.unwrap_or_default());
        let granted = cells(self.granted).max(used);
        let over = self.used.is_some_and(|used| used > self.granted);
        let style = |style: Style| style.force_styling(look.colours);
        let of_used = if over { Style::new().red() } else { Style::new().green() };
        format!(
            "{}{}{}",
            style(of_used).apply_to("█".repeat(used)),
            style(Style::new().cyan()).apply_to("▒".repeat(granted - used)),
            style(Style::new().dim()).apply_to("·".repeat(width - granted)),
        )
    }
}

fn laid_out(rows: &[Row], what: What, look: Look) -> Vec<String> {
    let title = match what {
        What::Nodes => "NODE",
        What::Gpus => "NODE/GPU",
        What::Pods => "POD",
    };
    let widest =
        |texts: &mut dyn Iterator<Item = usize>, title: &str| texts.max().unwrap_or_default().max(title.len());
    let name = widest(&mut rows.iter().map(|row| measure_text_width(&row.name)), title);
    // the rest is for what it has
    let name = look.size.map_or(name, |(_, width)| name.min((width * 2 / 5).max(SHORTEST)));
    let compute = widest(&mut rows.iter().map(|row| row.compute.words().len()), "COMPUTE");
    let mib = widest(&mut rows.iter().map(|row| row.memory.words().len()), "MEMORY");
    let bar = look.size.map_or(WIDEST, |(_, width)| {
        // a third of what is left is for pods
        let left = width.saturating_sub(name + compute + mib + 8);
        (left / 3).clamp(NARROWEST, WIDEST)
    });
    let rest = if what == What::Pods { "NODE, STATUS" } else { "PODS" };
    let mut lines = vec![format!(
        "{title:<name$}  {:<compute$}  {:<bar$}  {:<mib$}  {:<bar$}  {rest}",
        "COMPUTE", "", "MEMORY", ""
    )];
    lines.extend(rows.iter().map(|row| {
        let shown = truncate_str(&terminal::line(&row.name), name, "…").into_owned();
        let pad = " ".repeat(name.saturating_sub(measure_text_width(&shown)));
        format!(
            "{}{pad}  {:<compute$}  {}  {:<mib$}  {}  {}",
            row.style.apply_to(shown),
            row.compute.words(),
            row.compute.bar(bar, look),
            row.memory.words(),
            row.memory.bar(bar, look),
            row.style.apply_to(terminal::line(&row.rest)),
        )
    }));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Look = Look { size: None, colours: false };

    #[test]
    fn a_bar_shows_what_is_used_granted_and_free() {
        let gauge = |granted, used| Gauge { capacity: 1000, granted, used, text: percent };
        assert_eq!(gauge(500, Some(200)).bar(10, PLAIN), "██▒▒▒·····");
        assert_eq!(gauge(500, None).bar(10, PLAIN), "▒▒▒▒▒·····");
        assert_eq!(gauge(0, Some(0)).bar(4, PLAIN), "····");
        assert_eq!(gauge(100, Some(2000)).bar(4, PLAIN), "████", "more than there is");
        assert_eq!(Gauge { capacity: 0, granted: 0, used: None, text: percent }.bar(4, PLAIN), "····");
        assert_eq!(gauge(500, Some(200)).words(), "20%/50%");
        assert_eq!(gauge(500, None).words(), "?/50%");
    }

    #[test]
    fn colours_are_there_where_they_are_wanted_alone() {
        let gauge = Gauge { capacity: 1000, granted: 500, used: Some(600), text: percent };
        assert!(!gauge.bar(10, PLAIN).contains('\u{1b}'));
        let coloured = gauge.bar(10, Look { size: None, colours: true });
        assert!(coloured.contains("\u{1b}[31m"), "more than granted: {coloured:?}");
        assert_eq!(measure_text_width(&coloured), 10);
    }
}
