//! The Node's labels.

pub mod feature_file;
pub mod flags;
pub mod node;
pub mod wanted;
pub mod write;
