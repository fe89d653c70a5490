//! Where a pod goes: which cards of a node ([`Planner`]), and which node first ([`rank`]).
//!
//! Pure and deterministic: equal input gives equal output, and the last tie-break is the card's index or the
//! node's name. There is no clock, randomness or hash order here.
//!
//! * **Shares** take one card. `binpack` takes the fullest that fits (least free compute, then least free
//!   memory, then lowest index), which is gpu-admission's order; `spread` takes the emptiest.
//! * **Whole cards** must be untouched. Several are chosen for their links: the set whose worst link is best,
//!   then whose links together are best, then which cuts the fewest and weakest links to free cards left behind.
//!   A single card is the one whose loss cuts least. Where no link is known, the smallest and lowest ones.
//! * **Counted shares** are on one card where one has room for them all, in the same order as shares; otherwise on as
//!   few cards as possible, those with the most room first. A pod may want all of its own on one card, or each on
//!   another. Where a share is a whole card they are chosen as such. Policies that weigh a whole cluster take these
//!   pods as `binpack` does, and their cards as full.
//! * **Init containers** run before the others and share cards with them, as kubelet reuses their devices. The
//!   planner tries both orders and keeps the plan that takes least.

pub mod advise;
mod cards;
pub mod eviction;
pub mod market;
mod planner;
mod rank;
pub mod shape;
pub mod survey;

pub use planner::Planner;
pub use rank::{Rank, rank, scores};
