//! The built program under attack on all its listeners: the scheduler's calls go on, within the memory of the manifest.
//! How fast they are answered meanwhile is in the benchmark `extender_http`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kerf_testkit::api::ApiServer;
use kerf_testkit::attack::{Attack, Kind, Target};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::fixture::{PATIENCE, node, pod, share};

/// The longest body that is served by default.
const LARGEST: usize = 8 << 20;

/// kubelet's patience with the probes of the manifests.
const PROBE: Duration = Duration::from_secs(5);

struct Program {
    child: Child,
    target: Target,
    _folder: tempfile::TempDir,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    async fn start(api: &ApiServer) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        api.write_kubeconfig(&kubeconfig).unwrap();
        // free ports: bound, then released
        let mut free = Vec::new();
        for _ in 0..3 {
            free.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let [scheduler, metrics, debug] = [0, 1, 2].map(|at: usize| free[at].local_addr().unwrap());
        drop(free);
        let child = Command::new(env!("CARGO_BIN_EXE_kerf-extender"))
            .args([format!("--listen={scheduler}"), format!("--metrics-listen={metrics}")])
            .args([format!("--debug-listen={debug}"), format!("--kubeconfig={}", kubeconfig.display())])
            // as environments often have it
            .env("KERF_LEGACY", "1")
            .args(["--log=error", "--api-timeout-ms=100", "--scheduler-timeout-ms=1000"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let program =
            Self { child, target: Target { scheduler, metrics, debug, largest: LARGEST }, _folder: folder };
        let ready = async {
            while get(metrics, "/readyz").await.is_none_or(|answer| !answer.starts_with("HTTP/1.1 200")) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ready).await.expect("ready");
        program
    }

    /// The most memory that it ever had, in MiB.
    fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") >> 10
    }
}

/// What kubelet sees that asks a probe from another address than the attack's, in the time that it has by default.
async fn probe(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let call = async {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::new(127, 0, 0, 2), 0).into())?;
        let mut stream = socket.connect(address).await?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    tokio::time::timeout(PROBE, call).await?
}

/// An answer with its head; `None` where the connection ends without one.
async fn exchange(address: SocketAddr, request: &[u8]) -> Option<String> {
    let call = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        // the answer to what was refused may come before all was sent
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        (!answer.is_empty()).then(|| String::from_utf8_lossy(&answer).into_owned())
    };
    tokio::time::timeout(PATIENCE, call).await.expect("answered, or closed")
}

async fn get(address: SocketAddr, path: &str) -> Option<String> {
    exchange(address, format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await
}

fn post(body: &[u8]) -> Vec<u8> {
    post_to("filter", body)
}

fn post_to(verb: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST /scheduler/{verb} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// The least `resources.limits.memory` of the extender in any manifest, in MiB.
fn memory_limit() -> u64 {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests")];
    let mut limits = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("manifests") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a manifest");
            limits.extend(text.split("image: kerf-extender").skip(1).map(|container| {
                let memory = container.split("limits:").nth(1).and_then(|limits| limits.split("memory:").nth(1));
                let memory = memory.and_then(|memory| memory.lines().next()).expect("a limit").trim();
                memory.strip_suffix("Mi").and_then(|number| number.parse::<u64>().ok()).expect("a number of Mi")
            }));
        }
    }
    limits.into_iter().min().expect("an extender")
}

/// New connections for one call.
const TRIES: usize = 20;

fn served(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 200") && answer.contains("\"Error\":\"\"")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_attack_the_schedulers_calls_go_on_within_the_manifests_memory() {
    let api = ApiServer::start().await.unwrap();
    // so many that their state as a whole is too large to be kept for each who asks for it
    let mut names: Vec<String> = (0..3_000).map(|number| format!("n{number}")).collect();
    for name in &names {
        api.create("nodes", node(name, 8, 15_360)).unwrap();
    }
    names.truncate(100);
    let program = Program::start(&api).await;
    let body = json!({ "Pod": pod("p", share("50", "10")), "NodeNames": names });
    let filter = post(body.to_string().as_bytes());
    // kube-scheduler keeps its connection
    let kept = reqwest::Client::new();
    let url = format!("http://{}/scheduler/filter", program.target.scheduler);
    let attack = Attack::begin(program.target);
    let mut calls = 0;
    // 2,000 connections to each of two listeners
    let enough = |kind| if kind == Kind::Heads { 4_000 } else { 40 };
    while attack.rounds().any(|(kind, rounds)| rounds < enough(kind)) {
        calls += 1;
        let mut answers = Vec::new();
        // a connection is closed where as many others come before its request has been read
        while answers.len() < TRIES && !answers.last().is_some_and(|answer: &String| served(answer)) {
            answers.push(exchange(program.target.scheduler, &filter).await.unwrap_or_default());
        }
        assert!(answers.last().is_some_and(|answer| served(answer)), "call {calls}: {answers:.300?}");
        for path in ["/livez", "/readyz"] {
            let answer = probe(program.target.metrics, path).await.unwrap_or_else(|error| error.to_string());
            assert!(answer.starts_with("HTTP/1.1 200"), "call {calls}: {path}: {answer}");
        }
        let answer = kept.post(&url).json(&body).send().await.expect("the kept connection is served");
        assert_eq!(answer.status(), 200, "call {calls}");
        let answer: Value = answer.json().await.unwrap();
        assert_eq!((&answer["Error"], answer["NodeNames"].as_array().unwrap().len()), (&json!(""), 64));
    }
    let rounds: Vec<_> = attack.rounds().collect();
    drop(attack);
    let (peak, limit) = (program.peak(), memory_limit());
    println!("{calls} calls of each kind beside {rounds:?}; {peak} MiB of {limit}");
    assert!(peak < limit, "{peak} MiB");
}

