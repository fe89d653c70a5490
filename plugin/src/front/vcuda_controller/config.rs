//! The two files that vcuda-controller reads, byte for byte as gpu-manager writes them. Pure, or reading below a
//! given root.
//!
//! `vcuda.config`, little-endian:
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 48 | pod's uid, ended by zero |
//! | 48 | 4 | ceiling for bursts in percent; 0 without the annotation |
//! | 52 | 4044 | zero |
//! | 4096 | 4096 | container's name, ended by zero |
//! | 8192 | 16 | zero |
//! | 8208 | 8 | GPU memory in bytes |
//! | 8216 | 4 | `vcuda-core` in percent |
//! | 8220 | 4 | 1 where `vcuda-core` is the ceiling, 0 with the annotation |
//! | 8224 | 8 | driver's version: major, minor |
//! | 8232 | 4 | 1 where anything is limited: for shares |
//! | 8236 | 4 | zero |
//!
//! `pids.config`: process ids on the host, four bytes each and at most 1024, without a header. The library searches
//! them by bisection, so they are sorted; gpu-manager's were not.

use std::path::Path;

use crate::allocation::Answer;

pub const BYTES: usize = 8240;
/// The library reads no more.
const MAX_PIDS: usize = 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub pod: String,
    pub container: String,
    /// Of all its GPUs together, in bytes.
    pub memory: u64,
    /// In percent.
    pub core: u32,
    /// `None` without the annotation.
    pub limit: Option<u32>,
    /// Major and minor version.
    pub driver: (i32, i32),
}

impl Limits {
    /// For a container that was given `held`.
    pub fn new(held: &Answer, driver: (i32, i32)) -> Self {
        let amounts = || held.grant.gpus.amounts().map(|(_, share)| share);
        Self {
            pod: held.key.pod.to_string(),
            container: held.key.container.to_string(),
            memory: amounts().map(|share| share.memory.bytes()).sum(),
            core: amounts().map(|share| share.compute.to_core_units()).sum(),
            limit: held.limit.map(|limit| limit.to_core_units()),
            driver,
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; BYTES];
        let mut put = |at: usize, field: &[u8]| {
            if let Some(place) = bytes.get_mut(at..at + field.len()) {
                place.copy_from_slice(field);
            }
        };
        let text = |text: &str, most: usize| text.bytes().take(most - 1).collect::<Vec<u8>>();
        let number = |number: u32| number.to_le_bytes();
        put(0, &text(&self.pod, 48));
        put(48, &number(self.limit.map_or(0, |limit| limit.min(100))));
        put(4096, &text(&self.container, 4096));
        put(8208, &self.memory.to_le_bytes());
        put(8216, &number(self.core));
        put(8220, &number(u32::from(self.limit.is_none())));
        put(8224, &self.driver.0.to_le_bytes());
        put(8228, &self.driver.1.to_le_bytes());
        put(8232, &number(u32::from(self.core < 100)));
        bytes
    }
}

pub fn pids(mut pids: Vec<u32>) -> Vec<u8> {
    pids.sort_unstable();
    pids.dedup();
    pids.into_iter().take(MAX_PIDS).flat_map(u32::to_le_bytes).collect()
}

/// The processes of a control group and of the groups below it.
pub fn processes(group: &Path) -> Vec<u32> {
    let own = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let mut all: Vec<u32> = own.lines().filter_map(|line| line.trim().parse().ok()).collect();
    let below = std::fs::read_dir(group).into_iter().flatten().filter_map(Result::ok);
    for entry in below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        all.extend(processes(&entry.path()));
    }
    all
}

/// The version of NVIDIA's driver, from `/proc/driver/nvidia/version`; zeros without the file.
pub fn driver_version(proc_root: &Path) -> (i32, i32) {
    let text = std::fs::read_to_string(proc_root.join("driver/nvidia/version")).unwrap_or_default();
    let version = text.lines().find(|line| line.starts_with("NVRM")).and_then(|line| {
        line.split_whitespace().find_map(|word| {
            let mut parts = word.split('.');
            Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
        })
    });
    version.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(core: u32, limit: Option<u32>) -> Vec<u8> {
        let memory = 30 * (256 << 20);
        let limits = Limits { pod: "u".into(), container: "c".into(), memory, core, limit, driver: (470, 57) };
        limits.encode()
    }

    /// The whole file from its fields that are not zero.
    fn file(limit: u8, core: u8, hard: u8, enable: u8) -> Vec<u8> {
        let mut bytes = vec![0; 8240];
        bytes[0] = b'u';
        bytes[48] = limit;
        bytes[4096] = b'c';
        // 8,053,063,680 = 0x1_e000_0000
        bytes[8208..8216].copy_from_slice(&[0, 0, 0, 0xe0, 1, 0, 0, 0]);
        bytes[8216] = core;
        bytes[8220] = hard;
        // 470 = 0x1d6
        bytes[8224..8232].copy_from_slice(&[0xd6, 1, 0, 0, 57, 0, 0, 0]);
        bytes[8232] = enable;
        bytes
    }

    #[test]
    fn the_file_is_gpu_managers_byte_for_byte() {
        assert_eq!(limits(50, None), file(0, 50, 1, 1));
        assert_eq!(limits(50, Some(80)), file(80, 50, 0, 1));
        assert_eq!(limits(50, Some(150)), file(100, 50, 0, 1));
        assert_eq!(limits(100, None), file(0, 100, 1, 0));
    }

    #[test]
    fn names_end_with_zero_whatever_their_length() {
        let long = "x".repeat(9000);
        let limits = Limits { pod: long.clone(), container: long, memory: 1, core: 1, limit: None, driver: (0, 0) };
        let bytes = limits.encode();
        assert_eq!((bytes.len(), bytes[46], bytes[47], bytes[8190], bytes[8191]), (8240, b'x', 0, b'x', 0));
    }

    #[test]
    fn pids_are_in_order_and_bounded() {
        assert_eq!(pids(vec![300, 2, 300]), [2, 0, 0, 0, 44, 1, 0, 0]);
        assert_eq!(pids((0..5000).collect()).len(), 4096);
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("below")).unwrap();
        std::fs::write(root.path().join("cgroup.procs"), "7\n").unwrap();
        std::fs::write(root.path().join("below/cgroup.procs"), "5\n6\n").unwrap();
        assert_eq!(pids(processes(root.path())), pids(vec![5, 6, 7]));
    }

    #[test]
    fn the_drivers_version_is_read_where_the_driver_writes_it() {
        let proc = tempfile::tempdir().unwrap();
        assert_eq!(driver_version(proc.path()), (0, 0));
        std::fs::create_dir_all(proc.path().join("driver/nvidia")).unwrap();
        let text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.57.02  Tue Jul 13\nGCC version: 9.4.0\n";
        std::fs::write(proc.path().join("driver/nvidia/version"), text).unwrap();
        assert_eq!(driver_version(proc.path()), (470, 57));
    }
}
