//! The command, with the rights of somebody who may only look.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, ensure};
use kerf_cluster::tools::workspace;
use kerf_cluster::wait::until;
use serde_json::{Value, json};

use crate::support::draft::{Draft, pod};
use crate::support::stage::{SOON, Stage};

const LIMIT: Duration = Duration::from_secs(120);

/// `kerf` as an account sees the cluster.
struct Viewer {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Viewer {
    /// An account of the test's namespace without rights.
    fn new(stage: &Stage<'_>) -> anyhow::Result<Self> {
        let (control, namespace) = (&stage.cluster.control, stage.namespace());
        control.kubectl(&["create", "serviceaccount", "ann", "--namespace", namespace])?;
        let token = control.kubectl(&["create", "token", "ann", "--namespace", namespace])?;
        let kubeconfig = control.kubeconfig("ann", token.trim())?;
        Ok(Self { program: stage.cluster.programs.command()?, kubeconfig })
    }

    fn run(&self, args: &[&str]) -> anyhow::Result<Output> {
        let mut kerf = Command::new(&self.program);
        kerf.arg("--kubeconfig").arg(&self.kubeconfig).args(args).output().context("kerf")
    }

    /// What it prints, which ends with this status; shown, since the pages quote it.
    fn said(&self, args: &[&str], status: i32) -> anyhow::Result<String> {
        let output = self.run(args)?;
        let text = String::from_utf8(output.stdout)? + &String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(status), "kerf {}: {:?}: {text}", args.join(" "), output.status);
        println!("        $ kerf {}", args.join(" "));
        text.lines().for_each(|line| println!("        {line}"));
        Ok(text)
    }
}

/// Pods of node-1: one that works hard, one that does little, and one that waits for all GPUs.
fn drafts(node: &str) -> [Draft; 3] {
    let on = |draft: Draft| draft.on(node);
    [on(pod("busy").app("main", 60, 40)), on(pod("idle").app("main", 60, 40)), on(pod("train").app("main", 400, 0))]
}

/// The file of the simulated GPUs, with what two containers use of them.
fn measured(file: &str, namespace: &str, on: [(&str, u64); 2]) -> String {
    let mut text = file.to_owned();
    for (number, (pod, gpu)) in on.into_iter().enumerate() {
        let (utilization, memory) = if pod == "busy" { (55, 9000) } else { (10, 1000) };
        let index = format!("index = {gpu}\n");
        text =
            text.replacen(&index, &format!("{index}utilization = {utilization}\nmemory_used_mib = {memory}\n"), 1);
        text += &format!(
            "\n[[process]]\npid = {}\ngpu = \"GPU-simulated-{gpu}\"\npod = \"{namespace}/{pod}\"\ncontainer = \"main\"\n\
             utilization = {utilization}\nmemory_mib = {memory}\n",
            number + 1
        );
    }
    text
}

/// Without rights the command says which are missing; with exactly those of the component `viewer`, it answers with one call
/// each: who is on a GPU, why a pod waits, what would fit if another went, and who uses little of what it was granted.
pub async fn four_questions_are_answered_by_who_may_only_look(stage: &Stage<'_>) -> anyhow::Result<()> {
    let (node, _) = stage.two_nodes()?;
    let (control, namespace, node) = (&stage.cluster.control, stage.namespace(), node.name.as_str());
    for draft in drafts(node) {
        stage.create(&draft).await?;
    }
    for name in ["busy", "idle"] {
        stage.phase(name, &["Running"]).await?;
    }
    let viewer = Viewer::new(stage)?;
    let missing = viewer.said(&["get", "gpus"], 2)?;
    ensure!(missing.contains("no right to list nodes, nor pods of all namespaces"), "{missing}");
    ensure!(missing.contains("ClusterRole kerf-viewer"), "{missing}");

    let component = workspace().join("manifests/components/viewer/rbac.yaml").display().to_string();
    control.kubectl(&["apply", "-f", &component])?;
    let account = format!("--serviceaccount={namespace}:ann");
    control.kubectl(&["create", "clusterrolebinding", namespace, "--clusterrole=kerf-viewer", &account])?;
    let answered = answers(stage, &viewer, node).await;
    control.kubectl(&["delete", "clusterrolebinding", namespace])?;
    control.kubectl(&["delete", "-f", &component])?;
    answered
}

