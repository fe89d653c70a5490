//! The tests on a real cluster.
fn main() {}
