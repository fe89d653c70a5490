//! Isolation `mps`: NVIDIA's multi-process service, with a control daemon of kerf's for each GPU.
//!
//! A client that looks for the service in the wrong directory finds none and silently runs without any limit, and a
//! client whose user is not that of the daemon's server waits for the server to end. So the directory is mounted
//! where clients look by default. A GPU has this isolation only while its daemon answers and the directory belongs
//! to the daemon's user, a container that says it runs as another user does not have it, and the limiter is used as
//! well.
//!
//! The service takes a client's limits from the client's environment. There a container can only lower them: the
//! daemon's own defaults are the most that any of its clients may have, and they are set to the largest share of
//! the GPU. The service counts each process separately, so two processes of one container together may use twice
//! its share of memory. The limiter counts them together.
//!
//! The service separates no tenants that are root: its clients have the daemon's user and can write its directory, so each
//! can tell the daemon what kerf tells it, also about the others. What a container puts there in place of the daemon's own
//! is noticed, and the GPU has another isolation from then on. Logs are in a directory that no container has.
//!
//! Not tested with NVIDIA's daemon, for lack of one. The commands are those of NVIDIA's documentation of the
//! service.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kerf::ids::DeviceId;
use kerf::isolation::mps_serves;
use kerf::plan::Grant;
use kerf::units::Share;
use parking_lot::Mutex;

use crate::isolation::demand::Demand;
use crate::offer::hand_over::{ContainerEdits, Mount};

/// Where clients look unless configured otherwise.
const CLIENTS: &str = "/tmp/nvidia-mps";
/// The daemon creates it once it listens.
const CONTROL: &str = "control";
/// A command without an answer in this time has failed.
const PATIENCE: Duration = Duration::from_secs(3);

/// The daemons of all GPUs. Clones share them.
#[derive(Clone, Debug)]
pub struct Mps {
    program: PathBuf,
    directory: PathBuf,
    daemons: Arc<Mutex<BTreeMap<DeviceId, Daemon>>>,
}

