//! What is published: on the Node, as metrics, and for administrators.

pub mod condition;
pub mod cordon;
pub mod debug;
pub mod failing;
pub mod health;
pub mod inventory;
pub mod labels;
pub mod metrics;
mod node_view;
pub mod startup_taint;
