//! `kerf report`, from a real Prometheus that scrapes a real plugin, and what it says where there is none.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Output};

use kerf_system::prometheus::{self, Prometheus, Target};
use kerf_system::rules;
use kerf_system::stack::{MachineSpec, Stack, StackConfig};
use kerf_system::workload::{container, pod};
use serde_json::{Value, json};

const CARDS: &str = "[[gpu]]\ncount = 2\nuuid = \"GPU-a\"\nmodel = \"A100\"\nmemory_mib = 40960\nutilization = 40\n\
                     device_nodes = [\"/dev/null\"]\n";

fn report(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kerf"));
    // a proxy of this machine's is not asked about its own addresses
    command.arg("report").args(args).env_remove("HTTP_PROXY").env_remove("http_proxy").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What it prints with `--json`; `None` where there is nothing yet.
fn usage(url: &str, args: &[&str]) -> Option<Value> {
    let output = report(&[&["--prometheus", url, "--json", "--since", "3s"], args].concat());
    let said = text(&output.stderr);
    assert!(output.status.success() || said.contains("has recorded no usage"), "{said}");
    serde_json::from_slice(&output.stdout).ok()
}

/// Who is in a report, and the part of the compute that they used.
fn parts(report: &Value, name: &str) -> Vec<(String, f64)> {
    let rows = report["usage"].as_array().unwrap();
    let number = |row: &Value, field: &str| row[field].as_f64().unwrap();
    let part = |row: &Value| number(row, "gpu_hours_used") / number(row, "gpu_hours_granted");
    rows.iter().map(|row| (row[name].as_str().unwrap().to_owned(), part(row))).collect()
}

fn same(found: &[(String, f64)], wanted: &[(&str, f64)]) -> bool {
    let near = |((name, part), (other, wanted)): (&(String, f64), &(&str, f64))| {
        name == other && (part - wanted).abs() < 0.01
    };
    found.len() == wanted.len() && found.iter().zip(wanted).all(near)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_granted_and_used_is_added_up() {
    if !prometheus::is_there() {
        return;
    }
    let mut spec = MachineSpec::equal("node-0", 2, "A100", 40_960);
    spec.cards = CARDS.to_owned();
    let stack = Stack::start(&[spec], StackConfig::default()).await.unwrap();
    for (namespace, name, core) in
        [("research", "busy", "80"), ("notebooks", "idle", "40"), ("notebooks", "half", "20")]
    {
        let mut new = pod(name, vec![], vec![container("main", core, "40")]);
        new["metadata"]["namespace"] = namespace.into();
        stack.submit(new).unwrap();
    }
    stack.until_running(3).await.unwrap();
    let gpu = |name: &str, namespace: &str| {
        let given = stack.machines["node-0"].kubelet.container(namespace, name, "main").expect("it has a GPU");
        given.env["NVIDIA_VISIBLE_DEVICES"].clone()
    };
    let mut cards = CARDS.to_owned();
    for (namespace, name, percent) in [("research", "busy", 60), ("notebooks", "half", 10)] {
        let (pid, gpu) = (std::process::id() + percent, gpu(name, namespace));
        write!(cards, "[[process]]\npid = {pid}\ngpu = \"{gpu}\"\nmemory_mib = 1024\nutilization = {percent}\n")
            .unwrap();
        write!(cards, "pod = \"{namespace}/{name}\"\ncontainer = \"main\"\n").unwrap();
    }
    std::fs::write(&stack.machines["node-0"].cards, cards).unwrap();

    let prometheus = Prometheus::start(&rules::at_once()).await.unwrap();
    let url = prometheus.url();
    let output = report(&["--prometheus", url]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("has recorded no usage in this time: see that it has the rules"), "{said}");

    let address = stack.machines["node-0"].listening.metrics;
    prometheus.scrape(&[Target { address, labels: Vec::new() }]).unwrap();
    let by_namespace = [("research", 0.75), ("notebooks", 1.0 / 6.0)];
    let complete = async || {
        let report = usage(url, &[]).filter(|report| same(&parts(report, "namespace"), &by_namespace));
        Ok(report)
    };
    let report_of_all = prometheus.until("namespaces", complete).await.unwrap();
    assert_eq!(report_of_all["since_seconds"], 3);
    let hours = |report: &Value, field: &str| report["total"][field].as_f64().unwrap();
    let ratio = hours(&report_of_all, "gib_hours_granted") / hours(&report_of_all, "gpu_hours_granted");
    // 30 GiB beside 1.4 GPUs
    assert!((ratio - 30.0 / 1.4).abs() < 0.5, "{ratio}");

    let by_pod = [("busy", 0.75), ("idle", 0.0), ("half", 0.5)];
    let complete = async || Ok(usage(url, &["--by", "pod"]).filter(|report| same(&parts(report, "pod"), &by_pod)));
    prometheus.until("pods", complete).await.unwrap();
    let complete = async || {
        let below = usage(url, &["--by", "pod", "--below", "45", "--namespace", "notebooks"]);
        Ok(below.filter(|report| same(&parts(report, "pod"), &[("idle", 0.0)])))
    };
    prometheus.until("those that use little", complete).await.unwrap();

    let table = text(&report(&["--prometheus", url, "--since", "3s", "--by", "pod"]).stdout);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0][..4], ["NAMESPACE", "POD", "GPU", "HOURS"], "{table}");
    assert!(lines[1].starts_with(&["research", "busy"]) && lines[1].contains(&"75"), "{table}");
    assert!(lines.len() == 5 && lines[4][0] == "all", "{table}");
    stack.shutdown().await.unwrap();
}

/// Answers one request with this status and body, and returns it.
fn answer(status: &str, body: &str) -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/prom", listener.local_addr().unwrap());
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = String::new();
        let mut byte = [0];
        while !request.ends_with("\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
            request.push(char::from(byte[0]));
        }
        stream.write_all(answer.as_bytes()).unwrap();
        request
    });
    (url, answering)
}

#[test]
fn a_url_may_have_a_path_and_want_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "secret\n").unwrap();
    let (url, answering) =
        answer("422 Unprocessable Entity", &json!({ "status": "error", "error": "too many samples" }).to_string());
    let output = report(&["--prometheus", &url, "--token-file", token.to_str().unwrap(), "--namespace", "team-a"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("too many samples"), "{said}");
    let request = answering.join().unwrap();
    let (line, headers) = request.split_once("\r\n").unwrap();
    assert!(line.starts_with("GET /prom/api/v1/query?query=") && line.ends_with(" HTTP/1.1"), "{line}");
    assert!(headers.to_lowercase().contains("authorization: bearer secret\r\n"), "{headers}");
}

#[test]
fn what_is_wrong_is_named() {
    let (html, answering) = answer("200 OK", "<html>welcome</html>");
    let cases = [
        (vec!["--prometheus", "http://127.0.0.1:1"], "does not answer (see --prometheus"),
        (vec!["--prometheus", &html], "not Prometheus' API"),
        (vec!["--prometheus", "localhost:9090"], "is no URL such as http://127.0.0.1:9090"),
        (vec!["--token-file", "/nonexistent"], "--token-file /nonexistent"),
        (vec!["--since", "7"], "no time such as 12h or 7d"),
        (vec!["--namespace", "a\"b"], "no name of a namespace"),
        (vec!["--below", "0"], "0 is not in 1..=100"),
    ];
    for (args, wanted) in cases {
        let output = report(&args);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(wanted), "{args:?}: {said}");
    }
    answering.join().unwrap();
}
