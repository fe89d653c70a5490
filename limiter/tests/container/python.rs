//! Programs of NVIDIA's own libraries for Python, on the simulated GPU: what they ask the driver for, and in which order, is theirs.
//! Kernels compute nothing there.

use std::path::{Path, PathBuf};

use kerf_limiter_contract::state::Snapshot;

use crate::support::{Container, MIB, lines};

const CAP: u64 = 256 * MIB;

/// The interpreter that has the libraries; `None` where the machine has none.
fn python() -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("KERF_PYTHON") else {
        println!(
            "NOT RUN: KERF_PYTHON names no folder with NVIDIA's libraries for Python; limiter/tests/python.sh gets them"
        );
        return None;
    };
    Some(Path::new(&folder).join("bin/python"))
}

/// Runs a program of `tests/python` in a container with the cap, with the legacy default stream and with one for each thread;
/// returns its output, what the limiter has written and the most memory that was taken of the GPU.
fn run(program: &str) -> Option<Vec<(Vec<String>, Snapshot, u64)>> {
    let python = python()?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(program);
    let run = |per_thread: &str| {
        let container = Container::new(CAP, 50, 100);
        let mut command = container.program(&python, &[source.to_str().unwrap(), &CAP.to_string()]);
        command.env("CUDA_PYTHON_CUDA_PER_THREAD_DEFAULT_STREAM", per_thread).env("PYTHONDONTWRITEBYTECODE", "1");
        // newer than the driver that the stand-in is
        command.env("CUDA_PYTHON_DISABLE_MAJOR_VERSION_WARNING", "1");
        let output = command.output().unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{program} {per_thread}: {:?}",
            lines(&output)
        );
        (lines(&output), container.snapshot(), container.report().peak)
    };
    Some(["0", "1"].map(run).into())
}

#[test]
fn programs_of_cuda_bindings_are_held() {
    for (lines, snapshot, peak) in run("bindings.py").into_iter().flatten() {
        let (refused, done) = ("2 CUDA_ERROR_OUT_OF_MEMORY", "0 CUDA_SUCCESS");
        let expected = [
            format!("total {CAP} of [{CAP}, {CAP}]"),
            format!("cuMemAlloc {refused}"),
            format!("cuMemAlloc {done}"),
            format!("cuMemAlloc {refused}"),
            format!("cuMemAllocManaged {refused}"),
            format!("cuMemAllocManaged {done}"),
            format!("cuMemAllocAsync {refused}"),
            format!("cuMemAllocAsync {done}"),
            format!("cuMemCreate {refused}"),
            format!("cuMemCreate {done}"),
            format!("cuLaunchKernel {done}"),
            format!("cuLaunchKernel {done}"),
            format!("cuLaunchKernelEx {done}"),
            "elapsed True".to_owned(),
            format!("captured {done}"),
            format!("cuGraphInstantiate {done}"),
            format!("cuGraphLaunch {done}"),
            format!("cuGraphLaunch {done}"),
            format!("the graph has {}", 64 * MIB),
            format!("after the graph {done}"),
        ];
        assert_eq!(lines, expected);
        assert_eq!(peak, CAP);
        assert!(snapshot.flags.names().next().is_none(), "{:?}", snapshot.flags.names().collect::<Vec<_>>());
        assert!(snapshot.devices[0].busy > 0);
    }
}

#[test]
fn programs_of_cuda_core_are_held() {
    for (lines, snapshot, peak) in run("core.py").into_iter().flatten() {
        assert_eq!(
            lines,
            [
                "capability ComputeCapability(major=9, minor=0)",
                "launched",
                "refused CUDAError CUDA_ERROR_OUT_OF_MEMORY",
                "half True"
            ]
        );
        assert!(peak <= CAP, "{peak}");
        assert!(snapshot.flags.names().next().is_none(), "{:?}", snapshot.flags.names().collect::<Vec<_>>());
        assert!(snapshot.devices[0].busy > 0);
    }
}

#[test]
fn kernels_of_numba_are_compiled_loaded_and_held() {
    for (lines, snapshot, peak) in run("numba_kernel.py").into_iter().flatten() {
        let refused = "refused [<CUresult.CUDA_ERROR_OUT_OF_MEMORY: 2>] Call to cuMemAlloc results in \
            CUDA_ERROR_OUT_OF_MEMORY";
        assert_eq!(
            lines,
            [
                &*format!("memory {CAP} {CAP}"),
                "elapsed True",
                "ptx True",
                refused,
                "beyond False",
                "whole True",
                refused,
                "and more False"
            ]
        );
        assert_eq!(peak, CAP);
        assert!(snapshot.flags.names().next().is_none(), "{:?}", snapshot.flags.names().collect::<Vec<_>>());
        assert!(snapshot.devices[0].busy > 0);
    }
}
