//! How long a condition has to last before its alert fires, and that Prometheus takes the rules.

use std::process::Command;

use kerf_system::rules::{alerts, groups, rules};
use serde_json::{Value, json};

/// promtool, with these files in its folder.
fn promtool(args: &[&str], files: &[(&str, &Value)]) -> (bool, String) {
    let folder = tempfile::tempdir().expect("folder");
    for (name, content) in files {
        // JSON is YAML
        std::fs::write(folder.path().join(name), content.to_string()).expect("written");
    }
    let output = Command::new("promtool").current_dir(folder.path()).args(args).output().expect("promtool");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}

#[test]
fn promtool_takes_the_rules() {
    if !kerf_system::prometheus::is_there() {
        return;
    }
    let groups = groups();
    let (right, said) =
        promtool(&["check", "rules", "rules.json"], &[("rules.json", &json!({ "groups": groups }))]);
    assert!(right && said.contains(&format!("{} rules found", rules(&groups).len())), "{said}");
}

/// An alert that `fires` when its series have had these values, one each minute, for so many minutes, and not a minute
/// before.
fn duration(alert: &str, series: &[(&str, &str)], minutes: u64, fires: &Value) -> Value {
    let input = |(series, values): &(&str, &str)| json!({ "series": series, "values": values });
    let at = |minutes: u64, alerts: Value| json!({ "eval_time": format!("{minutes}m"), "alertname": alert, "exp_alerts": alerts });
    json!({
        "interval": "1m",
        "input_series": series.iter().map(input).collect::<Vec<_>>(),
        "alert_rule_test": [at(minutes - 1, json!([])), at(minutes, json!([fires]))],
    })
}

/// How long each condition has to last; what the alert then says. That the expressions find something in kerf's own series
/// is for `alerts.rs`.
#[test]
fn alerts_wait_until_a_condition_lasts() {
    if !kerf_system::prometheus::is_there() {
        return;
    }
    let gpu = r#"{gpu="GPU-a",index="2",model="A100",node="n"}"#;
    let of_gpu = |severity: &str| json!({ "severity": severity, "gpu": "GPU-a", "index": "2", "model": "A100", "node": "n" });
    let fires =
        |labels: Value, summary: &str| json!({ "exp_labels": labels, "exp_annotations": { "summary": summary } });
    let series = |name: &str, labels: &str| format!("{name}{labels}");
    let tests = [
        duration(
            "GPUUnhealthy",
            &[(&series("kerf_extender_gpu_healthy", gpu), "0x60")],
            5,
            &fires(of_gpu("warning"), "GPU 2 of node n is unhealthy (A100, GPU-a)"),
        ),
        duration(
            "GPUOvercommitted",
            &[(&series("kerf_extender_gpu_overcommitted", gpu), "1x60")],
            5,
            &fires(of_gpu("critical"), "pods hold more of GPU 2 of node n than it has"),
        ),
        duration(
            "GPUShareBreached",
            &[(
                r#"kerf_plugin_container_breach{node="n",namespace="ns",pod="p",container="main",gpu="a",index="0",kind="memory"}"#,
                "1x60",
            )],
            5,
            &fires(
                json!({ "severity": "warning", "node": "n", "namespace": "ns", "pod": "p", "container": "main",
                        "kind": "memory" }),
                "ns/p (main) breaks its GPU share: memory",
            ),
        ),
        duration(
            "GPUsFragmented",
            &[("kerf_extender_pods_pending_fragmented", "3x60")],
            15,
            &fires(
                json!({ "severity": "warning" }),
                "3 pods fit on no node, although enough compute and memory of GPUs is free in all",
            ),
        ),
        duration(
            "KerfNoLeader",
            &[(r#"kerf_extender_active{pod="a"}"#, "0x60"), (r#"kerf_extender_active{pod="b"}"#, "0x60")],
            2,
            &fires(
                json!({ "severity": "critical" }),
                "no replica of kerf's scheduler is in use; no pod that asks for GPUs is scheduled",
            ),
        ),
        duration(
            "KerfExtenderGone",
            &[("up", "0x60")],
            5,
            &fires(
                json!({ "severity": "critical" }),
                "Prometheus finds no kerf extender; where none runs, no pod that asks for GPUs is scheduled",
            ),
        ),
        duration(
            "KerfPluginGone",
            &[
                (&series("kerf_extender_gpu_healthy", gpu), "1x60"),
                (r#"kerf_plugin_gpu_healthy{gpu="GPU-b",node="other"}"#, "1x60"),
            ],
            10,
            &fires(
                json!({ "severity": "critical", "node": "n" }),
                "Prometheus finds no kerf plugin on node n, which has GPUs; where none runs, no pod gets one there",
            ),
        ),
        duration(
            "KerfPodsUnconfirmed",
            &[(r#"kerf_extender_pods_unconfirmed{node="n"}"#, "2x60")],
            10,
            &fires(
                json!({ "severity": "warning", "node": "n" }),
                "2 pods were bound to node n and have not got their GPUs",
            ),
        ),
        // the increase passes five after a minute
        duration(
            "KerfBindsFail",
            &[(r#"kerf_extender_binds_total{outcome="refused"}"#, "0+6x60")],
            11,
            &fires(
                json!({ "severity": "warning", "outcome": "refused" }),
                "bindings end as refused: pods that ask for GPUs are scheduled late or not at all",
            ),
        ),
        duration(
            "KerfBindsInDoubt",
            &[("kerf_extender_binds_in_doubt", "4x60")],
            5,
            &fires(
                json!({ "severity": "warning" }),
                "the API server does not say whether 4 bindings were carried out; their GPUs are kept meanwhile",
            ),
        ),
        duration(
            "KerfNoNewsOfTheCluster",
            &[(r#"kerf_plugin_watch_age_seconds{namespace="s",pod="p",kind="pods"}"#, "151+60x60")],
            2,
            &fires(
                json!({ "severity": "warning", "namespace": "s", "pod": "p", "kind": "pods" }),
                "the API server sends no news of pods",
            ),
        ),
        // more than ten after two minutes
        duration(
            "KerfPluginWithoutDriver",
            &[(r#"kerf_plugin_backend_errors_total{namespace="s",pod="p",kind="slow"}"#, "0+6x60")],
            12,
            &fires(
                json!({ "severity": "warning", "namespace": "s", "pod": "p", "kind": "slow" }),
                "the GPU driver does not answer s/p (slow)",
            ),
        ),
    ];
    let groups = groups();
    let tested: Vec<&str> =
        tests.iter().filter_map(|test| test["alert_rule_test"][0]["alertname"].as_str()).collect();
    for alert in alerts(&groups) {
        assert!(tested.contains(&alert.as_str()), "{alert} has no test here");
    }
    let file = json!({ "rule_files": ["rules.json"], "evaluation_interval": "1m", "tests": tests });
    let (right, said) = promtool(
        &["test", "rules", "tests.json"],
        &[("rules.json", &json!({ "groups": groups })), ("tests.json", &file)],
    );
    assert!(right, "{said}");
}
