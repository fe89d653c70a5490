//! Tests only: the code keeps its shape. `cargo test -p kerf-structure` reports violations, and what to do.