#[derive(Debug)]
struct Daemon {
    child: Option<Child>,
    /// Whether it answers, and its directory is right.
    serves: bool,
    /// The defaults that were set last.
    told: Option<Share>,
    /// Device and inode of the socket that it made.
    socket: Option<(u64, u64)>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Mps {
    /// Starts nothing yet. `program` is `nvidia-cuda-mps-control`; the daemons' directories are below `directory`.
    pub fn new(program: PathBuf, directory: &Path) -> Self {
        Self { program, directory: directory.join("mps"), daemons: Arc::default() }
    }

    /// Where the clients of a GPU's daemon find it.
    pub fn pipe(&self, device: &DeviceId) -> PathBuf {
        self.directory.join(device.as_str()).join("pipe")
    }

    /// Whether a GPU's daemon serves clients now.
    pub fn serves(&self, device: &DeviceId) -> bool {
        self.daemons.lock().get(device).is_some_and(|daemon| daemon.serves)
    }

    /// Whether a container that says it runs as `user` is served.
    pub fn serves_user(&self, user: Option<u32>) -> bool {
        user.is_none() || own_user().is_some_and(|own| mps_serves(own, user))
    }

    /// What a container of this isolation gets.
    pub fn provide(&self, demand: &Demand<'_>) -> ContainerEdits {
        let Grant::Share { device, share } = &demand.grant.gpus else { return ContainerEdits::default() };
        let percent = demand.limit.unwrap_or(share.compute).max(share.compute).to_core_units();
        let mount = Mount { host: self.pipe(&device.id), container: CLIENTS.into(), read_only: false };
        let envs = BTreeMap::from([
            ("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE".to_owned(), percent.to_string()),
            // a client counts the GPUs that it sees from 0
            ("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT".to_owned(), format!("0={}M", share.memory.0)),
        ]);
        ContainerEdits { envs, mounts: vec![mount], ..ContainerEdits::default() }
    }

    pub fn end(&self) {
        self.daemons.lock().clear();
    }

    /// Checks the daemon of every GPU once. `shares`: the largest share of each GPU.
    pub fn keep(&self, shares: &BTreeMap<DeviceId, Share>) {
        self.daemons.lock().retain(|device, _| shares.contains_key(device));
        for (device, share) in shares {
            let (alive, told, socket) = {
                let mut daemons = self.daemons.lock();
                let daemon = daemons.entry(device.clone()).or_insert(Daemon {
                    child: None,
                    serves: false,
                    told: None,
                    socket: None,
                });
                let alive = daemon.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)));
                if !alive {
                    (daemon.told, daemon.socket) = (None, None);
                    daemon.serves = false;
                    daemon.child = self
                        .start(device)
                        .inspect_err(|error| tracing::warn!(gpu = %device, %error, "MPS daemon does not start"))
                        .ok();
                }
                (alive, daemon.told, daemon.socket)
            };
            // without the lock: the daemon may take its time
            let answers = alive && self.ask(device, "get_default_active_thread_percentage").is_some();
            let found = self.socket(device).filter(|_| answers);
            let right = found.is_some() && (socket.is_none() || found == socket);
            if answers && !right {
                tracing::warn!(gpu = %device, pipe = %self.pipe(device).display(), "MPS daemon's directory is not as it should be");
            }
            let told =
                if right && told != Some(*share) { self.tell(device, *share).then_some(*share) } else { told };
            if let Some(daemon) = self.daemons.lock().get_mut(device) {
                let serves = right && told == Some(*share);
                if serves != daemon.serves {
                    tracing::info!(gpu = %device, serves, "MPS daemon");
                }
                (daemon.serves, daemon.told) = (serves, told.filter(|_| right));
                daemon.socket = socket.or(found);
            }
        }
    }

    fn command(&self, device: &DeviceId) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("CUDA_VISIBLE_DEVICES", device.as_str())
            .env("CUDA_MPS_PIPE_DIRECTORY", self.pipe(device))
            .env("CUDA_MPS_LOG_DIRECTORY", self.directory.join(device.as_str()).join("log"));
        command
    }

    fn start(&self, device: &DeviceId) -> std::io::Result<Child> {
        let own = self.directory.join(device.as_str());
        for part in ["pipe", "log"] {
            fs::create_dir_all(own.join(part))?;
        }
        // the daemon would write where a container's links lead
        for link in links(&self.pipe(device)) {
            fs::remove_file(link)?;
        }
        // the file that a killed daemon left would look like a daemon that listens
        let _ = fs::remove_file(self.pipe(device).join(CONTROL));
        fs::set_permissions(self.pipe(device), fs::Permissions::from_mode(0o755))?;
        let null = || Stdio::null();
        self.command(device).arg("-f").stdin(null()).stdout(null()).stderr(null()).spawn()
    }

    /// The daemon's answer to one command.
    fn ask(&self, device: &DeviceId, command: &str) -> Option<String> {
        let mut child =
            self.command(device).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
        writeln!(child.stdin.take()?, "{command}").ok()?;
        let began = Instant::now();
        while child.try_wait().ok()?.is_none() {
            if began.elapsed() > PATIENCE {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let output = child.wait_with_output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    }

    /// Limits every client of the daemon to `share`.
    fn tell(&self, device: &DeviceId, share: Share) -> bool {
        let percent = share.compute.to_core_units();
        let memory = format!("set_default_device_pinned_mem_limit 0 {}M", share.memory.0);
        let told = [format!("set_default_active_thread_percentage {percent}"), memory];
        told.iter().all(|command| self.ask(device, command).is_some())
    }

    /// Device and inode of the socket that clients will find. `None` where the directory or the socket belongs to another
    /// user, another user could replace the socket, or there is a link that the daemon would follow.
    fn socket(&self, device: &DeviceId) -> Option<(u64, u64)> {
        let (pipe, own) = (self.pipe(device), own_user()?);
        let directory = fs::symlink_metadata(&pipe).ok()?;
        let socket = fs::symlink_metadata(pipe.join(CONTROL)).ok()?;
        let right = directory.is_dir()
            && directory.mode() & 0o022 == 0
            && directory.uid() == own
            && socket.uid() == own
            && links(&pipe).is_empty();
        right.then(|| (socket.dev(), socket.ino()))
    }
}

/// The symbolic links in a directory.
fn links(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let links = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()));
    links.map(|entry| entry.path()).collect()
}

/// The user of this process and of the daemons it starts.
fn own_user() -> Option<u32> {
    fs::metadata("/proc/self").map(|own| own.uid()).ok()
}
