//! gRPC over unix sockets: kubelet's, the vendors' and this plugin's own.

use std::path::Path;

use tonic::transport::{Channel, Endpoint, Error, Uri};

/// The longest message that is read, in bytes: kubelet's lists outgrow gRPC's default of 4 MiB on full nodes.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// Connects at once.
///
/// # Errors
/// Where the socket does not exist, or no process listens.
pub async fn dial(socket: &Path) -> Result<Channel, Error> {
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
    // HTTP/2 needs an authority, and servers that check it expect this one
    endpoint.origin(Uri::from_static("http://localhost")).connect().await
}
