//! From a process to its container: the control group of a process names the pod and the container's id.
//!
//! Both hierarchies, both of kubelet's drivers and all common runtimes put the same two facts into the path,
//! spelled differently:
//!
//! ```text
//! cgroupfs              /kubepods/burstable/pod5c0d6a2e-94a5-4e4b-9d2f-0a1b2c3d4e5f/<id>
//! systemd, containerd   /kubepods.slice/kubepods-podX.slice/cri-containerd-<id>.scope    (X: uid with `_`)
//! systemd, CRI-O        /kubepods.slice/kubepods-podX.slice/crio-<id>.scope[/container]
//! systemd, docker       /kubepods.slice/kubepods-podX.slice/docker-<id>.scope
//! drivers at odds       /system.slice/containerd.service/kubepods-podX.slice:cri-containerd:<id>
//! ```

use std::path::{Path, PathBuf};

/// Where a process runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// `metadata.uid` of the pod, or the hash in its place where the pod came from a file.
    pub pod: String,
    /// The container runtime's id: 64 hexadecimal digits.
    pub container: String,
}

/// Reads `<proc_root>/<pid>/cgroup`. `None`: the process is gone, or does not run in a pod.
pub fn owner(proc_root: &Path, pid: u32) -> Option<Owner> {
    let text = std::fs::read_to_string(proc_root.join(pid.to_string()).join("cgroup")).ok()?;
    parse(&text)
}

/// Reads the content of a `cgroup` file: one line `<hierarchy>:<controllers>:<path>` for each hierarchy.
pub fn parse(text: &str) -> Option<Owner> {
    text.lines().filter_map(|line| line.splitn(3, ':').nth(2)).find_map(of_path)
}

fn of_path(path: &str) -> Option<Owner> {
    let mut parts = path.split(['/', ':']);
    let pod = parts.by_ref().find_map(pod_uid)?;
    let container = parts.find_map(container_id)?;
    Some(Owner { pod, container })
}

/// The control group of a container below `root` (cgroup v2): the innermost one that holds its processes. `None`:
/// it does not exist (yet).
pub fn group(root: &Path, pod: &str, container: &str) -> Option<PathBuf> {
    // the greatest depth of kubelet's groups
    let own =
        find(root, 7, &|path| owner_of(root, path).is_some_and(|o| o.pod == pod && o.container == container))?;
    let busy = |path: &Path| std::fs::read_to_string(path.join("cgroup.procs")).is_ok_and(|text| !text.is_empty());
    Some(find(&own, 3, &busy).unwrap_or(own))
}

fn owner_of(root: &Path, path: &Path) -> Option<Owner> {
    of_path(path.strip_prefix(root).ok()?.to_str()?)
}

/// The first directory at or below `from`, parents first, for which `wanted` is true.
fn find(from: &Path, depth: usize, wanted: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
    if wanted(from) {
        return Some(from.to_owned());
    }
    let below = std::fs::read_dir(from).ok().filter(|_| depth > 0)?;
    let mut below: Vec<PathBuf> = below
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect();
    below.sort();
    below.iter().find_map(|path| find(path, depth - 1, wanted))
}

fn pod_uid(part: &str) -> Option<String> {
    let part = part.strip_suffix(".slice").unwrap_or(part);
    let (before, uid) = part.rsplit_once("pod")?;
    // `kubepods` itself ends in neither; a uid follows `pod` at the start or after a dash
    if !before.is_empty() && !before.ends_with('-') {
        return None;
    }
    let uid = uid.replace('_', "-");
    let hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    let dashed = uid.len() == 36
        && [8, 13, 18, 23].iter().all(|at| uid.as_bytes().get(*at) == Some(&b'-'))
        && hex(&uid.replace('-', ""));
    let from_file = uid.len() == 32 && hex(&uid);
    (dashed || from_file).then_some(uid)
}

fn container_id(part: &str) -> Option<String> {
    let part = part.strip_suffix(".scope").unwrap_or(part);
    let id = part.rsplit('-').next().unwrap_or(part);
    (id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit())).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "5c0d6a2e-94a5-4e4b-9d2f-0a1b2c3d4e5f";
    const ID: &str = "8f3c0d1e2b4a5968778695a4b3c2d1e0f8f3c0d1e2b4a5968778695a4b3c2d1e";

    #[test]
    fn every_dress_names_the_same_container() {
        let x = UID.replace('-', "_");
        for line in [
            format!("0::/kubepods/burstable/pod{UID}/{ID}"),
            format!("0::/kubepods/pod{UID}/{ID}"),
            format!("0::/kubelet/kubepods/besteffort/pod{UID}/{ID}"),
            format!("0::/../../kubepods/besteffort/pod{UID}/{ID}"),
            format!(
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{x}.slice/cri-containerd-{ID}.scope"
            ),
            format!("0::/kubepods.slice/kubepods-pod{x}.slice/crio-{ID}.scope"),
            format!("0::/kubepods.slice/kubepods-pod{x}.slice/crio-{ID}.scope/container"),
            format!(
                "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{x}.slice/docker-{ID}.scope"
            ),
            format!(
                "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{x}.slice/cri-containerd-{ID}.scope/init.scope"
            ),
            format!("0::/system.slice/containerd.service/kubepods-burstable-pod{x}.slice:cri-containerd:{ID}"),
            format!(
                "12:memory:/kubepods/burstable/pod{UID}/{ID}\n11:cpu,cpuacct:/kubepods/burstable/pod{UID}/{ID}\n0::/"
            ),
        ] {
            let owner = parse(&line).unwrap_or_else(|| panic!("{line}"));
            assert_eq!((owner.pod.as_str(), owner.container.as_str()), (UID, ID), "{line}");
        }
        let hash = "0123456789abcdef0123456789abcdef";
        assert_eq!(parse(&format!("0::/kubepods/pod{hash}/{ID}")).unwrap().pod, hash);
    }

    #[test]
    fn other_processes_have_no_container() {
        for text in [
            "",
            "0::/",
            "nonsense",
            "0::/system.slice/sshd.service",
            "0::/user.slice/user-1000.slice/session-1.scope",
            "0::/kubepods/burstable",
            "0::/kubepods/podx/y",
            &format!("0::/docker/{ID}"),
            &format!("0::/kubepods/pod{UID}"),
            &format!("0::/kubepods/pod{UID}/short"),
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_innermost_group_with_processes_is_the_containers() {
        let root = tempfile::tempdir().unwrap();
        let scope = format!("kubepods.slice/kubepods-pod{}.slice/crio-{ID}.scope", UID.replace('-', "_"));
        let scope = root.path().join(scope);
        std::fs::create_dir_all(scope.join("container")).unwrap();
        std::fs::create_dir_all(root.path().join("system.slice/sshd.service")).unwrap();
        assert_eq!(group(root.path(), UID, ID), Some(scope.clone()));
        std::fs::write(scope.join("cgroup.procs"), "").unwrap();
        std::fs::write(scope.join("container/cgroup.procs"), "42\n").unwrap();
        assert_eq!(group(root.path(), UID, ID), Some(scope.join("container")));
        assert_eq!(group(root.path(), UID, &ID.replace('8', "9")), None);
    }

    #[test]
    fn it_reads_an_injected_proc() {
        let proc = tempfile::tempdir().unwrap();
        std::fs::create_dir(proc.path().join("42")).unwrap();
        std::fs::write(proc.path().join("42/cgroup"), format!("0::/kubepods/pod{UID}/{ID}\n")).unwrap();
        assert_eq!(owner(proc.path(), 42).unwrap().container, ID);
        assert_eq!(owner(proc.path(), 43), None);
    }
}
