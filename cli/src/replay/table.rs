//! The outcome of runs, for people and for programs.

use kerf::policy::Policy;
use kerf::replay::Outcome;
use serde_json::{Value, json};

/// Demand at which the table shows what is unallocated, in percent of the cluster.
const SHOWN: [u64; 5] = [90, 95, 100, 110, 130];

/// One policy and the outcomes of its runs, by seed; `None`: in the order of the file.
pub struct Runs {
    pub policy: Policy,
    pub outcomes: Vec<(Option<u64>, Outcome)>,
}

impl Runs {
    /// Mean unallocated compute of the runs, for each percent of demand that every run reached.
    pub fn curve(&self) -> Vec<(u64, f64)> {
        let Some((_, first)) = self.outcomes.first() else { return Vec::new() };
        let mean = |at: u64| Some((at, mean(&self.each(|outcome| outcome.curve.at(at)))?.0));
        first.curve.points().filter_map(|point| mean(point.arrived)).collect()
    }

    /// Whether pods left, so that averages over time count.
    pub fn timed(&self) -> bool {
        self.outcomes.iter().any(|(_, outcome)| outcome.average_unallocated.is_some())
    }

    fn each(&self, of: impl Fn(&Outcome) -> Option<f64>) -> Vec<f64> {
        let values: Option<Vec<f64>> = self.outcomes.iter().map(|(_, outcome)| of(outcome)).collect();
        values.unwrap_or_default()
    }
}

/// Mean and standard deviation; `None` without values.
fn mean(values: &[f64]) -> Option<(f64, f64)> {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    (!values.is_empty()).then(|| (mean, if values.len() > 1 { (squares / (count - 1.0)).sqrt() } else { 0.0 }))
}

fn cell(values: &[f64]) -> String {
    match mean(values) {
        Some((mean, deviation)) if values.len() > 1 => format!("{mean:.2}+-{deviation:.2}"),
        Some((mean, _)) => format!("{mean:.2}"),
        None => "-".into(),
    }
}

/// A line for each policy.
pub fn table(all: &[Runs]) -> String {
    let runs = all.first().map_or(0, |runs| runs.outcomes.len());
    let timed = all.iter().any(Runs::timed);
    let mut text = format!("unallocated GPU in % of the cluster, mean of {runs} run(s)");
    if timed {
        text += &format!("\n{:<14} {:>14} {:>14}\n", "policy", "over time", "lost demand");
        for runs in all {
            let (unallocated, lost) =
                (runs.each(|outcome| outcome.average_unallocated), runs.each(|outcome| outcome.lost));
            text += &format!("{:<14} {:>14} {:>14}\n", runs.policy.as_str(), cell(&unallocated), cell(&lost));
        }
        return text;
    }
    // the pods of a snapshot may never reach such a demand
    let shown: Vec<u64> =
        SHOWN.into_iter().filter(|at| all.iter().any(|runs| !runs.each(|o| o.curve.at(*at)).is_empty())).collect();
    let head: String = shown.iter().map(|at| format!(" {:>11}", format!("{at} %"))).collect();
    let asked = cell(&all.first().map(|runs| runs.each(|outcome| Some(outcome.asked))).unwrap_or_default());
    text += &format!(", by demand, which is {asked} % in the end\n");
    text += &format!("{:<14}{head} {:>11} {:>13} {:>9}\n", "policy", "in the end", "first failure", "failed");
    for runs in all {
        let cells: String =
            shown.iter().map(|at| format!(" {:>11}", cell(&runs.each(|o| o.curve.at(*at))))).collect();
        let end = cell(&runs.each(|outcome| Some(outcome.unallocated)));
        let first = cell(&runs.each(|outcome| outcome.first_failure));
        let failed = mean(&runs.each(|outcome| Some(outcome.failed.iter().sum::<u64>() as f64)));
        let failed = failed.map_or("-".into(), |(mean, _)| format!("{mean:.0}"));
        text += &format!("{:<14}{cells} {end:>11} {first:>13} {failed:>9}\n", runs.policy.as_str());
    }
    text
}

pub fn json(all: &[Runs]) -> Value {
    let run = |(seed, outcome): &(Option<u64>, Outcome)| {
        let [cpu, share, one, several] = outcome.failed;
        let curve: serde_json::Map<String, Value> =
            outcome.curve.points().map(|point| (point.arrived.to_string(), json!(point.unallocated))).collect();
        json!({
            "seed": seed, "pods": outcome.placed.len(), "first_failure_at": outcome.first_failure,
            "asked": outcome.asked, "unallocated": outcome.unallocated,
            "failed": { "cpu": cpu, "share": share, "one": one, "several": several },
            "unallocated_over_time": outcome.average_unallocated, "lost_demand": outcome.lost,
            "unallocated_by_demand": curve,
        })
    };
    let runs = |runs: &Runs| (runs.policy.to_string(), runs.outcomes.iter().map(run).collect::<Vec<_>>().into());
    json!({ "unit": "percent of the cluster's GPUs", "policies": all.iter().map(runs).collect::<serde_json::Map<_, _>>() })
}
