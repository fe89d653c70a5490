//! kubelet's gRPC contracts, and those of vendors' programs that tell the health of cards, generated at build time from the `.proto` files beside this crate.
//!
//! Facts about both contracts (field numbers, constants, sizes) follow the Kubernetes sources
//! `staging/src/k8s.io/kubelet/pkg/apis/{deviceplugin/v1beta1,podresources/v1}`, whose wire format has
//! been the same from Kubernetes 1.34 to 1.36.

/// The device plugin contract: `Registration` (served by kubelet) and `DevicePlugin` (served by a plugin).
#[allow(
    missing_docs,
    unused_qualifications,
    clippy::all,
    reason = "generated code; the .proto file is its documentation"
)]
pub mod deviceplugin {
    tonic::include_proto!("v1beta1");

    /// The only version of the API that kubelet accepts in a registration.
    pub const VERSION: &str = "v1beta1";
    /// `Device.health` of a device that may be given out.
    pub const HEALTHY: &str = "Healthy";
    /// `Device.health` of a device that takes no new container.
    pub const UNHEALTHY: &str = "Unhealthy";
    /// File name of kubelet's own socket in its device plugin directory.
    pub const KUBELET_SOCKET: &str = "kubelet.sock";
}

/// The pod resources contract: what kubelet says that its containers hold.
#[allow(
    missing_docs,
    unused_qualifications,
    clippy::all,
    reason = "generated code; the .proto file is its documentation"
)]
pub mod podresources {
    tonic::include_proto!("v1");
}

/// AMD's metrics exporter: the health of its cards.
#[allow(
    missing_docs,
    unused_qualifications,
    clippy::all,
    reason = "generated code; the .proto file is its documentation"
)]
pub mod amd {
    tonic::include_proto!("metricssvc");
}

/// The Level-Zero sidecar of Intel's plugin: health and temperature of its cards.
#[allow(
    missing_docs,
    unused_qualifications,
    clippy::all,
    reason = "generated code; the .proto file is its documentation"
)]
pub mod intel {
    tonic::include_proto!("_");
}
