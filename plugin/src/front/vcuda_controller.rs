//! For clusters that keep tkestack's vcuda-controller in their containers: the two files that it reads, and the
//! socket at which it requests them. Off unless configured; kerf's own limiter needs none of it.
//!
//! A container with a share sees a directory of the host as `/etc/vcuda`. A program's first use of CUDA calls
//! `RegisterVDevice` on the socket in it, and then reads `/etc/vcuda/<container id>/vcuda.config` and `pids.config`
//! ([`config`]). gpu-manager trusted what the caller said of itself. Here the kernel tells which process calls, its
//! control group tells the container, and kubelet's list tells the container's share.

pub mod config;
mod connections;

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kerf_proto::vcuda::vcuda_service_server::{VcudaService, VcudaServiceServer};
use kerf_proto::vcuda::{VDeviceRequest, VDeviceResponse};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Response, Status};

use crate::allocation::Answer;
use crate::allocation::view::Holder;
use crate::base::{cgroup, files};
use crate::front::vcuda_controller::config::Limits;
use crate::isolation::demand::{IsolationError, at};
use crate::isolation::folder::{Folder, Folders};
use crate::isolation::usable;
use crate::offer::hand_over::Mount;
use crate::state::State;

/// In a container's directory: the part that the container sees as `/etc/vcuda`.
const SHOWN: &str = "vcuda";
const INSIDE: &str = "/etc/vcuda";
const SOCKET: &str = "vcuda.sock";
/// How often removed directories are looked for.
const SWEEP: Duration = Duration::from_secs(30);
/// How many connections of one container are open at a time, and how many calls of each are answered: the library makes one call.
const CONNECTIONS: usize = 4;

/// Where processes and their control groups are seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// The host's `/proc`.
    pub proc: PathBuf,
    /// The host's `/sys/fs/cgroup`.
    pub cgroup: PathBuf,
}

/// Opens sockets; [`follow`] answers at them.
#[derive(Clone, Debug)]
pub struct Tkestack {
    opened: mpsc::UnboundedSender<(Folder, UnixListener)>,
}

/// Sockets that wait to be served.
pub type Opened = mpsc::UnboundedReceiver<(Folder, UnixListener)>;

impl Tkestack {
    /// Also returns the receiver to give to [`follow`].
    pub fn new() -> (Self, Opened) {
        let (opened, waiting) = mpsc::unbounded_channel();
        (Self { opened }, waiting)
    }

    /// Opens the socket of a container, and returns what to mount into it.
    ///
    /// # Errors
    /// [`IsolationError`]
    pub fn provide(&self, folder: &Folder) -> Result<Mount, IsolationError> {
        let host = folder.path.join(SHOWN);
        fs::create_dir_all(&host).map_err(at(&host))?;
        let socket = host.join(SOCKET);
        let listener = bind(&host).map_err(at(&socket))?;
        // for any user that the container's programs run as
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).map_err(at(&socket))?;
        // what is made in the directory later has its label
        [&host, &socket].into_iter().try_for_each(|path| usable::label(path))?;
        // the receiver is gone only when the process ends
        let _ = self.opened.send((folder.clone(), listener));
        Ok(Mount { host, container: INSIDE.into(), read_only: true })
    }

    /// Opens the sockets of containers that a previous run of the plugin served.
    pub fn resume(&self, folders: &Folders) {
        for folder in folders.all().iter().filter(|folder| folder.path.join(SHOWN).is_dir()) {
            if let Err(error) = self.provide(folder) {
                tracing::warn!(%error, "vcuda-controller's socket is not served");
            }
        }
    }
}

