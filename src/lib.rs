//! kerf: fractional GPUs for Kubernetes. This package is the pure domain; this page is the map of everything.
//!
//! # What happens to a pod
//!
//! ```text
//!   pod: vcuda-core 50, vcuda-memory 30
//!     |
//!   kube-scheduler --filter, prioritize--> extender --- reads ---> one ledger for each node
//!     |            --bind----------------> extender --- reserves in the ledger, then ONE write:
//!     |                                                  Binding {uid, node, annotations}
//!   kubelet --Allocate--> plugin --- matches the call to a waiting placement ---> env, device nodes
//!     |     --PodResources-> plugin --- who holds what, really ---> corrects and confirms the record
//!            plugin --- limits that the container can read and not write; looks from the host at who breaks them
//!   container: sees exactly the card that is recorded on its pod, and as much of it as its share
//! ```
//!
//! # Where things are
//!
//! | place | what it is |
//! | --- | --- |
//! | [`units`], [`ids`], [`version`] | quantities, names and versions of Kubernetes, each with its own type |
//! | [`words!`] | enums whose variants have a word each, for flags, annotations, metrics and logs |
//! | [`shares`] | counted shares: N equal parts of a card's compute, as most device plugins have them |
//! | [`device`] | a card; a node's inventory |
//! | [`request`] | what a pod asks for, parsed once; every rule for requests |
//! | [`policy`], [`unfit`] | how to choose among nodes and cards that fit; why none fits |
//! | [`isolation`] | how a share is enforced: the levels, from nothing to hardware |
//! | [`tally`] | how the needs of a pod's containers add up |
//! | [`plan`] | which card gives what to whom: a value |
//! | [`ledger`] | what pods take of a node's cards; the state machine, drawn above its code |
//! | [`placement`] | the algorithms: which cards, which node; [`placement::market`] weighs a whole cluster |
//! | [`replay`] | a workload against a cluster under a policy, without a cluster |
//! | [`annotation`] | annotations of Pods and Nodes: both records of a placement, the inventory |
//! | [`k8s`] | Pods and Nodes as domain values |
//! | [`terminal`] | names and messages of others, as the commands print them |
//! | `runtime/` | the process around a daemon: logs, shutdown, readiness, administrative routes, watches |
//! | `cli/` | the `kerf` command: `get`, `top`, `explain` and `plan` over a cluster, `replay` over a workload; `doctor` starts the plugin's |
//! | `extender/` | kube-scheduler's side: HTTP, watches, the one write |
//! | `plugin/` | kubelet's side: gRPC, vendors' drivers, what holds containers to their shares; its folders are listed in `plugin/src/lib.rs` |
//! | `plugin/nvml` | functions of NVIDIA's library that `nvml-wrapper` lacks: the only calls of C on the host |
//! | `limiter/` | what runs inside a container: a library before NVIDIA's driver; `limiter/contract`, its files |
//! | `proto/` | kubelet's two gRPC contracts, vendors' health services, and that of tkestack's library |
//! | `testkit/` | stand-ins that speak the real protocols: API server, scheduler, kubelet; fixture trees; in folders of their own a card, and NVIDIA's two libraries over it |
//! | `tests/` | laws, models and scenarios of the domain; `tests/system` runs everything against everything; `tests/gpu` is for a machine with a GPU |
//! | `examples/demo` | everything in one process, for people |
//! | `benches/` | speed and memory, with raw runs |
//! | `manifests/`, `images/` | what a cluster administrator applies and builds |
//!
//! To know the system, read [`ledger`], [`placement`], `extender/src/api/bind.rs`, `plugin/src/allocation.rs` and
//! `plugin/src/kubelet/registration.rs`, in this order.
//!
//! # Rules
//!
//! * Arrows point at this package, and never between extender and plugin. It knows no Kubernetes
//!   client, no HTTP, no async, no clock and no randomness.
//! * One ledger type counts capacity: in the extender, the command and the tests. Where a rule is written twice, one
//!   copy is wrong.
//! * Filter and prioritize change nothing. Bind reserves under one node's lock, releases it, and writes once.
//! * The watch decides: what the API server says wins over what was assumed, even where it overcommits a card;
//!   that is shown, not hidden.
//! * An unanswered write is neither done nor refused: its cards stay held until the API server has answered.
//! * Nothing that a tenant can write is trusted unless it serves the pod's own request.
//! * Unsafe code only in `limiter/` and the stand-ins for NVIDIA's libraries, which C programs call, and in
//!   `plugin/nvml`, which calls NVIDIA's library.
//! * A trait only where there are several implementations, or a rule for all: as `Backend` in the plugin, since there are
//!   several drivers, and `Handler` in the extender, since no verb may leave out an early answer.

#![allow(missing_docs, reason = "a name that says everything needs no comment")]

pub mod annotation;
pub mod device;
pub mod disruption;
pub mod ids;
pub mod isolation;
pub mod k8s;
pub mod ledger;
pub mod placement;
pub mod plan;
pub mod policy;
pub mod replay;
pub mod request;
pub mod shares;
pub mod tally;
pub mod terminal;
pub mod unfit;
pub mod units;
pub mod version;
mod words;
