//! GPUs as values: how they are found on their host, named, described and counted.

pub mod backend;
pub mod cards;
pub mod choice;
pub mod facts;
pub mod host;
pub mod ids;
pub mod label;
pub mod pci;
pub mod preferred;
pub mod roots;
pub mod scan;
