//! A hostile container: a real process, in a mount namespace of its own with the mounts that kubelet was told, as a
//! container runtime makes them.

use std::io::{BufRead, BufReader};
use std::mem::offset_of;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use kerf_limiter_contract::{path, state};
use kerf_testkit::kubelet::Container;
use tempfile::TempDir;

use crate::isolation::host;
use crate::stage::{Stage, two_cards};

fn program() -> &'static Path {
    static BUILT: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let build = || {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("tenant");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node/tenant.c");
        let built = Command::new("cc").args(["-O1", "-static", "-o"]).arg(&program).arg(source).status().unwrap();
        assert!(built.success());
        (directory, program)
    };
    &BUILT.get_or_init(build).1
}

pub struct Tenant {
    child: Child,
    _root: TempDir,
}

impl Tenant {
    /// Takes these steps on the host. See `tenant.c`.
    pub fn start(steps: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        Self::begin(steps.iter().map(|step| (*step).to_owned()).collect(), root).unwrap()
    }

    /// Takes these steps inside the container. `None`: no mount namespaces can be made here, which is said.
    pub fn inside(container: &Container, steps: &[&str]) -> Option<Self> {
        let root = tempfile::tempdir().unwrap();
        let mut all = vec!["container".to_owned(), root.path().display().to_string()];
        for mount in &container.mounts {
            let access = if mount.read_only { "ro" } else { "rw" };
            all.extend(["bind", &mount.host_path, &mount.container_path, access].map(str::to_owned));
        }
        all.push("enter".to_owned());
        all.extend(steps.iter().map(|step| (*step).to_owned()));
        let tenant = Self::begin(all, root);
        if tenant.is_none() {
            eprintln!("no mount namespaces can be made here: not tested");
        }
        tenant
    }

    fn begin(steps: Vec<String>, root: TempDir) -> Option<Self> {
        let mut command = Command::new(program());
        command.args(&steps).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let tenant = Self { child, _root: root };
        if said == "refused\n" {
            return None;
        }
        assert_eq!(said, "ready\n", "{steps:?}");
        Some(tenant)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Registers the process in the container's state file, as its limiter does, and as anything in there may.
    pub fn register(&self, container: &Container) {
        let process = Path::new("/proc").join(self.pid().to_string());
        let start = kerf_limiter_contract::process::Stat::of(&process).unwrap().start;
        let status = std::fs::read_to_string(process.join("status")).unwrap();
        let inner = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap();
        let pid = inner.split_whitespace().last().unwrap().parse().unwrap();
        let at = offset_of!(state::State, processes) + offset_of!(state::Process, owner);
        let file = std::fs::OpenOptions::new().write(true).open(host(container, path::STATE).0).unwrap();
        file.write_all_at(&state::owner(pid, start).to_ne_bytes(), at as u64).unwrap();
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a GPU's driver says of a process.
pub struct OnGpu<'a> {
    pub pid: u32,
    pub gpu: &'a str,
    pub memory_mib: u64,
    pub utilization: u32,
    /// The container `main` of this pod.
    pub pod: &'a str,
}

/// The driver says this from now on.
pub fn on_gpus(stage: &Stage, processes: &[OnGpu<'_>]) {
    let mut text = two_cards(true);
    for OnGpu { pid, gpu, memory_mib, utilization, pod } in processes {
        text.push_str(&format!(
            "[[process]]\npid = {pid}\ngpu = \"{gpu}\"\nmemory_mib = {memory_mib}\nutilization = {utilization}\n\
             pod = \"ns/{pod}\"\ncontainer = \"main\"\n"
        ));
    }
    // as one: half a file would be refused
    let new = stage.gpus.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, &stage.gpus).unwrap();
}

/// The series of a breach that goes on, by the pod's container `main`.
pub fn breach(kind: &str, pod: &str, gpu: &str) -> String {
    let index = u32::from(gpu == "GPU-b");
    format!(
        "kerf_plugin_container_breach{{container=\"main\",gpu=\"{gpu}\",index=\"{index}\",kind=\"{kind}\",\
         namespace=\"ns\",node=\"n\",pod=\"{pod}\"}} 1\n"
    )
}
