//! What pods take of one node's cards. The only place where capacity is counted.
//!
//! Each pod has one commitment on a node, which moves through these states:
//!
//! ```text
//!            assume (plan, deadline)       bound            observe (watch: nodeName + record)
//!   absent ------------------------> Assumed -----> Bound ----------------> Observed --release--> absent
//!      ^                              |  |  |                                  ^   |
//!      |<--- forget (write refused) --+  |  +----------- observe --------------+<--+ observe (another record:
//!      +<--- expire (overdue, and the    |                                     |     drift, reality wins)
//!            API server says: not bound)-+   absent ------- observe -----------+
//! ```
//!
//! * `forget` acts on Assumed only, and only where every earlier write was answered: a refused later write does not
//!   settle an earlier one. `expire` acts on Bound as well: a pod may be deleted between its binding and the answer to
//!   it, so that no watch event follows. Observed leaves only by `release`: the pod was deleted, has ended, or is
//!   missing from a complete list that began after it was bound. A pod seen *unbound* in an older view releases
//!   nothing.
//! * `overdue` only names the commitments that no watch has shown in time. The caller asks the API server about
//!   each, then calls `expire` or `observe`.
//! * What the API server says wins over what was assumed, even where it takes more than a card has. Such a card
//!   is *overcommitted*: it is shown as such and takes nothing more.
//! * A record that moves from one card to another is one half of an exchange: what it takes of the old card stays taken
//!   until the other half is seen, or for a limited time (`transit`).
//! * A pod whose record cannot be read may be on any card, so it takes its amount of *every* card: what it has is never
//!   counted as free, at the cost of as much on each other card. Counted shares may be on any card that is offered as
//!   such: where no card is, another plugin serves them, and they take nothing.
//! * A record that names one card twice, by its id and by its index, leaves open on which other card the pod is: the
//!   second amount is taken of every card.
//! * Memory is promised once: a card has either counted shares, which use its memory undivided, or other pods.

mod card;
mod commitment;
mod doubt;
mod lifecycle;
mod node;
mod transit;
mod trial;

pub use card::{Card, Offered, Room};
pub use commitment::{Basis, Commitment, Held, LONGEST_RETRY_MS, Seen, Standing, State};
pub use node::NodeLedger;
pub use trial::Trial;

#[cfg(test)]
mod tests;
