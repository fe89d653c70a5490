//! The table, and every single value.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use kerf_bench_support::figures;

use crate::run::{Case, Run};

#[derive(Default)]
pub struct Report {
    raw: String,
    /// Values of all rounds, by number of nodes, name, and whether with kerf.
    values: BTreeMap<(usize, usize, String), [Vec<f64>; 2]>,
    names: Vec<String>,
}

impl Report {
    pub fn add(&mut self, case: Case, run: &Run) {
        let throughput = run.throughput.iter().map(|rate| ("throughput, each second".to_owned(), "pods/s", *rate));
        throughput.for_each(|figure| self.row(case, &figure));
        let mean = run.throughput.iter().sum::<f64>() / run.throughput.len() as f64;
        self.value(case, ("SchedulingThroughput, average".into(), "pods/s", mean));
        self.value(case, ("pods bound, whole run".into(), "pods/s", run.pods_per_second));
        run.figures.iter().for_each(|figure| self.value(case, figure.clone()));
    }

    fn row(&mut self, case: Case, (name, unit, value): &(String, &'static str, f64)) {
        let with = if case.kerf { "kerf" } else { "none" };
        let Case { nodes, pods, round, .. } = case;
        let _ = writeln!(self.raw, "{nodes},{pods},{with},{round},\"{name}\",{unit},{value:.4}");
    }

    fn value(&mut self, case: Case, figure: (String, &'static str, f64)) {
        self.row(case, &figure);
        let name = format!("{}, {}", figure.0, figure.1);
        let place = self.names.iter().position(|known| *known == name).unwrap_or_else(|| {
            self.names.push(name.clone());
            self.names.len() - 1
        });
        let values = self.values.entry((case.nodes, place, name)).or_default();
        values[usize::from(case.kerf)].push(figure.2);
    }

    /// Prints medians over the rounds, and writes the raw values below the folder `KERF_BENCH_RAW`.
    pub fn finish(self, test: bool) -> anyhow::Result<()> {
        let mut table =
            format!("{:<56} {:>12} {:>12} {:>8}\n", "medians of the rounds", "no extender", "kerf", "ratio");
        let mut size = 0;
        for ((nodes, _, name), [without, with]) in &self.values {
            if size != *nodes {
                size = *nodes;
                let _ = writeln!(table, "\n{nodes} nodes");
            }
            let (without, with) = (median(without), median(with));
            let show = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.2}"));
            let ratio = without.zip(with).map(|(without, with)| with / without).filter(|ratio| ratio.is_finite());
            let _ = writeln!(table, "{name:<56} {:>12} {:>12} {:>8}", show(without), show(with), show(ratio));
        }
        figures::publish(
            "throughput",
            &table,
            &format!("nodes,pods,extender,round,figure,unit,value\n{}", self.raw),
            test,
        )
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}
