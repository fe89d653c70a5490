//! The extender contract's JSON: Go field names without tags. Written in their own case; read in both.

mod bind;
mod bounded;
mod filter;
mod imagined;
mod node_name;
mod pod;
mod preempt;
mod unreadable;

pub(super) use bind::{BindArgs, BindResult};
pub(super) use filter::{Args, Candidates, FilterResult, HostPriority};
pub(super) use imagined::node as imagined;
pub(super) use preempt::{MetaPod, MetaVictims, PreemptArgs, PreemptResult};
pub(super) use unreadable::Unreadable;
