//! Helpers that the tests share.

pub mod draft;
pub mod foreign;
pub mod helm;
pub mod instead;
pub mod offer;
pub mod overlay;
pub mod policy;
pub mod seen;
pub mod stage;