/// A socket's path may have 107 bytes, and the directory's alone has more: so the directory is named by its
/// descriptor.
fn bind(directory: &Path) -> std::io::Result<UnixListener> {
    let open = fs::File::open(directory)?;
    match fs::remove_file(directory.join(SOCKET)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(Path::new("/proc/self/fd").join(open.as_raw_fd().to_string()).join(SOCKET))
}

/// Answers at all sockets until the token is cancelled.
pub async fn follow(mut opened: Opened, state: State, folders: Folders, roots: Roots, token: CancellationToken) {
    let mut served = JoinSet::new();
    loop {
        tokio::select! {
            () = token.cancelled() => break,
            Some(_) = served.join_next() => {}
            Some((folder, listener)) = opened.recv() => {
                let over = over(folder.path.clone(), token.clone());
                let (state, folders, roots) = (state.clone(), folders.clone(), roots.clone());
                let registrar = Registrar { folder, state, folders, roots };
                let service = VcudaServiceServer::new(registrar).max_decoding_message_size(64 << 10);
                let incoming = connections::at_most(listener, CONNECTIONS);
                let mut server = Server::builder().concurrency_limit_per_connection(1).max_concurrent_streams(1);
                served.spawn(server.add_service(service).serve_with_incoming_shutdown(incoming, over));
            }
        }
    }
    while served.join_next().await.is_some() {}
}

/// Waits until the directory is gone.
async fn over(path: PathBuf, token: CancellationToken) {
    while path.is_dir() {
        tokio::select! {
            () = token.cancelled() => return,
            () = tokio::time::sleep(SWEEP) => {}
        }
    }
}

/// Answers at one container's socket.
struct Registrar {
    folder: Folder,
    state: State,
    folders: Folders,
    roots: Roots,
}

impl Registrar {
    /// What the socket's container was given.
    fn held(&self) -> Option<Answer> {
        let core = &self.folder.core;
        let holding = self.state.allocations(|allocations| allocations.holding(core));
        let holders = holding.iter().map(|held| Holder { pod: &held.key.pod, grant: &held.grant, core });
        let folders = self.folders.of(holders);
        let own = |held: &Answer| folders.get(&held.key).is_some_and(|folder| folder.path == self.folder.path);
        holding.iter().find(|held| own(held)).cloned()
    }
}

#[tonic::async_trait]
impl VcudaService for Registrar {
    async fn register_v_device(
        &self,
        request: Request<VDeviceRequest>,
    ) -> Result<Response<VDeviceResponse>, Status> {
        let caller = request.extensions().get::<UdsConnectInfo>().and_then(|info| info.peer_cred);
        let pid = caller.and_then(|caller| u32::try_from(caller.pid()?).ok());
        let pid = pid.ok_or_else(|| Status::unauthenticated("the kernel does not say who calls"))?;
        let request = request.into_inner();
        let held =
            self.held().ok_or_else(|| Status::failed_precondition("no container holds this socket's share"))?;
        let (folder, roots) = (self.folder.clone(), self.roots.clone());
        let answered = tokio::task::spawn_blocking(move || {
            let owner = cgroup::owner(&roots.proc, pid)
                .ok_or_else(|| Status::permission_denied("the caller runs in no container"))?;
            // what the caller says of itself must be true; an older client names no container id
            let said = request.pod_uid == owner.pod
                && (request.container_id.is_empty() || request.container_id == owner.container);
            if !said || owner.pod != held.key.pod.as_str() {
                return Err(Status::permission_denied("the caller is not the container that it names"));
            }
            let limits = Limits::new(&held, config::driver_version(&roots.proc));
            let target = folder.path.join(SHOWN).join(&owner.container);
            let groups = [roots.cgroup.clone(), roots.cgroup.join("memory")];
            let group = groups.iter().find_map(|root| cgroup::group(root, &owner.pod, &owner.container));
            let pids = group.map(|group| config::processes(&group)).unwrap_or_else(|| vec![pid]);
            let write = || -> Result<(), IsolationError> {
                fs::create_dir_all(&target).map_err(at(&target))?;
                // in this order: the library waits for the second
                for (name, content) in [("pids.config", config::pids(pids)), ("vcuda.config", limits.encode())] {
                    let file = target.join(name);
                    files::replace(&file, &content, 0o644).map_err(at(&file))?;
                }
                Ok(())
            };
            write().map_err(|error| Status::internal(error.to_string()))
        });
        let answered = answered.await.map_err(|error| Status::internal(error.to_string()))?;
        if let Err(refused) = &answered {
            tracing::warn!(pid, folder = %self.folder.path.display(), %refused, "vcuda-controller refused");
        }
        answered.map(|()| Response::new(VDeviceResponse {}))
    }
}
