//! Defaults of flags that several programs have.

/// `--share-resources`: the counted shares of well-known device plugins, as [`kerf::shares::ShareResources`] reads them.
/// kerf-plugin's table of vendors says the same.
pub const SHARE_RESOURCES: &str = "deepomatic.com/shared-gpu,amd.com/gpu,amd.com/spx_*,amd.com/dpx_*,amd.com/tpx_*,\
    amd.com/qpx_*,amd.com/cpx_*,gpu.intel.com/i915,gpu.intel.com/xe,nvidia.com/gpu,nvidia.com/gpu.shared,nvidia.com/mig-*";
