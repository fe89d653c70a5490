//! A whole cluster as a policy sees it, and the choice of machine and card for a pod.
//!
//! # Words
//!
//! * *Market*: the machines of a cluster, what was seen of the demand, and what follows from both (`state`).
//! * *Host*: what is free of one machine; *slot*: what is free of one of its cards (`host`). In the outlook and the
//!   totals, slots are also the number of pods of a room that still fit.
//! * *Class*: pods of one shape (`super::shape`); *need*: a shape matched with the kinds of card in the cluster
//!   (`host`).
//! * *Census*: how often each class was seen, and how many pods have left (`state`).
//! * *Outlook*: what the census says of the pods to come: average demand, worth of remainders, rooms, and *confined*
//!   pods, which only some kinds of card can serve (`outlook`).
//! * *Room*: a place for a pod that needs several whole cards of one machine (`outlook`).
//! * *Worth*: what the best cut of a card's free rest would serve, in thousandths of a card (`cutting`).
//! * *Facts*: numbers that every decision needs of a machine, computed once for each change of it (`offer`).
//! * *Way*: one way to put a pod on a machine, with its score; *offer*: the machine's best way on a card in use and its
//!   best way on a free card; *book*: the offers of all machines to one class under one policy (`offer`).
//! * *Totals*: sums of what is free over all machines (`totals`).
//! * *Prices*: what a placement costs the pods to come, from outlook and totals (`prices`).
//! * *Liking*: a way's score less the prices, rounded, and its tie-breaks; the greatest wins (`choice`).
//!
//! # The policy `fragmentation`
//!
//! A placement's score is what it does to the worth of what is left on the machine, less what it costs the pods to
//! come. In thousandths of a card, with P for a probability:
//!
//! ```text
//! score = taken - lost                                 compute of the pod, less the worth that its cards lose
//!       + stranded(W, c) - stranded(W - lost, c - cpu) W: worth of all cards of the machine, c: its free cores
//!       - scarcity - open - room                       prices
//!
//! lost     = worth(free) - worth(free - share), or 1000 for each whole card
//! scarcity = taken x P(demand of pods confined to this kind of card >= 0.85 of what is free of it)
//! open     = 300 x P(demand for whole cards >= free cards), for a share that opens a free card
//! room     = 300 x cards x P(pods that need such a room >= rooms left), for each room that the placement takes
//! ```
//!
//! For example, shares of 500 and of 300 were seen, cores are plenty, and no whole cards are asked for. A cut of a card
//! serves two shares of 500 or three of 300, so their prices are 500 and 333. A pod asks for 300:
//!
//! ```text
//! card  free  worth  left  worth of the rest  lost  taken - lost
//! A      500    500   200                  0   500          -200
//! B      700    667   400                333   333           -33
//! C     1000   1000   700                667   333           -33   opens a free card
//! ```
//!
//! B and C are equal, and of equals the card in use wins: B. (`binpack` takes A, the fullest, and strands its last
//! 200.) Where whole cards will certainly be missed, C costs 300 more.
//!
//! The parts of the score:
//!
//! * The rest of a card is worth the best that can still be cut from it for the shares that are asked for, at the
//!   prices of a cutting-stock problem (`cutting`). Worth that will be stranded for want of cores counts as lost
//!   (`outlook`).
//! * Three things are charged at the probability that they will be missed (`prices`): room for pods that need several
//!   whole cards; kinds of card that other pods are confined to; and a free card that pods with whole cards need.
//! * Scores are rounded to a tenth of a card. Ties go, for a share, to the fullest card and then to the machine with
//!   the fullest cards; for other pods to the machine with the fullest cards and then with the fewest free cores; then
//!   to the first. (Ties by machine alone are worse. Where pods leave, shares that go to the fullest card keep others
//!   empty or emptying: with many shares that is more than a point of the cluster.)
//!
//! The policy learns the demand after 16, 32, 64, 128, 256 and then every 500 pods, from all pods seen so far.
//!
//! # Where pods leave
//!
//! In a cluster that only fills, what is free now is all there will be. Elsewhere a new pod stays while others leave
//! and yet others come, and meets more of the demand than what will fill the cluster. So the policy also learns the
//! *turnover*: the part of the pods seen that have left. Zero gives exactly the policy for a cluster that only fills;
//! towards one, two things are weighed by what the pod will meet while it stays:
//!
//! * How much the demand for some kinds of card may vary: as much as that of a whole cluster's pods, since they are
//!   replaced, and not only that of the few which will fill it (`prices`). Without this a kind with enough free cards
//!   for the moment goes to pods that could run on any kind, and pods confined to it find no place for as long as these
//!   stay.
//! * What a pod without cards takes from cards: also those that are in use now and will be free, on machines where
//!   other pods' cores will be free too (`offer`). Without this such pods go where no card is free, and cards that
//!   become free there lack cores. Pods with cards are weighed by what is free now: the cards that they leave behind
//!   need the cores that they give back.
//!
//! # Two resources of a card
//!
//! A share asks for compute and memory, so a card is cut in two dimensions: a remainder `(compute, memory)` is worth
//! the best set of shares that fits in both, at prices for which no cut of a whole card is worth more than one card.
//! That is the dual of the same program as in one dimension, and each size of card has its own: where memory is plenty,
//! a share's price is that of its compute, and where it is scarce, that of its memory. Where every share has its
//! compute's part of the memory, both constraints are the same one; the memory is not counted then, and the choice is
//! exactly that of one dimension. A share that only large cards can hold is confined to them, and the price of scarce
//! kinds keeps them free for it, as it does for models.

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