async fn answers(stage: &Stage<'_>, viewer: &Viewer, node: &str) -> anyhow::Result<()> {
    let (control, namespace) = (&stage.cluster.control, stage.namespace());
    until(SOON, "the rights hold", async || {
        let output = viewer.run(&["get", "nodes"])?;
        ensure!(output.status.success(), "{output:?}");
        Ok(())
    })
    .await?;
    // who sees no usage is told so
    let unknown = viewer.said(&["get", "pods", "-n", namespace], 0)?;
    ensure!(unknown.contains("no right to get pods/proxy in kerf's namespace"), "{unknown}");
    let account = format!("--serviceaccount={namespace}:ann");
    let bind = ["create", "rolebinding", namespace, "--namespace=kerf-system", "--role=kerf-viewer", &account];
    control.kubectl(&bind)?;

    // where they are, and what they use there
    let all: Value = serde_json::from_slice(&viewer.run(&["get", "pods", "-n", namespace, "-o", "json"])?.stdout)?;
    let gpu = |pod: &str| {
        let found = all["pods"].as_array().into_iter().flatten().find(|own| own["name"] == pod);
        found
            .and_then(|own| own["containers"][0]["gpus"][0]["index"].as_u64())
            .with_context(|| format!("{pod}: {all}"))
    };
    let (busy, idle) = (gpu("busy")?, gpu("idle")?);
    let simulated = Simulated::of(stage)?;
    simulated.set(&measured(&simulated.file, namespace, [("busy", busy), ("idle", idle)]))?;
    let answered = with_usage(stage, viewer, node, idle).await;
    simulated.set(&simulated.file)?;
    control.kubectl(&["delete", "rolebinding", namespace, "--namespace=kerf-system"])?;
    answered
}

/// The four questions.
async fn with_usage(stage: &Stage<'_>, viewer: &Viewer, node: &str, idle: u64) -> anyhow::Result<()> {
    let namespace = stage.namespace();
    let little = until(LIMIT, "the plugins tell what is used", async || {
        let output = viewer.run(&["get", "pods", "-n", namespace, "--underused"])?;
        let text = String::from_utf8(output.stdout)?;
        ensure!(text.contains("idle") && !text.contains("busy"), "{text}");
        Ok(text)
    })
    .await?;
    ensure!(little.contains("10%"), "{little}");

    viewer.said(&["get", "pods", "-n", namespace, "--underused"], 0)?;
    let index = idle.to_string();
    let on = viewer.said(&["get", "pods", "-A", "--node", node, "--gpu", &index], 0)?;
    ensure!(on.contains("idle") && !on.contains("busy"), "{on}");
    let why = viewer.said(&["explain", "pod", &format!("{namespace}/train")], 0)?;
    ensure!(why.contains("it waits: none of 2 nodes with GPUs has room for 4 whole GPUs"), "{why}");
    ensure!(why.contains(&format!("it would fit on {node} if 2 pods went")), "{why}");
    let fits = ["plan", "--without", &format!("{namespace}/busy"), "--without", &format!("{namespace}/idle")];
    let fits = viewer.said(&fits, 0)?;
    ensure!(fits.contains(&format!("{node}: score 10")), "{fits}");
    viewer.said(&["get", "gpus"], 0)?;
    let top = viewer.said(&["top"], 0)?;
    ensure!(top.contains(&format!("{node}/{idle}")), "{top}");
    Ok(())
}

/// The file of the simulated GPUs, which all nodes have.
struct Simulated<'a> {
    stage: &'a Stage<'a>,
    map: String,
    /// As it was.
    file: String,
}

impl<'a> Simulated<'a> {
    fn of(stage: &'a Stage<'a>) -> anyhow::Result<Self> {
        let control = &stage.cluster.control;
        let of = |kind: &str, name: &str| -> anyhow::Result<Value> {
            Ok(serde_json::from_str(&control.kubectl(&[
                "get",
                kind,
                name,
                "--namespace=kerf-system",
                "--output=json",
            ])?)?)
        };
        let plugin = of("daemonset", "kerf-plugin")?;
        let volumes = plugin["spec"]["template"]["spec"]["volumes"].as_array().context("no volumes")?;
        let map = volumes.iter().find_map(|volume| volume["configMap"]["name"].as_str()).context("no ConfigMap")?;
        let file = of("configmap", map)?["data"]["gpus.toml"].as_str().context("no gpus.toml")?.to_owned();
        Ok(Self { stage, map: map.to_owned(), file })
    }

    /// Changes the file, and has the kubelets show it to the plugins at once.
    fn set(&self, file: &str) -> anyhow::Result<()> {
        let control = &self.stage.cluster.control;
        let patch = json!({ "data": { "gpus.toml": file } }).to_string();
        control.kubectl(&[
            "patch",
            "configmap",
            &self.map,
            "--namespace=kerf-system",
            "--type=merge",
            "--patch",
            &patch,
        ])?;
        let time = format!("example.com/changed={}", file.len());
        let selector = "app.kubernetes.io/name=kerf-plugin";
        let annotate =
            ["annotate", "pods", "--namespace=kerf-system", "--selector", selector, "--overwrite", &time];
        control.kubectl(&annotate).map(drop)
    }
}
