//! Which container an Allocate call is for, and which container really got it. Pure: no IO, no clock, no async.
//!
//! Allocate carries only ids. But kubelet serves one pod at a time, and its own list shows which: a pod is on it as
//! soon as its admission begins, each answer is on it before the next call, and pods that wait for their turn or
//! were rejected are not (`kubelet_list.rs`). So a list that was asked for during a call names the pod that the
//! call is for: the one whose containers still lack devices. Only ordinary init containers are not on the list; the
//! answers for them are remembered here.
//!
//! Where kubelet does not give its list, the call is matched to a waiting container by its amount and by the order
//! of binding (`matching.rs`), and the decision says on what evidence. The next list corrects a wrong match: the
//! two records change places (`exchange.rs`).
//! kubelet is steered to ids of the placed GPU ([`Allocations::preferred_devices`]), so that its own checkpoint
//! names it too.
//!
//! A container waits until kubelet asks for it, and is claimed from then on: first by assumption, and confirmed
//! once kubelet lists it. `claim.rs` draws the states of a claim and the transitions.
//!
//! Ids of shares by count name the container's GPUs: Allocate is answered from them alone, kubelet is steered to
//! the recorded GPUs, and where kubelet did not follow the record, the record follows kubelet
//! ([`Allocations::take_counted`]).
//!
//! A pod's placement is read once, when the pod is first seen: what a tenant writes over it later is not obeyed,
//! and is corrected once the pod holds its GPU. Only the end of a pod frees its confirmed claims. That a watch or a
//! list has not shown a pod yet never does.

#![allow(missing_docs, reason = "a field or a method whose name says all has no comment")]

mod allocations;
mod answer;
mod answers;
mod capacity;
mod claim;
mod comparison;
mod corrections;
mod decision;
mod entry;
mod exchange;
mod ids_to_cards;
mod kubelet_list;
mod matching;
mod preferred_devices;
pub mod view;

#[cfg(test)]
mod tests;

pub use self::allocations::Allocations;
pub use self::answer::{Answer, Code, Refusal};
pub use self::answers::{AnsweredIds, Answers};
pub use self::claim::State;
pub use self::comparison::Comparison;
pub use self::corrections::Correction;
pub use self::decision::{Decision, RunnerUp};
pub use self::entry::{Bystander, Key, Pod, Seen, Stage};
pub use self::kubelet_list::{ContainerResources, KubeletList, Listing, OtherDomain};

use self::claim::{Claim, Event};
use self::decision::{Criterion, Evidence, Fit};
use self::entry::{Entry, is_init, resources};
use self::kubelet_list::{ListedContainer, Question};
