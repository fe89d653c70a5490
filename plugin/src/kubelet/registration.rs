//! A device plugin's registration: open a socket, serve, register, notice the end, start over.
//!
//! ```text
//!   kubelet.sock missing -> wait
//!   bind a socket of a new name -> serve -> dial it -> register -> ListAndWatch opened?
//!      until: shutdown | kubelet.sock replaced | own socket gone | server ended | stream ended
//!   close, remove the socket, pause, again
//! ```
//!
//! kubelet empties its directory when it starts, keeps a registration by resource name, and takes a late end of an
//! old connection for the end of the new one. Hence a new file name each time, and the old server is gone before
//! the new one registers.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kerf_proto::deviceplugin::device_plugin_client::DevicePluginClient;
use kerf_proto::deviceplugin::device_plugin_server::{DevicePlugin, DevicePluginServer};
use kerf_proto::deviceplugin::registration_client::RegistrationClient;
use kerf_proto::deviceplugin::{DevicePluginOptions, Empty, KUBELET_SOCKET, RegisterRequest, VERSION};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::base::backoff::Backoff;
use crate::base::counters::Counters;
use crate::base::socket::{MAX_MESSAGE_BYTES, dial};
use crate::kubelet::directory::{Directory, Identity};

/// kubelet dials back while it registers, for which it allows 10 s.
const REGISTER_DEADLINE: Duration = Duration::from_secs(12);
/// The plugin's own server answers at once.
const DIAL_DEADLINE: Duration = Duration::from_secs(5);
/// After a registration kubelet opens ListAndWatch at once; some versions lose the new connection to the end of the
/// old one.
const WATCH_DEADLINE: Duration = Duration::from_secs(5);
/// Streams and calls in flight have so long to end.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// Why a registration failed or ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("shutdown")]
    Shutdown,
    #[error("kubelet was restarted")]
    KubeletReplaced,
    #[error("own socket was removed")]
    SocketGone,
    #[error("own server ended")]
    ServerEnded,
    #[error("kubelet closed its stream")]
    StreamEnded,
    #[error("kubelet did not open its stream")]
    NotWatched,
    #[error("socket: {0}")]
    Socket(#[from] std::io::Error),
    #[error("connection: {0}")]
    Connect(#[from] tonic::transport::Error),
    #[error("kubelet: {0}")]
    Refused(#[from] Box<tonic::Status>),
    #[error("no answer in time")]
    Deadline(#[from] tokio::time::error::Elapsed),
}

/// ListAndWatch streams of one socket: whether kubelet listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    /// Since the socket was opened.
    pub opened: u64,
    /// Now.
    pub open: u64,
}

/// Counts a stream until it is dropped.
pub struct Open(watch::Sender<Streams>);

impl Open {
    pub fn new(streams: watch::Sender<Streams>) -> Self {
        streams.send_modify(|streams| {
            streams.opened += 1;
            streams.open += 1;
        });
        Self(streams)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|streams| streams.open = streams.open.saturating_sub(1));
    }
}

/// One resource that is offered to kubelet.
pub struct Endpoint<F> {
    /// Part of its sockets' names, different for each resource: at most 15 letters.
    pub word: String,
    /// The name in metrics and logs.
    pub label: String,
    /// The extended resource's full name.
    pub resource: String,
    pub options: DevicePluginOptions,
    pub counters: Counters,
    /// kubelet's directory of device plugins.
    pub directory: PathBuf,
    /// Makes the service for one socket: it counts its streams and ends them with the token.
    pub service: F,
}

/// Keeps one resource registered until `token` is cancelled. `registered` is called with whether kubelet listens.
pub async fn keep_registered<F, S>(endpoint: Endpoint<F>, registered: impl Fn(bool), token: CancellationToken)
where
    F: Fn(watch::Sender<Streams>, CancellationToken) -> S,
    S: DevicePlugin,
{
    let (path, resource) = (&endpoint.directory, endpoint.label.as_str());
    let mut directory = Directory::watch(path);
    remove_stale(path, &endpoint.word).await;
    let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    let mut missing = false;
    for attempt in 0u64.. {
        let kubelet = path.join(KUBELET_SOCKET);
        while Identity::of(&kubelet).is_none() {
            if !std::mem::replace(&mut missing, true) {
                tracing::warn!(resource, "kubelet's socket is missing; waiting for it");
            }
            tokio::select! {
                () = token.cancelled() => return,
                () = directory.changed() => {}
            }
        }
        missing = false;
        let tried = Identity::of(&kubelet);
        let socket = path.join(format!("kerf-{}-{start:x}-{attempt}.sock", endpoint.word));
        let session = Session { endpoint: &endpoint, socket, registered: &registered };
        let (held, end) = session.run(&mut directory, &token).await;
        registered(false);
        if matches!(end, End::Shutdown) {
            return;
        }
        tracing::info!(resource, reason = %end, held, "registering again");
        if held {
            backoff.reset();
            continue;
        }
        endpoint.counters.registrations.with_label_values(&[resource, "failed"]).inc();
        let another = async {
            // a kubelet that was killed leaves its socket behind; the next one admits pods within a second
            while Identity::of(&kubelet).is_none_or(|now| Some(now) == tried) {
                directory.changed().await;
            }
        };
        tokio::select! {
            () = token.cancelled() => return,
            () = another => backoff.reset(),
            () = tokio::time::sleep(backoff.failed()) => {}
        }
    }
}

/// One socket, from its creation to its removal.
struct Session<'a, F, R> {
    endpoint: &'a Endpoint<F>,
    socket: PathBuf,
    registered: &'a R,
}

