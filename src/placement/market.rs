//! A whole cluster as a policy sees it, and the choice of machine and card for a pod.
//!
//! # The policy `fragmentation`
//!
//! A placement's score is what it does to the worth of what is left on the machine, less what it costs the pods to come:
//!
//! * The rest of a card is worth the best that can still be cut from it for the shares that are asked for, at the prices
//!   of a cutting-stock problem (`cutting`). Worth that will be stranded for want of cores counts as lost (`outlook`).
//! * Taking room from pods that need several whole cards, taking a kind of card that other pods are confined to, and
//!   opening a free card while whole ones are wanted cost what they are likely to be missed (`prices`).
//! * Scores are rounded to a tenth of a card. Ties go, for a share, to the fullest card and then to the machine with the
//!   fullest cards; for other pods to the machine with the fullest cards and then with the fewest free cores; then to the
//!   first. (Looking at the machine alone is worse. Where pods leave, shares that go to the fullest
//!   card keep others empty or emptying: with many shares that is more than a point of the cluster.)
//!
//! What is expected is learnt after 16, 32, 64, 128, 256 and then every 500 pods, from all pods seen so far.
//!
//! # Where pods leave
//!
//! What is free now is all there will be only where nothing leaves. Elsewhere a pod that comes stays while others leave
//! and yet others come, and meets more of the demand than what will fill the cluster. So the policy also learns the
//! *turnover*: how many of the pods that came have left. Zero gives exactly the policy for a cluster that only fills;
//! towards one, two things are weighed by what the pod will meet while it stays:
//!
//! * How much the demand for some kinds of card may vary: as much as that of a whole cluster's pods, since they are
//!   replaced, and not only that of the few which will fill it (`prices`). Without this a kind that is free enough for
//!   the moment goes to pods that could be anywhere, and those that can be nowhere else are lost for as long as these
//!   stay.
//! * What a pod without cards takes from cards: also those that are in use now and will be free, on machines of which
//!   other pods' cores will be free too (`offer`). Without this such pods go where no card is free, and cards that
//!   become free there lack cores. Pods with cards are weighed by what is free now: the cards that they leave behind
//!   need the cores that they give back.
//!
//! # Two resources of a card
//!
//! A share asks for compute and memory, so a card is cut in two dimensions: a remainder `(compute, memory)` is worth the
//! best set of shares that fits in both, at prices for which no cut of a whole card is worth more than one card. That is
//! the dual of the same program as in one dimension, and each size of card has its own: where memory is plenty, a share's
//! price is that of its compute, and where it is scarce, that of its memory. Where every share has its compute's part of
//! the memory, both constraints are the same one; the memory is not counted then, and the choice is exactly that of one
//! dimension. A share that only large cards can hold is confined to them, and the price of scarce kinds keeps them free
//! for it, as it does for models.

mod census;
mod choice;
mod cutting;
mod demand;
mod fgd;
mod host;
mod offer;
mod outlook;
mod prices;
mod state;
mod tail;
mod totals;

pub use host::{Host, Slot};
pub use state::{Choice, Class, Market};
