//! `kerf report`: who was given how much of the GPUs and used how much of that, from what Prometheus has recorded.

mod prometheus;
mod usage;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use kerf::ids::syntax::is_label;
use serde_json::json;

use super::print::say;
use prometheus::Prometheus;
use usage::{Amounts, Row, Usage};

/// A sum is made of at most so many samples of each series: a minute apart over a week.
const SAMPLES: u64 = 10_080;

/// Which usage, from which Prometheus.
#[derive(Debug, clap::Args)]
pub struct ReportArgs {
    /// How far back: a number with s, m, h, d or w
    #[arg(long, default_value = "7d", value_name = "TIME", value_parser = seconds)]
    since: u64,
    /// One line for each of these
    #[arg(long, value_enum, default_value_t = By::Namespace)]
    by: By,
    /// Only this namespace
    #[arg(long, short, value_name = "NAME", value_parser = namespace)]
    namespace: Option<String>,
    /// Only who used less than this part of the compute, in percent
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    below: Option<u8>,
    /// Where Prometheus' API is
    #[arg(long, env = "KERF_PROMETHEUS_URL", default_value = "http://127.0.0.1:9090", value_name = "URL")]
    prometheus: String,
    /// A file with a token that Prometheus, or what is before it, wants
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Certificates of authorities that may vouch for it (PEM); otherwise the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum By {
    Namespace,
    Pod,
}

/// As in `90s` or `2w`; at most ten years.
fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no time such as 12h or 7d");
    let at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(at);
    let unit: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return Err(wrong()),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).ok_or_else(wrong)?;
    match seconds {
        0 => Err("nothing was used in no time".to_owned()),
        1..=315_576_000 => Ok(seconds),
        _ => Err("at most ten years".to_owned()),
    }
}

fn namespace(text: &str) -> Result<String, String> {
    is_label(text).then(|| text.to_owned()).ok_or_else(|| format!("{text:?} is no name of a namespace"))
}

/// Prints the table.
///
/// # Errors
/// Where Prometheus does not answer, or has recorded nothing.
pub fn run(args: &ReportArgs, as_json: bool, out: &mut String) -> anyhow::Result<ExitCode> {
    let prometheus = Prometheus::new(&args.prometheus, args.token_file.as_deref(), args.ca_file.as_deref())?;
    let step = args.since.div_ceil(SAMPLES);
    let by_pod = args.by == By::Pod;
    let usage = prometheus.ask(|query| usage::read(query, args.since, step, by_pod, args.namespace.as_deref()))?;
    anyhow::ensure!(!usage.rows.is_empty(), nothing(args));
    let usage = match args.below {
        Some(percent) => usage.below(f64::from(percent) / 100.0),
        None => usage,
    };
    if as_json {
        let rows: Vec<_> = usage.rows.iter().map(Row::report).collect();
        let all = json!({ "since_seconds": args.since, "step_seconds": step, "usage": rows, "total": usage.total().report() });
        writeln!(out, "{}", serde_json::to_string_pretty(&all).context("JSON")?)?;
    } else {
        table(&usage, by_pod, out);
    }
    Ok(ExitCode::SUCCESS)
}

/// Why there may be nothing.
fn nothing(args: &ReportArgs) -> String {
    let of = args.namespace.as_ref().map(|name| format!(" of namespace {name}")).unwrap_or_default();
    format!(
        "{} has recorded no usage{of} in this time: see that it has the rules of manifests/components/alerts (chart: \
         rules.enabled) and scrapes kerf's plugins",
        args.prometheus
    )
}

fn table(usage: &Usage, by_pod: bool, out: &mut String) {
    let width = |head: &str, of: fn(&Row) -> &str| {
        usage.rows.iter().map(|row| of(row).chars().count()).chain([head.len()]).max().unwrap_or_default()
    };
    let namespaces = width("NAMESPACE", |row| row.namespace.as_str());
    let pods = if by_pod { width("POD", |row| row.pod.as_deref().unwrap_or_default()) } else { 0 };
    let mut line = |namespace: &str, pod: &str, amounts: [String; 6]| {
        let pod = if by_pod { format!("  {pod:<pods$}") } else { String::new() };
        let [granted, used, part, memory, memory_used, memory_part] = amounts;
        say(
            out,
            &format!(
                "{namespace:<namespaces$}{pod}  {granted:>10}  {used:>10}  {part:>5}  {memory:>11}  {memory_used:>11}  {memory_part:>5}"
            ),
        );
    };
    line("NAMESPACE", "POD", ["GPU HOURS", "USED", "PART", "GiB HOURS", "USED", "PART"].map(str::to_owned));
    for row in &usage.rows {
        line(&row.namespace, row.pod.as_deref().unwrap_or_default(), row.amounts.cells());
    }
    if usage.rows.len() > 1 {
        line("all", "", usage.total().cells());
    }
}

impl Amounts {
    fn cells(&self) -> [String; 6] {
        let part =
            |used: f64, of: f64| if of > 0.0 { format!("{:.0} %", 100.0 * used / of) } else { "-".to_owned() };
        [
            format!("{:.2}", self.gpu_hours),
            format!("{:.2}", self.gpu_hours_used),
            part(self.gpu_hours_used, self.gpu_hours),
            format!("{:.1}", self.gib_hours),
            format!("{:.1}", self.gib_hours_used),
            part(self.gib_hours_used, self.gib_hours),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        assert_eq!(["90s", "2m", "12h", "7d", "2w"].map(seconds), [90, 120, 43_200, 604_800, 1_209_600].map(Ok));
        for wrong in ["", "7", "d", "7 d", "7dd", "-1d", "1.5h", "99999999999999999999d", "0d", "11000d"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
        assert!(namespace("team-a").is_ok() && namespace("a\"} or up{b=\"").is_err());
    }

    #[test]
    fn a_week_is_added_up_by_minutes() {
        let step = |since: u64| since.div_ceil(SAMPLES);
        assert_eq!([10, 604_800, 2_592_000].map(step), [1, 60, 258]);
    }
}
