//! kubelet's gRPC contracts, those of vendors' programs that report the health of GPUs, and that of tkestack's
//! vcuda-controller, generated at build time from the `.proto` files beside this crate.
//!
//! Facts about kubelet's contracts (field numbers, constants, sizes) follow the Kubernetes sources
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
    /// `Device.health` of a device that may be allocated.
    pub const HEALTHY: &str = "Healthy";
    /// `Device.health` of a device that takes no new container.
    pub const UNHEALTHY: &str = "Unhealthy";
    /// File name of kubelet's own socket in its device plugin directory.
    pub const KUBELET_SOCKET: &str = "kubelet.sock";
}

/// A generated module; its `.proto` file is its documentation.
macro_rules! generated {
    ($(#[$documentation:meta])* $name:ident from $package:tt) => {
        $(#[$documentation])*
        #[allow(missing_docs, unused_qualifications, clippy::all, reason = "generated code")]
        pub mod $name {
            tonic::include_proto!($package);
        }
    };
}

generated! {
    /// The pod resources contract: what kubelet reports that containers hold.
    podresources from "v1"
}

generated! {
    /// AMD's metrics exporter: the health of its GPUs.
    amd from "metricssvc"
}

generated! {
    /// The Level-Zero sidecar of Intel's plugin: health and temperature of its GPUs.
    intel from "_"
}

generated! {
    /// Intel's XPU manager: the health of its GPUs.
    xpumd from "deviceinfo"
}

generated! {
    /// The calls of tkestack's vcuda-controller to the program that runs on the node.
    vcuda from "vcuda"
}
