//! What was granted and used, by namespace or pod.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::prometheus::Query;

const GIB: f64 = 1_073_741_824.0;

/// The recorded series of `manifests/components/alerts`, without what they are summed by, and how much of the unit of
/// [`Amounts`] one of theirs is.
const SERIES: [(&str, f64); 4] = [
    ("kerf_gpus_granted", 1.0),
    ("kerf_gpus_used", 1.0),
    ("kerf_gpu_memory_granted_bytes", 1.0 / GIB),
    ("kerf_gpu_memory_used_bytes", 1.0 / GIB),
];

/// Compute in GPUs and memory in GiB, each times hours.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Amounts {
    /// Granted.
    pub gpu_hours: f64,
    pub gpu_hours_used: f64,
    /// Granted.
    pub gib_hours: f64,
    pub gib_hours_used: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub namespace: String,
    /// Where pods are told apart.
    pub pod: Option<String>,
    pub amounts: Amounts,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// Who was granted most first.
    pub rows: Vec<Row>,
}

impl Amounts {
    /// For `--json`.
    pub fn report(&self) -> Value {
        json!({
            "gpu_hours_granted": self.gpu_hours,
            "gpu_hours_used": self.gpu_hours_used,
            "gib_hours_granted": self.gib_hours,
            "gib_hours_used": self.gib_hours_used,
        })
    }

    fn plus(self, other: Self) -> Self {
        Self {
            gpu_hours: self.gpu_hours + other.gpu_hours,
            gpu_hours_used: self.gpu_hours_used + other.gpu_hours_used,
            gib_hours: self.gib_hours + other.gib_hours,
            gib_hours_used: self.gib_hours_used + other.gib_hours_used,
        }
    }
}

impl Row {
    /// For `--json`.
    pub fn report(&self) -> Value {
        let mut report = self.amounts.report();
        report["namespace"] = self.namespace.as_str().into();
        if let Some(pod) = &self.pod {
            report["pod"] = pod.as_str().into();
        }
        report
    }
}

impl Usage {
    /// Of those that were granted compute, those that used less than this part of it.
    pub fn below(mut self, part: f64) -> Self {
        self.rows.retain(|row| row.amounts.gpu_hours_used < part * row.amounts.gpu_hours);
        self
    }

    pub fn total(&self) -> Amounts {
        self.rows.iter().fold(Amounts::default(), |sum, row| sum.plus(row.amounts))
    }

    fn of(sums: BTreeMap<(String, Option<String>), [f64; 4]>) -> Self {
        let row = |((namespace, pod), sums): ((String, Option<String>), [f64; 4])| {
            let [gpu_hours, gpu_hours_used, gib_hours, gib_hours_used] = sums;
            let amounts = Amounts { gpu_hours, gpu_hours_used, gib_hours, gib_hours_used };
            Row { namespace, pod, amounts }
        };
        let mut rows: Vec<Row> = sums.into_iter().map(row).collect();
        // stable: equal ones stay in the order of their names
        rows.sort_by(|a, b| b.amounts.gpu_hours.total_cmp(&a.amounts.gpu_hours));
        Self { rows }
    }
}

/// Asks for the usage of the last `since` seconds, with a sample every `step` seconds.
///
/// # Errors
/// Those of [`Query::run`].
pub async fn read(
    query: Query,
    since: u64,
    step: u64,
    by_pod: bool,
    namespace: Option<&str>,
) -> anyhow::Result<Usage> {
    let by = if by_pod { "namespace_pod" } else { "namespace" };
    let selector = namespace.map(|name| format!("{{namespace=\"{name}\"}}")).unwrap_or_default();
    let mut sums: BTreeMap<(String, Option<String>), [f64; 4]> = BTreeMap::new();
    for (at, (series, unit)) in SERIES.into_iter().enumerate() {
        let sum = format!("sum_over_time({by}:{series}:sum{selector}[{since}s:{step}s])");
        for (labels, value) in query.run(&sum).await? {
            let label = |name: &str| labels.get(name).cloned();
            let key = (label("namespace").unwrap_or_default(), label("pod").filter(|_| by_pod));
            if let Some(amount) = sums.entry(key).or_default().get_mut(at) {
                *amount += value * unit * hours(step);
            }
        }
    }
    Ok(Usage::of(sums))
}

#[allow(clippy::cast_precision_loss, reason = "at most ten years, in seconds")]
fn hours(seconds: u64) -> f64 {
    seconds as f64 / 3_600.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_granted_most_comes_first_and_all_are_added_up() {
        let key = |name: &str| (name.to_owned(), None);
        let sums =
            [(key("a"), [1.0, 0.25, 8.0, 4.0]), (key("b"), [4.0, 3.0, 2.0, 2.0]), (key("c"), [1.0, 0.5, 0.0, 0.0])];
        let usage = Usage::of(sums.into());
        let names = |usage: &Usage| usage.rows.iter().map(|row| row.namespace.clone()).collect::<Vec<_>>();
        assert_eq!(names(&usage), ["b", "a", "c"]);
        let all = Amounts { gpu_hours: 6.0, gpu_hours_used: 3.75, gib_hours: 10.0, gib_hours_used: 6.0 };
        assert_eq!(usage.total(), all);
        let below = usage.below(0.5);
        assert_eq!(names(&below), ["a"], "c used half, which is not less");
        assert_eq!(below.total().gpu_hours, 1.0);
    }
}