impl<F, S, R> Session<'_, F, R>
where
    F: Fn(watch::Sender<Streams>, CancellationToken) -> S,
    S: DevicePlugin,
    R: Fn(bool),
{
    /// Returns whether the registration held for a while, and why it ended.
    async fn run(&self, directory: &mut Directory, token: &CancellationToken) -> (bool, End) {
        let own = token.child_token();
        let (streams, watched) = watch::channel(Streams::default());
        let mut server = match self.serve(streams, own.clone()) {
            Ok(server) => server,
            Err(error) => return (false, error.into()),
        };
        let opened = tokio::select! {
            () = token.cancelled() => Err(End::Shutdown),
            opened = self.open(watched.clone()) => opened,
        };
        let (held, end) = match opened {
            Ok(()) => {
                (self.registered)(true);
                let (counters, resource) = (&self.endpoint.counters, self.endpoint.label.as_str());
                counters.registrations.with_label_values(&[resource, "registered"]).inc();
                tracing::info!(resource, "registered with kubelet");
                (true, self.until_end(directory, watched, &mut server, token).await)
            }
            Err(end) => (false, end),
        };
        own.cancel();
        if !server.is_finished() && timeout(CLOSE_DEADLINE, &mut server).await.is_err() {
            server.abort();
        }
        if let Err(error) = std::fs::remove_file(&self.socket)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(socket = %self.socket.display(), %error, "own socket not removed");
        }
        (held, end)
    }

    fn serve(&self, streams: watch::Sender<Streams>, own: CancellationToken) -> std::io::Result<JoinHandle<()>> {
        let listener = UnixListener::bind(&self.socket)?;
        let service = (self.endpoint.service)(streams, own.clone());
        let service = DevicePluginServer::new(service).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let server = Server::builder()
            .add_service(service)
            .serve_with_incoming_shutdown(UnixListenerStream::new(listener), own.cancelled_owned());
        let resource = self.endpoint.label.clone();
        // the holder of the handle notices the server's end
        Ok(tokio::spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(resource, %error, "device plugin server failed");
            }
        }))
    }

    async fn open(&self, mut watched: watch::Receiver<Streams>) -> Result<(), End> {
        let dialled = async {
            let mut client = DevicePluginClient::new(dial(&self.socket).await?);
            client.get_device_plugin_options(Empty {}).await.map_err(Box::new)?;
            Ok::<_, End>(())
        };
        timeout(DIAL_DEADLINE, dialled).await??;
        let endpoint = self.socket.file_name().map(|name| name.to_string_lossy().into_owned());
        let request = RegisterRequest {
            version: VERSION.to_owned(),
            endpoint: endpoint.unwrap_or_default(),
            resource_name: self.endpoint.resource.clone(),
            options: Some(self.endpoint.options),
        };
        let registered = async {
            let mut client = RegistrationClient::new(dial(&self.endpoint.directory.join(KUBELET_SOCKET)).await?);
            client.register(request).await.map_err(Box::new)?;
            Ok::<_, End>(())
        };
        timeout(REGISTER_DEADLINE, registered).await??;
        let opened = timeout(WATCH_DEADLINE, watched.wait_for(|streams| streams.opened > 0)).await;
        opened.map_err(|_| End::NotWatched)?.map_err(|_| End::ServerEnded).map(drop)
    }

    async fn until_end(
        &self,
        directory: &mut Directory,
        mut watched: watch::Receiver<Streams>,
        server: &mut JoinHandle<()>,
        token: &CancellationToken,
    ) -> End {
        let socket = self.endpoint.directory.join(KUBELET_SOCKET);
        // read again now that the stream is open: kubelet may have been restarted since it was first seen, and to
        // give up a registration with the new one would make the GPUs unhealthy for a moment. Had the old kubelet
        // opened the stream, then its end would end the stream
        let Some(kubelet) = Identity::of(&socket) else { return End::KubeletReplaced };
        loop {
            tokio::select! {
                () = token.cancelled() => return End::Shutdown,
                _ = &mut *server => return End::ServerEnded,
                _ = watched.wait_for(|streams| streams.open == 0) => return End::StreamEnded,
                () = directory.changed() => {}
            }
            // gone: kubelet is down, and a registration without a kubelet is worth nothing
            if Identity::of(&socket) != Some(kubelet) {
                return End::KubeletReplaced;
            }
            if Identity::of(&self.socket).is_none() {
                return End::SocketGone;
            }
        }
    }
}

/// Removes sockets of previous runs of the plugin. A socket that answers is another plugin's and stays.
async fn remove_stale(path: &Path, word: &str) {
    let prefix = format!("kerf-{word}-");
    let Ok(entries) = std::fs::read_dir(path) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(&prefix) && name.ends_with(".sock") {
            let refused = timeout(DIAL_DEADLINE, UnixStream::connect(entry.path())).await;
            if let Ok(Err(error)) = refused
                && error.kind() == std::io::ErrorKind::ConnectionRefused
            {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}
