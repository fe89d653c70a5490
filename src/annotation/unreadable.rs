//! Why an annotation is not accepted.

use crate::device::MAX_CARDS;
use crate::shares::BadPerCard;

/// The longest annotation value that is read: four times the placement of 64 containers on 64 cards.
pub const MAX_BYTES: usize = 256 << 10;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Longer than [`MAX_BYTES`].
    #[error("longer than {MAX_BYTES} bytes")]
    TooLong,
    /// Not JSON of the expected shape.
    #[error("not the expected JSON: {0}")]
    Malformed(String),
    /// Written by a later version of kerf.
    #[error("version {0} is unknown")]
    Version(u64),
    /// A compatibility annotation is missing or is not a list of card indices.
    #[error("no GPU indices for a container")]
    Indices,
    /// A card cannot be divided into this number of shares.
    #[error(transparent)]
    Shares(BadPerCard),
    /// A value outside its range, or a duplicate name.
    #[error("{0}")]
    Invalid(&'static str),
    /// An inventory of more cards than kerf manages on one node.
    #[error("more than {MAX_CARDS} GPUs")]
    TooManyCards,
    /// No inventory, though kerf's plugin serves the node.
    #[error("missing, though kerf's plugin has served the node")]
    Missing,
    /// Readable, but not what the pod asks for.
    #[error("does not serve the pod's request")]
    OtherRequest,
    /// A placement on a node that is not the pod's.
    #[error("names a different node than the pod's")]
    OtherNode,
}

pub(super) fn bounded(text: &str) -> Result<&str, Unreadable> {
    if text.len() > MAX_BYTES { Err(Unreadable::TooLong) } else { Ok(text) }
}

pub(super) fn malformed(error: &serde_json::Error) -> Unreadable {
    // serde's message may quote the input; its kind and column are enough
    Unreadable::Malformed(format!("{:?} at column {}", error.classify(), error.column()))
}
