//! The device plugin contract of Deepomatic: NVIDIA GPUs as shares by count.

pub mod contract;
