//! Against real GPUs; run by name on a machine that has one.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test may stop at once")]

use std::time::Duration;

use kerf::device::Health;
use kerf_plugin::testing::backend::Backend;
use kerf_plugin::testing::nvidia::nvml::Nvidia;
use kerf_plugin::testing::nvidia::nvml::NvidiaOptions;
use kerf_plugin::testing::roots::Roots;

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn the_driver_tells_all_that_the_plugin_asks() {
    let backend = Nvidia::new(NvidiaOptions {
        library: None,
        roots: Roots::default(),
        mig: true,
        quiet_period: Duration::from_secs(60),
        ..NvidiaOptions::default()
    });
    let devices = backend.discover().unwrap();
    assert!(!devices.is_empty());
    println!("{devices:#?}");
    let health = backend.health().unwrap();
    for host in &devices {
        assert!(host.device.memory.0 > 1024);
        assert_eq!(health[&host.device.id], Health::Healthy);
        assert!(!host.nodes.is_empty(), "a device file");
    }
    let usage = backend.usage().unwrap();
    println!("{usage:#?}");
    assert_eq!(usage.gpus.len(), devices.len());
    assert!(usage.gpus.values().all(|gpu| gpu.memory_total.is_some()));
}
