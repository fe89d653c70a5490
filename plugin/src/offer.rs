//! What this node offers to kubelet, as data: resources, their ids, and what a container is given. Pure.
//!
//! ```text
//!   flags --> Contract --+
//!             vcuda -----+--> Offer (data: name, ids, units, order, hand-over, who names the GPU)
//!                               + GPUs --> Pool: ids, each of its GPU
//!                                            |-- prefer: which ids kubelet is advised to take
//!                                            +-- Given --> HandOver --> ContainerEdits
//! ```

pub mod contract;
pub mod hand_over;
pub mod order;
pub mod prefer;
mod resource;
pub mod units;
pub mod vcuda;

pub use resource::{NamedBy, Offer, Offered, Offers};
