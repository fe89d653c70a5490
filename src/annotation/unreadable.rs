//! Values that are not believed, and why.

use crate::device::MAX_CARDS;
use crate::shares::BadPerCard;

/// The longest annotation value that is read: four times the placement of 64 containers on 64 cards.
pub const MAX_BYTES: usize = 256 << 10;

/// Why an annotation is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Longer than [`MAX_BYTES`].
    #[error("longer than {MAX_BYTES} bytes")]
    TooLong,
    /// No JSON of the expected shape.
    #[error("not the expected JSON: {0}")]
    Malformed(String),
    /// Written by a later kerf.
    #[error("version {0} is unknown")]
    Version(u64),
    /// A compatibility annotation that is missing or is no list of card indices.
    #[error("no card indices for a container")]
    Indices,
    /// A number of shares of a card that cannot be counted.
    #[error(transparent)]
    Shares(BadPerCard),
    /// A value out of its range, or a name twice.
    #[error("{0}")]
    Invalid(&'static str),
    /// An inventory of more cards than kerf manages on one node.
    #[error("more than {MAX_CARDS} GPUs")]
    TooManyCards,
    /// No inventory, though a plugin of kerf's serves the node.
    #[error("missing, though kerf's plugin has served the node")]
    Missing,
    /// Readable, but it is not what the pod asks for.
    #[error("does not serve the pod's request")]
    OtherRequest,
    /// A placement on another node than the pod's.
    #[error("names a different node than the pod's")]
    OtherNode,
}

pub(super) fn bounded(text: &str) -> Result<&str, Unreadable> {
    if text.len() > MAX_BYTES { Err(Unreadable::TooLong) } else { Ok(text) }
}

pub(super) fn malformed(error: &serde_json::Error) -> Unreadable {
    // serde's message may quote the input; its kind and place say enough
    Unreadable::Malformed(format!("{:?} at column {}", error.classify(), error.column()))
}
