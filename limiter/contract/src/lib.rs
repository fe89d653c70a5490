//! The contract between the plugin on the host and the limiter inside a container.
//!
//! # What the plugin puts into a container that has a share
//!
//! | path in the container | mount | content |
//! | --- | --- | --- |
//! | [`path::LIMITS`] | a file in the directory [`path::HOST_DIRECTORY`], **read-only** | [`limits::Limits`]: text, what the container may use. Written before the container starts, never changed |
//! | [`path::ALLOWANCE`] | a file in the same directory, **read-only** | [`allowance`]: binary, how much of each GPU's time the container may use just now. Optional; written in place while the container runs |
//! | [`path::OVERHEAD`] | a file in the same directory, **read-only** | [`overhead`]: binary, what the driver takes for each process besides what it asked for. Optional; written in place while the container runs |
//! | [`path::STATE`] | the file alone, read-write | [`state`]: what the container's processes use. Laid anew by the plugin with [`state::blank`] before each start of the container, mode 0666, owned by root |
//! | [`path::LIBRARY`] | the file alone, **read-only** | `libkerf_limiter.so` |
//! | [`path::PRELOAD`] | the file alone, **read-only** | [`path::LIBRARY`] and a line feed ([`path::preload`]) |
//!
//! A mounted file can be neither removed nor renamed in the container, and a read-only mount cannot be written by any
//! user in there; undoing a mount needs a capability that containers do not have (`CAP_SYS_ADMIN`). But a volume of the pod
//! may lie over a mounted file, a directory above it can be renamed, and a process may have mounts of its own; the host
//! sees these in `/proc/<pid>/mountinfo`.
//!
//! # How the limiter is loaded
//!
//! Through [`path::PRELOAD`], glibc's `/etc/ld.so.preload`. The loader reads it for every program, whatever the
//! environment, also for `kubectl exec` and for programs that run as another user. glibc takes the libraries of
//! `LD_PRELOAD` before those of the file: with its own or the driver's in there the limiter starts the program again
//! without them, and a tenant who writes a library for that purpose is not held. An image that has such a file of its own
//! loses it.
//!
//! `LD_PRELOAD` is **not** part of the contract and must not be set by the plugin: a tenant can simply unset it, and
//! musl, which ignores `/etc/ld.so.preload`, would refuse to start any program with a library for glibc in
//! `LD_PRELOAD`. NVIDIA's driver needs glibc, so a program that musl loads cannot use a GPU through the driver's
//! library anyway. `LD_PRELOAD` is the fallback for a node where a file cannot be mounted over
//! `/etc/ld.so.preload`, and only there.
//!
//! # Where the files lie on the host
//!
//! [`path::STATE`] is the only file that a tenant can write, and the tenant can write anything into it. It should lie
//! on the host's `/run` (a tmpfs: what a tenant writes is charged to its own memory limit). Host programs read at
//! most [`state::BYTES`] of it and never map it, because the tenant may shorten it at any time. The host's files are
//! gone after a reboot, while kubelet may restart the container with the same mounts: `PreStartContainer` is the
//! moment to write missing files, and to replace the state by a new file, since none of the container's processes is
//! alive then.
//!
//! # Versions
//!
//! A container keeps the library that it was created with (its mounts name a copy by a hash of the content), while the
//! plugin may be replaced. The plugin writes each container's files in the layout that its library knows: it records
//! [`state::VERSION`] when it creates the container's directory, and a directory without that record has
//! [`state::FIRST_VERSION`]. A library that meets a file of another version refuses the GPUs and names the file: so
//! does a container with a newer library where an older plugin has laid the state. [`path::OVERHEAD`] and
//! [`path::ALLOWANCE`] are looked for and may be missing.
//!
//! # What the host sees
//!
//! [`state::Snapshot`] tells which processes have loaded the limiter and use a GPU, how much memory each holds, and
//! which problems the limiters found ([`state::Flags`]). A process that NVML sees on the GPU and that is not in the
//! snapshot runs without the limiter; one that uses more than its cap was not held by it. The host must report both:
//! nothing inside a container can be trusted to. Nor does the snapshot prove that a process has the limiter: the tenant can
//! write it.

pub mod allowance;
pub mod arbiter;
pub mod limits;
pub mod overhead;
pub mod path;
pub mod process;
mod size;
pub mod state;
mod word;
