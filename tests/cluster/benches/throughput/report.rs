//! The table, and every single value.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use kerf_bench_support::figures;

use crate::run::{Case, Run};
use crate::setup::Setup;

pub struct Report {
    setups: Vec<Setup>,
    raw: String,
    /// Values of all rounds, by number of nodes, name, and setup.
    values: BTreeMap<(usize, usize, String), Vec<Vec<f64>>>,
    names: Vec<String>,
}

impl Report {
    /// A table with a column for each setup.
    pub fn new(setups: Vec<Setup>) -> Self {
        Self { setups, raw: String::new(), values: BTreeMap::new(), names: Vec::new() }
    }

    pub fn add(&mut self, case: Case, run: &Run) {
        let throughput = run.throughput.iter().map(|rate| ("throughput, each second".to_owned(), "pods/s", *rate));
        throughput.for_each(|figure| self.row(case, &figure));
        let mean = run.throughput.iter().sum::<f64>() / run.throughput.len() as f64;
        self.value(case, ("SchedulingThroughput, average".into(), "pods/s", mean));
        self.value(case, ("pods bound, whole run".into(), "pods/s", run.pods_per_second));
        run.figures.iter().for_each(|figure| self.value(case, figure.clone()));
    }

    fn row(&mut self, case: Case, (name, unit, value): &(String, &'static str, f64)) {
        let Case { nodes, pods, setup, round, .. } = case;
        let _ = writeln!(self.raw, "{nodes},{pods},{setup},{round},\"{name}\",{unit},{value:.4}");
    }

    fn value(&mut self, case: Case, figure: (String, &'static str, f64)) {
        // a mean of nothing, such as of the seconds of a run that took less than one
        if !figure.2.is_finite() {
            return;
        }
        self.row(case, &figure);
        let name = format!("{}, {}", figure.0, figure.1);
        let place = self.names.iter().position(|known| *known == name).unwrap_or_else(|| {
            self.names.push(name.clone());
            self.names.len() - 1
        });
        let (setups, column) = (&self.setups, self.setups.iter().position(|setup| *setup == case.setup));
        let values = self.values.entry((case.nodes, place, name)).or_insert_with(|| vec![Vec::new(); setups.len()]);
        if let Some(values) = column.and_then(|column| values.get_mut(column)) {
            values.push(figure.2);
        }
    }

    /// Prints medians over the rounds, and writes the raw values below the folder `KERF_BENCH_RAW`.
    pub fn finish(self, name: &str, test: bool) -> anyhow::Result<()> {
        let mut table = format!("{:<56}", "medians of the rounds; in brackets of the first");
        for setup in &self.setups {
            let _ = write!(table, " {:>20}", setup.as_str());
        }
        table.push('\n');
        let mut size = 0;
        for ((nodes, _, name), columns) in &self.values {
            if size != *nodes {
                size = *nodes;
                let _ = writeln!(table, "\n{nodes} nodes");
            }
            let _ = write!(table, "{name:<56}");
            let medians: Vec<Option<f64>> = columns.iter().map(|values| median(values)).collect();
            let first = medians.first().copied().flatten();
            for (column, value) in medians.iter().enumerate() {
                let ratio = first.zip(*value).map(|(first, value)| value / first);
                let ratio = ratio.filter(|ratio| column > 0 && ratio.is_finite());
                let ratio = ratio.map_or_else(String::new, |ratio| format!("({ratio:.2})"));
                let value = value.map_or_else(String::new, |value| format!("{value:.2}"));
                let _ = write!(table, " {value:>12} {ratio:>7}");
            }
            table.truncate(table.trim_end().len());
            table.push('\n');
        }
        let raw = format!("nodes,pods,setup,round,figure,unit,value\n{}", self.raw);
        figures::publish(name, &table, &raw, test)
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}