#[tokio::test]
async fn what_is_too_large_too_long_or_too_many_is_refused_with_its_reason() {
    let api = ApiServer::start().await.unwrap();
    api.create("nodes", node("a", 1, 15_360)).unwrap();
    let program = Program::start(&api).await;
    let Target { scheduler, metrics, .. } = program.target;
    let million = format!("{{\"Pod\":{{}},\"NodeNames\":[{}\"\"]}}", "\"\",".repeat(999_999));
    let huge = vec![b' '; LARGEST + 1];
    // an answer that came before all was sent may be lost with the connection
    let refused = |answer: Option<String>, start: &str, part: &str| {
        let Some(answer) = answer else { return };
        assert!(answer.starts_with(start) && answer.contains(part), "{answer:.300}");
    };
    let names = exchange(scheduler, &post(million.as_bytes())).await.expect("read to its end");
    refused(Some(names), "HTTP/1.1 200", "more than 100000 items");
    refused(exchange(scheduler, &post(&huge)).await, "HTTP/1.1 200", "larger than 8 MiB");
    let slow = exchange(scheduler, b"POST /scheduler/filter HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf");
    refused(Some(slow.await.expect("answered")), "HTTP/1.1 200", "did not arrive within 2 s");
    let long = format!("GET /livez HTTP/1.1\r\nhost: x\r\nlong: {}\r\n\r\n", "x".repeat(1 << 20));
    for address in [scheduler, metrics] {
        refused(exchange(address, long.as_bytes()).await, "HTTP/1.1 431", "");
    }
    for verb in ["filter", "bind"] {
        assert!(get(metrics, &format!("/scheduler/{verb}")).await.unwrap().starts_with("HTTP/1.1 404"));
    }
}

/// What a few bytes each would take hundreds of, were they read into the objects that they describe.
#[tokio::test]
async fn what_nodes_have_beside_their_cards_takes_no_memory() {
    let api = ApiServer::start().await.unwrap();
    let program = Program::start(&api).await;
    let scheduler = program.target.scheduler;
    let pod = pod("p", share("50", "10"));
    let body = |length: usize, before: &str, item: &str, after: &str| {
        let items = vec![item; length / (item.len() + 1)].join(",");
        format!(r#"{{"Pod":{pod},"Nodes":{{"items":[{{"metadata":{{"name":"new"{before}{items}{after}}}]}}}}"#)
    };
    let largest = LARGEST - (64 << 10);
    let fields = |length| body(length, r#","managedFields":[{"fieldsV1":["#, r#"{"":0}"#, "]}]}");
    let bodies = [
        fields(largest),
        body(largest, r#","managedFields":["#, "{}", "]}"),
        body(largest, r#","annotations":{"#, r#""":"""#, "}}"),
        body(largest, r#"},"status":{"images":["#, "{}", "]}"),
        body(largest, r#"},"status":{"capacity":{"#, r#""":"""#, "}}"),
        body(largest, r#"},"spec":{"taints":["#, "{}", "]}"),
    ];
    for body in bodies {
        let answer = exchange(scheduler, &post_to("simulate", body.as_bytes())).await.expect("answered");
        assert!(answer.contains("no GPU device"), "{answer:.300}");
    }
    // just below what is worked on one after another
    let small = post_to("simulate", fields((1 << 20) - (64 << 10)).as_bytes());
    futures::future::join_all((0..60).map(|_| exchange(scheduler, &small))).await;
    let (peak, limit) = (program.peak(), memory_limit());
    println!("{peak} MiB of {limit}");
    assert!(peak < limit, "{peak} MiB");
}
