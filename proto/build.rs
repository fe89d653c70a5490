//! Compiles the protos with protox, so that `protoc` is not needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "deviceplugin/v1beta1/api.proto",
        "podresources/v1/api.proto",
        "amd/metricssvc.proto",
        "intel/levelzero.proto",
        "intel/xpumd.proto",
        "vcuda/api.proto",
    ];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
        let set = protox::compile([file], ["."])?;
        tonic_prost_build::configure().compile_fds(set)?;
    }
    Ok(())
}
