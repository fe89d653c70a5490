//! A real Prometheus scrapes both programs.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use kerf_cluster::place::Place;
use kerf_cluster::process::{Process, Spec};
use kerf_cluster::tools::{output, workspace};
use kerf_cluster::wait::until;
use serde_json::Value;

use crate::support::draft::mixed;
use crate::support::stage::{SOON, Stage};

/// Prometheus' own linter has no complaint about either program's metrics.
pub async fn promtool_is_content(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.create_all(&mixed(8, 1)).await?;
    stage.all_run(8, SOON).await?;
    let mut ports = vec![("kerf-extender", stage.cluster.control.ports.extender_metrics)];
    ports.extend(stage.cluster.nodes.iter().map(|node| ("kerf-plugin", node.ports.plugin)));
    for (program, port) in ports {
        let metrics = stage.cluster.get_text(port, "/metrics").await?;
        // gpu-manager's names, which are older than the rules
        let own: String = metrics
            .lines()
            .filter(|line| {
                !line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ").starts_with("container_")
            })
            .map(|line| format!("{line}\n"))
            .collect();
        let mut lint = Command::new("promtool");
        lint.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = lint.spawn().context("promtool")?;
        child.stdin.take().context("no input")?.write_all(own.as_bytes())?;
        let output = child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && text.trim().is_empty(), "{program}: {text}");
    }
    // and none about the alerts
    let alerts = std::fs::read_to_string(workspace().join("manifests/components/alerts/alerts.yaml"))?;
    let (_, rules) = alerts.split_once("\nspec:\n").context("no spec")?;
    let rules: String =
        rules.lines().map(|line| format!("{}\n", line.strip_prefix("  ").unwrap_or(line))).collect();
    let file = stage.cluster.place().write("prometheus/alerts.yaml", rules)?;
    output(Command::new("promtool").args(["check", "rules"]).arg(file)).map(drop)
}

/// The commitments of each GPU and the shares of each container equal the audit's; a pod that is gone
/// takes its series with it.
pub async fn queries_return_what_the_audit_finds(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.create_all(&mixed(14, 1)).await?;
    stage.all_run(14, SOON).await?;
    let audit = stage.agreed().await?;
    let prometheus = Prometheus::start(stage)?;
    let result = prometheus.compare(stage, &audit).await;
    prometheus.process.kill()?;
    result
}

struct Prometheus {
    process: Process,
    port: u16,
}

impl Prometheus {
    fn start(stage: &Stage<'_>) -> anyhow::Result<Self> {
        let place: &Arc<Place> = stage.cluster.place();
        let mut targets = vec![format!("'127.0.0.1:{}'", stage.cluster.control.ports.extender_metrics)];
        targets.extend(stage.cluster.nodes.iter().map(|node| format!("'127.0.0.1:{}'", node.ports.plugin)));
        let config = format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: kerf\n  static_configs: [{{targets: [{}]}}]\n",
            targets.join(", ")
        );
        let config = place.write("prometheus/prometheus.yml", config)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let args = [
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", place.dir("prometheus/data")?.display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
        ];
        Ok(Self { process: Process::start(place, Spec::new("prometheus", "prometheus", &args))?, port })
    }

    /// The series that a query returns now: labels and value.
    async fn query(&self, stage: &Stage<'_>, query: &str) -> anyhow::Result<Vec<(Value, f64)>> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let answer = stage.cluster.get_text(self.port, &format!("/api/v1/query?query={encoded}")).await?;
        let answer: Value = serde_json::from_str(&answer)?;
        let series = answer["data"]["result"].as_array().context("no result")?;
        let value = |series: &Value| series["value"][1].as_str().and_then(|text| text.parse().ok());
        Ok(series.iter().filter_map(|series| Some((series["metric"].clone(), value(series)?))).collect())
    }

    async fn compare(&self, stage: &Stage<'_>, audit: &kerf_cluster::audit::Audit) -> anyhow::Result<()> {
        let targets = stage.cluster.nodes.len() + 1;
        until(SOON, "everything is scraped", async || {
            let up = self.query(stage, "up == 1").await?;
            ensure!(up.len() == targets, "{} of {targets}", up.len());
            Ok(())
        })
        .await?;
        until(SOON, "committed compute is what the audit finds", async || {
            let series = self.query(stage, "kerf_extender_gpu_compute_committed_ratio").await?;
            let told: BTreeMap<String, u32> = series
                .iter()
                .map(|(labels, value)| {
                    let label = |name: &str| labels[name].as_str().unwrap_or_default().to_owned();
                    (format!("{}/{}", label("node"), label("gpu")), (value * 1000.0).round() as u32)
                })
                .filter(|(_, value)| *value > 0)
                .collect();
            let found: BTreeMap<String, u32> =
                audit.used.iter().map(|(card, share)| (card.clone(), share.compute.0)).collect();
            ensure!(told == found, "{told:?}, found {found:?}");
            Ok(())
        })
        .await?;
        let granted = format!("kerf_plugin_container_core_granted_ratio{{namespace=\"{}\"}}", stage.namespace());
        until(SOON, "each container has its series", async || {
            let told: BTreeMap<String, u32> = self
                .query(stage, &format!("sum by (pod, container) ({granted})"))
                .await?
                .iter()
                .map(|(labels, value)| {
                    let label = |name: &str| labels[name].as_str().unwrap_or_default().to_owned();
                    (
                        format!("{}/{}/{}", stage.namespace(), label("pod"), label("container")),
                        (value * 1000.0).round() as u32,
                    )
                })
                .collect();
            let mut found = BTreeMap::new();
            for (pod, placement) in &audit.placed {
                for grant in &placement.plan.grants {
                    let sum: u32 = grant.gpus.amounts().map(|(_, share)| share.compute.0).sum();
                    found.insert(format!("{pod}/{}", grant.container), sum);
                }
            }
            // an init container that has ended may have a series or not
            let missing: Vec<_> = found
                .iter()
                .filter(|(name, sum)| !name.ends_with("/before") && told.get(*name) != Some(sum))
                .collect();
            ensure!(missing.is_empty(), "missing {missing:?} in {told:?}");
            ensure!(told.keys().all(|name| found.contains_key(name)), "{told:?}, found {found:?}");
            Ok(())
        })
        .await?;
        stage.pods().delete("m-0", &Default::default()).await?;
        until(SOON, "the series of a deleted pod are gone", async || {
            let series =
                self.query(stage, &format!("{{pod=\"m-0\", namespace=\"{}\"}}", stage.namespace())).await?;
            ensure!(series.is_empty(), "{series:?}");
            Ok(())
        })
        .await?;
        tokio::time::timeout(Duration::from_secs(60), stage.agreed()).await??;
        Ok(())
    }
}
