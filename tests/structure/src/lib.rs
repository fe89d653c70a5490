//! Tests alone: the code keeps its shape. `cargo test -p kerf-structure` says where it does not, and what to do.
