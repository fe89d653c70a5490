//! A real workload through all of kerf.

use std::path::{Path, PathBuf};

use crate::burst::settled;
use kerf_system::stack::{Stack, StackConfig};
use kerf_system::trace;

/// The Alibaba trace, if it is beside the project; it is not part of it, since its licence is unclear.
pub fn beside() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/alibaba-gpu-v2023");
    folder.is_dir().then_some(folder)
}

/// A workload with the same columns: shares and whole GPUs in about the trace's proportions.
pub fn own(folder: &Path, pods: usize) {
    let nodes: Vec<String> = (0..40).map(|n| format!("own-node-{n:02},96000,786432,8,V100M16")).collect();
    let pods = (0..pods).map(|n| {
        let (cards, milli) = match n % 9 {
            0 => (0, 0),
            1 | 2 => (1, 1000),
            3 => (1 + n as u64 % 8, 1000),
            _ => (1, [130, 250, 330, 460, 500, 810][n % 6]),
        };
        format!("own-pod-{n:04},4000,16384,{cards},{milli},,LS,Running,{n},{},{n}", n + 1000)
    });
    let write = |name: &str, head: &str, rows: Vec<String>| {
        std::fs::write(folder.join(name), format!("{head}\n{}\n", rows.join("\n"))).expect("write");
    };
    write("openb_node_list_gpu_node.csv", "sn,cpu_milli,memory_mib,gpu,model", nodes);
    let head = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time";
    write("openb_pod_list_default.csv", head, pods.collect());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_trace_runs_through_and_both_sides_agree() {
    let made = tempfile::tempdir().expect("folder");
    let (folder, limit) = match beside() {
        Some(folder) => (folder, 500),
        None => {
            eprintln!("NOTE: the Alibaba GPU trace is not at hand; running a workload of our own with its columns");
            own(made.path(), 200);
            (made.path().to_owned(), 150)
        }
    };
    let (nodes, pods) = trace::files(&folder).expect("trace files");
    let trace = trace::read(&nodes, &pods, limit).expect("trace");
    assert_eq!(trace.pods.len(), limit);
    let stack = Stack::start(&trace.machines, StackConfig { seed: 6, batching: true, ..Default::default() })
        .await
        .expect("start");
    for pod in trace.pods {
        stack.submit(pod).expect("pod");
    }
    settled(&stack, limit).await;
    stack.shutdown().await.expect("clean end");
}
