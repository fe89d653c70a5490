//! What benchmarks of several packages share: figures, memory, and the objects of a large cluster.

#![allow(missing_docs, reason = "for benchmarks alone")]

pub mod figures;
pub mod memory;
pub mod objects;
