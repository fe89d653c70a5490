//! What the tests share.

pub mod draft;
pub mod stage;
