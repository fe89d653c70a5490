//! What others are told: the Node, the metrics, people.

pub mod condition;
pub mod cordon;
pub mod debug;
pub mod failing;
pub mod health;
pub mod inventory;
pub mod labels;
pub mod metrics;
